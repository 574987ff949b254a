//! Self-attention per text and head: `S = Q Kᵀ / √d`, `P = softmax(S)`, `ctx = P V`.
//!
//! Backward: `d_V = Pᵀ d_ctx`; `d_P = d_ctx Vᵀ`; `d_S = P ∘ (d_P − Σ_j d_P P)`; `d_Q = d_S K / √d`;
//! `d_K = d_Sᵀ Q / √d`. Saved: nothing beyond q, k and v, which are f16 anyway (f32 in reference mode). `P` is
//! computed again: it is the only thing that grows with the square of the length, and costs one of the backward's
//! five products.
//!
//! Softmax ignores a constant per row, so `Σ_rows d_K = 0`: the bias of the keys cannot learn.

use super::linear::Linear;
use super::{Numerics, Values, ValuesMut, mismatch, ndarray::*, text_sums, texts};
use crate::kernels::{BLOCK, Block, HeadGroup, blocks};
use bytemuck::Zeroable;
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of the heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Number of heads.
    pub heads: usize,
    /// Width of one head.
    pub dim: usize,
}

/// Which of a text's tokens ask: q of the others is not used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Queries {
    /// Each.
    All,
    /// The first. Rows of ctx are then texts, not tokens.
    First,
}

impl Queries {
    /// How many of a text of `len` tokens.
    fn of(self, len: usize) -> usize {
        match self {
            Queries::All => len,
            Queries::First => len.min(1),
        }
    }

    /// The rows of ctx that belong to text `i` with these tokens.
    fn rows(self, i: usize, tokens: &Range<usize>) -> Range<usize> {
        match self {
            Queries::All => tokens.clone(),
            Queries::First => i..i + 1,
        }
    }
}

impl Heads {
    fn hidden(self) -> usize {
        self.heads * self.dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Fewest heads that together fill whole blocks of columns; all of them where no fewer do.
    fn groups(self) -> impl Iterator<Item = Range<usize>> {
        let size = (1..self.heads).find(|n| (n * self.dim).is_multiple_of(BLOCK)).unwrap_or(self.heads);
        (0..self.heads).step_by(size.max(1)).map(move |first| first..(first + size).min(self.heads))
    }
}

/// Shapes: `qkv: [rows, 3·hidden]`, `offsets: [texts + 1]`, `ctx: [rows, hidden]` (`[texts, hidden]` where only first
/// tokens ask), quantized in int8 mode.
pub fn forward(num: &Numerics, h: Heads, queries: Queries, qkv: Values, offsets: &[i32], ctx: ValuesMut) {
    match (num, qkv, ctx) {
        (Numerics::Int8(k), Values::F16(qkv), ValuesMut::I8(ctx)) => {
            for_groups(h, queries, offsets, 1, ctx, |_, text, group, to| {
                k.attention_forward(&group, part_of(qkv, &text, 3 * h.hidden()), to);
            });
        }
        (Numerics::Reference, Values::F32(qkv), ValuesMut::F32(ctx)) => {
            let (qkv, mut ctx) = (reference_rows(qkv, 3 * h.hidden()), reference_rows_mut(ctx, h.hidden()));
            for (i, text, head) in texts_and_heads(h, offsets) {
                let [_, _, v] = reference_qkv(h, qkv, &text, head);
                let p = reference_probabilities(h, queries, qkv, &text, head);
                let asks = queries.rows(i, &text);
                ctx.slice_mut(s![asks, head * h.dim..(head + 1) * h.dim]).assign(&p.dot(&v));
            }
        }
        _ => mismatch("attention"),
    }
}

/// Shapes: `d_ctx` that of ctx, `qkv: [rows, 3·hidden]`, `d_qkv: [rows, 3·hidden]`, and the gradients of the three
/// biases, `d_b: [texts, 3·hidden]`.
///
/// Int8: `d_qkv` is times the scales of `below`, the Linear that made q, k and v, and quantized, each part from a whole
/// block on.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    num: &Numerics,
    h: Heads,
    queries: Queries,
    d_ctx: &[f32],
    qkv: Values,
    offsets: &[i32],
    below: &Linear,
    d_qkv: ValuesMut,
    d_b: &mut [f32],
) {
    let hidden = h.hidden();
    match (num, qkv, d_qkv) {
        (Numerics::Int8(k), Values::F16(qkv), ValuesMut::I8(d_qkv)) => {
            let [w_q, w_k, w_v] = &below.parts[..] else { mismatch("attention") };
            let fold = [w_q.scale(), w_k.scale(), w_v.scale()];
            let sums = for_groups(h, Queries::All, offsets, 3, d_qkv, |i, text, mut group, to| {
                group.queries = queries.of(group.len);
                let d_ctx = part_of(d_ctx, &queries.rows(i, &text), hidden);
                let qkv = part_of(qkv, &text, 3 * hidden);
                let mut sums = vec![0.0; 3 * group.width()];
                let (q, rest) = to.split_at_mut(to.len() / 3);
                let (key, v) = rest.split_at_mut(q.len());
                k.attention_backward(&group, qkv, d_ctx, fold, [q, key, v], &mut sums);
                sums
            });
            let mut sums = sums.into_iter();
            for d_b in d_b.chunks_exact_mut(3 * hidden) {
                for (group, sums) in h.groups().zip(&mut sums) {
                    for (part, sums) in sums.chunks_exact(group.len() * h.dim).enumerate() {
                        d_b[part * hidden + group.start * h.dim..][..sums.len()].copy_from_slice(sums);
                    }
                }
            }
        }
        (Numerics::Reference, Values::F32(qkv), ValuesMut::F32(d_qkv)) => {
            let (qkv, d_ctx) = (reference_rows(qkv, 3 * hidden), reference_rows(d_ctx, hidden));
            let mut grads = reference_rows_mut(d_qkv, 3 * hidden);
            for (i, text, head) in texts_and_heads(h, offsets) {
                let [q, k, v] = reference_qkv(h, qkv, &text, head);
                let q = q.slice_move(s![..queries.of(text.len()), ..]);
                let d_ctx = d_ctx.slice(s![queries.rows(i, &text), head * h.dim..(head + 1) * h.dim]);
                let p = reference_probabilities(h, queries, qkv, &text, head);
                let mut d_s = d_ctx.dot(&v.t());
                for (mut d, p) in d_s.rows_mut().into_iter().zip(p.rows()) {
                    let sum: f64 = d.iter().zip(p).map(|(d, p)| f64::from(*d) * f64::from(*p)).sum();
                    d.zip_mut_with(&p, |d, p| *d = p * (*d - sum as f32) * h.scale());
                }
                for (part, grad) in [d_s.dot(&k), d_s.t().dot(&q), p.t().dot(&d_ctx)].iter().enumerate() {
                    let first = part * hidden + head * h.dim;
                    let mut to = grads.slice_mut(s![text.clone(), first..first + h.dim]);
                    to.fill(0.0);
                    to.slice_mut(s![..grad.nrows(), ..]).assign(grad);
                }
            }
            text_sums(num, d_qkv, 3 * hidden, offsets, d_b);
        }
        _ => mismatch("attention"),
    }
}

