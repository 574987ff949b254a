//! Training: its settings, what a run tells, and what it needs at hand; [`train`] is the loop.

pub mod adamw;
pub mod answers;
pub mod backward;
pub mod batches;
pub mod calibration;
mod checkpoint;
mod chosen;
mod evaluate;
pub mod exact;
pub mod folds;
mod forward;
pub mod gradients;
pub mod held_out;
pub(crate) mod masked;
pub mod memory;
pub mod metrics;
mod micro_batches;
mod pairs;
mod prefix;
mod probe;
mod run;
pub mod step;

pub use checkpoint::Checkpoints;
pub(crate) use checkpoint::FOLD_PREFIX;
pub(crate) use chosen::MANY;
pub use chosen::{Schedule, batch_for, epochs_for, has_few_of_many_labels, hold_out, lr_for};
pub(crate) use evaluate::FEATURE_ROWS;
pub use evaluate::evaluate;
pub(crate) use forward::largest;
pub use forward::{Output, forward_all};
pub use held_out::{HeldOut, Interval};
pub use micro_batches::MicroBatching;
pub use run::train;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::tokenize::Encoded;
use backward::Selection;
use metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// An encoded text and what the model should answer.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The text's tokens.
    pub text: Encoded,
    /// Of the kind that the head is for, as long as it has outputs.
    pub target: Target,
    /// The text that belongs to it, where there is no head.
    pub partner: Option<Encoded>,
    /// Where its tokens stand in a question's context, of a window that is to be scored.
    pub part: Option<answers::Part>,
}

/// Which score decides the best epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The one that tells most of the task: accuracy, micro F1, Pearson's correlation, F1 of spans or of words; of hidden words the
    /// lower perplexity.
    #[default]
    Main,
    /// Share of right answers.
    Accuracy,
    /// Mean over the classes of their F1.
    MacroF1,
    /// Matthews correlation.
    Mcc,
    /// Loss, the lower the better.
    Loss,
    /// None: the last epoch is kept.
    Last,
}

impl Criterion {
    /// Name of the score in [`Metrics::named`], where it is one that not every task has.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Criterion::Accuracy => Some("accuracy"),
            Criterion::MacroF1 => Some("macro_f1"),
            Criterion::Mcc => Some("mcc"),
            Criterion::Main | Criterion::Loss | Criterion::Last => None,
        }
    }

    fn score(self, m: &Metrics) -> f64 {
        match self {
            Criterion::Main => m.main(),
            Criterion::Loss => -m.loss,
            Criterion::Last => 0.0,
            named => named.name().and_then(|name| m.get(name)).unwrap_or(0.0),
        }
    }
}

/// Where the head begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Head {
    /// Small random weights, as in the paper.
    #[default]
    Random,
    /// Fitted in closed form to what the encoder gives before training: the head alone, from which the biases go on.
    Fitted,
}

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// The head's learning rate, as a factor of `lr`.
    pub head_rate: f32,
    /// Texts a step.
    pub batch: usize,
    /// Decides the order of the data, the head's first values and every dropout mask.
    pub seed: u64,
    /// Where the head begins.
    pub head: Head,
    /// Which biases are trained.
    pub terms: Terms,
    /// In which layers; `None` for all.
    pub layers: Option<Range<usize>>,
    /// Of the values of these biases only so many, drawn by the seed; `None` for all.
    pub values: Option<usize>,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// Largest norm of a gradient; 0 for no limit.
    pub clip: f32,
    /// Decoupled decay of the head's weight. Biases do not decay.
    pub weight_decay: f32,
    /// Weighs classes by the inverse of their frequency.
    pub class_weights: bool,
    /// Stops after this many epochs without a better score on dev than an epoch before them had; `None` never.
    pub patience: Option<usize>,
    /// Which score on dev decides the epoch that is kept.
    pub keep: Criterion,
    /// Most bytes of hidden states in front of the lowest trained layer that are kept from epoch to epoch, for what
    /// lies below gives a text the same each time; 0 computes them each time. Changes no result.
    pub prefix_cache: usize,
    /// How batches are cut, which decides memory and speed, no result; `None` goes by the number of threads. See
    /// [`memory::fit`].
    pub cut: Option<MicroBatching>,
    /// Where the run keeps its state, so that it can go on after a power cut. Changes no result.
    pub checkpoints: Option<Checkpoints>,
}

/// Default of [`TrainConfig::prefix_cache`].
const PREFIX_CACHE: usize = 256 << 20;

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            epochs: 4,
            lr: 3e-3,
            head_rate: 1.0,
            batch: 16,
            seed: 0,
            head: Head::Random,
            terms: Terms::all(),
            layers: None,
            values: None,
            warmup: 0.06,
            clip: 1.0,
            weight_decay: 0.0,
            class_weights: false,
            patience: None,
            keep: Criterion::Main,
            prefix_cache: PREFIX_CACHE,
            cut: None,
            checkpoints: None,
        }
    }
}

impl TrainConfig {
    /// What is trained in an encoder of `layers` layers. Errors: settings out of range.
    pub fn selection(&self, layers: usize) -> Result<Selection> {
        Ok(Selection::new(self.terms.clone(), self.check(layers)?, layers))
    }

