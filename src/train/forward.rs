//! Answers of the model as it stands.

use super::micro_batches::MicroBatching;
use super::prefix::{self, PrefixCache};
use crate::error::Result;
use crate::graph::{Batch, Graph, Split};
use crate::tokenize::Encoded;
use tract_core::prelude::tract_ndarray::s;

/// Logits `[labels]` and pooled vector `[features]` of one example; where the head reads every token, logits `[tokens, labels]`
/// and no vector.
pub type Output = (Vec<f32>, Vec<f32>);

/// A run's shortcut to the upper layers, with the hidden states of the texts that are asked about.
pub(super) type Above<'a> = Option<(&'a Split, &'a PrefixCache)>;

/// Logits of every text, in the order given. Texts are run in order of length; the result does not depend on it.
pub fn forward_all(graph: &Graph, theta: &[f32], texts: &[&Encoded]) -> Result<Vec<Output>> {
    forward_cut(graph, theta, texts, MicroBatching::of_threads(rayon::current_num_threads()), None)
}

pub(super) fn forward_cut(
    graph: &Graph,
    theta: &[f32],
    texts: &[&Encoded],
    cut: MicroBatching,
    above: Above,
) -> Result<Vec<Output>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].ids.len());
    let parts = cut.micro_batches(order.iter().map(|&i| texts[i].ids.len()));
    let results = cut.run(&parts, |part| {
        let indices = &order[part];
        let texts: Vec<&Encoded> = indices.iter().map(|&i| texts[i]).collect();
        let batch = Batch::new(texts.iter().copied(), None);
        let (logits, pooled) = match above {
            None => graph.forward(&batch, theta)?,
            Some((split, cache)) => {
                let x = prefix::states(graph, split, &texts, Some((cache, indices)), theta)?;
                graph.forward_above(split, &batch, &x, theta)?
            }
        };
        let (_, offsets) = graph.head_rows(&batch);
        let rows = offsets.windows(2).map(|o| {
            let (logits, pooled) = (logits.slice(s![o[0]..o[1], ..]), pooled.slice(s![o[0]..o[1], ..]));
            let pooled = if graph.reads_tokens() { vec![] } else { pooled.iter().copied().collect() };
            (logits.iter().copied().collect(), pooled)
        });
        Ok(rows.collect::<Vec<Output>>())
    })?;
    let mut out = vec![(vec![], vec![]); texts.len()];
    for (i, result) in order.into_iter().zip(results.into_iter().flatten()) {
        out[i] = result;
    }
    Ok(out)
}

/// Index of the largest value; the first of several.
pub(crate) fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    best
}
