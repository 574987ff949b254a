//! Residual add with LayerNorm, forward and backward, over 16 lanes.

use super::float::{load_f16_part, store_f16_part};
use super::isa::{Isa, Op};
use super::lanes::{LANES, Lanes};
use super::{Block, blocks, quantize};
use half::f16;

/// See `Kernels::add_norm`.
pub(super) struct AddNorm<'a> {
    pub x: &'a [f32],
    pub r: Option<&'a [f32]>,
    pub g: &'a [f32],
    pub b: &'a [f32],
    pub eps: f32,
    pub y: &'a mut [f32],
    pub to: Option<&'a mut [Block]>,
    pub saved: Option<(&'a mut [f16], &'a mut [f32])>,
}

impl Op for AddNorm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let AddNorm { x, r, g, b, eps, y, mut to, mut saved } = self;
        let cols = g.len();
        assert!(b.len() == cols && y.len() == x.len() && r.is_none_or(|r| r.len() == x.len()));
        if cols == 0 {
            return assert!(x.is_empty());
        }
        assert!(x.len().is_multiple_of(cols));
        if let Some((n, rstd)) = &saved {
            assert!(n.len() == x.len() && rstd.len() * cols == x.len());
        }
        let blocks = blocks(cols);
        assert!(to.as_ref().is_none_or(|to| to.len() * cols == x.len() * blocks));
        for (i, y) in y.chunks_exact_mut(cols).enumerate() {
            let at = i * cols..(i + 1) * cols;
            let rstd = normalize(
                l,
                &x[at.clone()],
                r.map(|r| &r[at.clone()]),
                g,
                b,
                eps,
                y,
                match &mut saved {
                    Some((n, _)) => Some(&mut n[at]),
                    None => None,
                },
            );
            if let Some((_, all)) = &mut saved {
                all[i] = rstd;
            }
            if let Some(to) = &mut to {
                quantize::row(l, y, None, &mut to[i * blocks..][..blocks]);
            }
        }
    }
}

/// One row; returns `rstd`. The sum `x + r` is kept in `y` between the passes.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn normalize<L: Lanes>(
    l: L,
    x: &[f32],
    r: Option<&[f32]>,
    g: &[f32],
    b: &[f32],
    eps: f32,
    y: &mut [f32],
    n: Option<&mut [f16]>,
) -> f32 {
    let cols = y.len() as f32;
    let (xs, x_tail) = x.as_chunks::<LANES>();
    let (ys, y_tail) = y.as_chunks_mut::<LANES>();
    let (gs, g_tail) = g.as_chunks::<LANES>();
    let (bs, b_tail) = b.as_chunks::<LANES>();

    let mut sum = l.splat(0.0);
    let mut tail = l.load_part(x_tail, 0.0);
    match r {
        Some(r) => {
            let (rs, r_tail) = r.as_chunks::<LANES>();
            for ((x, r), y) in xs.iter().zip(rs).zip(ys.iter_mut()) {
                let v = l.add(l.load(x), l.load(r));
                sum = l.add(sum, v);
                l.store(v, y);
            }
            tail = l.add(tail, l.load_part(r_tail, 0.0));
        }
        None => {
            for (x, y) in xs.iter().zip(ys.iter_mut()) {
                let v = l.load(x);
                sum = l.add(sum, v);
                l.store(v, y);
            }
        }
    }
    l.store_part(tail, y_tail);
    let mean_value = l.sum(l.add(sum, tail)) / cols;
    let mean = l.splat(mean_value);

    let mut square = l.splat(0.0);
    for y in ys.iter() {
        let v = l.sub(l.load(y), mean);
        square = l.fma(v, v, square);
    }
    // Padded with the mean, the lanes beyond the row add nothing.
    let v = l.sub(l.load_part(y_tail, mean_value), mean);
    square = l.fma(v, v, square);
    let rstd_value = 1.0 / (l.sum(square) / cols + eps).sqrt();
    let rstd = l.splat(rstd_value);

    let tail = l.mul(v, rstd);
    let scaled = l.fma(l.load_part(g_tail, 0.0), tail, l.load_part(b_tail, 0.0));
    l.store_part(scaled, y_tail);
    match n {
        Some(n) => {
            let (ns, n_tail) = n.as_chunks_mut::<LANES>();
            for (((y, g), b), n) in ys.iter_mut().zip(gs).zip(bs).zip(ns) {
                let v = l.mul(l.sub(l.load(y), mean), rstd);
                l.store_f16(v, n);
                l.store(l.fma(l.load(g), v, l.load(b)), y);
            }
            store_f16_part(l, tail, n_tail);
        }
        None => {
            for ((y, g), b) in ys.iter_mut().zip(gs).zip(bs) {
                let v = l.mul(l.sub(l.load(y), mean), rstd);
                l.store(l.fma(l.load(g), v, l.load(b)), y);
            }
        }
    }
    rstd_value
}

/// See `Kernels::add_norm_backward`.
pub(super) struct AddNormBackward<'a> {
    pub d_y: &'a [f32],
    pub n: &'a [f16],
    pub rstd: &'a [f32],
    pub g: &'a [f32],
    pub d_x: &'a mut [f32],
    pub fold: Option<(&'a [f32], &'a mut [Block])>,
}

impl Op for AddNormBackward<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let AddNormBackward { d_y, n, rstd, g, d_x, mut fold } = self;
        let cols = g.len();
        assert!(d_y.len() == d_x.len() && n.len() == d_x.len() && rstd.len() * cols == d_x.len());
        if cols == 0 {
            return;
        }
        let blocks = blocks(cols);
        if let Some((fold, to)) = &fold {
            assert!(fold.len() == cols && to.len() * cols == d_x.len() * blocks);
        }
        let (gs, g_tail) = g.as_chunks::<LANES>();
        let g_tail = l.load_part(g_tail, 0.0);
        let rows = d_y.chunks_exact(cols).zip(n.chunks_exact(cols)).zip(rstd);
        for (i, (((d_y, n), &rstd), d_x)) in rows.zip(d_x.chunks_exact_mut(cols)).enumerate() {
            let (ds, d_tail) = d_y.as_chunks::<LANES>();
            let (ns, n_tail) = n.as_chunks::<LANES>();
            let (d_xs, d_x_tail) = d_x.as_chunks_mut::<LANES>();
            let (mut s1, mut s2) = (l.splat(0.0), l.splat(0.0));
            for ((d, g), n) in ds.iter().zip(gs).zip(ns) {
                let d_n = l.mul(l.load(d), l.load(g));
                s1 = l.add(s1, d_n);
                s2 = l.fma(d_n, l.load_f16(n), s2);
            }
            let d_tail = l.mul(l.load_part(d_tail, 0.0), g_tail);
            let n_tail = load_f16_part(l, n_tail);
            let m1 = l.splat(l.sum(l.add(s1, d_tail)) / cols as f32);
            let m2 = l.splat(-(l.sum(l.fma(d_tail, n_tail, s2)) / cols as f32));
            let rstd = l.splat(rstd);
            for (((d, g), n), d_x) in ds.iter().zip(gs).zip(ns).zip(d_xs) {
                let d_n = l.mul(l.load(d), l.load(g));
                l.store(l.mul(rstd, l.fma(l.load_f16(n), m2, l.sub(d_n, m1))), d_x);
            }
            l.store_part(l.mul(rstd, l.fma(n_tail, m2, l.sub(d_tail, m1))), d_x_tail);
            if let Some((fold, to)) = &mut fold {
                quantize::row(l, d_x, Some(fold), &mut to[i * blocks..][..blocks]);
            }
        }
    }
}
