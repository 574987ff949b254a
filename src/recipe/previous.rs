//! The bias file that a run would replace, and whether the new one is better.

use super::crossval;
use super::lines::Lines;
use crate::bias_file::BiasFile;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::model::{Model, Options};
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::train::metrics::Metrics;
use crate::train::{HeldOut, Interval};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Fewest examples on which two files are compared: of fewer the interval says nothing.
const COMPARED_MIN: usize = 10;

/// A bias file that is there already.
pub(super) struct Previous {
    model: Model,
    /// What it was trained on, if known.
    lines: Option<Lines>,
}

/// The file that was there, beside the new one, on examples that neither was trained on.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Examples that both answered.
    pub examples: usize,
    /// Scores of the file that was there.
    pub previous: Metrics,
    /// Scores of the new one on the same examples.
    pub new: Metrics,
    /// Where the lead of the file that was there lies.
    pub lead: Option<Interval>,
}

impl Comparison {
    /// Whether the file that was there stays: it is better, by more than the interval.
    pub fn keeps_previous(&self) -> bool {
        match self.lead {
            Some(lead) => lead.low > 0.0,
            None => self.previous.main() > self.new.main(),
        }
    }
}

/// Refuses to replace what is not this model's predecessor: another base's or task's bias file, or no bias file at all.
///
/// Errors: [`Error::Config`], naming what is there.
pub fn check_replaceable(base: &Base, path: &Path, kind: Kind) -> Result<()> {
    let refuse = |what: String| {
        let what = format!("{}: {what}; name another file, or force the replacement", path.display());
        Err(Error::Config(what))
    };
    match std::fs::metadata(path) {
        Err(_) => return Ok(()),
        Ok(m) if m.len() == 0 => return Ok(()),
        Ok(_) => {}
    }
    match BiasFile::open(path) {
        Err(_) => refuse("it is there and is not a bias file".into()),
        Ok(file) if file.base_fingerprint != base.fingerprint() => {
            refuse(format!("it belongs to another base (`{}`)", file.base_name))
        }
        Ok(file) if file.task.kind() != kind => {
            refuse(format!("it is there and is of task {}, not {kind}", file.task.kind()))
        }
        Ok(_) => Ok(()),
    }
}

impl Previous {
    /// What is at `path`; `None` if it cannot be compared with a model of this task.
    pub fn open(base: &Base, path: &Path, task: &Task, options: &Options) -> Option<Previous> {
        let model = Model::open(base, path, options).ok()?;
        (model.task().kind() == task.kind()).then(|| Previous { lines: Lines::read(path), model })
    }

    /// Whether its training examples are known.
    pub fn knows_lines(&self) -> bool {
        self.lines.is_some()
    }

    /// Compares it with new answers to `examples`, on those that it was not trained on and can read: a model of pairs reads no
    /// single texts, and a label may be new to it. `unseen` says that examples are taken for unseen if its lines are unknown.
    ///
    /// `None` if there are too few.
    pub fn compare(
        &self,
        examples: &[Example],
        answers: &HeldOut,
        unseen: bool,
    ) -> Result<Option<Comparison>> {
        let is_new = |e: &Example| self.lines.as_ref().map_or(unseen, |lines| !lines.has(e));
        let path = Path::new("the examples");
        let knows = |e: &[Example]| self.model.task().targets(e, path).is_ok();
        let reads = |e: &Example| {
            let e = std::slice::from_ref(e);
            knows(e) && self.model.encode(e).is_ok()
        };
        let which: Vec<usize> =
            (0..examples.len()).filter(|&i| is_new(&examples[i]) && reads(&examples[i])).collect();
        if which.len() < COMPARED_MIN {
            return Ok(None);
        }
        let some: Vec<Example> = which.iter().map(|&i| examples[i].clone()).collect();
        let Some(old) = crossval::answers(&self.model, &some)? else { return Ok(None) };
        let new = answers.some(&which);
        let lead = old.lead(&new);
        Ok(Some(Comparison {
            examples: which.len(),
            previous: old.metrics(),
            new: new.metrics(),
            lead: Some(lead),
        }))
    }

    /// The same by scores on the whole of `dev`, for tasks whose answers cannot be taken one by one. `None` if some of it
    /// was learned, or cannot be read.
    pub fn compare_scores(&self, dev: &[Example], new: &Metrics) -> Result<Option<Comparison>> {
        let learned = self.lines.as_ref().is_some_and(|lines| dev.iter().any(|e| lines.has(e)));
        if learned || self.model.encode(dev).is_err() {
            return Ok(None);
        }
        let previous = self.model.evaluate(dev)?;
        Ok(Some(Comparison { examples: dev.len(), previous, new: new.clone(), lead: None }))
    }
}

/// Where a model goes that is not better than what is at `path`: `me.bias.safetensors` to `me.new.bias.safetensors`.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, ending) = name.split_once('.').unwrap_or((&name, "bias.safetensors"));
    path.with_file_name(format!("{stem}.new.{ending}"))
}
