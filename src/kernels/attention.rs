//! Attention of a few heads of one text, in f32 between the f16 of q, k and v and the int8 of what follows.
//!
//! A head is small: its operands are widened and, where a product needs it, turned once; scores of 64 queries at a
//! time stay in the first-level caches. Heads write side by side into a stage from which whole blocks are quantized.

use super::float::{SoftmaxBackwardRows, SoftmaxRows, load_f16_part};
use super::gemm_f32::GemmF32;
use super::isa::{Isa, Op};
use super::lanes::{LANES, Lanes};
use super::{Block, HeadGroup, Strided, blocks, quantize};
use half::f16;
use std::cell::Cell;

/// Queries that one pass of the forward takes.
const QUERIES: usize = 64;

thread_local! {
    // Taken for the time of a call: nothing here runs other tasks, so it is always there.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Matrices of these sizes, of whatever was there before.
fn scratch<const N: usize>(buffer: &mut Vec<f32>, sizes: [usize; N]) -> [&mut [f32]; N] {
    let all: usize = sizes.iter().sum();
    if buffer.len() < all {
        buffer.resize(all, 0.0);
    }
    let mut rest = &mut buffer[..];
    sizes.map(|n| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(n);
        rest = tail;
        part
    })
}

fn pad(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

fn check(h: &HeadGroup, qkv: &[f16]) {
    assert!(qkv.len() == h.len * 3 * h.hidden && h.dim > 0 && h.heads.end * h.dim <= h.hidden);
    assert!(h.queries <= h.len);
}

/// See `Kernels::attention_forward`.
pub(super) struct AttentionForward<'a> {
    pub h: &'a HeadGroup,
    pub qkv: &'a [f16],
    pub to: &'a mut [Block],
}

impl Op for AttentionForward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let AttentionForward { h, qkv, to } = self;
        check(h, qkv);
        let (len, queries, dim, wide, cols) = (h.len, h.queries, h.dim, pad(h.dim), pad(h.len));
        // A head whose width is no whole vector spills into the columns of the next, which is written later.
        let ld = pad(h.width()) + LANES;
        let width = blocks(h.width());
        assert!(to.len() == queries * width);
        let mut buffer = SCRATCH.take();
        let sizes = [queries * wide, wide * cols, len * wide, QUERIES.min(queries) * cols, queries * ld];
        let [query, key_t, value, s, ctx] = scratch(&mut buffer, sizes);
        for (i, head) in h.heads.clone().enumerate() {
            let part =
                |part: usize| Part { qkv, ld: 3 * h.hidden, col: part * h.hidden + head * dim, len, dim };
            part(0).gather(l, query);
            part(1).transpose(l, key_t);
            part(2).gather(l, value);
            for first in (0..queries).step_by(QUERIES) {
                let m = QUERIES.min(queries - first);
                let q = rows(&query[first * wide..], wide);
                product(l, m, cols, dim, q, key_t, cols, s, cols);
                l.vectorize(SoftmaxRows { s: &mut s[..m * cols], n: len, ld: cols, scale: scale(dim) });
                product(l, m, wide, len, rows(s, cols), value, wide, &mut ctx[first * ld + i * dim..], ld);
            }
        }
        for (ctx, to) in ctx.chunks_exact(ld).zip(to.chunks_exact_mut(width)) {
            quantize::row(l, &ctx[..h.width()], None, to);
        }
        SCRATCH.set(buffer);
    }
}