    fn check(&self, layers: usize) -> Result<Range<usize>> {
        let fail = |what: String| Err(Error::Config(what));
        if self.epochs == 0 || self.batch == 0 || self.values == Some(0) {
            return fail("epochs, batch and the number of values must be at least 1".into());
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return fail(format!("the learning rate must be a positive number, not {}", self.lr));
        }
        if !(self.head_rate.is_finite() && self.head_rate > 0.0) {
            return fail(format!("the head's rate must be a positive number, not {}", self.head_rate));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return fail(format!("the weight decay must be a number from 0 up, not {}", self.weight_decay));
        }
        if !(0.0..=1.0).contains(&self.warmup) || self.clip.is_nan() || self.clip < 0.0 {
            return fail("warm-up is a share between 0 and 1, and clip a number from 0 up".into());
        }
        match &self.layers {
            None => Ok(0..layers),
            Some(r) if r.start < r.end && r.end <= layers => Ok(r.clone()),
            Some(r) => {
                fail(format!("layers {}..{} do not fit an encoder of layers 0..{layers}", r.start, r.end))
            }
        }
    }
}

/// All parameters with a head fitted to what the encoder gives, the biases as they are: what any training must beat.
/// `None` where no head can be fitted; a masked-LM head is fitted as it comes.
pub(crate) fn fit_head(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    config: &TrainConfig,
) -> Result<Option<Vec<f32>>> {
    if graph.mlm_head().is_some() {
        return Ok(Some(theta.to_vec()));
    }
    Ok(fit(graph, theta, data, config, folds::PROBE_FOLDS)?.map(|(probe, _)| {
        let mut alone = theta.to_vec();
        alone[graph.layout().head_weight()].copy_from_slice(&probe.weight);
        alone[graph.layout().head_bias()].copy_from_slice(&probe.bias);
        alone
    }))
}

/// A linear probe on what the encoder gives of these texts, cross-validated over this number of folds, and the rows that it
/// was fitted to. `None` if the task has no probe.
pub(crate) fn fit(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    config: &TrainConfig,
    folds: usize,
) -> Result<Option<(probe::Probe, Rows)>> {
    if !data.iter().all(|d| evaluate::can_be_fitted(&d.target)) {
        return Ok(None);
    }
    let cut = config.cut.unwrap_or(MicroBatching::of_threads(rayon::current_num_threads()));
    let evaluate::Features { x, targets, examples } = evaluate::features(graph, theta, data, cut)?;
    let texts: Vec<&Labelled> = examples.iter().map(|&i| &data[i]).collect();
    let folds = folds::of_encoded(&texts, folds);
    let probe = probe::fit(x, &targets, graph.labels(), &folds);
    Ok(probe.map(|probe| (probe, Rows { targets, examples })))
}

/// Says early what [`train`] would say of its checkpoints.
pub(crate) fn check_checkpoints(
    graph: &Graph,
    theta: &[f32],
    data: &[Labelled],
    dev: Option<&[Labelled]>,
    config: &TrainConfig,
) -> Result<()> {
    let Some(checkpoints) = &config.checkpoints else { return Ok(()) };
    checkpoint::CheckpointWriter::open(checkpoints, graph, theta, (data, dev, config), &mut |_| {})
        .map(|_| ())
}

/// The rows that a probe was fitted to.
pub(crate) struct Rows {
    /// The target of each.
    pub targets: Vec<Target>,
    /// The example of each, by its index.
    pub examples: Vec<usize>,
}

/// What a run tells while it goes.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// What a user should know of the run.
    Note(&'a str),
    /// What is wrong with the examples, or with the run.
    Warning(&'a str),
    /// Cross-validation comes to a fold of a candidate.
    Fold {
        /// The candidate.
        name: &'a str,
        /// From 1.
        fold: usize,
        /// Folds that are scored.
        folds: usize,
    },
    /// The first step of the final run is next.
    Begin {
        /// Scores on held-out examples before the first step, if there are any.
        before: Option<&'a Metrics>,
        /// What these are of: `linear probe`, or `base`.
        baseline: &'static str,
        /// Epochs of the run.
        epochs: usize,
    },
    /// A step is done.
    Step {
        /// Steps done and steps in all, of all folds and the final run.
        done: usize,
        /// Steps of the whole run.
        total: usize,
        /// Loss of the step's batch.
        loss: f64,
        /// Texts of the step.
        texts: usize,
    },
    /// An epoch is done.
    Epoch(&'a Epoch),
}

/// One epoch's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    /// Mean loss over the training texts, as they passed.
    pub train_loss: f64,
    /// Scores on dev, where there is one.
    pub dev: Option<Metrics>,
    /// Seconds spent training, without evaluation.
    pub train_s: f64,
}

/// How a run ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Scores on dev of a fitted head alone, where one was fitted and there is a dev; of a masked-LM head, which comes with
    /// the base, the base's own.
    pub before: Option<Metrics>,
    /// All parameters with that head, before any step.
    #[serde(skip)]
    pub head_alone: Option<Vec<f32>>,
    /// Every finished epoch.
    pub epochs: Vec<Epoch>,
    /// The epoch whose biases are kept, from 1; 0 if none was finished, or none better than the fitted head alone.
    pub kept: usize,
    /// Steps done.
    pub steps: usize,
    /// Trained values of biases.
    pub trained_biases: usize,
    /// Trained values of the head.
    pub trained_head: usize,
    /// Seconds spent training, without evaluation.
    pub train_s: f64,
    /// Training texts a second, without evaluation.
    pub examples_per_s: f64,
    /// Whether the run was stopped from outside.
    pub interrupted: bool,
    /// Why it stopped before its last epoch, where it did.
    pub stopped: Option<String>,
}

impl Report {
    /// Scores on dev of what is kept, where there is a dev.
    pub fn scores(&self) -> Option<&Metrics> {
        match self.epochs.iter().find(|e| e.epoch == self.kept) {
            Some(kept) => kept.dev.as_ref(),
            None => self.before.as_ref(),
        }
    }
}
