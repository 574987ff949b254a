//! The loop: batch, gradient, update; evaluate each epoch and keep the best.

use super::metrics::Metrics;
use super::prefix::PrefixCache;
use super::step::{Step, Trainer};
use super::{Criterion, Epoch, Head, Labelled, Progress, Report, TrainConfig, adamw, batches, fit_head};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::ops::dropout;
use crate::ops::loss::Target;
use std::ops::ControlFlow;
use std::time::Instant;

/// Training texts that show whether an update broke the model.
const PROBE_TEXTS: usize = 16;

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
