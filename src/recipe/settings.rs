//! What a user may set, and what a run takes if nothing is set.

use crate::params::Terms;
use crate::train::{Checkpoints, Criterion, Head, Schedule, TrainConfig};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;

/// How much work a run may spend on choosing and on telling how good the result is. It counts training steps, not
/// seconds, so that every machine makes the same choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// One training run on all examples. Only the linear probe is cross-validated.
    Quick,
    /// Also cross-validates the run that is kept, on three folds. About three times the steps of `Quick`.
    #[default]
    Normal,
    /// Five folds, and several candidates for learning rate, dropout and head. About ten times the steps of `Quick`.
    Thorough,
}

/// Dropout inside the encoder while training, if nothing is set. On the development sets of `benches/learn.py` it changed the
/// score of 500 lines by +0.5 points on average over six sets, and that of 8 lines a label by +0.4 over four.
pub const ENCODER_DROPOUT: f32 = 0.1;

/// Settings of a run. `None` lets the run choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides the order of the data, the head's first values and every dropout mask.
    pub seed: u64,
    /// How much work to spend on choosing.
    pub effort: Effort,
    /// Share of the examples to score epochs on instead of learning from them. `None` or 0 learns from all.
    pub hold_out: Option<f64>,
    /// Passes over the data.
    pub epochs: Option<usize>,
    /// Texts a step.
    pub batch: Option<usize>,
    /// Peak learning rate.
    pub lr: Option<f64>,
    /// The head's learning rate, as a factor of `lr`.
    pub head_rate: f32,
    /// Where the head begins.
    pub head: Option<Head>,
    /// Dropout inside the encoder.
    pub encoder_dropout: Option<f32>,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// Largest norm of a gradient; 0 for no limit.
    pub clip: f32,
    /// Decoupled decay of the head's weight.
    pub weight_decay: f32,
    /// Weighs classes by the inverse of their frequency.
    pub class_weights: bool,
    /// Which score on held-out examples decides the epoch that is kept.
    pub keep: Criterion,
    /// Early-stopping patience in epochs; 0 never stops early.
    pub patience: Option<usize>,
    /// Which biases are trained; [`Terms::none`] fits a linear probe.
    pub terms: Terms,
    /// In which layers; `None` for all.
    pub layers: Option<Range<usize>>,
    /// Bias file whose encoder biases training starts from.
    pub start: Option<PathBuf>,
    /// Tunes the biases by comparing texts before they learn to answer (SetFit). Without it the run chooses.
    pub setfit: bool,
    /// Most bytes for the whole process.
    pub memory: Option<usize>,
    /// Most bytes of cached hidden states below the lowest trained layer.
    pub prefix_cache: usize,
    /// Where the run keeps its state.
    pub checkpoints: Option<Checkpoints>,
}

impl Default for Settings {
    fn default() -> Self {
        let TrainConfig { head_rate, warmup, clip, weight_decay, prefix_cache, .. } = TrainConfig::default();
        Settings {
            seed: 0,
            effort: Effort::default(),
            hold_out: None,
            epochs: None,
            batch: None,
            lr: None,
            head_rate,
            head: None,
            encoder_dropout: None,
            warmup,
            clip,
            weight_decay,
            class_weights: false,
            keep: Criterion::Main,
            patience: None,
            terms: Terms::all(),
            layers: None,
            start: None,
            setfit: false,
            memory: None,
            prefix_cache,
            checkpoints: None,
        }
    }
}

impl Settings {
    /// The training run for this number of examples and labels (0 if there are none).
    pub fn config(&self, examples: usize, labels: usize, course: Schedule) -> TrainConfig {
        let chosen = TrainConfig::chosen(examples, labels, course).with_epochs(self.epochs);
        TrainConfig {
            lr: self.lr.unwrap_or(chosen.lr),
            head_rate: self.head_rate,
            batch: self.batch.unwrap_or(chosen.batch),
            head: self.head.unwrap_or(chosen.head),
            seed: self.seed,
            terms: self.terms.clone(),
            layers: self.layers.clone(),
            warmup: self.warmup,
            clip: self.clip,
            weight_decay: self.weight_decay,
            class_weights: self.class_weights,
            keep: self.keep,
            patience: self.patience.map_or(chosen.patience, |n| (n > 0).then_some(n)),
            prefix_cache: self.prefix_cache,
            checkpoints: self.checkpoints.clone(),
            ..chosen
        }
    }

    /// Whether the run may choose how the values are found, and keep the linear probe instead of trained biases: nothing is set
    /// that asks for steps.
    pub fn may_choose_method(&self) -> bool {
        let set = [self.epochs.is_some(), self.batch.is_some(), self.lr.is_some(), self.head.is_some()];
        let whole = self.terms == Terms::all() && self.layers.is_none();
        whole && !set.contains(&true) && !self.class_weights && self.start.is_none()
    }

    /// Whether the run may keep the linear probe.
    pub fn may_keep_probe(&self) -> bool {
        self.may_choose_method() && !self.setfit
    }

    /// Whether the run is a linear probe, without gradient steps: no biases, and nothing set that steps need.
    pub fn is_probe(&self) -> bool {
        let steps = [self.epochs.is_some(), self.batch.is_some(), self.lr.is_some(), self.head.is_some()];
        self.terms == Terms::none() && !steps.contains(&true) && !self.class_weights && !self.setfit
    }
}
