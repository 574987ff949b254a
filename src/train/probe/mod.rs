//! Linear probes: a head fitted to the vectors that the frozen encoder gives, without touching a bias.
//!
//! A probe is the baseline that trained biases must beat, and one of the heads that training can start from (LP-FT,
//! Kumar et al. 2022, arXiv 2202.10054). For labels it is logistic regression, for numbers ridge regression; both choose
//! their own penalty by answers to rows that the probe has not seen, and hand these answers out.

mod cholesky;
mod features;
mod logistic;
mod ridge;

use crate::ops::loss::Target;
use features::Features;
use tract_core::prelude::tract_ndarray::Array2;

/// A fitted head.
#[derive(Debug)]
pub struct Probe {
    /// `[outputs, hidden]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// Mean loss of [`Probe::answers`].
    pub loss: f64,
    /// `[rows, outputs]`: logits, or the number, of each row by a probe that has not seen the row's fold (labels) or the
    /// row itself (numbers).
    pub answers: Vec<f32>,
}

/// What labels mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One label a row: softmax.
    Class,
    /// Any number of labels a row: a sigmoid each.
    Labels,
}

impl Kind {
    /// Loss of one row's logits.
    fn loss(self, logits: &[f64], y: &[f64]) -> f64 {
        match self {
            Kind::Class => {
                let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|v| libm::exp(v - max)).sum();
                let wanted: f64 = logits.iter().zip(y).map(|(v, y)| v * y).sum();
                max + libm::log(sum) - wanted
            }
            Kind::Labels => {
                let one = |(v, y): (&f64, &f64)| v.max(0.0) - v * y + libm::log1p(libm::exp(-v.abs()));
                logits.iter().zip(y).map(one).sum()
            }
        }
    }

    /// Turns one row's logits into `share` times the gradient of its loss.
    fn gradient(self, logits: &mut [f64], y: &[f64], share: f64) {
        match self {
            Kind::Class => {
                let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                logits.iter_mut().for_each(|v| *v = libm::exp(*v - max));
                let sum: f64 = logits.iter().sum();
                logits.iter_mut().zip(y).for_each(|(v, y)| *v = share * (*v / sum - y));
            }
            Kind::Labels => {
                let one = |v: f64| 1.0 / (1.0 + libm::exp(-v));
                logits.iter_mut().zip(y).for_each(|(v, y)| *v = share * (one(*v) - y));
            }
        }
    }
}

/// Fits a probe to features `x: [rows, hidden]` and one target a row: classes, labels or numbers. `folds: [rows]` numbers
/// the fold of each row, from 0.
///
/// `None` if there is nothing to fit: no rows, features that are not finite, or targets of another kind.
pub fn fit(x: Array2<f32>, targets: &[Target], outputs: usize, folds: &[usize]) -> Option<Probe> {
    let (rows, _) = x.dim();
    if rows == 0 || x.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let mut y = vec![0.0; rows * outputs];
    let mut kind = None;
    for (y, target) in y.chunks_exact_mut(outputs).zip(targets) {
        kind = match target {
            Target::Class(label) => {
                y[*label] = 1.0;
                Some(Kind::Class)
            }
            Target::Labels(wanted) => {
                y.iter_mut().zip(wanted).for_each(|(y, w)| *y = f64::from(u8::from(*w)));
                Some(Kind::Labels)
            }
            Target::Value(v) => {
                y[0] = f64::from(*v);
                None
            }
            _ => return None,
        }
    }
    let features = Features::of(x);
    match kind {
        Some(kind) => {
            let probe = logistic::fit(&features, &y, outputs, kind, folds)?;
            // As [`crate::ops::loss::of_text`] has it: the mean over the labels.
            let labels = if kind == Kind::Labels { outputs as f64 } else { 1.0 };
            Some(Probe { loss: probe.loss / labels, ..probe })
        }
        None => ridge::fit(&features, &y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first feature tells the answer, the second nothing, and the third is always the same.
    fn features(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 3), |(r, c)| match c {
            0 => (r % 2) as f32 + 0.1 * ((r * 7 % 5) as f32),
            1 => (r * 13 % 11) as f32,
            _ => 4.0,
        })
    }

    fn folds(rows: usize) -> Vec<usize> {
        (0..rows).map(|r| r / 2 % 5).collect()
    }

    fn answer(probe: &Probe, x: &[f32], output: usize) -> f64 {
        let w = &probe.weight[output * x.len()..][..x.len()];
        f64::from(probe.bias[output]) + w.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>()
    }

    #[test]
    fn what_can_be_told_is_told() {
        let x = features(40);
        let classes: Vec<Target> = (0..40).map(|r| Target::Class(r % 2)).collect();
        let probe = fit(x.clone(), &classes, 2, &folds(40)).unwrap();
        for (r, x) in x.outer_iter().enumerate() {
            let x = x.to_slice().unwrap();
            assert!(answer(&probe, x, r % 2) > answer(&probe, x, 1 - r % 2), "row {r}");
        }
        assert!(probe.weight[2] == 0.0 && probe.weight[5] == 0.0, "a feature that is always the same");
        let labels: Vec<Target> = (0..40).map(|r| Target::Labels(vec![r % 2 == 1, r % 2 == 0])).collect();
        let probe = fit(x.clone(), &labels, 2, &folds(40)).unwrap();
        assert!(answer(&probe, x.row(1).to_slice().unwrap(), 0) > 0.0);
        assert!(answer(&probe, x.row(1).to_slice().unwrap(), 1) < 0.0);
    }

    /// If features say nothing, the probe says how frequent each answer is, no more.
    #[test]
    fn noise_is_not_listened_to() {
        let classes: Vec<Target> = (0..40).map(|r| Target::Class(usize::from(r * r % 7 < 3))).collect();
        let x = features(40);
        let probe = fit(x.clone(), &classes, 2, &folds(40)).unwrap();
        let sure = |x: &[f32]| answer(&probe, x, 1) - answer(&probe, x, 0);
        let said: Vec<f64> = x.outer_iter().map(|x| sure(x.to_slice().unwrap())).collect();
        let (low, high) = said.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!(high - low < 1.0, "{low} to {high}");
    }

    #[test]
    fn nothing_to_fit() {
        assert!(fit(Array2::zeros((0, 3)), &[], 2, &[]).is_none());
        let two = [Target::Class(0), Target::Class(1)];
        assert!(fit(Array2::from_elem((2, 3), f32::NAN), &two, 2, &[0, 1]).is_none());
        assert!(fit(Array2::zeros((1, 3)), &[Target::Partner], 2, &[0]).is_none());
        let one = fit(Array2::zeros((1, 3)), &[Target::Class(1)], 2, &[0]);
        assert!(one.is_none_or(|p| p.weight.iter().chain(&p.bias).all(|v| v.is_finite())));
    }
}
