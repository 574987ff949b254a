//! Texts that are compared with one another, pairs or texts with labels: loss, gradient and scores, all of pooled vectors.
//!
//! The loss couples the texts of a batch, so none can go backward before all went forward. As in GradCache (Gao et al.
//! 2021, arXiv 2101.06983) the texts run twice: once for their vectors alone, which give the loss and its gradient
//! by vector; then again in micro-batches, forward and backward. That costs one more forward than a step of other
//! tasks, and memory does not grow with the batch but by its vectors.

use super::Labelled;
use super::backward::backward_pooled;
use super::forward::{Above, forward_cut};
use super::gradients::Gradients;
use super::metrics::Metrics;
use super::micro_batches::MicroBatching;
use super::prefix::Known;
use crate::error::{Error, Result};
use crate::graph::{Batch, Graph};
use crate::ops::dropout;
use crate::ops::loss::{self, Target};
use crate::ops::similarity::{self, Units};
use crate::scores::{self, Scores};
use crate::tokenize::Encoded;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use tract_core::prelude::tract_ndarray::{Array2, Axis, concatenate, s};

/// Each pair's two texts, one after another.
fn texts<'a>(pairs: impl IntoIterator<Item = &'a Labelled>) -> Result<Vec<&'a Encoded>> {
    let two = |d: &'a Labelled| d.partner.as_ref().map(|partner| [&d.text, partner]);
    let two: Option<Vec<_>> = pairs.into_iter().map(two).collect();
    two.map(|two| two.concat())
        .ok_or_else(|| Error::Config("without a head every text needs a partner".into()))
}

impl Gradients<'_> {
    /// [`Gradients::of_known`] of pairs; in a cache the texts of example `i` stand at `2i` and `2i + 1`.
    pub(super) fn of_pairs(
        &self,
        theta: &[f32],
        pairs: &[&Labelled],
        keys: Option<&[i64]>,
        known: Option<Known>,
        grad: &mut [f32],
    ) -> Result<f64> {
        if pairs.iter().any(|d| matches!(d.target, Target::Class(_))) {
            return self.of_classes(theta, pairs, keys, known, grad);
        }
        let texts = texts(pairs.iter().copied())?;
        let keys = match keys {
            None => vec![dropout::OFF; texts.len()],
            Some(keys) => keys.iter().flat_map(|key| [*key, dropout::partner(*key)]).collect(),
        };
        let places: Option<Vec<usize>> =
            known.map(|(_, indices)| indices.iter().flat_map(|i| [2 * i, 2 * i + 1]).collect());
        let known = known.zip(places.as_deref()).map(|((cache, _), places)| (cache, places));
        self.of_vectors(theta, &texts, &keys, known, grad, |vectors| {
            let (first, second) = (vectors.slice(s![0..;2, ..]), vectors.slice(s![1..;2, ..]));
            let (loss, d_first, d_second) = similarity::loss(first, second);
            let mut d_vectors = Array2::zeros(vectors.dim());
            d_vectors.slice_mut(s![0..;2, ..]).assign(&d_first);
            d_vectors.slice_mut(s![1..;2, ..]).assign(&d_second);
            (loss, d_vectors)
        })
    }

    /// The same of texts with labels: each is compared with all others.
    fn of_classes(
        &self,
        theta: &[f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        known: Option<Known>,
        grad: &mut [f32],
    ) -> Result<f64> {
        let texts: Vec<&Encoded> = batch.iter().map(|d| &d.text).collect();
        let keys = keys.map_or_else(|| vec![dropout::OFF; texts.len()], <[i64]>::to_vec);
        let class = |d: &&Labelled| match d.target {
            Target::Class(label) => Ok(label),
            _ => Err(Error::Internal("texts with and without labels in a batch".into())),
        };
        let classes: Vec<usize> = batch.iter().map(class).collect::<Result<_>>()?;
        self.of_vectors(theta, &texts, &keys, known, grad, |vectors| {
            similarity::classes_loss(vectors.view(), &classes)
        })
    }

    /// The gradient of a loss of vectors, which gives its value and the gradient of the vectors, `[texts, hidden]`.
    fn of_vectors(
        &self,
        theta: &[f32],
        texts: &[&Encoded],
        keys: &[i64],
        known: Option<Known>,
        grad: &mut [f32],
        loss: impl Fn(&Array2<f32>) -> (f64, Array2<f32>),
    ) -> Result<f64> {
        let (graph, hidden, cut) = (self.graph, self.graph.hidden(), self.cut());
        let parts = cut.micro_batches(texts.iter().map(|t| t.ids.len()));
        let batch = |part: &Range<usize>| {
            Batch::new(texts[part.clone()].iter().copied(), Some(keys[part.clone()].to_vec()))
        };
        let known = |part: &Range<usize>| known.map(|(cache, places)| (cache, &places[part.clone()]));

        let vectors =
            cut.run(&parts, |part| self.pooled(&texts[part.clone()], &batch(&part), known(&part), theta))?;
        let vectors: Vec<_> = vectors.iter().map(|v| v.view()).collect();
        let vectors = match vectors.is_empty() {
            true => Array2::zeros((0, hidden)),
            false => concatenate(Axis(0), &vectors).expect("parts of one width"),
        };
        let (loss, d_vectors) = loss(&vectors);
        let done = cut.run(&parts, |part| {
            let batch = batch(&part);
            let forward = self.forward(&texts[part.clone()], &batch, known(&part), theta)?;
            let (mut work, mut sum) = self.take_idle(theta.len());
            let d_pooled = d_vectors.slice(s![part, ..]);
            backward_pooled(graph, &self.selection, forward, &batch, d_pooled, &mut work, &mut sum);
            self.idle().push((work, sum));
            Ok(())
        });
        self.finish(grad);
        done.map(|_| loss)
    }
}

/// Scores of `theta` on pairs: to each first text all second ones are ranked, each of these once. The loss too is of
/// all of them.
pub(super) fn evaluate(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    cut: MicroBatching,
    above: Above,
) -> Result<Metrics> {
    let texts = texts(data)?;
    let vectors = forward_cut(graph, theta, &texts, cut, above)?;
    let mut places = HashMap::new();
    let (mut candidates, mut right) = (Vec::new(), Vec::new());
    for (pair, vector) in texts.chunks_exact(2).zip(vectors.chunks_exact(2)) {
        let next = places.len();
        let place = *places.entry(&pair[1].ids).or_insert(next);
        if place == next {
            candidates.push(&vector[1].1[..]);
        }
        right.push(place);
    }
    let first = Units::of(vectors.iter().step_by(2).map(|(_, v)| &v[..]), graph.hidden());
    let candidates = Units::of(candidates, graph.hidden());
    // A rank and a loss each. Of equals the right one comes last: a model that tells nothing apart is no good.
    let ranked: Vec<(usize, f64)> = (0..first.len())
        .into_par_iter()
        .map(|i| {
            let scores = similarity::scores(&first, i, &candidates);
            let own = scores[right[i]];
            let rank = scores.len() - scores.iter().filter(|s| **s < own).count();
            (rank, loss::surprise(loss::softmax(&scores)[right[i]]))
        })
        .collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / data.len().max(1) as f64;
    let mut first_ranks = ranked.iter().map(|(rank, _)| f64::from(u8::from(*rank == 1)));
    let scores = Scores::all(
        &scores::CONTRASTIVE,
        [mean(&mut first_ranks), mean(&mut ranked.iter().map(|(rank, _)| 1.0 / *rank as f64))],
    );
    Ok(Metrics { examples: data.len(), scores, loss: mean(&mut ranked.iter().map(|(_, loss)| *loss)) })
}
