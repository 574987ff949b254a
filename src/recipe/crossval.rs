//! Cross-validation: every example answered by a model that has not seen it, without setting a line aside for good.

use super::candidate::{Candidate, Tell};
use super::lines;
use super::settings::{Effort, Settings};
use crate::container;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::model::{Model, Options};
use crate::output;
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::train::metrics::Metrics;
use crate::train::{FOLD_PREFIX, HeldOut, Progress, TrainConfig, folds};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Fewest examples that are cross-validated.
pub(super) const EXAMPLES_MIN: usize = 10;
/// From this number of examples on, one fold has enough answers to score.
const MANY: usize = 4000;

/// How examples are divided.
pub(super) struct Folds {
    /// The fold of each example.
    of: Vec<usize>,
    /// Folds in all.
    pub all: usize,
    /// Folds that are scored, the first ones.
    pub scored: usize,
}

impl Folds {
    /// By effort and number of examples. Tasks whose answers cannot be joined over folds are scored on one.
    pub fn of(task: &Task, train: &[Example], effort: Effort) -> Folds {
        let joins = task.has_probe();
        let all = match effort {
            _ if train.len() >= MANY || !joins => 5,
            Effort::Thorough => 5,
            _ => 3,
        };
        let scored = if train.len() >= MANY || !joins { 1 } else { all };
        let keys: Vec<(folds::Key, folds::Stratum)> =
            train.iter().map(|e| key(task.kind(), e)).zip(strata(task, train, all)).collect();
        Folds { of: folds::deal(&keys, all), all, scored }
    }

    /// What a model of this fold is trained on, and the indices that it is scored on.
    pub fn split(&self, train: &[Example], fold: usize) -> (Vec<Example>, Vec<usize>) {
        let (out, learned): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(|&i| self.of[i] == fold);
        (learned.into_iter().map(|i| train[i].clone()).collect(), out)
    }
}

/// Questions on one text belong together.
fn key(kind: Kind, e: &Example) -> folds::Key {
    match (kind, &e.text_b) {
        (Kind::Qa, Some(context)) => Sha256::digest(context).into(),
        _ => lines::key(e),
    }
}

/// Labels by their number; numbers by their rank, a stratum for each run of neighbours.
fn strata(task: &Task, train: &[Example], folds: usize) -> Vec<folds::Stratum> {
    match task {
        Task::Classify(labels) => {
            data::label_ids(train, labels, Path::new("the examples")).unwrap_or(vec![0; train.len()])
        }
        Task::Regress => {
            let value =
                |e: &Example| e.label.as_deref().and_then(|l| l.trim().parse::<f64>().ok()).unwrap_or(0.0);
            let mut order: Vec<usize> = (0..train.len()).collect();
            order.sort_by(|&a, &b| {
                value(&train[a])
                    .total_cmp(&value(&train[b]))
                    .then_with(|| lines::key(&train[a]).cmp(&lines::key(&train[b])))
            });
            let mut strata = vec![0; train.len()];
            order.iter().enumerate().for_each(|(rank, &i)| strata[i] = rank / folds);
            strata
        }
        _ => vec![0; train.len()],
    }
}

/// Answers of one candidate over some folds.
pub(super) struct OutOfFold {
    /// Index of each scored example.
    pub which: Vec<usize>,
    /// The answers; `None` for tasks that are scored as a whole.
    pub answers: Option<HeldOut>,
    /// Their scores.
    pub metrics: Metrics,
    /// Scores of the model before training, for tasks without a probe.
    pub before: Option<Metrics>,
}

