//! A head in closed form: ridge regression on what the frozen encoder gives.
//!
//! With `x: [rows, hidden]` centred and scaled to variance 1 and `y: [rows, outputs]` what the head should say (0 or 1
//! for classes and labels), `W = (XᵀX + λI)⁻¹ XᵀY`. What the head would say of each row had it not seen it follows
//! without fitting again: `(ŷ − h y) / (1 − h)`, `h` the row's leverage `1/rows + xᵀ (XᵀX + λI)⁻¹ x` (Allen 1974). The
//! loss of these answers chooses `λ`, and for classes and labels the factor that turns them into logits.
//!
//! Sums in f64, in an order that depends on no thread: the same on every machine.

use crate::ops::loss::{self, Target};
use rayon::prelude::*;
use tract_core::prelude::tract_ndarray::Array2;

/// Of `λ` over the number of rows, as every feature has variance 1.
const PENALTIES: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
/// Of what turns answers around 0 and 1 into logits.
const SHARPNESS: [f64; 13] = [1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 22.0, 32.0, 45.0, 64.0];
/// Rows on which a penalty is judged.
const JUDGED: usize = 1024;

/// A fitted head.
#[derive(Debug)]
pub struct Fit {
    /// `[outputs, hidden]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// Mean loss of its answers to rows that it has not seen.
    pub loss: f64,
}

/// Fits a head to features `x: [rows, hidden]` and one target a row: classes, labels or values.
///
/// `None` where there is nothing to fit: no row, features that are not finite, or targets of another kind.
pub fn fit(x: Array2<f32>, targets: &[Target], outputs: usize) -> Option<Fit> {
    let (rows, hidden) = x.dim();
    if rows == 0 || x.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let features = Features::of(x);
    let mut y = vec![0.0; rows * outputs];
    for (y, target) in y.chunks_exact_mut(outputs).zip(targets) {
        match target {
            Target::Class(label) => y[*label] = 1.0,
            Target::Labels(wanted) => {
                y.iter_mut().zip(wanted).for_each(|(y, w)| *y = f64::from(u8::from(*w)))
            }
            Target::Value(v) => y[0] = f64::from(*v),
            _ => return None,
        }
    }
    let mut mean = vec![0.0; outputs];
    y.chunks_exact(outputs).for_each(|y| add(&mut mean, 1.0 / rows as f64, y));
    let (gram, cross) = features.products(&y, outputs);

    let judge = |penalty: f64| {
        let upper = Upper::of(&gram, hidden, penalty * rows as f64)?;
        let w = upper.solve(&cross, outputs);
        let unseen: Vec<f64> = (0..rows.min(JUDGED))
            .into_par_iter()
            .flat_map_iter(|row| {
                let x = features.row(row);
                let mut said = mean.clone();
                x.iter().zip(w.chunks_exact(outputs)).for_each(|(x, w)| add(&mut said, f64::from(*x), w));
                let h = 1.0 / rows as f64 + upper.leverage(x);
                let y = &y[row * outputs..][..outputs];
                said.into_iter().zip(y).map(|(p, y)| (p - h * y) / (1.0 - h)).collect::<Vec<_>>()
            })
            .collect();
        let (loss, sharpness) = judged(&unseen, targets, outputs);
        Some((loss, sharpness, w))
    };
    let (loss, sharpness, w) = PENALTIES
        .into_iter()
        .filter_map(judge)
        .reduce(|best, next| if next.0 < best.0 { next } else { best })
        .filter(|(loss, ..)| loss.is_finite())?;
    let mut weight = vec![0.0; outputs * hidden];
    let mut bias: Vec<f64> = mean.iter().map(|m| m - middle(&targets[0])).collect();
    for (i, w) in w.chunks_exact(outputs).enumerate() {
        for (o, w) in w.iter().enumerate() {
            let w = w / features.deviation[i];
            weight[o * hidden + i] = (sharpness * w) as f32;
            bias[o] -= w * features.mean[i];
        }
    }
    Some(Fit { weight, bias: bias.into_iter().map(|b| (sharpness * b) as f32).collect(), loss })
}

/// The least mean loss of answers to the first rows, and the sharpness that gives it.
fn judged(unseen: &[f64], targets: &[Target], outputs: usize) -> (f64, f64) {
    let of = |sharpness: f64| {
        let one = |(y, target): (&[f64], &Target)| {
            let middle = middle(target);
            let y: Vec<f32> = y.iter().map(|v| (sharpness * (v - middle)) as f32).collect();
            loss::of_text(&y, outputs, target)
        };
        let sum: f64 = unseen.chunks_exact(outputs).zip(targets).map(one).sum();
        (sum * outputs as f64 / unseen.len() as f64, sharpness)
    };
    let all: &[f64] = if matches!(targets[0], Target::Value(_)) { &[1.0] } else { &SHARPNESS };
    all.iter().map(|s| of(*s)).reduce(|a, b| if b.0 < a.0 { b } else { a }).expect("there is one")
}

