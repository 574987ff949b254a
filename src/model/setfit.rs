//! Few examples of each label: the biases learn which texts have the same label, and then to answer.
//!
//! The idea is SetFit's (Tunstall et al. 2022, arXiv 2209.11055): texts of one label are brought to cosine 1, texts of two
//! labels to 0. SetFit draws pairs and runs each text once for every pair; here each text of a batch runs once and is
//! compared with all others, which gives as many pairs for a tenth of the work. Then a linear probe is fitted to the tuned
//! encoder, and both are trained as usual, with small steps.

use super::{Model, shared};
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::task::Kind;
use crate::train::{self, Checkpoints, Criterion, Head, Labelled, Progress, Report, TrainConfig};
use std::ops::ControlFlow;
use std::path::Path;

/// Comparing, and answering: in half as many epochs, at a third of the learning rate, from a linear probe.
pub(crate) fn setfit_phases(config: &TrainConfig) -> [TrainConfig; 2] {
    let comparing = TrainConfig {
        class_weights: false,
        head: Head::Random,
        keep: Criterion::Last,
        patience: None,
        checkpoints: config.checkpoints.as_ref().map(Checkpoints::within),
        ..config.clone()
    };
    let answering = TrainConfig {
        epochs: config.epochs.div_ceil(2),
        batch: config.batch.div_ceil(2),
        lr: config.lr / 3.0,
        head: Head::Fitted,
        ..config.clone()
    };
    [comparing, answering]
}

impl Model {
    /// Trains the biases by comparing texts, fits a linear probe, and trains both to answer.
    ///
    /// The report is of the second phase, with the steps and the time of both.
    ///
    /// Errors: those of [`Model::train`]; another task than classify.
    pub fn train_setfit(
        &mut self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
        mut on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send,
    ) -> Result<Report> {
        if self.pooling == Pooling::Apart {
            return Err(Error::Config("setfit compares whole examples: pool cls or mean".into()));
        }
        if self.task.kind() != Kind::Classify || config.terms == Terms::none() {
            return Err(Error::Config("setfit is for classify, with biases to train".into()));
        }
        let labels = data::label_ids(train, self.task.labels(), Path::new("the examples"))?;
        let texts = self.encode_texts(train)?.into_iter().zip(labels);
        let texts: Vec<Labelled> = texts
            .map(|((text, _), label)| Labelled {
                text,
                target: Target::Class(label),
                partner: None,
                part: None,
            })
            .collect();
        let rates = DropoutRates { head: 0.0, encoder: self.wired.graph.emb_ln.dropout.p };
        let tuner = Graph::new(&self.base, self.wired.graph.numerics().clone(), self.pooling, 0, rates)?;
        // The head comes last in a layout: what stands before it is the same in both.
        let biases = 0..self.wired.graph.layout().head_weight().start;
        let mut theta = self.theta[biases.clone()].to_vec();
        let before = dev.map(|dev| Ok((self.fit_head(train, config)?, dev))).transpose()?;
        let before = before.map(|(theta, dev)| Ok((self.scores_of(&theta, dev)?, theta))).transpose()?;
        let [tuning, answering] = setfit_phases(config);
        let tuned = shared::new_threads(self.threads())?.install(|| {
            let mut steps = |p: Progress| match p {
                Progress::Step { .. } => on_progress(p),
                _ => ControlFlow::Continue(()),
            };
            train::train(&tuner, &mut theta, &texts, None, &[], &tuning, &mut steps)
        })?;
        if tuned.interrupted {
            return Err(Error::Interrupted("there is no head yet; nothing was written".into()));
        }
        self.theta[biases].copy_from_slice(&theta);
        let mut report = self.train(train, dev, &answering, &mut on_progress)?;
        report.steps += tuned.steps;
        report.train_s += tuned.train_s;
        self.settings["recipe"] = "setfit".into();
        // If no epoch was better than the probe above the tuned encoder, that one is what comes before.
        if let Some((scores, theta)) = before.filter(|_| report.kept > 0) {
            (report.before, self.head_alone) = (Some(scores), Some(theta));
        }
        Ok(report)
    }

    /// All parameters, with a head fitted to what the encoder gives.
    fn fit_head(&self, train: &[Example], config: &TrainConfig) -> Result<Vec<f32>> {
        let data = self.encoded(train, None)?;
        let fitted = self.pool.install(|| train::fit_head(&self.wired.graph, &self.theta, &data, config))?;
        fitted.ok_or_else(|| Error::Diverged("no linear probe can be fitted to these examples".into()))
    }

    fn scores_of(&self, theta: &[f32], examples: &[Example]) -> Result<train::metrics::Metrics> {
        let data = self.encode(examples)?;
        let names = self.task.unseen(examples).all_names(&self.task);
        self.pool.install(|| train::evaluate(&self.wired.graph, theta, &data, &names))
    }
}
