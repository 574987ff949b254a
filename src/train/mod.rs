//! The training loop: batch, forward, loss, backward, clip, update; evaluate each epoch and keep the best.

pub mod adamw;
pub mod answers;
pub mod backward;
pub mod batches;
mod evaluate;
pub mod exact;
pub mod gradients;
pub mod held_out;
mod lanes;
pub(crate) mod masked;
pub mod memory;
pub mod metrics;
mod pairs;
mod prefix;
mod ridge;
pub mod step;

pub(crate) use evaluate::{FEATURE_ROWS, largest};
pub use evaluate::{Output, evaluate, forward_all};
pub use held_out::{HeldOut, Interval};
pub use lanes::Cut;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::dropout;
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::tokenize::Encoded;
use backward::Selection;
use metrics::Metrics;
use prefix::PrefixCache;
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};
use std::time::Instant;
use step::{Step, Trainer};

/// Training texts that show whether an update broke the model.
const PROBE_TEXTS: usize = 16;

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
    /// Stops after this many epochs without a better score on dev; `None` never.
    pub patience: Option<usize>,
    /// Which score on dev decides the epoch that is kept.
    pub keep: Criterion,
    /// Most bytes of hidden states in front of the lowest trained layer that are kept from epoch to epoch, for what
    /// lies below gives a text the same each time; 0 computes them each time. Changes no result.
    pub prefix_cache: usize,
    /// How batches are cut, which decides memory and speed, no result; `None` goes by the number of threads. See
    /// [`memory::fit`].
    pub cut: Option<Cut>,
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
    if !data.iter().all(|d| evaluate::can_be_fitted(&d.target)) {
        return Ok(None);
    }
    let cut = config.cut.unwrap_or(Cut::of_threads(rayon::current_num_threads()));
    let (x, targets) = evaluate::features(graph, theta, data, cut)?;
    Ok(ridge::fit(x, &targets, graph.labels()).map(|fit| {
        let mut alone = theta.to_vec();
        alone[graph.layout().head_weight()].copy_from_slice(&fit.weight);
        alone[graph.layout().head_bias()].copy_from_slice(&fit.bias);
        alone
    }))
}

