//! The probe for numbers: ridge regression in closed form.
//!
//! With standardized `x: [rows, hidden]` and numbers `y: [rows]`, `w = (XᵀX + λI)⁻¹ Xᵀy`. The answer to each row by a
//! probe that has not seen the row follows without another fit: `(ŷ − h y) / (1 − h)`, where `h` is the row's leverage
//! `1/rows + xᵀ (XᵀX + λI)⁻¹ x` (Allen 1974). The squared error of these answers chooses `λ`.

use super::Probe;
use super::cholesky::Upper;
use super::features::Features;
use rayon::prelude::*;

/// `λ` over the number of rows; every feature has variance 1.
const PENALTIES: [f64; 9] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// Fits numbers `y: [rows]`. `None` if no penalty gives a finite loss.
pub(super) fn fit(features: &Features, y: &[f64]) -> Option<Probe> {
    let (rows, hidden) = (features.rows(), features.width());
    let all: Vec<usize> = (0..rows).collect();
    let mean = y.iter().sum::<f64>() / rows as f64;
    let (gram, cross) = (features.gram(), features.cross(&all, y, 1));
    let judge = |penalty: f64| {
        let upper = Upper::of(&gram, hidden, 1.0, penalty * rows as f64)?;
        let mut w = cross.clone();
        upper.solve(&mut w);
        let said = features.times(&all, &w, &[mean]);
        let unseen: Vec<f64> = (0..rows)
            .into_par_iter()
            .map(|row| {
                let h = 1.0 / rows as f64 + upper.leverage(features.row(row));
                (said[row] - h * y[row]) / (1.0 - h)
            })
            .collect();
        let loss = unseen.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / rows as f64;
        loss.is_finite().then_some((loss, w, unseen))
    };
    let (loss, w, unseen) = PENALTIES
        .into_iter()
        .filter_map(judge)
        .reduce(|best, next| if next.0 < best.0 { next } else { best })?;
    let (weight, bias) = features.undo(&w, &[mean]);
    Some(Probe { weight, bias, loss, answers: unseen.into_iter().map(|v| v as f32).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_core::prelude::tract_ndarray::Array2;

    /// The answers to unseen rows are what leaving each out and fitting again gives.
    #[test]
    fn leaves_one_out_without_fitting_again() {
        let rows = 12;
        let x = Array2::from_shape_fn((rows, 3), |(r, c)| match c {
            0 => (r % 2) as f32 + 0.1 * ((r * 7 % 5) as f32),
            1 => (r * 13 % 11) as f32,
            _ => 4.0,
        });
        let y: Vec<f64> = (0..rows).map(|r| (r % 2) as f64 + 0.3 * ((r * 5 % 7) as f64)).collect();
        let all = Features::of(x);
        let probe = fit(&all, &y).unwrap();
        // Fitted again for each penalty and row. A column of ones without a penalty replaces the centring.
        let best = PENALTIES
            .iter()
            .map(|penalty| {
                let one = |out: usize| {
                    let mut a = [[0.0; 5]; 4];
                    for r in (0..rows).filter(|r| *r != out) {
                        let mut row = [1.0; 4];
                        row[1..].iter_mut().zip(all.row(r)).for_each(|(v, x)| *v = f64::from(*x));
                        for i in 0..4 {
                            (0..4).for_each(|j| a[i][j] += row[i] * row[j]);
                            a[i][4] += row[i] * y[r];
                        }
                    }
                    (1..4).for_each(|i| a[i][i] += penalty * rows as f64);
                    for i in 0..4 {
                        for k in (0..4).filter(|k| *k != i) {
                            let f = a[k][i] / a[i][i];
                            (0..5).for_each(|j| a[k][j] -= f * a[i][j]);
                        }
                    }
                    a[0][4] / a[0][0]
                        + (1..4).map(|i| a[i][4] / a[i][i] * f64::from(all.row(out)[i - 1])).sum::<f64>()
                };
                let full: Vec<f64> = (0..rows).map(one).collect();
                let loss = full.iter().zip(&y).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / rows as f64;
                (loss, full)
            })
            .reduce(|a, b| if b.0 < a.0 { b } else { a })
            .unwrap();
        assert!((probe.loss - best.0).abs() < 1e-6, "{} {}", probe.loss, best.0);
        for (quick, full) in probe.answers.iter().zip(best.1) {
            assert!((f64::from(*quick) - full).abs() < 1e-5, "{quick}, fitted again {full}");
        }
    }
}
