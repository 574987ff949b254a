//! What a model answered to labelled examples that it was not trained on, to score it and to compare it with another.

use super::metrics::{self, Metrics};
use super::{Labelled, MicroBatching, evaluate, forward};
use crate::error::Result;
use crate::graph::Graph;
use crate::ops::loss::{self, Target};
use crate::tokenize::Encoded;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Draws of the examples from which an interval is made.
const DRAWS: usize = 400;

/// The answers of one model, or of the models of several folds, to some examples.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// Logits of each example, `[outputs]`, or of each of its tokens, `[tokens, outputs]`.
    pub logits: Vec<Vec<f32>>,
    /// What they should say.
    pub targets: Vec<Target>,
    /// Names of the outputs, and behind them of labels that the model does not know and that targets name.
    pub names: Vec<String>,
    width: usize,
}

/// Where a score lies with 95 % confidence, by drawing the examples again with replacement (Efron's bootstrap, percentiles):
/// the range of scores on other examples of the same kind. It does not cover the variation between training runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl HeldOut {
    /// Answers that are at hand; `width` is the number of outputs.
    pub fn new(logits: Vec<Vec<f32>>, targets: Vec<Target>, names: &[String], width: usize) -> HeldOut {
        HeldOut { logits, targets, names: names.to_vec(), width }
    }

    /// The answers of `theta`; `names` are as of [`HeldOut::names`], `cut` follows the number of threads if `None`.
    /// `None` for tasks whose answer is not one of one text: questions and pairs.
    pub fn of(
        graph: &Graph,
        theta: &[f32],
        data: &[Labelled],
        names: &[String],
        cut: Option<MicroBatching>,
    ) -> Result<Option<HeldOut>> {
        if data.iter().any(|d| !evaluate::can_be_fitted(&d.target)) {
            return Ok(None);
        }
        let texts: Vec<&Encoded> = data.iter().map(|d| &d.text).collect();
        let cut = cut.unwrap_or(MicroBatching::of_threads(rayon::current_num_threads()));
        let outputs = forward::forward_cut(graph, theta, &texts, cut, None)?;
        let logits = outputs.into_iter().map(|(logits, _)| logits).collect();
        let targets = data.iter().map(|d| d.target.clone()).collect();
        Ok(Some(HeldOut::new(logits, targets, names, graph.labels())))
    }

    /// Number of outputs of the head.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The answers to some of the examples.
    pub fn some(&self, which: &[usize]) -> HeldOut {
        let logits = which.iter().map(|&i| self.logits[i].clone()).collect();
        let targets = which.iter().map(|&i| self.targets[i].clone()).collect();
        HeldOut::new(logits, targets, &self.names, self.width)
    }

    /// Their scores.
    pub fn metrics(&self) -> Metrics {
        self.of_draw(&(0..self.logits.len()).collect::<Vec<_>>(), self.loss(1.0))
    }

    /// Mean loss, with the logits divided by a temperature.
    pub fn loss(&self, temperature: f64) -> f64 {
        if temperature == 1.0 {
            return loss::scored(self.logits.iter().map(|y| &y[..]).zip(&self.targets), self.width);
        }
        let total: f64 = self.targets.iter().map(|t| loss::scored_weight(t, self.width)).sum();
        let one = |(y, t): (&Vec<f32>, &Target)| {
            let y: Vec<f32> = y.iter().map(|v| (f64::from(*v) / temperature) as f32).collect();
            loss::scored_weight(t, self.width) * loss::of_text(&y, self.width, t)
        };
        self.logits.iter().zip(&self.targets).map(one).sum::<f64>() / if total > 0.0 { total } else { 1.0 }
    }

    /// Where the main score lies.
    pub fn interval(&self) -> Interval {
        self.drawn(|draw| self.of_draw(draw, 0.0).main())
    }

    /// Where the main score's lead over that of another model's answers to the same examples lies.
    pub fn lead(&self, other: &HeldOut) -> Interval {
        self.drawn(|draw| self.of_draw(draw, 0.0).main() - other.of_draw(draw, 0.0).main())
    }

    fn of_draw(&self, draw: &[usize], loss: f64) -> Metrics {
        let answers = draw.iter().map(|&i| (&self.logits[i][..], &self.targets[i]));
        metrics::of(answers, self.width, &self.names, loss)
    }

    fn drawn(&self, score: impl Fn(&[usize]) -> f64) -> Interval {
        let n = self.logits.len();
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        let mut draw = vec![0; n];
        let mut scores: Vec<f64> = (0..DRAWS)
            .map(|_| {
                draw.fill_with(|| rng.random_range(0..n));
                score(&draw)
            })
            .collect();
        scores.sort_by(f64::total_cmp);
        Interval { low: scores[DRAWS / 40], high: scores[DRAWS - 1 - DRAWS / 40] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(says: &[usize], targets: &[Target], names: &[String]) -> HeldOut {
        let one = |s: &usize| vec![f32::from(*s == 0), f32::from(*s == 1)];
        HeldOut::new(says.iter().map(one).collect(), targets.to_vec(), names, 2)
    }

    #[test]
    fn intervals() {
        let targets: Vec<Target> = (0..100).map(|i| Target::Class(i % 2)).collect();
        let names = ["a".to_owned(), "b".to_owned()];
        let right: Vec<usize> = (0..100).map(|i| i % 2).collect();
        // One in five is wrong: of 100, sqrt(0.8 · 0.2 / 100) = 0.04 is the standard error.
        let most: Vec<usize> = (0..100).map(|i| (i + usize::from(i % 5 == 0)) % 2).collect();
        let (right, most) = (answers(&right, &targets, &names), answers(&most, &targets, &names));
        assert_eq!(right.interval(), Interval { low: 1.0, high: 1.0 });
        let i = most.interval();
        assert!((0.69..0.75).contains(&i.low) && (0.85..0.90).contains(&i.high), "{i:?}");
        let lead = right.lead(&most);
        assert!((0.10..0.15).contains(&lead.low) && (0.24..0.31).contains(&lead.high), "{lead:?}");
        assert_eq!(most.lead(&most), Interval { low: 0.0, high: 0.0 });
        assert!((most.metrics().main() - 0.8).abs() < 1e-12);
    }
}