fn part_of<'a, T>(x: &'a [T], rows: &Range<usize>, cols: usize) -> &'a [T] {
    &x[rows.start * cols..rows.end * cols]
}

/// Runs `task(i, text's rows, heads, to: [parts, queries, blocks])` for every text and group of heads in parallel, lays
/// what they fill out as `[rows, parts · blocks(hidden)]`, and returns what they return, text by text.
fn for_groups<T: Send>(
    h: Heads,
    queries: Queries,
    offsets: &[i32],
    parts: usize,
    result: &mut [Block],
    task: impl Fn(usize, Range<usize>, HeadGroup, &mut [Block]) -> T + Sync,
) -> Vec<T> {
    let run = |(i, text): (usize, Range<usize>), heads: Range<usize>| {
        let len = text.len();
        let group = HeadGroup { len, queries: queries.of(len), hidden: h.hidden(), dim: h.dim, heads };
        let mut to = vec![Block::zeroed(); parts * group.queries * blocks(group.width())];
        let rows = queries.rows(i, &text);
        let value = task(i, text, group.clone(), &mut to);
        (rows, group, to, value)
    };
    let texts = texts(offsets).enumerate();
    let all: Vec<_> = texts.flat_map(|text| h.groups().map(move |g| (text.clone(), g))).collect();
    let done: Vec<_> = all.into_par_iter().map(|(text, heads)| run(text, heads)).collect();
    let whole = blocks(h.hidden());
    done.into_iter()
        .map(|(rows, group, to, value)| {
            let (first, width) = (group.heads.start * h.dim / BLOCK, blocks(group.width()));
            for (part, to) in to.chunks_exact(rows.len() * width).enumerate() {
                for (r, to) in rows.clone().zip(to.chunks_exact(width)) {
                    result[(r * parts + part) * whole + first..][..width].copy_from_slice(to);
                }
            }
            value
        })
        .collect()
}

fn texts_and_heads(h: Heads, offsets: &[i32]) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
    let texts = texts(offsets).enumerate();
    texts.flat_map(move |(i, text)| (0..h.heads).map(move |head| (i, text.clone(), head)))
}

fn reference_rows(x: &[f32], cols: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((x.len() / cols, cols), x).expect("whole rows")
}

fn reference_rows_mut(x: &mut [f32], cols: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((x.len() / cols, cols), x).expect("whole rows")
}

fn reference_qkv<'a>(
    h: Heads,
    qkv: ArrayView2<'a, f32>,
    text: &Range<usize>,
    head: usize,
) -> [ArrayView2<'a, f32>; 3] {
    [0, 1, 2].map(|part| {
        let col = part * h.hidden() + head * h.dim;
        qkv.slice_move(s![text.clone(), col..col + h.dim])
    })
}

fn reference_probabilities(
    h: Heads,
    queries: Queries,
    qkv: ArrayView2<f32>,
    text: &Range<usize>,
    head: usize,
) -> Array2<f32> {
    let [q, k, _] = reference_qkv(h, qkv, text, head);
    let mut s = q.slice(s![..queries.of(text.len()), ..]).dot(&k.t());
    for mut row in s.rows_mut() {
        row.mapv_inplace(|v| v * h.scale());
        let p = super::loss::softmax(row.as_slice().expect("row-major tensor"));
        row.iter_mut().zip(p).for_each(|(s, p)| *s = p as f32);
    }
    s
}