/// See `Kernels::attention_backward`.
pub(super) struct AttentionBackward<'a> {
    pub h: &'a HeadGroup,
    pub qkv: &'a [f16],
    pub d_ctx: &'a [f32],
    pub fold: [&'a [f32]; 3],
    pub to: [&'a mut [Block]; 3],
    pub sums: &'a mut [f32],
}

impl Op for AttentionBackward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let AttentionBackward { h, qkv, d_ctx, fold, to, sums } = self;
        check(h, qkv);
        let (len, queries, dim, wide, cols) = (h.len, h.queries, h.dim, pad(h.dim), pad(h.len));
        let (ld, width) = (pad(h.width()) + LANES, blocks(h.width()));
        assert!(d_ctx.len() == queries * h.hidden && sums.len() == 3 * h.width());
        assert!(fold.iter().all(|f| f.len() == h.hidden) && to.iter().all(|to| to.len() == len * width));
        let mut buffer = SCRATCH.take();
        let (asks, rows_of, turned_of, scores) = (queries * wide, len * wide, wide * cols, queries * cols);
        let sizes = [asks, rows_of, turned_of, turned_of, asks, scores, scores, 3 * len * ld];
        let [query, key, key_t, value_t, d_out, p, d_s, grads] = scratch(&mut buffer, sizes);
        for (i, head) in h.heads.clone().enumerate() {
            let part =
                |part: usize| Part { qkv, ld: 3 * h.hidden, col: part * h.hidden + head * dim, len, dim };
            part(0).gather(l, query);
            part(1).gather(l, key);
            part(1).transpose(l, key_t);
            part(2).transpose(l, value_t);
            for (d, to) in d_ctx.chunks_exact(h.hidden).zip(d_out.chunks_exact_mut(wide)) {
                to[..dim].copy_from_slice(&d[head * dim..][..dim]);
            }
            product(l, queries, cols, dim, rows(query, wide), key_t, cols, p, cols);
            l.vectorize(SoftmaxRows { s: p, n: len, ld: cols, scale: scale(dim) });
            product(l, queries, cols, dim, rows(d_out, wide), value_t, cols, d_s, cols);
            l.vectorize(SoftmaxBackwardRows { p, d_p: d_s, ld: cols, scale: scale(dim) });
            let turned = |data| Strided { data, rs: 1, cs: cols };
            let products = [
                (queries, len, rows(d_s, cols), &*key),
                (len, queries, turned(&*d_s), &*query),
                (len, queries, turned(&*p), &*d_out),
            ];
            for (grad, (m, k, a, b)) in grads.chunks_exact_mut(len * ld).zip(products) {
                product(l, m, wide, k, a, b, wide, &mut grad[i * dim..], ld);
            }
        }
        // Who does not ask has no gradient of q.
        grads[queries * ld..len * ld].fill(0.0);
        let columns = h.heads.start * dim..h.heads.end * dim;
        let parts = grads.chunks_exact(len * ld).zip(sums.chunks_exact_mut(h.width())).zip(fold).zip(to);
        for (((grad, sums), fold), to) in parts {
            sums.fill(0.0);
            let fold = &fold[columns.clone()];
            for (grad, to) in grad.chunks_exact(ld).zip(to.chunks_exact_mut(width)) {
                let grad = &grad[..h.width()];
                sums.iter_mut().zip(grad).for_each(|(s, g)| *s += g);
                quantize::row(l, grad, Some(fold), to);
            }
        }
        SCRATCH.set(buffer);
    }
}

fn scale(dim: usize) -> f32 {
    1.0 / (dim as f32).sqrt()
}

fn rows(data: &[f32], rs: usize) -> Strided<'_> {
    Strided { data, rs, cs: 1 }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn product<I: Isa>(
    l: I,
    m: usize,
    n: usize,
    k: usize,
    a: Strided,
    b: &[f32],
    ldb: usize,
    c: &mut [f32],
    ldc: usize,
) {
    l.vectorize(GemmF32 { m, n, k, a, b, ldb, c, ldc });
}

/// One head's q, k or v.
#[derive(Clone, Copy)]
struct Part<'a> {
    qkv: &'a [f16],
    ld: usize,
    col: usize,
    len: usize,
    dim: usize,
}

impl Part<'_> {
    #[inline(always)]
    fn row(&self, t: usize) -> &[f16] {
        &self.qkv[t * self.ld + self.col..][..self.dim]
    }

    /// Widened to `[len, pad(dim)]`, zeros behind.
    #[inline(always)]
    fn gather<L: Lanes>(&self, l: L, to: &mut [f32]) {
        for (t, to) in to.chunks_exact_mut(pad(self.dim)).enumerate() {
            for (x, to) in self.row(t).chunks(LANES).zip(to.as_chunks_mut::<LANES>().0) {
                l.store(load(l, x), to);
            }
        }
    }

    /// Widened and turned to `[pad(dim), pad(len)]`, zeros behind.
    #[inline(always)]
    fn transpose<L: Lanes>(&self, l: L, to: &mut [f32]) {
        let cols = pad(self.len);
        for t in (0..self.len).step_by(LANES) {
            for c in (0..self.dim).step_by(LANES) {
                let mut square = [l.splat(0.0); LANES];
                for (i, v) in square.iter_mut().enumerate().take(self.len - t) {
                    let row = &self.row(t + i)[c..];
                    *v = load(l, &row[..row.len().min(LANES)]);
                }
                for (i, v) in l.transpose(square).into_iter().enumerate() {
                    if let Some(to) = to[(c + i) * cols + t..].first_chunk_mut() {
                        l.store(v, to);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn load<L: Lanes>(l: L, x: &[f16]) -> L::F {
    match x.try_into() {
        Ok(x) => l.load_f16(x),
        Err(_) => load_f16_part(l, x),
    }
}
