//! Residual add and LayerNorm: `y = g · n + b`, `n = (x + r − mean) · rstd`, `rstd = 1/√(var + eps)`.
//!
//! Backward, with `d_n = d_y ∘ g`: `d_b = Σ_rows d_y`; `d_x = d_r = rstd (d_n − mean(d_n) − n · mean(d_n ∘ n))`.
//! Saved: `n` (f16; f32 in reference mode) and `rstd`. Recomputing `n` would need the pre-norm sum, which is
//! no smaller; the gain `g` is frozen, so its gradient is not formed.
//!
//! Source: Ba et al. 2016 (arXiv 1607.06450).

use super::{Numerics, Saved, SavedMut, TASK_ROWS, flat, ndarray::*};
use rayon::prelude::*;

/// Shapes: `x r y: [rows, hidden]`; `g b: [hidden]`; saves `n: [rows, hidden]`, `rstd: [rows]`.
/// `eps` is added to the variance.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    num: &Numerics,
    x: ArrayView2<f32>,
    r: Option<ArrayView2<f32>>,
    g: &[f32],
    b: &[f32],
    eps: f32,
    mut y: ArrayViewMut2<f32>,
    saved: Option<(SavedMut, &mut [f32])>,
) {
    let cols = x.ncols();
    let (x, r) = (flat(&x), r.as_ref().map(flat));
    let y = y.as_slice_mut().expect("row-major tensor");
    let task = TASK_ROWS * cols;
    let residual = |i: usize, len: usize| r.map(|r| &r[i * task..][..len]);
    match (num, saved) {
        (Numerics::Int8(k), None) => {
            y.par_chunks_mut(task).zip(x.par_chunks(task)).enumerate().for_each(|(i, (y, x))| {
                k.add_norm(x, residual(i, x.len()), g, b, eps, y, None);
            });
        }
        (Numerics::Int8(k), Some((SavedMut::F16(n), rstd))) => {
            y.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .zip(n.par_chunks_mut(task))
                .zip(rstd.par_chunks_mut(TASK_ROWS))
                .enumerate()
                .for_each(|(i, (((y, x), n), rstd))| {
                    k.add_norm(x, residual(i, x.len()), g, b, eps, y, Some((n, rstd)));
                });
        }
        (Numerics::Reference, saved) => reference_forward(x, r, g, b, eps, y, saved),
        _ => panic!("int8 add_norm saves f16"),
    }
}

fn reference_forward(
    x: &[f32],
    r: Option<&[f32]>,
    g: &[f32],
    b: &[f32],
    eps: f32,
    y: &mut [f32],
    mut saved: Option<(SavedMut, &mut [f32])>,
) {
    let cols = g.len();
    for (row, y) in y.chunks_exact_mut(cols).enumerate() {
        let at = row * cols;
        for (c, y) in y.iter_mut().enumerate() {
            *y = x[at + c] + r.map_or(0.0, |r| r[at + c]);
        }
        let mean = y.iter().map(|&v| f64::from(v)).sum::<f64>() / cols as f64;
        let var = y.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / cols as f64;
        let rstd = 1.0 / (var + f64::from(eps)).sqrt();
        for (c, y) in y.iter_mut().enumerate() {
            let n = ((f64::from(*y) - mean) * rstd) as f32;
            if let Some((SavedMut::F32(kept), _)) = &mut saved {
                kept[at + c] = n;
            }
            *y = g[c] * n + b[c];
        }
        if let Some((_, kept)) = &mut saved {
            kept[row] = rstd as f32;
        }
    }
}

/// Shapes as in [`forward`]; `d_b: [hidden]` is added to where it is wanted.
pub fn backward(
    num: &Numerics,
    d_y: ArrayView2<f32>,
    (n, rstd): (Saved, &[f32]),
    g: &[f32],
    d_b: Option<&mut [f32]>,
    mut d_x: ArrayViewMut2<f32>,
) {
    let d_y = flat(&d_y);
    let d_x = d_x.as_slice_mut().expect("row-major tensor");
    let cols = g.len();
    if let Some(d_b) = d_b {
        super::add_rows(num, d_y, d_b);
    }
    match (num, n) {
        (Numerics::Int8(k), Saved::F16(n)) => {
            let task = TASK_ROWS * cols;
            d_x.par_chunks_mut(task)
                .zip(d_y.par_chunks(task))
                .zip(n.par_chunks(task))
                .zip(rstd.par_chunks(TASK_ROWS))
                .for_each(|(((d_x, d_y), n), rstd)| k.add_norm_backward(d_y, n, rstd, g, d_x));
        }
        (Numerics::Reference, Saved::F32(n)) => {
            for (row, d_x) in d_x.chunks_exact_mut(cols).enumerate() {
                let (d_y, n) = (&d_y[row * cols..][..cols], &n[row * cols..][..cols]);
                let d_n = |c: usize| f64::from(d_y[c] * g[c]);
                let mean = (0..cols).map(d_n).sum::<f64>() / cols as f64;
                let mean_n = (0..cols).map(|c| d_n(c) * f64::from(n[c])).sum::<f64>() / cols as f64;
                for (c, d_x) in d_x.iter_mut().enumerate() {
                    *d_x = (f64::from(rstd[row]) * (d_n(c) - mean - f64::from(n[c]) * mean_n)) as f32;
                }
            }
        }
        _ => panic!("add_norm saves f16 in int8 mode and f32 in reference mode"),
    }
}
