//! Self-attention per text and head: `S = Q Kᵀ / √d`, `P = softmax(S)`, `ctx = P V`.
//!
//! Backward: `d_V = Pᵀ d_ctx`; `d_P = d_ctx Vᵀ`; `d_S = P ∘ (d_P − Σ_j d_P P)`; `d_Q = d_S K / √d`;
//! `d_K = d_Sᵀ Q / √d`. Saved: q, k and v (f16; f32 in reference mode). `P` is computed again: it is the only
//! thing that grows with the square of the length, and costs one of the backward's five products.
//!
//! Softmax ignores a constant per row, so `Σ_rows d_K = 0`: the bias of the keys cannot learn.

use super::{Numerics, Saved, SavedMut, flat, ndarray::*, pad};
use crate::kernels::{Kernels, Strided};
use rayon::prelude::*;

/// Queries that one pass of the forward takes: keeps the scores in the first-level caches.
const QUERY_BLOCK: usize = 64;

/// Sizes of the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub dim: usize,
}

impl Heads {
    fn hidden(self) -> usize {
        self.heads * self.dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Shapes: `qkv: [rows, 3·hidden]`, `offsets: [batch + 1]`, `ctx: [rows, hidden]`; saves `qkv`.
pub fn forward(
    num: &Numerics,
    h: Heads,
    qkv: ArrayView2<f32>,
    offsets: &[i32],
    mut ctx: ArrayViewMut2<f32>,
    saved: Option<SavedMut>,
) {
    match num {
        Numerics::Int8(k) => {
            let qkv = flat(&qkv);
            by_head(h, offsets, 1, ctx.as_slice_mut().expect("row-major tensor"), |text, head, out| {
                forward_head(&**k, h, &qkv[text.start * 3 * h.hidden()..], text.len(), head, out);
            });
            if let Some(SavedMut::F16(kept)) = saved {
                let task = super::TASK_ROWS * 3 * h.hidden();
                kept.par_chunks_mut(task)
                    .zip(qkv.par_chunks(task))
                    .for_each(|(kept, qkv)| k.to_f16(qkv, kept));
            }
        }
        Numerics::Reference => {
            for (text, head) in texts_and_heads(h, offsets) {
                let [_, _, v] = reference_qkv(h, qkv, &text, head);
                let p = reference_probabilities(h, qkv, &text, head);
                ctx.slice_mut(s![text, head * h.dim..(head + 1) * h.dim]).assign(&p.dot(&v));
            }
            if let Some(SavedMut::F32(kept)) = saved {
                kept.copy_from_slice(flat(&qkv));
            }
        }
    }
}

/// Shapes: `d_ctx: [rows, hidden]`, saved `qkv: [rows, 3·hidden]`, `d_qkv: [3, rows, hidden]`.
pub fn backward(
    num: &Numerics,
    h: Heads,
    d_ctx: ArrayView2<f32>,
    qkv: Saved,
    offsets: &[i32],
    mut d_qkv: ArrayViewMut3<f32>,
) {
    match (num, qkv) {
        (Numerics::Int8(k), Saved::F16(qkv)) => {
            let d_ctx = flat(&d_ctx);
            by_head(h, offsets, 3, d_qkv.as_slice_mut().expect("row-major tensor"), |text, head, out| {
                let qkv = &qkv[text.start * 3 * h.hidden()..];
                let d_ctx = &d_ctx[text.start * h.hidden()..];
                backward_head(&**k, h, d_ctx, qkv, text.len(), head, out);
            });
        }
        (Numerics::Reference, Saved::F32(qkv)) => {
            let rows = d_ctx.nrows();
            let qkv = ArrayView2::from_shape((rows, 3 * h.hidden()), qkv).expect("its shape");
            for (text, head) in texts_and_heads(h, offsets) {
                let [q, k, v] = reference_qkv(h, qkv, &text, head);
                let d_ctx = d_ctx.slice(s![text.clone(), head * h.dim..(head + 1) * h.dim]);
                let p = reference_probabilities(h, qkv, &text, head);
                let mut d_s = d_ctx.dot(&v.t());
                for (mut d, p) in d_s.rows_mut().into_iter().zip(p.rows()) {
                    let sum: f64 = d.iter().zip(p).map(|(d, p)| f64::from(*d) * f64::from(*p)).sum();
                    d.zip_mut_with(&p, |d, p| *d = p * (*d - sum as f32) * h.scale());
                }
                for (i, grad) in [d_s.dot(&k), d_s.t().dot(&q), p.t().dot(&d_ctx)].into_iter().enumerate() {
                    let cols = head * h.dim..(head + 1) * h.dim;
                    d_qkv.slice_mut(s![i, text.clone(), cols]).assign(&grad);
                }
            }
        }
        _ => panic!("attention saves f16 in int8 mode and f32 in reference mode"),
    }
}

/// `out: [T, dim]`; `qkv` starts at the text's first row.
fn forward_head(k: &dyn Kernels, h: Heads, qkv: &[f32], len: usize, head: usize, out: &mut [f32]) {
    let (ld, dim, wide, cols) = (3 * h.hidden(), h.dim, pad(h.dim), pad(len));
    let at = |part: usize| part * h.hidden() + head * dim;
    let row = |part: usize, t: usize| &qkv[t * ld + at(part)..][..dim];
    let key_t = transposed(len, dim, cols, |t| row(1, t));
    let value = gathered(len, dim, wide, |t| row(2, t));
    let mut s = vec![0.0; QUERY_BLOCK.min(len) * cols];
    let mut ctx = vec![0.0; QUERY_BLOCK.min(len) * wide];
    for first in (0..len).step_by(QUERY_BLOCK) {
        let m = QUERY_BLOCK.min(len - first);
        let q = Strided { data: &qkv[first * ld + at(0)..], rs: ld, cs: 1 };
        k.gemm_f32(m, cols, dim, q, &key_t, cols, &mut s, cols);
        k.softmax_rows(&mut s[..m * cols], len, cols, h.scale());
        k.gemm_f32(m, wide, len, Strided { data: &s, rs: cols, cs: 1 }, &value, wide, &mut ctx, wide);
        for (out, ctx) in out[first * dim..].chunks_exact_mut(dim).zip(ctx.chunks_exact(wide)).take(m) {
            out.copy_from_slice(&ctx[..dim]);
        }
    }
}

/// `out: [3, T, dim]`, the gradients of q, k and v; `d_ctx` and `qkv` start at the text's first row.
fn backward_head(
    k: &dyn Kernels,
    h: Heads,
    d_ctx: &[f32],
    qkv: &[half::f16],
    len: usize,
    head: usize,
    out: &mut [f32],
) {
    let (ld, dim, wide, cols) = (3 * h.hidden(), h.dim, pad(h.dim), pad(len));
    let gather = |part: usize| {
        let mut x = vec![0.0; len * wide];
        for (t, x) in x.chunks_exact_mut(wide).enumerate() {
            k.from_f16(&qkv[t * ld + part * h.hidden() + head * dim..][..dim], &mut x[..dim]);
        }
        x
    };
    let (query, key, value) = (gather(0), gather(1), gather(2));
    let d_out = gathered(len, dim, wide, |t| &d_ctx[t * h.hidden() + head * dim..][..dim]);
    let row_major = |data, rs| Strided { data, rs, cs: 1 };
    let turned = |data, cs| Strided { data, rs: 1, cs };

    let mut p = vec![0.0; len * cols];
    let key_t = transposed(len, dim, cols, |t| &key[t * wide..][..dim]);
    k.gemm_f32(len, cols, dim, row_major(&query, wide), &key_t, cols, &mut p, cols);
    k.softmax_rows(&mut p, len, cols, h.scale());

    let mut d_s = vec![0.0; len * cols];
    let value_t = transposed(len, dim, cols, |t| &value[t * wide..][..dim]);
    k.gemm_f32(len, cols, dim, row_major(&d_out, wide), &value_t, cols, &mut d_s, cols);
    k.softmax_backward_rows(&p, &mut d_s, cols, h.scale());

    let mut grad = vec![0.0; len * wide];
    let products = [(row_major(&d_s, cols), &key), (turned(&d_s, cols), &query), (turned(&p, cols), &d_out)];
    for (out, (a, b)) in out.chunks_exact_mut(len * dim).zip(products) {
        k.gemm_f32(len, wide, len, a, b, wide, &mut grad, wide);
        for (out, grad) in out.chunks_exact_mut(dim).zip(grad.chunks_exact(wide)) {
            out.copy_from_slice(&grad[..dim]);
        }
    }
}

/// Rows `[len, dim]` into a matrix padded to `[len, wide]`.
fn gathered<'a>(len: usize, dim: usize, wide: usize, row: impl Fn(usize) -> &'a [f32]) -> Vec<f32> {
    let mut x = vec![0.0; len * wide];
    for (t, x) in x.chunks_exact_mut(wide).enumerate() {
        x[..dim].copy_from_slice(row(t));
    }
    x
}

/// Rows `[len, dim]` into the transposed matrix padded to `[dim, cols]`.
fn transposed<'a>(len: usize, dim: usize, cols: usize, row: impl Fn(usize) -> &'a [f32]) -> Vec<f32> {
    let mut x = vec![0.0; dim * cols];
    for t in 0..len {
        for (c, v) in row(t).iter().enumerate() {
            x[c * cols + t] = *v;
        }
    }
    x
}

