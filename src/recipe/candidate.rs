//! One way to train, as a run may choose it.

use super::settings::Settings;
use crate::config::Pooling;
use crate::data::Example;
use crate::error::Result;
use crate::model::{Model, Options, setfit_phases};
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::train::{Head, Progress, Report, Schedule, TrainConfig};
use std::ops::ControlFlow;

/// Fewer single texts of each label than this are learned from by SetFit. On the development sets of `benches/learn.py` it
/// gained 3 points at 8 of each label.
const SETFIT_BELOW: usize = 10;
/// With more labels it gained nothing.
const SETFIT_LABELS_MAX: usize = 9;

/// Where progress goes; `Break` ends the run.
pub(super) type Tell<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

/// How the values are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Gradient steps on biases and head.
    Steps,
    /// Biases by comparing texts first, then as usual (SetFit).
    Setfit,
    /// The head alone, solved to convergence.
    Probe,
}

/// One way to train.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// As it is named to people.
    pub name: String,
    pub options: Options,
    pub config: TrainConfig,
    pub method: Method,
}

impl Candidate {
    /// What the settings ask for, on this number of examples.
    pub fn of(
        settings: &Settings,
        task: &Task,
        base: &Base,
        options: &Options,
        train: &[Example],
    ) -> Candidate {
        let pooling = options.pooling.unwrap_or(base.pooling());
        let setfit = settings.setfit || (settings.may_choose_method() && Self::has_few(task, train));
        let (labels, course) = match setfit {
            true => (0, Schedule::Compared),
            false => (task.labels().len(), Schedule::of(task, pooling)),
        };
        let (method, name) = match () {
            _ if setfit => (Method::Setfit, "SetFit"),
            _ if settings.is_probe() && task.has_probe() => (Method::Probe, "linear probe"),
            _ => (Method::Steps, "biases"),
        };
        let config = settings.config(train.len(), labels, course);
        Candidate { name: name.into(), options: options.clone(), config, method }
    }

    /// Whether SetFit is better than ordinary steps: a few labels with a few single texts each.
    fn has_few(task: &Task, train: &[Example]) -> bool {
        let labels = task.labels().len();
        task.kind() == Kind::Classify
            && labels <= SETFIT_LABELS_MAX
            && train.len() < SETFIT_BELOW * labels
            && train.iter().all(|e| e.text_b.is_none())
    }

    /// Other learning rates, no dropout, a fitted head: what `thorough` tries beside the first.
    pub fn variants(&self, settings: &Settings) -> Vec<Candidate> {
        let mut all = Vec::new();
        if self.method != Method::Steps {
            return all;
        }
        let mut add = |name: String, change: &dyn Fn(&mut Candidate)| {
            let mut other = Candidate { name, ..self.clone() };
            change(&mut other);
            all.push(other);
        };
        if settings.lr.is_none() {
            for factor in [0.5, 2.0] {
                let lr = factor * self.config.lr;
                add(format!("learning rate {lr}"), &|c| c.config.lr = lr);
            }
        }
        if settings.encoder_dropout.is_none() && self.options.encoder_dropout > 0.0 {
            add("no encoder dropout".into(), &|c| c.options.encoder_dropout = 0.0);
        }
        if settings.head.is_none()
            && self.config.head == Head::Random
            && self.options.pooling != Some(Pooling::Apart)
        {
            add("head from the linear probe".into(), &|c| {
                (c.config.head, c.config.lr) = (Head::Fitted, c.config.lr / 2.0);
            });
        }
        all
    }

    /// Steps that it takes on this number of examples.
    pub fn steps(&self, examples: usize) -> usize {
        let of = |c: &TrainConfig| examples.div_ceil(c.batch).saturating_mul(c.epochs);
        match self.method {
            Method::Probe => 0,
            Method::Steps => of(&self.config),
            Method::Setfit => setfit_phases(&self.config).iter().map(of).fold(0, usize::saturating_add),
        }
    }

    /// A model of its own, not trained yet.
    pub fn model(&self, base: &Base, task: &Task, settings: &Settings) -> Result<Model> {
        let mut model = Model::new(base, task.clone(), &self.options)?;
        if let Some(start) = &settings.start {
            model.start_from(start)?;
        }
        Ok(model)
    }

    /// Trains it.
    pub fn train(
        &self,
        model: &mut Model,
        train: &[Example],
        dev: Option<&[Example]>,
        tell: Tell,
    ) -> Result<Report> {
        match self.method {
            Method::Steps => model.train(train, dev, &self.config, tell),
            Method::Setfit => model.train_setfit(train, dev, &self.config, tell),
            Method::Probe => model.train_probe(train, dev, &self.config),
        }
    }
}
