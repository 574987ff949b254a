//! The SetFit recipe (Tunstall et al. 2022, arXiv 2209.11055): with few examples a text, learn from pairs of them.
//!
//! Every example meets [`MEETINGS`] others of its label and as many of other labels. The biases learn to bring the first
//! to cosine 1 and the others to 0, once over all pairs; then the head learns on the vectors that come of it, which no
//! longer change.

use super::{Personal, shared};
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::ops::loss::Target;
use crate::params::Terms;
use crate::task::Kind;
use crate::tokenize::Encoded;
use crate::train::{self, Criterion, Head, Labelled, Progress, Report, TrainConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;
use std::path::Path;

/// Pairs of each kind that an example is the first text of (SetFit's `num_iterations`).
const MEETINGS: usize = 20;
/// Most pairs: with thousands of examples each meets fewer.
const PAIRS_MAX: usize = 1 << 13;
/// Steps of the head, which cost next to nothing: its vectors are kept.
const HEAD_STEPS: usize = 600;
/// The head's learning rate.
const HEAD_LR: f64 = 1e-2;

impl Personal {
    /// Trains the biases on pairs made of the labels, then the head; `config` is for the biases, but for its epochs: one
    /// pass, of as many pairs as SetFit takes.
    ///
    /// The report is of the head's epochs, with the time and the biases of both. Errors: those of [`Personal::train`];
    /// another task than classify.
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
        let texts: Vec<Encoded> = self.encode_texts(train)?.into_iter().map(|(text, _)| text).collect();
        let pairs = pairs(&texts, &labels, config.seed);
        let rates = DropoutRates { head: 0.0, encoder: self.wired.graph.emb_ln.dropout.p };
        let tuner = Graph::new(&self.base, self.wired.graph.numerics().clone(), self.pooling, 0, rates)?;
        // The head comes last in a layout: what stands before it is the same in both.
        let biases = 0..self.wired.graph.layout().head_weight().start;
        let mut theta = self.theta[biases.clone()].to_vec();
        // What the encoder as it came gives a head: below, one is fitted to the tuned encoder.
        let alone = match dev {
            Some(_) => {
                let data = self.encoded(train, false)?;
                self.pool.install(|| train::fit_head(&self.wired.graph, &self.theta, &data, config))?
            }
            None => None,
        };
        let once = TrainConfig {
            epochs: 1,
            class_weights: false,
            head: Head::Random,
            keep: Criterion::Last,
            ..config.clone()
        };
        let tuned = shared::new_threads(self.threads())?
            .install(|| train::train(&tuner, &mut theta, &pairs, None, &[], &once, &mut on_progress))?;
        if tuned.interrupted {
            return Err(Error::Interrupted("there is no head yet; nothing was written".into()));
        }
        self.theta[biases].copy_from_slice(&theta);
        let head = TrainConfig {
            terms: Terms::none(),
            layers: None,
            epochs: (HEAD_STEPS * config.batch).div_ceil(train.len().max(1)).clamp(4, 400),
            lr: HEAD_LR,
            head: Head::Random,
            patience: None,
            ..config.clone()
        };
        let report = self.train(train, dev, &head, |p| match p {
            Progress::Epoch(_) => ControlFlow::Continue(()),
            step => on_progress(step),
        })?;
        self.head_alone = alone;
        self.trained = Some(config.clone());
        self.settings = serde_json::json!({
            "recipe": "setfit", "pairs": pairs.len(), "lr": config.lr, "batch": config.batch, "seed": config.seed,
            "warmup": config.warmup, "clip": config.clip, "weight_decay": config.weight_decay,
            "examples": train.len(),
        });
        let train_s = tuned.train_s + report.train_s;
        Ok(Report {
            trained_biases: tuned.trained_biases,
            train_s,
            examples_per_s: tuned.examples_per_s,
            ..report
        })
    }
}

/// Each example with others of its label, target 1, and of other labels, target 0.
fn pairs(texts: &[Encoded], labels: &[usize], seed: u64) -> Vec<Labelled> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let meetings = (PAIRS_MAX / (2 * texts.len().max(1))).clamp(1, MEETINGS);
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| labels[i]);
    let mut pairs = Vec::new();
    let mut start = 0;
    for group in order.chunk_by(|&i, &j| labels[i] == labels[j]) {
        for (at, &i) in group.iter().enumerate() {
            let mut meet = |j: usize, target: f32| {
                let (text, partner) = (texts[i].clone(), Some(texts[j].clone()));
                pairs.push(Labelled { text, target: Target::Value(target), partner, part: None });
            };
            // One of so many numbers, on every platform the same.
            let mut one_of = |n: usize| rng.random_range(0..n as u32) as usize;
            let (friends, others) = (group.len() - 1, order.len() - group.len());
            for _ in 0..meetings {
                if friends > 0 {
                    let k = one_of(friends);
                    meet(group[k + usize::from(k >= at)], 1.0);
                }
                if others > 0 {
                    let k = one_of(others);
                    meet(order[if k < start { k } else { k + group.len() }], 0.0);
                }
            }
        }
        start += group.len();
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_meets_friends_and_others() {
        let labels = [0, 1, 0, 2, 1, 0];
        let texts: Vec<Encoded> = (0..6).map(|i| Encoded::plain(vec![i])).collect();
        let pairs = pairs(&texts, &labels, 3);
        let of = |text: &Encoded| text.ids[0] as usize;
        for (i, label) in labels.iter().enumerate() {
            let mut met = [0, 0];
            for pair in pairs.iter().filter(|p| of(&p.text) == i) {
                let j = of(pair.partner.as_ref().unwrap());
                let same = labels[j] == *label;
                assert!(i != j && pair.target == Target::Value(f32::from(u8::from(same))), "{i} {j}");
                met[usize::from(same)] += 1;
            }
            let friends = if *label == 2 { 0 } else { MEETINGS };
            assert_eq!(met, [MEETINGS, friends], "example {i}: alone in its label it meets others only");
        }
        let many = vec![texts[0].clone(); PAIRS_MAX];
        assert_eq!(
            super::pairs(&many, &vec![0; PAIRS_MAX], 0).len(),
            PAIRS_MAX,
            "one each, all of one label"
        );
        assert!(super::pairs(&[], &[], 0).is_empty());
    }
}
