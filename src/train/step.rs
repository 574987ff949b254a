//! One step of training: gradient, clip, AdamW.

use super::adamw::{self, AdamW, Group};
use super::backward::Selection;
use super::batches;
use super::evaluate::evaluate_cut;
use super::gradients::Gradients;
use super::metrics::Metrics;
use super::prefix::{Known, PrefixCache};
use super::{Labelled, TrainConfig};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::params::{Param, Role, Terms};
use std::ops::Range;

/// What moves theta, step by step: for those who write a loop of their own. [`super::train`] is one such loop.
pub struct Stepper<'g> {
    graph: &'g Graph,
    gradients: Gradients<'g>,
    optimizer: AdamW,
    /// Trained ranges of theta.
    ranges: Vec<Range<usize>>,
    clip: f32,
    /// Gradient of the last step, with the layout of theta.
    grad: Vec<f32>,
    trained: (usize, usize),
}

/// What a step found.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Loss of the batch before the step.
    pub loss: f64,
    /// Norm of its gradient over all that is trained, before the clip.
    pub norm: f64,
}

impl Step {
    /// Whether loss and gradient are numbers. A step of which this is false has left theta as it was.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.norm.is_finite()
    }
}

impl<'g> Stepper<'g> {
    /// Plans the steps; takes terms, layers, values, clip and decay from `config`.
    ///
    /// `class_weights: [labels]`, all 1 where `None`. Errors: settings out of range; terms and layers that hold no bias.
    pub fn new(graph: &'g Graph, config: &TrainConfig, class_weights: Option<Vec<f32>>) -> Result<Self> {
        let selection = config.selection(graph.layers())?;
        let mut trained = selection.count(graph.layout());
        trained.0 = trained.0.min(config.values.unwrap_or(usize::MAX));
        if trained.0 == 0 && config.terms != Terms::none() {
            let layers = selection.layers();
            return Err(Error::Config(format!(
                "there is no bias of {} to train in layers {}..{}: emb_ln and emb_proj belong to layer 0, pooler to the last \
                 layer and to cls pooling; use `none` to train the head only",
                config.terms, layers.start, layers.end
            )));
        }
        let len = graph.layout().len();
        let groups = groups(graph, &selection, config);
        Ok(Stepper {
            graph,
            ranges: groups.iter().map(|g| g.range.clone()).collect(),
            optimizer: AdamW::new(len, groups),
            clip: config.clip,
            grad: vec![0.0; len],
            trained,
            gradients: Gradients::new(graph, selection, class_weights)?
                .with_frozen_part()?
                .with_cut(config.cut),
        })
    }

    /// Number of trained values: biases, head.
    pub fn trained(&self) -> (usize, usize) {
        self.trained
    }

    /// What the steps so far have left, apart from theta.
    pub fn optimizer(&mut self) -> &mut AdamW {
        &mut self.optimizer
    }

    /// One step with learning rate `lr`. `keys: [batch]` are dropout keys; without them dropout is off.
    ///
    /// Where the loss or the gradient is not finite, theta and the optimizer stay as they were.
    pub fn step(
        &mut self,
        theta: &mut [f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        lr: f64,
    ) -> Result<Step> {
        self.step_known(theta, batch, keys, None, lr)
    }

    /// The same, with what is known of the texts' frozen part.
    pub(super) fn step_known(
        &mut self,
        theta: &mut [f32],
        batch: &[&Labelled],
        keys: Option<&[i64]>,
        known: Option<Known>,
        lr: f64,
    ) -> Result<Step> {
        let (loss, _) = self.gradients.of_known(theta, batch, keys, known, &mut self.grad)?;
        let norm = adamw::clip(&mut self.grad, &self.ranges, self.clip);
        let step = Step { loss, norm };
        if step.is_finite() {
            self.optimizer.update(theta, &self.grad, lr);
        }
        Ok(step)
    }

    /// Scores of `theta`, with the plans and the cut of the steps.
    pub(super) fn evaluate(
        &self,
        theta: &[f32],
        data: &[Labelled],
        names: &[String],
        known: &PrefixCache,
    ) -> Result<Metrics> {
        let above = self.gradients.split().map(|split| (split, known));
        evaluate_cut(self.graph, theta, data, names, self.gradients.cut(), above)
    }
}

/// What the optimizer moves. Biases do not decay, as in BitFit.
fn groups(graph: &Graph, selection: &Selection, config: &TrainConfig) -> Vec<Group> {
    let is_head = |p: &&Param| matches!(p.role, Role::HeadWeight | Role::HeadBias);
    let (head, biases): (Vec<&Param>, Vec<&Param>) =
        graph.layout().iter().filter(|p| selection.wants_role(p.role)).partition(is_head);
    let biases: Vec<Range<usize>> = biases.iter().map(|p| p.range.clone()).collect();
    let biases = match config.values {
        None => biases,
        Some(n) => runs(&batches::draw(biases.into_iter().flatten(), n, config.seed)),
    };
    let biases = biases.into_iter().map(|range| Group { range, rate: 1.0, decay: 0.0 });
    let head = head.into_iter().map(|p| {
        let decay = if p.role == Role::HeadWeight { config.weight_decay } else { 0.0 };
        Group { range: p.range.clone(), rate: config.head_rate, decay }
    });
    biases.chain(head).collect()
}

/// Rising numbers as ranges without gaps.
fn runs(places: &[usize]) -> Vec<Range<usize>> {
    places.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn runs_are_without_gaps() {
        assert_eq!(super::runs(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
        assert!(super::runs(&[]).is_empty());
    }
}
