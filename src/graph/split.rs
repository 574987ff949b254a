//! The encoder cut in two in front of a layer, for runs that train nothing below the cut.
//!
//! There the hidden state is a fixed function of the text. It is handed over in f16, whether it was just computed or
//! kept from an earlier epoch, so that what is kept takes half the memory and a result does not depend on it.

use super::adapter::matrix;
use super::wiring::{Purpose, Start, plan};
use super::{Batch, Forward, Graph, NOTHING, TrainingPlan, TypedSimplePlan, internal, logits_and_pooled};
use crate::error::{Error, Result};
use half::f16;
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2};

/// Plans of the two parts: the same op instances and weights as the whole encoder's plans.
pub struct Split {
    layer: usize,
    below: Arc<TypedSimplePlan>,
    inference: Arc<TypedSimplePlan>,
    training: TrainingPlan,
}

impl Split {
    /// The layer in front of which the encoder is cut; the number of layers where all of it is below.
    pub fn layer(&self) -> usize {
        self.layer
    }
}

impl Graph {
    /// Cuts the encoder in front of `layer`; training saves from there up.
    ///
    /// Errors: `Error::Config` if there are fewer layers.
    pub fn split(&self, layer: usize) -> Result<Split> {
        if layer > self.layers.len() {
            let layers = self.layers.len();
            return Err(Error::Config(format!("an encoder of {layers} layers has no place {layer} to cut")));
        }
        let (whole, o) = self.wire(&self.scope()?, Start::Tokens, NOTHING, Purpose::Hidden)?;
        let (upper, u) = self.wire(&self.scope()?, Start::Layer(layer), NOTHING, Purpose::Pooled)?;
        Ok(Split {
            layer,
            below: plan(whole, &[o.hidden[layer]])?,
            inference: plan(upper, &[u.logits, u.pooled])?,
            training: self.training_plan_from(Start::Layer(layer), layer)?,
        })
    }

    /// The hidden state `[rows, hidden]` at the cut, rounded to f16.
    pub(crate) fn below(&self, split: &Split, batch: &Batch, theta: &[f32]) -> Result<Vec<f16>> {
        let (out, _running) = self.run(&split.below, batch, self.tokens(batch)?, theta)?;
        let x = out.first().ok_or_else(|| Error::Internal("the plan lacks an output".into()))?;
        let x: ArrayView2<f32> = matrix(x).map_err(internal)?;
        let states = x.iter().map(|v| f16::from_f32(*v)).collect();
        self.recycle(out);
        Ok(states)
    }

    /// [`Graph::forward`] from the hidden states `x: [rows, hidden]` of these texts on.
    pub(crate) fn forward_above(
        &self,
        split: &Split,
        batch: &Batch,
        x: &[f16],
        theta: &[f32],
    ) -> Result<(Array2<f32>, Array2<f32>)> {
        let (out, _running) = self.run(&split.inference, batch, self.states(batch, x)?, theta)?;
        logits_and_pooled(&mut out.into_iter())
    }

    /// `Graph::forward_training` from the hidden states `x: [rows, hidden]` of these texts on.
    pub(crate) fn forward_training_above(
        &self,
        split: &Split,
        batch: &Batch,
        x: &[f16],
        theta: &[f32],
    ) -> Result<Forward> {
        self.training(&split.training, batch, self.states(batch, x)?, theta)
    }

    fn states(&self, batch: &Batch, x: &[f16]) -> Result<Tensor> {
        Tensor::from_shape(&[batch.rows(), self.hidden()], x).map_err(internal)
    }
}
