//! Loss and gradient of a batch, a few rows at a time.
//!
//! A batch runs through the encoder in micro-batches of some hundred tokens, several at a time where there are
//! threads ([`MicroBatching`]). Each is a whole forward and backward, so what is saved for the backward, and what moves through
//! the caches, does not grow with the batch. A text's share of the gradient does not depend on the texts beside it,
//! and the shares are added exactly ([`ExactSum`]): the result is the same to the bit however a batch is cut, and for
//! any number of threads. The head's gradient is one product over the whole batch, when all parts are done.

use super::Labelled;
use super::backward::{Selection, Workspace, backward};
use super::exact::ExactSum;
use super::micro_batches::MicroBatching;
use super::prefix::{self, Known};
use crate::error::Result;
use crate::graph::{Batch, Forward, Graph, Split, TrainingPlan};
use crate::ops::{Numerics, dropout, head, loss};
use crate::tokenize::Encoded;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2, Axis, concatenate};

/// A graph with the plan of its training, for one selection of biases.
pub struct Gradients<'g> {
    pub(super) graph: &'g Graph,
    pub(super) selection: Selection,
    route: Route,
    cut: Option<MicroBatching>,
    class_weights: Option<Vec<f32>>,
    /// Of micro-batches that are done, for those to come.
    idle: Mutex<Vec<(Workspace, ExactSum)>>,
}

/// How texts get through the encoder.
enum Route {
    /// From the tokens up.
    Whole(TrainingPlan),
    /// Through a frozen part, which may be known, to the trained layers.
    Above(Split),
}

impl<'g> Gradients<'g> {
    /// `class_weights: [labels]`, all 1 where `None`.
    pub fn new(graph: &'g Graph, selection: Selection, class_weights: Option<Vec<f32>>) -> Result<Self> {
        let route = Route::Whole(graph.training_plan(selection.lowest_layer())?);
        Ok(Gradients { graph, selection, route, cut: None, class_weights, idle: Mutex::default() })
    }

    /// The same where layers below the lowest trained bias give a text the same hidden state every time. It is handed
    /// on in f16, and [`Gradients::of_known`] can keep it.
    ///
    /// Changes nothing where no layer is frozen or dropout works inside the encoder, and in reference mode, where
    /// every value is f32.
    pub(crate) fn with_frozen_part(mut self) -> Result<Self> {
        let layer = self.selection.lowest_layer();
        if layer > 0 && self.graph.is_fixed() && matches!(self.graph.numerics(), Numerics::Int8(_)) {
            self.route = Route::Above(self.graph.split(layer)?);
        }
        Ok(self)
    }

    /// The same, cut as told; `None` goes by the number of threads.
    pub(crate) fn with_cut(self, cut: Option<MicroBatching>) -> Self {
        Gradients { cut, ..self }
    }

    /// Where the encoder is cut, if a part of it is frozen.
    pub(crate) fn split(&self) -> Option<&Split> {
        match &self.route {
            Route::Whole(_) => None,
            Route::Above(split) => Some(split),
        }
    }

    /// How batches are cut.
    pub(crate) fn cut(&self) -> MicroBatching {
        self.cut.unwrap_or_else(|| MicroBatching::of_threads(rayon::current_num_threads()))
    }

