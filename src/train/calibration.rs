//! Probabilities that mean what they say, fitted to answers that a model gave to examples it was not trained on.
//!
//! One temperature divides all logits (Guo et al. 2017, arXiv 1706.04599). It is folded into the head, so that exports and
//! PyTorch give the same probabilities; labels do not change. The same answers tell how often an answer of a given
//! confidence is right, from which `not sure` is decided.

use super::{HeldOut, largest};
use crate::ops::loss::{self, Target};
use serde::{Deserialize, Serialize};

/// Bounds of the temperature: beyond them there is too little to fit it to.
const TEMPERATURES: (f64, f64) = (0.25, 8.0);
/// Fewest answers that a temperature is fitted to.
const ANSWERS_MIN: usize = 20;
/// Points of a [`Curve`].
const POINTS: usize = 64;

/// The answers without those to labels that are there once: no model could have learned these from the others, but the model
/// of all examples has.
pub fn learnable(answers: &HeldOut) -> HeldOut {
    let label = |t: &Target| if let Target::Class(label) = t { Some(*label) } else { None };
    let mut counts = vec![0usize; answers.width()];
    answers.targets.iter().filter_map(label).for_each(|label| counts[label] += 1);
    let is_learnable = |i: &usize| label(&answers.targets[*i]).is_none_or(|label| counts[label] > 1);
    answers.some(&(0..answers.targets.len()).filter(is_learnable).collect::<Vec<_>>())
}

/// The temperature with the lowest loss, by golden-section search over its logarithm. `None` for answers without
/// probabilities, or too few of them.
pub fn temperature(answers: &HeldOut) -> Option<f64> {
    let has_probabilities = |t: &Target| matches!(t, Target::Class(_) | Target::Labels(_) | Target::Tags(_));
    if answers.targets.len() < ANSWERS_MIN || !answers.targets.iter().all(has_probabilities) {
        return None;
    }
    let of = |log: f64| answers.loss(libm::exp(log));
    let golden = (libm::sqrt(5.0) - 1.0) / 2.0;
    let (mut low, mut high) = (libm::log(TEMPERATURES.0), libm::log(TEMPERATURES.1));
    let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_a, mut at_b) = (of(a), of(b));
    for _ in 0..24 {
        if at_a <= at_b {
            (high, b, at_b) = (b, a, at_a);
            a = high - golden * (high - low);
            at_a = of(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + golden * (high - low);
            at_b = of(b);
        }
    }
    Some(libm::exp((low + high) / 2.0))
}

/// Divides the logits of all answers.
pub fn divide(answers: &mut HeldOut, temperature: f64) {
    let divide = |v: &mut f32| *v = (f64::from(*v) / temperature) as f32;
    answers.logits.iter_mut().flatten().for_each(divide);
}

/// One point of a [`Curve`]: answers of at least this confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Least confidence.
    pub confidence: f64,
    /// Share of these answers that are right.
    pub precision: f64,
    /// Share of all texts that are answered with it.
    pub share: f64,
}

/// How precise the most confident answers are, from few to all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve(pub Vec<Point>);

impl Curve {
    /// Of answers of one label a text. `None` for other answers, and for too few.
    pub fn of(answers: &HeldOut) -> Option<Curve> {
        let mut said = Vec::new();
        for (y, target) in answers.logits.iter().zip(&answers.targets) {
            let Target::Class(wanted) = target else { return None };
            let best = largest(y);
            said.push((loss::softmax(y)[best], best == *wanted));
        }
        let n = said.len();
        if n < ANSWERS_MIN {
            return None;
        }
        said.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut right, mut told) = (0, 0);
        let mut points = Vec::new();
        for (i, (confidence, is_right)) in said.iter().enumerate() {
            right += usize::from(*is_right);
            let done = i + 1;
            let is_last_of_equals = said.get(done).is_none_or(|next| next.0 < *confidence);
            if is_last_of_equals && (done * POINTS / n > told * POINTS / n || done == n) {
                told = done;
                points.push(Point {
                    confidence: *confidence,
                    precision: right as f64 / done as f64,
                    share: done as f64 / n as f64,
                });
            }
        }
        Some(Curve(points))
    }

    /// The point with the most answers whose precision is at least `least`. `None` if there is none.
    pub fn at(&self, least: f64) -> Option<Point> {
        self.0.iter().rev().find(|p| p.precision >= least).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logits say `gap`, but only the share `sigmoid(gap / hot)` of the answers is right.
    fn answers(gaps: &[f32], hot: f64) -> HeldOut {
        let names = ["a".to_owned(), "b".to_owned()];
        let (mut logits, mut targets) = (vec![], vec![]);
        for gap in gaps {
            let p = 1.0 / (1.0 + libm::exp(-f64::from(*gap) / hot));
            for i in 0..1000 {
                logits.push(vec![*gap, 0.0]);
                targets.push(Target::Class(usize::from(f64::from(i) >= 1000.0 * p)));
            }
        }
        HeldOut::new(logits, targets, &names, 2)
    }

    #[test]
    fn the_temperature_is_found_and_undone() {
        for hot in [0.5, 1.0, 3.0] {
            let mut some = answers(&[0.25, 0.5, 1.0, 1.5], hot);
            let found = temperature(&some).unwrap();
            assert!((found / hot - 1.0).abs() < 0.05, "{found}, not {hot}");
            let before = some.loss(found);
            divide(&mut some, found);
            assert!((some.loss(1.0) - before).abs() < 1e-6);
        }
        assert_eq!(
            temperature(&HeldOut::new(vec![vec![1.0, 0.0]; 3], vec![Target::Class(0); 3], &[], 2)),
            None
        );
    }

    #[test]
    fn labels_that_are_there_once_do_not_count() {
        let targets = [0, 0, 1, 2, 2].map(Target::Class).to_vec();
        let some = learnable(&HeldOut::new(vec![vec![0.0; 3]; 5], targets, &[], 3));
        assert_eq!(some.targets, [0, 0, 2, 2].map(Target::Class));
        let numbers = HeldOut::new(vec![vec![0.5]; 2], vec![Target::Value(1.0); 2], &[], 1);
        assert_eq!(learnable(&numbers).targets.len(), 2);
    }

    #[test]
    fn a_curve_falls_from_few_sure_answers_to_all() {
        let curve = Curve::of(&answers(&[0.0, 1.0, 4.0], 1.0)).unwrap();
        let all = curve.0.last().unwrap();
        assert_eq!(all.share, 1.0);
        let sure = curve.at(0.95).unwrap();
        assert!((sure.share - 1.0 / 3.0).abs() < 0.01 && sure.confidence > 0.97, "{sure:?}");
        assert!(curve.at(0.999).is_none());
        assert_eq!(curve.at(0.0), Some(*all));
    }
}