/// The answer that is neither yes nor no.
fn middle(target: &Target) -> f64 {
    if matches!(target, Target::Labels(_)) { 0.5 } else { 0.0 }
}

/// Features, centred and scaled as they are read.
struct Features {
    /// `[rows, hidden]`.
    x: Vec<f32>,
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Features {
    fn of(x: Array2<f32>) -> Features {
        let (rows, hidden) = x.dim();
        let mut mean = vec![0.0; hidden];
        let mut x = x.into_raw_vec_and_offset().0;
        x.chunks_exact(hidden).for_each(|x| add(&mut mean, 1.0 / rows as f64, x));
        let mut deviation = vec![0.0; hidden];
        for x in x.chunks_exact(hidden) {
            for ((d, x), m) in deviation.iter_mut().zip(x).zip(&mean) {
                *d += (f64::from(*x) - m).powi(2);
            }
        }
        // A feature that hardly varies says nothing; to scale it up would be to listen to rounding.
        for d in &mut deviation {
            *d = (*d / rows as f64).sqrt();
            *d = if *d > 1e-6 { *d } else { f64::INFINITY };
        }
        for x in x.chunks_exact_mut(hidden) {
            for ((x, m), d) in x.iter_mut().zip(&mean).zip(&deviation) {
                *x = ((f64::from(*x) - m) / d) as f32;
            }
        }
        Features { x, mean, deviation }
    }

    fn row(&self, row: usize) -> &[f32] {
        let hidden = self.mean.len();
        &self.x[row * hidden..][..hidden]
    }

    /// The upper triangle of `XᵀX`, `[hidden, hidden]`, and `XᵀY`, `[hidden, outputs]`.
    fn products(&self, y: &[f64], outputs: usize) -> (Vec<f64>, Vec<f64>) {
        let hidden = self.mean.len();
        let (mut gram, mut cross) = (vec![0.0; hidden * hidden], vec![0.0; hidden * outputs]);
        gram.par_chunks_exact_mut(hidden).zip(cross.par_chunks_exact_mut(outputs)).enumerate().for_each(
            |(i, (gram, cross))| {
                for (x, y) in self.x.chunks_exact(hidden).zip(y.chunks_exact(outputs)) {
                    add(&mut gram[i..], f64::from(x[i]), &x[i..]);
                    add(cross, f64::from(x[i]), y);
                }
            },
        );
        (gram, cross)
    }
}

/// `U` of `A + λI = UᵀU` (Cholesky), its rows whole with zeros in front.
struct Upper {
    u: Vec<f64>,
    n: usize,
}

impl Upper {
    /// Of the upper triangle of `a: [n, n]`; `None` where that is not positive.
    fn of(a: &[f64], n: usize, penalty: f64) -> Option<Upper> {
        let mut u = a.to_vec();
        for k in 0..n {
            let (done, rest) = u.split_at_mut((k + 1) * n);
            let row = &mut done[k * n..];
            let pivot = (row[k] + penalty).sqrt();
            if !(pivot.is_finite() && pivot > 0.0) {
                return None;
            }
            row[k] = pivot;
            row[k + 1..].iter_mut().for_each(|v| *v /= pivot);
            let row = &*row;
            rest.par_chunks_exact_mut(n).enumerate().with_min_len(64).for_each(|(below, r)| {
                let i = k + 1 + below;
                add(&mut r[i..], -row[i], &row[i..]);
            });
        }
        Some(Upper { u, n })
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.u[i * self.n..][..self.n]
    }

    /// `xᵀ A⁻¹ x`, the square of `U⁻ᵀ x`.
    fn leverage(&self, x: &[f32]) -> f64 {
        let mut x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let mut sum = 0.0;
        for j in 0..self.n {
            let row = self.row(j);
            let z = x[j] / row[j];
            sum += z * z;
            add(&mut x[j + 1..], -z, &row[j + 1..]);
        }
        sum
    }