/// What a run tells while it goes.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The first step is next; the scores on dev of a fitted head alone, where there are.
    Begin(Option<&'a Metrics>),
    /// A step is done.
    Step {
        /// Steps done and steps in all.
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
#[derive(Clone, Debug, Serialize)]
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

/// Passes over so many examples that give both the few and the many enough steps.
pub fn epochs_for(examples: usize) -> usize {
    (4000 / examples.max(1)).clamp(3, 20)
}

/// Texts a step for so many examples, so that [`epochs_for`] makes some 500 steps or more of them: few large steps learn
/// less from few examples.
pub fn batch_for(examples: usize) -> usize {
    examples.saturating_mul(epochs_for(examples)).div_ceil(500).clamp(4, 16)
}

/// Peak learning rate for so many examples: twice as high where there are fewer than ten of a label, for each row of the
/// head learns from its own above all.
pub fn lr_for(examples: usize, labels: usize) -> f64 {
    if has_few_of_a_label(examples, labels) { 6e-3 } else { 3e-3 }
}

/// Whether so many examples are fewer than ten of each label; never where there are no labels.
pub fn has_few_of_a_label(examples: usize, labels: usize) -> bool {
    examples < 10 * labels
}

/// How a run ended.
#[derive(Clone, Debug, Serialize)]
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

/// Trains `theta` in place.
///
/// `names` are those of the head's outputs, for scores. `on_progress` is called after every step and epoch and may end the run with `Break`. However the run ends,
/// `theta` holds the kept epoch's biases; those of the last good step where no epoch was finished.
/// Errors: settings out of range; [`Error::Diverged`] for a loss or gradient that is not finite.
pub fn train(
    graph: &Graph,
    theta: &mut Vec<f32>,
    data: &[Labelled],
    dev: Option<&[Labelled]>,
    names: &[String],
    config: &TrainConfig,
    on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let class_weights = config.class_weights.then(|| inverse_frequency(data, graph.labels()));
    let mut trainer = Trainer::new(graph, config, class_weights)?;
    let texts = |data: &[Labelled]| data.len() + data.iter().filter(|d| d.partner.is_some()).count();
    let sizes = [texts(data), dev.map_or(0, texts)];
    let [known, known_dev] = PrefixCache::sharing(config.prefix_cache, sizes);
    let per_epoch = data.len().div_ceil(config.batch);
    let total = per_epoch.saturating_mul(config.epochs);
    let warmup = (config.warmup * total as f64) as usize;

    let head_alone = match dev.is_some() || config.head == Head::Fitted {
        true => fit_head(graph, theta, data, config)?,
        false => None,
    };
    if let (Head::Fitted, Some(alone)) = (config.head, &head_alone) {
        theta.copy_from_slice(alone);
    }

    let mut best: Option<(f64, f64, Vec<f32>)> = None;
    let (trained_biases, trained_head) = trainer.trained();
    let mut report = Report {
        before: None,
        head_alone: None,
        epochs: vec![],
        kept: 0,
        steps: 0,
        trained_biases,
        trained_head,
        train_s: 0.0,
        examples_per_s: 0.0,
        interrupted: false,
        stopped: None,
    };
    let mut texts_done = 0;
    let mut failed = None;
    if let (Some(alone), Some(dev)) = (&head_alone, dev) {
        let before = trainer.evaluate(alone, dev, names, &known_dev)?;
        if config.keep != Criterion::Last {
            best = Some((config.keep.score(&before), before.loss, alone.clone()));
        }
        report.before = Some(before);
    }
    report.head_alone = head_alone;
    if on_progress(Progress::Begin(report.before.as_ref())).is_break() {
        report.interrupted = true;
        return Ok(report);
    }

    'epochs: for epoch in 0..config.epochs {
        let start = Instant::now();
        let mut loss_sum = 0.0;
        for indices in batches::batches(data.len(), config.batch, config.seed, epoch) {
            let keys: Vec<i64> = indices.iter().map(|&i| dropout::key(config.seed, epoch, i)).collect();
            let batch: Vec<&Labelled> = indices.iter().map(|&i| &data[i]).collect();
            let lr = config.lr * adamw::schedule(report.steps, warmup, total);
            let step = trainer.step_known(theta, &batch, Some(&keys), Some((&known, &indices)), lr)?;
            if !step.is_finite() {
                let Step { loss, norm } = step;
                let what =
                    if loss.is_finite() { format!("gradient norm {norm}") } else { format!("loss {loss}") };
                failed = Some(diverged(epoch, report.steps + 1, &what));
                break 'epochs;
            }

            report.steps += 1;
            texts_done += batch.len();
            loss_sum += step.loss * batch.len() as f64;
            let done = Progress::Step { done: report.steps, total, loss: step.loss, texts: batch.len() };
            if on_progress(done).is_break() {
                report.interrupted = true;
                report.train_s += start.elapsed().as_secs_f64();
                if best.is_none() {
                    let what = broken(&trainer, theta, data, &known, None)?;
                    failed = what.map(|what| diverged(epoch, report.steps, &what));
                }
                break 'epochs;
            }
        }
        report.train_s += start.elapsed().as_secs_f64();
        let scores = dev.map(|dev| trainer.evaluate(theta, dev, names, &known_dev)).transpose()?;
        if let Some(what) = broken(&trainer, theta, data, &known, scores.as_ref())? {
            failed = Some(diverged(epoch, report.steps, &what));
            break;
        }
        let finished = Epoch {
            epoch: epoch + 1,
            train_loss: loss_sum / data.len() as f64,
            dev: scores,
            train_s: report.train_s,
        };
        // Without dev the last epoch is the one to keep; on a tie the one with the lower loss.
        let (score, loss) = finished.dev.as_ref().map_or((0.0, 0.0), |m| (config.keep.score(m), m.loss));
        let last = config.keep == Criterion::Last || dev.is_none();
        if !score.is_nan() && (last || best.as_ref().is_none_or(|b| (score, -loss) > (b.0, -b.1))) {
            best = Some((score, loss, theta.clone()));
            report.kept = epoch + 1;
        }
        let go_on = on_progress(Progress::Epoch(&finished));
        report.epochs.push(finished);
        if go_on.is_break() && epoch + 1 < config.epochs {
            report.interrupted = true;
            break;
        }
        if config.patience.is_some_and(|p| epoch + 1 >= report.kept.saturating_add(p))
            && epoch + 1 < config.epochs
        {
            let waited = epoch + 1 - report.kept;
            report.stopped = Some(format!("no better score on dev for {waited} epochs"));
            break;
        }
    }
    if let Some((_, _, kept)) = best {
        *theta = kept;
    }
    report.examples_per_s = texts_done as f64 / report.train_s.max(1e-9);
    match failed {
        Some(error) => Err(error),
        None => Ok(report),
    }
}

/// `step` counts from 1.
fn diverged(epoch: usize, step: usize, what: &str) -> Error {
    let kept = if epoch > 0 {
        format!("the biases of the best of {epoch} finished epochs are kept")
    } else {
        "no epoch was finished".into()
    };
    Error::Diverged(format!(
        "training diverged in epoch {} at step {step}: {what}; {kept}. Try a lower learning rate (--lr)",
        epoch + 1
    ))
}

/// What the last update broke, if anything: no step has looked at its result yet. Without scores on dev a few
/// training texts tell.
fn broken(
    trainer: &Trainer,
    theta: &[f32],
    data: &[Labelled],
    known: &PrefixCache,
    dev: Option<&Metrics>,
) -> Result<Option<String>> {
    if let Some(v) = theta.iter().find(|v| !v.is_finite()) {
        return Ok(Some(format!("a bias became {v}")));
    }
    let loss = match dev {
        Some(m) => m.loss,
        None => trainer.evaluate(theta, &data[..data.len().min(PROBE_TEXTS)], &[], known)?.loss,
    };
    Ok((!loss.is_finite()).then(|| format!("loss {loss}")))
}

/// `n / (classes · n_c)`, as scikit-learn's "balanced"; 1 for a class without examples.
fn inverse_frequency(data: &[Labelled], labels: usize) -> Vec<f32> {
    let mut count = vec![0usize; labels];
    for d in data {
        if let Target::Class(label) = d.target {
            count[label] += 1;
        }
    }
    let present = count.iter().filter(|&&c| c > 0).count();
    count.iter().map(|&c| if c == 0 { 1.0 } else { data.len() as f32 / (present * c) as f32 }).collect()
}
