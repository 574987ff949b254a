//! The linear probe of a model: its head, fitted to what its encoder gives.

use super::{Model, Standardization};
use crate::data::Example;
use crate::error::{Error, Result};
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::train::{self, HeldOut, Report, TrainConfig};

impl Model {
    /// Answers of a linear probe to training examples in folds that the answering probe has not seen, and the index of each
    /// example, rising; of thousands some. `None` if the task has no probe.
    pub(crate) fn probe_answers(
        &self,
        examples: &[Example],
        config: &TrainConfig,
        folds: usize,
    ) -> Result<Option<(HeldOut, Vec<usize>)>> {
        let (data, _, unit) = self.in_units(examples, None)?;
        let graph = &self.wired.graph;
        let Some((probe, rows)) =
            self.pool.install(|| train::fit(graph, &self.theta, &data, config, folds))?
        else {
            return Ok(None);
        };
        let width = graph.labels();
        let (mut logits, mut targets, mut which) = (Vec::new(), Vec::new(), Vec::new());
        let each = rows.examples.iter().zip(rows.targets).zip(probe.answers.chunks_exact(width));
        for ((&example, target), said) in each {
            if which.last() == Some(&example) {
                continue;
            }
            which.push(example);
            match &data[example].target {
                Target::Tags(tags) => {
                    // All rows of the sentence follow one another, in the order of its tags.
                    let first = rows.examples.partition_point(|i| *i < example);
                    let last = tags.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
                    let mut all = vec![0.0; last * width];
                    for (i, (row, _)) in tags.iter().enumerate() {
                        let answer = &probe.answers[(first + i) * width..][..width];
                        all[row * width..][..width].copy_from_slice(answer);
                    }
                    logits.push(all);
                    targets.push(data[example].target.clone());
                }
                Target::Value(_) => {
                    logits.push(vec![unit.number(said[0])]);
                    let Target::Value(v) = target else { unreachable!("a number stays one") };
                    targets.push(Target::Value(unit.number(v)));
                }
                _ => {
                    logits.push(said.to_vec());
                    targets.push(target);
                }
            }
        }
        Ok(Some((HeldOut::new(logits, targets, self.task.labels(), width), which)))
    }

    /// Fits the head to the encoder as it is; the report has no epochs.
    ///
    /// Errors: a task without a probe; features that are not finite.
    pub(crate) fn train_probe(
        &mut self,
        examples: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
    ) -> Result<Report> {
        let (data, _, unit) = self.in_units(examples, None)?;
        let graph = &self.wired.graph;
        let fitted = self.pool.install(|| train::fit_head(graph, &self.theta, &data, config))?;
        let Some(mut theta) = fitted else {
            return Err(Error::Diverged("no linear probe can be fitted to these examples".into()));
        };
        let head = [graph.layout().head_weight(), graph.layout().head_bias()];
        let trained_head = head.iter().map(|range| range.len()).sum();
        let [weight, bias] = theta.get_disjoint_mut(head).expect("the layout has both apart");
        unit.leave(weight, bias);
        self.theta = theta;
        self.head_alone = Some(self.theta.clone());
        self.trained = Some(TrainConfig { terms: Terms::none(), layers: None, ..config.clone() });
        self.settings = serde_json::json!({ "recipe": "linear probe", "examples": examples.len() });
        self.note_pairs(examples);
        self.finished_epoch = true;
        let before = dev.map(|dev| self.evaluate(dev)).transpose()?;
        self.metrics =
            serde_json::json!(before.as_ref().map(|dev| serde_json::json!({ "epoch": 0, "dev": dev })));
        Ok(Report {
            before,
            head_alone: None,
            epochs: Vec::new(),
            kept: 0,
            steps: 0,
            trained_biases: 0,
            trained_head,
            train_s: 0.0,
            examples_per_s: 0.0,
            interrupted: false,
            stopped: None,
        })
    }
}

impl Standardization {
    /// A standardized number in the original units.
    fn number(&self, v: f32) -> f32 {
        (f64::from(v) * self.deviation + self.mean) as f32
    }
}