    /// `A⁻¹ b` for `b: [n, outputs]`.
    fn solve(&self, b: &[f64], outputs: usize) -> Vec<f64> {
        let mut x = b.to_vec();
        for j in 0..self.n {
            let (done, rest) = x.split_at_mut((j + 1) * outputs);
            let (row, z) = (self.row(j), &mut done[j * outputs..]);
            z.iter_mut().for_each(|z| *z /= row[j]);
            for (rest, u) in rest.chunks_exact_mut(outputs).zip(&row[j + 1..]) {
                add(rest, -u, z);
            }
        }
        for j in (0..self.n).rev() {
            let (front, rest) = x.split_at_mut((j + 1) * outputs);
            let (row, z) = (self.row(j), &mut front[j * outputs..]);
            for (known, u) in rest.chunks_exact(outputs).zip(&row[j + 1..]) {
                add(z, -u, known);
            }
            z.iter_mut().for_each(|z| *z /= row[j]);
        }
        x
    }
}

/// `to += factor · from`.
fn add<T: Copy + Into<f64>>(to: &mut [f64], factor: f64, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * (*f).into());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features of which the first says the answer, the second nothing, and the third is always the same.
    fn features(rows: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, 3), |(r, c)| match c {
            0 => (r % 2) as f32 + 0.1 * ((r * 7 % 5) as f32),
            1 => (r * 13 % 11) as f32,
            _ => 4.0,
        })
    }

    fn answer(fit: &Fit, x: &[f32], output: usize) -> f64 {
        let w = &fit.weight[output * x.len()..][..x.len()];
        f64::from(fit.bias[output]) + w.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>()
    }

    #[test]
    fn what_can_be_told_is_told() {
        let x = features(40);
        let classes: Vec<Target> = (0..40).map(|r| Target::Class(r % 2)).collect();
        let fit = fit(x.clone(), &classes, 2).unwrap();
        for (r, x) in x.outer_iter().enumerate() {
            let x = x.to_slice().unwrap();
            assert!(answer(&fit, x, r % 2) > answer(&fit, x, 1 - r % 2), "row {r}");
        }
        assert!(fit.weight[2] == 0.0 && fit.weight[5] == 0.0, "a feature that is always the same");
        let labels: Vec<Target> = (0..40).map(|r| Target::Labels(vec![r % 2 == 1, r % 2 == 0])).collect();
        let fit = super::fit(x.clone(), &labels, 2).unwrap();
        assert!(answer(&fit, x.row(1).to_slice().unwrap(), 0) > 0.0);
        assert!(answer(&fit, x.row(1).to_slice().unwrap(), 1) < 0.0);
    }

    /// Where features say nothing, the head says how frequent each answer is, no more.
    #[test]
    fn noise_is_not_listened_to() {
        let classes: Vec<Target> = (0..40).map(|r| Target::Class(usize::from(r * r % 7 < 3))).collect();
        let x = features(40);
        let fit = fit(x.clone(), &classes, 2).unwrap();
        let sure = |x: &[f32]| answer(&fit, x, 1) - answer(&fit, x, 0);
        let said: Vec<f64> = x.outer_iter().map(|x| sure(x.to_slice().unwrap())).collect();
        let (low, high) = said.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!(high - low < 1.0, "{low} to {high}");
    }

    /// The loss of unseen rows is what leaving each out and fitting again gives.
    #[test]
    fn leaves_one_out_without_fitting_again() {
        let (x, rows) = (features(12), 12);
        let y: Vec<f64> = (0..rows).map(|r| (r % 2) as f64 + 0.3 * ((r * 5 % 7) as f64)).collect();
        let all = Features::of(x.clone());
        let penalty = 2.0;
        let mean = y.iter().sum::<f64>() / rows as f64;
        let (gram, cross) = all.products(&y, 1);
        let upper = Upper::of(&gram, 3, penalty).unwrap();
        let w = upper.solve(&cross, 1);
        for out in 0..rows {
            let said = mean + all.row(out).iter().zip(&w).map(|(x, w)| f64::from(*x) * w).sum::<f64>();
            let h = 1.0 / rows as f64 + upper.leverage(all.row(out));
            let quick = (said - h * y[out]) / (1.0 - h);
            // Again, in full: one more column of ones without a penalty in the place of centring.
            let mut a = [[0.0; 5]; 4];
            for r in (0..rows).filter(|r| *r != out) {
                let mut row = [1.0; 4];
                row[1..].iter_mut().zip(all.row(r)).for_each(|(v, x)| *v = f64::from(*x));
                for i in 0..4 {
                    (0..4).for_each(|j| a[i][j] += row[i] * row[j]);
                    a[i][4] += row[i] * y[r];
                }
            }
            (1..4).for_each(|i| a[i][i] += penalty);
            for i in 0..4 {
                for k in (0..4).filter(|k| *k != i) {
                    let f = a[k][i] / a[i][i];
                    (0..5).for_each(|j| a[k][j] -= f * a[i][j]);
                }
            }
            let full = a[0][4] / a[0][0]
                + (1..4).map(|i| a[i][4] / a[i][i] * f64::from(all.row(out)[i - 1])).sum::<f64>();
            assert!((quick - full).abs() < 1e-6, "row {out}: {quick}, fitted again {full}");
        }
    }

    #[test]
    fn nothing_to_fit() {
        assert!(fit(Array2::zeros((0, 3)), &[], 2).is_none());
        assert!(fit(Array2::from_elem((2, 3), f32::NAN), &[Target::Class(0), Target::Class(1)], 2).is_none());
        assert!(fit(Array2::zeros((1, 3)), &[Target::Partner], 2).is_none());
        let one = fit(Array2::zeros((1, 3)), &[Target::Class(1)], 2);
        assert!(one.is_none_or(|fit| fit.weight.iter().chain(&fit.bias).all(|v| v.is_finite())));
    }
}