/// Runs `task(text's rows, head, out: [parts, T, dim])` for every text and head in parallel, then lays the
/// results out as `[parts, rows, hidden]`.
fn by_head(
    h: Heads,
    offsets: &[i32],
    parts: usize,
    result: &mut [f32],
    task: impl Fn(std::ops::Range<usize>, usize, &mut [f32]) + Sync,
) {
    let mut buffer = vec![0.0; result.len()];
    let mut tasks = Vec::new();
    let mut rest = &mut buffer[..];
    for (text, head) in texts_and_heads(h, offsets) {
        let (out, tail) = rest.split_at_mut(parts * text.len() * h.dim);
        tasks.push((text, head, out));
        rest = tail;
    }
    tasks.into_par_iter().for_each(|(text, head, out)| task(text, head, out));

    let mut places = Vec::new();
    let mut rest = result;
    for part in 0..parts {
        for o in offsets.windows(2) {
            let (rows, tail) = rest.split_at_mut((o[1] - o[0]) as usize * h.hidden());
            places.push((part, o[0] as usize, rows));
            rest = tail;
        }
    }
    places.into_par_iter().for_each(|(part, first, rows)| {
        let size = rows.len() / h.heads; // of one head's [T, dim]
        let text = &buffer[first * parts * h.hidden()..][..rows.len() * parts];
        for (head, values) in text.chunks_exact(parts * size).enumerate() {
            let values = values[part * size..][..size].chunks_exact(h.dim);
            for (row, values) in rows.chunks_exact_mut(h.hidden()).zip(values) {
                row[head * h.dim..][..h.dim].copy_from_slice(values);
            }
        }
    });
}

fn texts_and_heads(h: Heads, offsets: &[i32]) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
    offsets.windows(2).flat_map(move |o| {
        let text = o[0] as usize..o[1] as usize;
        (0..h.heads).map(move |head| (text.clone(), head))
    })
}

fn reference_qkv<'a>(
    h: Heads,
    qkv: ArrayView2<'a, f32>,
    text: &std::ops::Range<usize>,
    head: usize,
) -> [ArrayView2<'a, f32>; 3] {
    [0, 1, 2].map(|part| {
        let col = part * h.hidden() + head * h.dim;
        qkv.slice_move(s![text.clone(), col..col + h.dim])
    })
}

fn reference_probabilities(
    h: Heads,
    qkv: ArrayView2<f32>,
    text: &std::ops::Range<usize>,
    head: usize,
) -> Array2<f32> {
    let [q, k, _] = reference_qkv(h, qkv, text, head);
    let mut s = q.dot(&k.t());
    for mut row in s.rows_mut() {
        row.mapv_inplace(|v| v * h.scale());
        let p = super::loss::softmax(row.as_slice().expect("row-major tensor"));
        row.iter_mut().zip(p).for_each(|(s, p)| *s = p as f32);
    }
    s
}
