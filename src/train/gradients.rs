//! Loss and gradient of a batch, a few rows at a time.
//!
//! A batch runs through the encoder in micro-batches of about `MICRO_ROWS` tokens, several at a time where there
//! are threads. Each is a whole forward and backward, so what is saved for the backward, and what moves through
//! the caches, does not grow with the batch. A text's share of the gradient does not depend on the texts beside it,
//! and the shares are added exactly ([`ExactSum`]): the result is the same to the bit however a batch is cut, and for
//! any number of threads.

use super::Labelled;
use super::backward::{Selection, Workspace, backward};
use super::exact::ExactSum;
use crate::error::Result;
use crate::graph::{Batch, Graph, TrainingPlan};
use crate::ops::{dropout, loss};
use rayon::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tokens of a micro-batch: enough rows to pay for unpacking the weights, few enough to stay near the cores.
pub(crate) const MICRO_ROWS: usize = 256;

/// A graph with the plan of its training, for one selection of biases.
pub struct Gradients<'g> {
    graph: &'g Graph,
    selection: Selection,
    plan: TrainingPlan,
    class_weights: Option<Vec<f32>>,
    /// Of micro-batches that are done, for those to come.
    idle: Mutex<Vec<(Workspace, ExactSum)>>,
}

impl<'g> Gradients<'g> {
    /// `class_weights: [labels]`, all 1 where `None`.
    pub fn new(graph: &'g Graph, selection: Selection, class_weights: Option<Vec<f32>>) -> Result<Self> {
        let plan = selection.plan(graph)?;
        Ok(Gradients { graph, selection, plan, class_weights, idle: Mutex::default() })
    }

    /// The gradient of the batch's loss, written to `grad`, which has the layout of theta.
    ///
    /// `keys: [batch]` are the dropout keys of the examples; without them dropout is off.
    /// Returns the loss and each text's logits `[labels]`.
    pub fn of(
        &self,
        theta: &[f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        grad: &mut [f32],
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        let labels: Vec<usize> = batch.iter().map(|d| d.label).collect();
        let weights = self.class_weights.as_deref();
        let total = loss::total_weight(&labels, weights);
        let parts: Vec<Result<Part>> = micro_batches(lengths(batch))
            .into_par_iter()
            .map(|part| {
                let keys = keys.map_or_else(|| vec![dropout::OFF; part.len()], |k| k[part.clone()].to_vec());
                let texts = Batch::new(batch[part.clone()].iter().map(|d| &d.text), Some(keys));
                let forward = self.graph.forward_training(&self.plan, &texts, theta)?;
                let (loss, d_logits) =
                    loss::cross_entropy(forward.logits.view(), &labels[part], weights, total);
                let logits = forward.logits.rows().into_iter().map(|row| row.to_vec()).collect();
                let idle = self.idle().pop();
                let (mut work, mut sum) =
                    idle.unwrap_or_else(|| (Workspace::default(), ExactSum::new(theta.len())));
                backward(self.graph, &self.selection, forward, &texts, theta, &d_logits, &mut work, &mut sum);
                self.idle().push((work, sum));
                Ok((loss, logits))
            })
            .collect();
        let mut sum = ExactSum::new(theta.len());
        self.idle().iter_mut().for_each(|(_, part)| sum.take(part));
        sum.finish(grad);
        let (mut loss, mut logits) = (0.0, Vec::with_capacity(batch.len()));
        for part in parts {
            let (part_loss, part_logits) = part?;
            part_loss.into_iter().for_each(|text| loss += text);
            logits.extend(part_logits);
        }
        Ok((loss, logits))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Workspace, ExactSum)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loss and logits of each text of a micro-batch.
type Part = (Vec<f64>, Vec<Vec<f32>>);

fn lengths(batch: &[&Labelled]) -> impl Iterator<Item = usize> {
    batch.iter().map(|d| d.text.ids.len())
}

/// Cuts texts of these lengths into runs of at most [`MICRO_ROWS`] tokens; a longer text is a run of its own.
pub(crate) fn micro_batches(lengths: impl Iterator<Item = usize>) -> Vec<std::ops::Range<usize>> {
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    let mut rows = 0;
    for (i, len) in lengths.enumerate() {
        match parts.last_mut() {
            Some(part) if rows + len <= MICRO_ROWS => {
                part.end = i + 1;
                rows += len;
            }
            _ => {
                parts.push(i..i + 1);
                rows = len;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_cover_everything_in_order() {
        let lengths = [100, 100, 56, 1, 300, 2, 255, 1];
        assert_eq!(micro_batches(lengths.into_iter()), [0..3, 3..4, 4..5, 5..6, 6..8]);
        assert!(micro_batches(std::iter::empty()).is_empty());
    }
}