    /// The gradient of the batch's loss, written to `grad`, which has the layout of theta.
    ///
    /// `keys: [batch]` are the dropout keys of the examples; without them dropout is off.
    /// Returns the loss and the logits `[labels]` of each text, or of each token; without a head there are none.
    pub fn of(
        &self,
        theta: &[f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        grad: &mut [f32],
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        self.of_known(theta, batch, keys, None, grad)
    }

    /// The same, with what is known of the texts' frozen part.
    pub(crate) fn of_known(
        &self,
        theta: &[f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        known: Option<Known>,
        grad: &mut [f32],
    ) -> Result<(f64, Vec<Vec<f32>>)> {
        if let Some(head) = self.graph.mlm_head() {
            return Ok((self.of_masked(head, theta, batch, keys, grad)?, Vec::new()));
        }
        if self.graph.labels() == 0 {
            return Ok((self.of_pairs(theta, batch, keys, known, grad)?, Vec::new()));
        }
        let weights = self.class_weights.as_deref();
        let total = loss::total_weight(batch.iter().map(|d| &d.target), weights);
        let cut = self.cut();
        let parts = cut.run(&cut.micro_batches(batch.iter().map(|d| d.text.ids.len())), |part| {
            let keys = keys.map_or_else(|| vec![dropout::OFF; part.len()], |k| k[part.clone()].to_vec());
            let encoded: Vec<&Encoded> = batch[part.clone()].iter().map(|d| &d.text).collect();
            let texts = Batch::new(encoded.iter().copied(), Some(keys));
            let known = known.map(|(cache, indices)| (cache, &indices[part.clone()]));
            let forward = self.forward(&encoded, &texts, known, theta)?;
            let targets = batch[part].iter().map(|d| &d.target);
            let (_, rows) = self.graph.head_rows(&texts);
            let (loss, d_logits) = loss::loss(forward.logits.view(), &rows, targets, weights, total);
            let (logits, pooled) = (forward.logits.clone(), forward.pooled.clone());
            let (mut work, mut sum) = self.take_idle(theta.len());
            backward(self.graph, &self.selection, forward, &texts, theta, &d_logits, &mut work, &mut sum);
            self.idle().push((work, sum));
            Ok((loss, logits, d_logits, pooled))
        });
        self.finish(grad);
        let (mut loss, mut logits) = (0.0, Vec::with_capacity(batch.len()));
        let parts = parts?;
        for (part_loss, part_logits, ..) in &parts {
            part_loss.iter().for_each(|text| loss += text);
            logits.extend(part_logits.rows().into_iter().map(|row| row.to_vec()));
        }
        if batch.is_empty() {
            return Ok((loss, logits));
        }
        let d_logits: Vec<_> = parts.iter().map(|(_, _, d, _)| d.view()).collect();
        let pooled: Vec<_> = parts.iter().map(|(.., pooled)| pooled.view()).collect();
        let whole = Batch::new(batch.iter().map(|d| &d.text), keys.map(<[i64]>::to_vec));
        self.of_head(&d_logits, &pooled, &whole, grad);
        Ok((loss, logits))
    }

    /// The gradient of the head, from the parts of a batch in their order.
    fn of_head(&self, d_y: &[ArrayView2<f32>], p: &[ArrayView2<f32>], batch: &Batch, grad: &mut [f32]) {
        let whole = |parts| concatenate(Axis(0), parts).expect("parts of one width");
        let (d_y, p, h) = (whole(d_y), whole(p), &self.graph.head);
        let (keys, rows) = self.graph.head_rows(batch);
        let [d_w, d_b] =
            grad.get_disjoint_mut([h.weight.clone(), h.bias.clone()]).expect("the layout has both apart");
        head::parameters(self.graph.numerics(), d_y.view(), p.view(), h.dropout, (&keys, &rows), d_w, d_b);
    }

    /// A training forward of `texts`, joined in `batch`.
    pub(super) fn forward(
        &self,
        texts: &[&Encoded],
        batch: &Batch,
        known: Option<Known>,
        theta: &[f32],
    ) -> Result<Forward> {
        match &self.route {
            Route::Whole(plan) => self.graph.forward_training(plan, batch, theta),
            Route::Above(split) => {
                let x = prefix::states(self.graph, split, texts, known, theta)?;
                self.graph.forward_training_above(split, batch, &x, theta)
            }
        }
    }

    /// The pooled vectors of `texts`, joined in `batch`: `[texts, features]`.
    pub(super) fn pooled(
        &self,
        texts: &[&Encoded],
        batch: &Batch,
        known: Option<Known>,
        theta: &[f32],
    ) -> Result<Array2<f32>> {
        let (_, pooled) = match &self.route {
            Route::Whole(_) => self.graph.forward(batch, theta)?,
            Route::Above(split) => {
                let x = prefix::states(self.graph, split, texts, known, theta)?;
                self.graph.forward_above(split, batch, &x, theta)?
            }
        };
        Ok(pooled)
    }

    /// Moves the sum of all micro-batches to `grad`.
    pub(super) fn finish(&self, grad: &mut [f32]) {
        let mut sum = ExactSum::new(grad.len());
        self.idle().iter_mut().for_each(|(_, part)| sum.take(part));
        sum.finish(grad);
    }

    pub(super) fn take_idle(&self, params: usize) -> (Workspace, ExactSum) {
        self.idle().pop().unwrap_or_else(|| (Workspace::default(), ExactSum::new(params)))
    }

    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<(Workspace, ExactSum)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
