//! What a model answered on held-out examples, kept to compare it with another's answers.

use super::metrics::{self, Metrics};
use super::{Cut, Labelled, Output, evaluate};
use crate::error::Result;
use crate::graph::Graph;
use crate::ops::loss::{self, Target};
use crate::tokenize::Encoded;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Draws of the examples from which an interval is made.
const DRAWS: usize = 400;

/// The answers of one model to some examples.
pub struct HeldOut<'a> {
    outputs: Vec<Output>,
    targets: Vec<&'a Target>,
    width: usize,
    names: &'a [String],
}

/// Where a score lies with 95 % confidence, by drawing the examples again with replacement (Efron's bootstrap, percentiles):
/// what it would be on other examples of the same kind. It says nothing of other training runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl<'a> HeldOut<'a> {
    /// The answers of `theta`; `names` are those of the head's outputs, `cut` goes by the threads where there is none. `None` where an answer is not one of one text:
    /// of questions and of pairs.
    pub fn of(
        graph: &Graph,
        theta: &[f32],
        data: &'a [Labelled],
        names: &'a [String],
        cut: Option<Cut>,
    ) -> Result<Option<HeldOut<'a>>> {
        if data.iter().any(|d| !evaluate::can_be_fitted(&d.target)) {
            return Ok(None);
        }
        let texts: Vec<&Encoded> = data.iter().map(|d| &d.text).collect();
        let cut = cut.unwrap_or(Cut::of_threads(rayon::current_num_threads()));
        let outputs = evaluate::forward_cut(graph, theta, &texts, cut, None)?;
        Ok(Some(HeldOut {
            outputs,
            targets: data.iter().map(|d| &d.target).collect(),
            width: graph.labels(),
            names,
        }))
    }

    /// Their scores.
    pub fn metrics(&self) -> Metrics {
        let total = loss::total_weight(self.targets.iter().copied(), None);
        let one = |((y, _), t): (&Output, &&Target)| loss::weight(t, None) * loss::of_text(y, self.width, t);
        let loss = self.outputs.iter().zip(&self.targets).map(one).sum::<f64>() / total;
        self.of_draw(&(0..self.outputs.len()).collect::<Vec<_>>(), loss)
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
        let answers = draw.iter().map(|&i| (&self.outputs[i].0[..], self.targets[i]));
        metrics::of(answers, self.width, self.names, loss)
    }

    fn drawn(&self, score: impl Fn(&[usize]) -> f64) -> Interval {
        let n = self.outputs.len();
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

    fn answers<'a>(says: &[usize], targets: &'a [Target], names: &'a [String]) -> HeldOut<'a> {
        let one = |s: &usize| (vec![f32::from(*s == 0), f32::from(*s == 1)], vec![]);
        HeldOut {
            outputs: says.iter().map(one).collect(),
            targets: targets.iter().collect(),
            width: 2,
            names,
        }
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
