//! The loop: batch, gradient, update; evaluate each epoch and keep the best.

use super::checkpoint::{CheckpointWriter, Position, State};
use super::metrics::Metrics;
use super::prefix::PrefixCache;
use super::step::{Step, Stepper};
use super::{Criterion, Epoch, Head, Labelled, Progress, Report, TrainConfig, adamw, batches, fit_head};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::dropout;
use crate::ops::loss::Target;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

/// Training texts that show whether an update broke the model.
const PROBE_TEXTS: usize = 16;

/// Trains `theta` in place.
///
/// `names` are those of the head's outputs, for scores. `on_progress` is called after every step and epoch and may end the run with `Break`. However the run ends,
/// `theta` holds the kept epoch's biases; those of the last good step where no epoch was finished. Checkpoints stay:
/// [`super::Checkpoints::remove`] them once the biases are in their place.
/// Errors: settings out of range; [`Error::Diverged`] for a loss or gradient that is not finite; checkpoints that cannot be
/// gone on from, or written at the start.
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
    let trainer = Stepper::new(graph, config, class_weights)?;
    let (keeper, found) = match &config.checkpoints {
        Some(checkpoints) => {
            let mut note = |text: &str| {
                let _ = on_progress(Progress::Note(text));
            };
            let run = (data, dev, config);
            let (keeper, found) = CheckpointWriter::open(checkpoints, graph, theta, run, &mut note)?;
            (Some(keeper), found)
        }
        None => (None, None),
    };
    let texts = |data: &[Labelled]| data.len() + data.iter().filter(|d| d.partner.is_some()).count();
    let [known, known_dev] = PrefixCache::sharing(config.prefix_cache, [texts(data), dev.map_or(0, texts)]);
    let total = data.len().div_ceil(config.batch).saturating_mul(config.epochs);
    let mut run = Run {
        trainer,
        theta,
        data,
        dev,
        names,
        config,
        total,
        warmup: (config.warmup * total as f64) as usize,
        known,
        known_dev,
        keeper,
        at: Position::default(),
        best: None,
        head_alone: None,
        interrupted: false,
        baseline: if graph.mlm_head().is_some() { "base" } else { "linear probe" },
    };
    match found {
        Some(state) => run.restore(state),
        None => run.begin(graph)?,
    }
    // Where one cannot be written at all, better to say so now than after a power cut.
    let state = run.state();
    run.keeper.as_mut().map_or(Ok(()), |keeper| keeper.save(&state))?;
    let outcome = run.go(on_progress);
    run.finish(outcome, on_progress)
}

/// A run between two steps.
struct Run<'a> {
    trainer: Stepper<'a>,
    theta: &'a mut Vec<f32>,
    data: &'a [Labelled],
    dev: Option<&'a [Labelled]>,
    names: &'a [String],
    config: &'a TrainConfig,
    /// Steps of the whole run.
    total: usize,
    warmup: usize,
    known: PrefixCache,
    known_dev: PrefixCache,
    keeper: Option<CheckpointWriter>,
    at: Position,
    /// Theta of the best epoch.
    best: Option<Vec<f32>>,
    head_alone: Option<Vec<f32>>,
    interrupted: bool,
    /// What the scores before the first step are of.
    baseline: &'static str,
}