impl OutOfFold {
    /// Of one fold.
    pub fn fold(
        candidate: &Candidate,
        (base, task, settings): (&Base, &Task, &Settings),
        train: &[Example],
        folds: &Folds,
        fold: usize,
        tell: Tell,
    ) -> Result<OutOfFold> {
        let (learned, which) = folds.split(train, fold);
        let scored: Vec<Example> = which.iter().map(|&i| train[i].clone()).collect();
        let mut model = candidate.model(base, task, settings)?;
        let kept = Kept::place(candidate, base, train, fold);
        if let Some(kept) = kept.as_ref().and_then(Kept::read) {
            let targets = || model.encode(&scored).map(|data| data.into_iter().map(|d| d.target).collect());
            let answers = match kept.logits {
                Some(logits) => Some(HeldOut::new(logits, targets()?, task.labels(), model.graph().labels())),
                None => None,
            };
            return Ok(OutOfFold { which, answers, metrics: kept.metrics, before: kept.before });
        }
        let before = match task.has_probe() || *task == Task::Qa {
            true => None,
            false => Some(model.evaluate(&scored)?),
        };
        // A fold keeps no checkpoints: they are the final run's.
        let mut candidate = candidate.clone();
        candidate.config.checkpoints = None;
        let report = candidate.train(&mut model, &learned, None, &mut |p| match p {
            Progress::Step { .. } => tell(p),
            _ => ControlFlow::Continue(()),
        })?;
        if report.interrupted {
            return Err(Error::Interrupted("nothing was written".into()));
        }
        let answers = answers(&model, &scored)?;
        let metrics = match &answers {
            Some(answers) => answers.metrics(),
            None => model.evaluate(&scored)?,
        };
        if let Some(kept) = kept {
            let logits = answers.as_ref().map(|a| a.logits.clone());
            kept.write(&Stored {
                run: kept.run.clone(),
                logits,
                metrics: metrics.clone(),
                before: before.clone(),
            })?;
        }
        Ok(OutOfFold { which, answers, metrics, before })
    }

    /// Several folds as one, in the order of the examples.
    pub fn join(parts: Vec<OutOfFold>) -> Option<OutOfFold> {
        let mut parts = parts.into_iter();
        let first = parts.next()?;
        let Some(mut answers) = first.answers else { return Some(first) };
        let mut which = first.which;
        for part in parts {
            which.extend(part.which);
            if let Some(more) = part.answers {
                answers.logits.extend(more.logits);
                answers.targets.extend(more.targets);
            }
        }
        let mut order: Vec<usize> = (0..which.len()).collect();
        order.sort_by_key(|&i| which[i]);
        let answers = answers.some(&order);
        let which = order.iter().map(|&i| which[i]).collect();
        Some(OutOfFold { which, metrics: answers.metrics(), answers: Some(answers), before: first.before })
    }
}

/// The answers to examples, for tasks whose answers can be scored one by one.
pub(super) fn answers(model: &Model, examples: &[Example]) -> Result<Option<HeldOut>> {
    match model.task().has_probe() {
        true => model.answers(examples),
        false => Ok(None),
    }
}

/// A scored fold, kept beside the checkpoints so that a run that goes on does not score it again.
struct Kept {
    path: PathBuf,
    run: String,
    resume: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// What makes the fold this one and no other.
    run: String,
    logits: Option<Vec<Vec<f32>>>,
    metrics: Metrics,
    before: Option<Metrics>,
}

impl Kept {
    /// `None` for a run without checkpoints.
    fn place(candidate: &Candidate, base: &Base, train: &[Example], fold: usize) -> Option<Kept> {
        let checkpoints = candidate.config.checkpoints.as_ref()?;
        // What changes no result may be another.
        let config =
            TrainConfig { cut: None, prefix_cache: 0, checkpoints: None, ..candidate.config.clone() };
        let options = Options { threads: None, kernel: None, ..candidate.options.clone() };
        let mut sha = Sha256::new();
        sha.update(format!("{} {fold} {config:?} {options:?} {:?}\n", base.fingerprint(), candidate.method));
        for e in train {
            sha.update(format!("{:?} {:?} {:?} {:?} {:?}\n", e.text_a, e.text_b, e.label, e.asked, e.words));
        }
        let run: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
        let path = checkpoints.dir.join(format!("{FOLD_PREFIX}{}.json", &run[..16]));
        Some(Kept { path, run, resume: checkpoints.resume })
    }

    fn read(&self) -> Option<Stored> {
        let bytes = std::fs::read(&self.path).ok().filter(|_| self.resume)?;
        serde_json::from_slice::<Stored>(&bytes).ok().filter(|stored| stored.run == self.run)
    }

    /// Errors: [`Error::Io`]; better now than after a power cut.
    fn write(&self, stored: &Stored) -> Result<()> {
        let dir = container::folder_of(&self.path);
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let json = serde_json::to_vec(stored).map_err(|e| Error::Internal(format!("fold: {e}")))?;
        output::replace_file(&self.path, |file| file.write_all(&json).map_err(Error::io(&self.path)))
    }
}
