//! Pooled vectors as a probe reads them: each feature with mean 0 and variance 1.

use super::cholesky::{add, dot};
use rayon::prelude::*;
use tract_core::prelude::tract_ndarray::Array2;

/// Standardized features, and how to undo the standardization.
pub(super) struct Features {
    /// `[rows, hidden]`.
    x: Vec<f32>,
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Features {
    /// Of `x: [rows, hidden]`.
    pub fn of(x: Array2<f32>) -> Features {
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
        // A feature that hardly varies carries rounding errors only.
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

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.x.len() / self.width()
    }

    /// Row `row`, `[hidden]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.x[row * self.width()..][..self.width()]
    }

    /// The upper triangle of `XᵀX`, `[hidden, hidden]`.
    pub fn gram(&self) -> Vec<f64> {
        let hidden = self.width();
        let mut gram = vec![0.0; hidden * hidden];
        gram.par_chunks_exact_mut(hidden).enumerate().for_each(|(i, gram)| {
            for x in self.x.chunks_exact(hidden) {
                add(&mut gram[i..], f64::from(x[i]), &x[i..]);
            }
        });
        gram
    }

    /// `YᵀX` over some rows, `[outputs, hidden]`; `y: [rows.len(), outputs]`.
    pub fn cross(&self, rows: &[usize], y: &[f64], outputs: usize) -> Vec<f64> {
        let mut cross = vec![0.0; outputs * self.width()];
        cross.par_chunks_exact_mut(self.width()).enumerate().for_each(|(output, cross)| {
            for (&row, y) in rows.iter().zip(y.chunks_exact(outputs)) {
                add(cross, y[output], self.row(row));
            }
        });
        cross
    }

    /// `XWᵀ + b` of some rows, `[rows.len(), outputs]`; `w: [outputs, hidden]`, `b: [outputs]`.
    pub fn times(&self, rows: &[usize], w: &[f64], b: &[f64]) -> Vec<f64> {
        let outputs = b.len();
        let mut y = vec![0.0; rows.len() * outputs];
        y.par_chunks_exact_mut(outputs).zip(rows).for_each(|(y, &row)| {
            for ((y, w), b) in y.iter_mut().zip(w.chunks_exact(self.width())).zip(b) {
                *y = b + dot(self.row(row), w);
            }
        });
        y
    }

    /// `w: [outputs, hidden]` and `b` for standardized features, as weight and bias for features as they came.
    pub fn undo(&self, w: &[f64], b: &[f64]) -> (Vec<f32>, Vec<f32>) {
        let mut bias = b.to_vec();
        let mut weight = Vec::with_capacity(w.len());
        for (w, bias) in w.chunks_exact(self.width()).zip(&mut bias) {
            for ((w, deviation), mean) in w.iter().zip(&self.deviation).zip(&self.mean) {
                let w = w / deviation;
                weight.push(w as f32);
                *bias -= w * mean;
            }
        }
        (weight, bias.into_iter().map(|b| b as f32).collect())
    }
}
