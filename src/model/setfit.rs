//! Few examples of each label: the biases learn which texts have the same label, then a linear probe reads the label.
//!
//! The idea is SetFit's (Tunstall et al. 2022, arXiv 2209.11055): texts of one label are brought to cosine 1, texts of two
//! labels to 0. SetFit draws pairs and runs each text once for every pair; here each text of a batch runs once and is
//! compared with all others, which gives as many pairs for a tenth of the work.

use super::{Personal, shared};
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::task::Kind;
use crate::train::{self, Criterion, Head, Labelled, Progress, Report, TrainConfig};
use std::ops::ControlFlow;
use std::path::Path;

impl Personal {
    /// Trains the biases by comparing texts, then fits a linear probe; `config` is for the biases.
    ///
    /// Errors: those of [`Personal::train`]; another task than classify.
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
        let tuning = TrainConfig {
            class_weights: false,
            head: Head::Random,
            keep: Criterion::Last,
            patience: None,
            ..config.clone()
        };
        let tuned = shared::new_threads(self.threads())?
            .install(|| train::train(&tuner, &mut theta, &texts, None, &[], &tuning, &mut on_progress))?;
        if tuned.interrupted && tuned.kept == 0 {
            return Err(Error::Interrupted("no epoch was finished; nothing was written".into()));
        }
        self.theta[biases].copy_from_slice(&theta);
        self.theta = self.fit_head(train, config)?;
        let scores = dev.map(|dev| self.scores_of(&self.theta, dev)).transpose()?;
        let layout = self.wired.graph.layout();
        let trained_head = layout.head_weight().len() + layout.head_bias().len();
        let mut report = Report { trained_head, ..tuned };
        if let Some(last) = report.epochs.last_mut() {
            (last.dev, report.kept) = (scores, last.epoch);
        }
        self.finished_epoch = true;
        self.trained = Some(config.clone());
        // No times: the same seed, data and base give the same file.
        self.metrics = serde_json::json!(
            report
                .epochs
                .last()
                .map(|e| serde_json::json!({ "epoch": e.epoch, "train_loss": e.train_loss, "dev": e.dev }))
        );
        self.settings = serde_json::json!({
            "recipe": "setfit", "epochs": config.epochs, "lr": config.lr, "batch": config.batch, "seed": config.seed,
            "warmup": config.warmup, "clip": config.clip, "weight_decay": config.weight_decay,
            "examples": train.len(),
        });
        if let Some((scores, theta)) = before {
            (report.before, self.head_alone) = (Some(scores), Some(theta));
        }
        Ok(report)
    }

    /// All parameters, with a head fitted to what the encoder gives.
    fn fit_head(&self, train: &[Example], config: &TrainConfig) -> Result<Vec<f32>> {
        let data = self.encoded(train, false)?;
        let fitted = self.pool.install(|| train::fit_head(&self.wired.graph, &self.theta, &data, config))?;
        fitted.ok_or_else(|| Error::Diverged("no linear probe can be fitted to these examples".into()))
    }

    fn scores_of(&self, theta: &[f32], examples: &[Example]) -> Result<train::metrics::Metrics> {
        let data = self.encode(examples)?;
        self.pool.install(|| train::evaluate(&self.wired.graph, theta, &data, self.task.labels()))
    }
}
