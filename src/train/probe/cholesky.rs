//! Cholesky factors of a symmetric matrix, in f64 and in a fixed order: the same bits on every machine.

use rayon::prelude::*;

/// `U` of `A + λI = UᵀU`, each row stored whole with zeros in front.
pub(super) struct Upper {
    u: Vec<f64>,
    n: usize,
}

impl Upper {
    /// Factors `factor · a + penalty · I`. Only the upper triangle of `a: [n, n]` is read. `None` if the sum is not
    /// positive definite.
    pub fn of(a: &[f64], n: usize, factor: f64, penalty: f64) -> Option<Upper> {
        let mut u: Vec<f64> = a.iter().map(|v| factor * v).collect();
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
    pub fn leverage(&self, x: &[f32]) -> f64 {
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

    /// `A⁻¹ b` for each of the rows of `b: [rows, n]`, in place.
    pub fn solve(&self, b: &mut [f64]) {
        self.solve_transposed(b);
        self.solve_upper(b);
    }

    /// `U⁻ᵀ b` for each row, in place.
    pub fn solve_transposed(&self, b: &mut [f64]) {
        b.par_chunks_exact_mut(self.n).for_each(|x| {
            for j in 0..self.n {
                let row = self.row(j);
                x[j] /= row[j];
                let z = x[j];
                add(&mut x[j + 1..], -z, &row[j + 1..]);
            }
        });
    }

    /// `U⁻¹ b` for each row, in place.
    pub fn solve_upper(&self, b: &mut [f64]) {
        b.par_chunks_exact_mut(self.n).for_each(|x| {
            for j in (0..self.n).rev() {
                let row = self.row(j);
                x[j] = (x[j] - dot(&row[j + 1..], &x[j + 1..])) / row[j];
            }
        });
    }

    /// `U b` for each row, in place.
    pub fn times(&self, b: &mut [f64]) {
        b.par_chunks_exact_mut(self.n).for_each(|x| {
            for j in 0..self.n {
                x[j] = dot(&self.row(j)[j..], &x[j..]);
            }
        });
    }
}

/// `a · b`, summed over eight lanes and then over these: an order that vector units can keep.
pub(super) fn dot<T: Copy + Into<f64>>(a: &[T], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (&a[..a.len().min(b.len())], &b[..a.len().min(b.len())]);
    let (blocks_a, blocks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = blocks_a.remainder().iter().zip(blocks_b.remainder()).map(|(a, b)| (*a).into() * b).sum();
    for (a, b) in blocks_a.zip(blocks_b) {
        for lane in 0..LANES {
            sums[lane] += a[lane].into() * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `to += factor · from`.
pub(super) fn add<T: Copy + Into<f64>>(to: &mut [f64], factor: f64, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * (*f).into());
}