impl Run<'_> {
    /// What comes before the first step.
    fn begin(&mut self, graph: &Graph) -> Result<()> {
        let fitted = self.config.head == Head::Fitted;
        if self.dev.is_some() || fitted {
            self.head_alone = fit_head(graph, self.theta, self.data, self.config)?;
        }
        let Some(alone) = &self.head_alone else { return Ok(()) };
        if fitted {
            self.theta.copy_from_slice(alone);
        }
        if let Some(dev) = self.dev {
            let before = self.trainer.evaluate(alone, dev, self.names, &self.known_dev)?;
            if let Some(score) = self.score(&before) {
                (self.at.best, self.best) = (Some(score), Some(alone.clone()));
            }
            self.at.before = Some(before);
        }
        Ok(())
    }

    /// A copy of all that another process needs to go on.
    fn state(&mut self) -> State {
        let (m, v, updates) = self.trainer.optimizer().state();
        let mut tensors =
            BTreeMap::from([("theta", self.theta.clone()), ("m", m.to_vec()), ("v", v.to_vec())]);
        tensors.extend(self.best.clone().map(|best| ("best", best)));
        tensors.extend(self.head_alone.clone().map(|alone| ("head_alone", alone)));
        State { position: Position { updates, ..self.at.clone() }, tensors }
    }

    /// Goes back to where such a copy was made; it is whole.
    fn restore(&mut self, State { position, mut tensors }: State) {
        let mut take = |name| tensors.remove(name);
        if let (Some(theta), Some(m), Some(v)) = (take("theta"), take("m"), take("v")) {
            self.theta.copy_from_slice(&theta);
            self.trainer.optimizer().restore(&m, &v, position.updates);
        }
        (self.best, self.head_alone) = (take("best"), take("head_alone"));
        self.at = position;
    }

    /// Writes a checkpoint where there are any.
    fn keep(&mut self, on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) {
        if self.keeper.is_some() {
            let state = self.state();
            if let Some(keeper) = &mut self.keeper {
                keeper.try_save(&state, &mut |text| {
                    let _ = on_progress(Progress::Note(text));
                });
            }
        }
    }

    /// All epochs that are left. Errors: [`Error::Diverged`].
    fn go(&mut self, on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()> {
        let (before, epochs) = (self.at.before.as_ref(), self.config.epochs);
        if on_progress(Progress::Begin { before, baseline: self.baseline, epochs }).is_break() {
            self.interrupted = true;
        }
        while !self.interrupted && self.at.epoch < self.config.epochs && self.waited().is_none() {
            self.epoch(on_progress)?;
        }
        Ok(())
    }

    /// Epochs since the best one, once they are as many as the patience. A head alone does not count: a random one takes
    /// some epochs to come up to it.
    fn waited(&self) -> Option<usize> {
        let (patience, done) = (self.config.patience?, self.at.epochs.len());
        let (mut best, mut best_epoch) = (None, 0);
        for epoch in &self.at.epochs {
            let score = self.score(epoch.dev.as_ref()?)?;
            if is_better(score, best) {
                (best, best_epoch) = (Some(score), epoch.epoch);
            }
        }
        let is_between = self.at.batches == 0 && (1..self.config.epochs).contains(&done);
        (is_between && done - best_epoch >= patience).then_some(done - best_epoch)
    }

    /// What the epoch to keep goes by, and its loss for a tie; `None` where the last one is kept.
    fn score(&self, m: &Metrics) -> Option<(f64, f64)> {
        let keep = self.config.keep;
        (keep != Criterion::Last).then(|| (keep.score(m), m.loss))
    }

    /// What is left of an epoch, and its scores.
    fn epoch(&mut self, on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<()> {
        let epoch = self.at.epoch;
        let batches = batches::batches(self.data.len(), self.config.batch, self.config.seed, epoch);
        for indices in &batches[self.at.batches.min(batches.len())..] {
            let loss = self.step(indices)?;
            let done = Progress::Step { done: self.at.steps, total: self.total, loss, texts: indices.len() };
            let go_on = on_progress(done).is_continue();
            if self.keeper.as_ref().is_some_and(|keeper| keeper.is_due(self.at.steps)) {
                self.keep(on_progress);
            }
            if !go_on {
                self.interrupted = true;
                if self.best.is_none() {
                    self.check(None)?;
                }
                return Ok(());
            }
        }
        let scores = self
            .dev
            .map(|dev| self.trainer.evaluate(self.theta, dev, self.names, &self.known_dev))
            .transpose()?;
        self.check(scores.as_ref())?;
        let finished = Epoch {
            epoch: epoch + 1,
            train_loss: self.at.loss_sum / self.data.len() as f64,
            dev: scores,
            train_s: self.at.train_s,
        };
        // Without scores to go by the last epoch is the one to keep.
        let score = finished.dev.as_ref().and_then(|m| self.score(m));
        if score.is_none_or(|score| is_better(score, self.at.best)) {
            (self.at.best, self.best) = (score.or(Some((0.0, 0.0))), Some(self.theta.clone()));
            self.at.kept = epoch + 1;
        }
        let go_on = on_progress(Progress::Epoch(&finished));
        self.at.epochs.push(finished);
        (self.at.epoch, self.at.batches, self.at.loss_sum) = (epoch + 1, 0, 0.0);
        self.interrupted = go_on.is_break() && self.at.epoch < self.config.epochs;
        Ok(())
    }

    /// One batch; returns its loss.
    fn step(&mut self, indices: &[usize]) -> Result<f64> {
        let start = Instant::now();
        let (seed, epoch) = (self.config.seed, self.at.epoch);
        let keys: Vec<i64> = indices.iter().map(|&i| dropout::key(seed, epoch, i)).collect();
        let batch: Vec<&Labelled> = indices.iter().map(|&i| &self.data[i]).collect();
        let lr = self.config.lr * adamw::schedule(self.at.steps, self.warmup, self.total);
        let known = Some((&self.known, indices));
        let step = self.trainer.step_known(self.theta, &batch, Some(&keys), known, lr)?;
        let Step { loss, norm } = step;
        if !step.is_finite() {
            let what =
                if loss.is_finite() { format!("gradient norm {norm}") } else { format!("loss {loss}") };
            return Err(diverged(epoch, self.at.steps + 1, &what));
        }
        self.at.steps += 1;
        self.at.batches += 1;
        self.at.texts += batch.len();
        self.at.loss_sum += loss * batch.len() as f64;
        self.at.train_s += start.elapsed().as_secs_f64();
        Ok(loss)
    }

    /// What the last update broke, if anything: no step has looked at its result yet. Without scores on dev a few
    /// training texts tell.
    fn check(&self, dev: Option<&Metrics>) -> Result<()> {
        let fail = |what: String| Err(diverged(self.at.epoch, self.at.steps, &what));
        if let Some(v) = self.theta.iter().find(|v| !v.is_finite()) {
            return fail(format!("a bias became {v}"));
        }
        let few = &self.data[..self.data.len().min(PROBE_TEXTS)];
        let loss = match dev {
            Some(m) => m.loss,
            // Texts that are compared by their labels have no score. The next step's loss shows a broken update, or the
            // fitting of the probe does.
            None if self.names.is_empty() && few.iter().any(|d| matches!(d.target, Target::Class(_))) => 0.0,
            None => self.trainer.evaluate(self.theta, few, &[], &self.known)?.loss,
        };
        if loss.is_finite() { Ok(()) } else { fail(format!("loss {loss}")) }
    }

    /// Leaves the kept epoch in theta, and tells how it went.
    fn finish(
        mut self,
        outcome: Result<()>,
        on_progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Report> {
        if outcome.is_ok() {
            self.keep(on_progress);
        }
        let stopped = self.waited().filter(|_| !self.interrupted);
        let (trained_biases, trained_head) = self.trainer.trained();
        if let Some(best) = self.best {
            *self.theta = best;
        }
        outcome?;
        let at = self.at;
        Ok(Report {
            before: at.before,
            head_alone: self.head_alone,
            epochs: at.epochs,
            kept: at.kept,
            steps: at.steps,
            trained_biases,
            trained_head,
            train_s: at.train_s,
            examples_per_s: at.texts as f64 / at.train_s.max(1e-9),
            interrupted: self.interrupted,
            stopped: stopped.map(|waited| format!("no better score on dev for {waited} epochs")),
        })
    }
}

/// Whether this score and loss are the better ones: the higher score, on a tie the lower loss.
fn is_better((score, loss): (f64, f64), best: Option<(f64, f64)>) -> bool {
    !score.is_nan() && best.is_none_or(|(s, l)| (score, -loss) > (s, -l))
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
