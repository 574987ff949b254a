//! Residual add and LayerNorm: `y = g · n + b`, `n = (x + r − mean) · rstd`, `rstd = 1/√(var + eps)`.
//!
//! Backward, with `d_n = d_y ∘ g`: `d_b = Σ_rows d_y`; `d_x = d_r = rstd (d_n − mean(d_n) − n · mean(d_n ∘ n))`.
//! Saved: `n` (f16; f32 in reference mode) and `rstd`. Recomputing `n` would need the pre-norm sum, which is
//! no smaller; the gain `g` is frozen, so its gradient is not formed.
//!
//! Source: Ba et al. 2016 (arXiv 1607.06450).

use super::{Numerics, TASK_ROWS, Values, ValuesMut, mismatch};
use crate::kernels::{Block, blocks};
use rayon::prelude::*;

/// Shapes: `x r y: [rows, hidden]`; `g b: [hidden]`; `quantized: [rows, blocks(hidden)]`; saves `n: [rows, hidden]`,
/// `rstd: [rows]`. `eps` is added to the variance. `quantized`, in int8 mode, is `y` as a Linear reads it.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    num: &Numerics,
    x: &[f32],
    r: Option<&[f32]>,
    g: &[f32],
    b: &[f32],
    eps: f32,
    y: &mut [f32],
    quantized: Option<&mut [Block]>,
    saved: Option<(ValuesMut, &mut [f32])>,
) {
    let cols = g.len();
    let task = TASK_ROWS * cols;
    match (num, saved) {
        (Numerics::Int8(k), saved) => {
            let (n, rstd) = match saved {
                None => (None, None),
                Some((ValuesMut::F16(n), rstd)) => (Some(n), Some(rstd)),
                Some(_) => mismatch("add_norm"),
            };
            let tasks = x.len().div_ceil(task);
            let to = parts(quantized, TASK_ROWS * blocks(cols), tasks);
            let saved = parts(n, task, tasks).into_par_iter().zip(parts(rstd, TASK_ROWS, tasks));
            y.par_chunks_mut(task).zip(x.par_chunks(task)).zip(to).zip(saved).enumerate().for_each(
                |(i, (((y, x), to), saved))| {
                    let r = r.map(|r| &r[i * task..][..x.len()]);
                    let saved = match saved {
                        (Some(n), Some(rstd)) => Some((n, rstd)),
                        _ => None,
                    };
                    k.add_norm(x, r, g, b, eps, y, to, saved);
                },
            );
        }
        (Numerics::Reference, saved) => reference_forward(x, r, g, b, eps, y, saved),
    }
}

/// The pieces of `x` that each of `tasks` takes; as many `None`s where there is no `x`.
fn parts<T>(x: Option<&mut [T]>, task: usize, tasks: usize) -> Vec<Option<&mut [T]>> {
    match x {
        Some(x) => x.chunks_mut(task).map(Some).collect(),
        None => (0..tasks).map(|_| None).collect(),
    }
}

fn reference_forward(
    x: &[f32],
    r: Option<&[f32]>,
    g: &[f32],
    b: &[f32],
    eps: f32,
    y: &mut [f32],
    mut saved: Option<(ValuesMut, &mut [f32])>,
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
            if let Some((ValuesMut::F32(kept), _)) = &mut saved {
                kept[at + c] = n;
            }
            *y = g[c] * n + b[c];
        }
        if let Some((_, kept)) = &mut saved {
            kept[row] = rstd as f32;
        }
    }
}

/// Shapes as in [`forward`]. `d_b` is [`super::text_sums`] of `d_y`.
///
/// With `fold`, `d_x ∘ fold.0` is also quantized, to `fold.1: [rows, blocks(hidden)]`, for the Linear below whose
/// scales `fold.0` are.
pub fn backward(
    num: &Numerics,
    d_y: &[f32],
    (n, rstd): (Values, &[f32]),
    g: &[f32],
    d_x: &mut [f32],
    fold: Option<(&[f32], &mut [Block])>,
) {
    let cols = g.len();
    match (num, n) {
        (Numerics::Int8(k), Values::F16(n)) => {
            let task = TASK_ROWS * cols;
            let (fold, to) = fold.map_or((None, None), |(fold, to)| (Some(fold), Some(to)));
            let to = parts(to, TASK_ROWS * blocks(cols), d_x.len().div_ceil(task));
            d_x.par_chunks_mut(task)
                .zip(d_y.par_chunks(task))
                .zip(n.par_chunks(task))
                .zip(rstd.par_chunks(TASK_ROWS))
                .zip(to)
                .for_each(|((((d_x, d_y), n), rstd), to)| {
                    k.add_norm_backward(d_y, n, rstd, g, d_x, fold.zip(to));
                });
        }
        (Numerics::Reference, Values::F32(n)) => {
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
        _ => mismatch("add_norm"),
    }
}
