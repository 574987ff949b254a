//! Scores of the model as it stands, and what its head reads.

use super::Labelled;
use super::answers;
use super::forward::{Above, forward_cut};
use super::masked;
use super::metrics::{self, Metrics};
use super::micro_batches::MicroBatching;
use super::pairs;
use crate::error::{Error, Result};
use crate::graph::{Batch, Graph};
use crate::ops::loss::{self, Target};
use crate::tokenize::Encoded;
use tract_core::prelude::tract_ndarray::Array2;

/// Most rows of [`features`], or a few more.
pub(crate) const FEATURE_ROWS: usize = 2048;

/// Whether each row that the head reads has an answer of its own, and only one.
pub(super) fn can_be_fitted(target: &Target) -> bool {
    matches!(target, Target::Class(_) | Target::Labels(_) | Target::Value(_) | Target::Tags(_))
}

/// What a head reads of some of the texts.
pub(super) struct Features {
    /// `[rows, features]`: one row for each text, or for each token that has a label.
    pub x: Array2<f32>,
    /// The target of each row.
    pub targets: Vec<Target>,
    /// For each row the index of its example.
    pub examples: Vec<usize>,
}

/// What the head reads of at most about [`FEATURE_ROWS`] rows, taken evenly over all texts.
pub(super) fn features(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    cut: MicroBatching,
) -> Result<Features> {
    let rows = |d: &Labelled| if let Target::Tags(tags) = &d.target { tags.len() } else { 1 };
    let every = data.iter().map(rows).sum::<usize>().div_ceil(FEATURE_ROWS).max(1);
    let some: Vec<(usize, &Labelled)> = data.iter().enumerate().step_by(every).collect();
    let parts = cut.micro_batches(some.iter().map(|(_, d)| d.text.ids.len()));
    let results = cut.run(&parts, |part| {
        let some = &some[part];
        let batch = Batch::new(some.iter().map(|(_, d)| &d.text), None);
        let (_, pooled) = graph.forward(&batch, theta)?;
        let (mut x, mut targets, mut examples) = (Vec::<f32>::new(), Vec::new(), Vec::new());
        for ((i, d), o) in some.iter().zip(graph.head_rows(&batch).1.windows(2)) {
            match &d.target {
                Target::Tags(tags) => {
                    for (row, tag) in tags {
                        x.extend(pooled.row(o[0] as usize + row));
                        targets.push(Target::Class(*tag));
                        examples.push(*i);
                    }
                }
                target => {
                    x.extend(pooled.row(o[0] as usize));
                    targets.push(target.clone());
                    examples.push(*i);
                }
            }
        }
        Ok((x, targets, examples))
    })?;
    let (mut x, mut targets, mut examples) = (Vec::new(), Vec::new(), Vec::new());
    for (part_x, part_targets, part_examples) in results {
        x.extend(part_x);
        targets.extend(part_targets);
        examples.extend(part_examples);
    }
    let x = Array2::from_shape_vec((targets.len(), graph.features()), x);
    Ok(Features { x: x.map_err(|e| Error::Internal(e.to_string()))?, targets, examples })
}

/// Scores of `theta` on labelled texts; `names` are those of the head's outputs, and behind them of labels that targets name
/// and the model does not know.
pub fn evaluate(graph: &Graph, theta: &[f32], data: &[Labelled], names: &[String]) -> Result<Metrics> {
    evaluate_cut(graph, theta, data, names, MicroBatching::of_threads(rayon::current_num_threads()), None)
}

pub(super) fn evaluate_cut(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    names: &[String],
    cut: MicroBatching,
    above: Above,
) -> Result<Metrics> {
    if let Some(head) = graph.mlm_head() {
        return masked::evaluate(graph, head, theta, data, cut);
    }
    if graph.labels() == 0 {
        return pairs::evaluate(graph, theta, data, cut, above);
    }
    let texts: Vec<&Encoded> = data.iter().map(|d| &d.text).collect();
    let outputs = forward_cut(graph, theta, &texts, cut, above)?;
    let pairs = || outputs.iter().map(|(logits, _)| &logits[..]).zip(data.iter().map(|d| &d.target));
    let width = graph.labels();
    let loss = loss::scored(pairs(), width);
    if data.iter().any(|d| d.part.is_some()) {
        return Ok(answers::scores(&outputs, data, loss));
    }
    Ok(metrics::of(pairs(), width, names, loss))
}
