//! The f32 kernels, each written once over 16 lanes.
//!
//! In a reduction element `i` goes to lane `i % 16`, elements ascending, and `Lanes::sum` folds the lanes: the
//! order depends on the length alone. Rows are `chunks_exact` of the slices; a wrong length is a bug in the
//! caller and panics.

use super::isa::{Isa, Op};
use super::lanes::{LANES, Lanes};
use super::math;
use half::f16;

/// See `Kernels::softmax_rows`.
pub(super) struct SoftmaxRows<'a> {
    pub s: &'a mut [f32],
    pub n: usize,
    pub ld: usize,
    pub scale: f32,
}

impl Op for SoftmaxRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let SoftmaxRows { s, n, ld, scale } = self;
        assert!(n <= ld && ld.is_multiple_of(LANES) && (ld == 0 || s.len().is_multiple_of(ld)));
        if n == 0 {
            return s.fill(0.0);
        }
        for row in s.chunks_exact_mut(ld) {
            let (row, pad) = row.split_at_mut(n);
            pad.fill(0.0);
            let (chunks, tail) = row.as_chunks_mut::<LANES>();

            let mut max = l.load_part(tail, f32::NEG_INFINITY);
            for x in chunks.iter() {
                max = l.max(max, l.load(x));
            }
            // e^(scale (x - max)) = 2^(factor x - factor max). A NaN may be lost by `max`, but not by what follows: the
            // whole row becomes NaN.
            let factor = scale * std::f32::consts::LOG2_E;
            let (factor, max) = (l.splat(factor), l.splat(-factor * l.max_lane(max)));
            let mut sum = l.splat(0.0);
            let (fours, ones) = chunks.as_chunks_mut::<4>();
            for x in fours {
                let mut e = [factor; 4];
                for i in 0..4 {
                    e[i] = l.fma(l.load(&x[i]), factor, max);
                }
                let e = math::exp2(l, e);
                for i in 0..4 {
                    sum = l.add(sum, e[i]);
                    l.store(e[i], &mut x[i]);
                }
            }
            for x in ones {
                let [e] = math::exp2(l, [l.fma(l.load(x), factor, max)]);
                sum = l.add(sum, e);
                l.store(e, x);
            }
            if !tail.is_empty() {
                let [e] = math::exp2(l, [l.fma(l.load_part(tail, 0.0), factor, max)]);
                l.store_part(e, tail);
                sum = l.add(sum, l.load_part(tail, 0.0));
            }

            let inverse = l.splat(1.0 / l.sum(sum));
            for x in chunks {
                l.store(l.mul(l.load(x), inverse), x);
            }
            let last = l.mul(l.load_part(tail, 0.0), inverse);
            l.store_part(last, tail);
        }
    }
}

/// See `Kernels::softmax_backward_rows`.
pub(super) struct SoftmaxBackwardRows<'a> {
    pub p: &'a [f32],
    pub d_p: &'a mut [f32],
    pub ld: usize,
    pub scale: f32,
}

impl Op for SoftmaxBackwardRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let SoftmaxBackwardRows { p, d_p, ld, scale } = self;
        assert!(ld.is_multiple_of(LANES) && p.len() == d_p.len() && (ld == 0 || p.len().is_multiple_of(ld)));
        if ld == 0 {
            return;
        }
        let factor = l.splat(scale);
        for (p, d_p) in p.chunks_exact(ld).zip(d_p.chunks_exact_mut(ld)) {
            let (p, d_p) = (p.as_chunks::<LANES>().0, d_p.as_chunks_mut::<LANES>().0);
            let mut dot = l.splat(0.0);
            for (p, d) in p.iter().zip(d_p.iter()) {
                dot = l.fma(l.load(d), l.load(p), dot);
            }
            let dot = l.splat(l.sum(dot));
            for (p, d) in p.iter().zip(d_p) {
                l.store(l.mul(l.mul(l.sub(l.load(d), dot), l.load(p)), factor), d);
            }
        }
    }
}

/// See `Kernels::add_rows`.
pub(super) struct AddRows<'a> {
    pub d: &'a [f32],
    pub sum: &'a mut [f32],
}

impl Op for AddRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let AddRows { d, sum } = self;
        let cols = sum.len();
        if cols == 0 {
            return assert!(d.is_empty());
        }
        assert!(d.len().is_multiple_of(cols));
        let (sums, s_tail) = sum.as_chunks_mut::<LANES>();
        for row in d.chunks_exact(cols) {
            let (row, tail) = row.as_chunks::<LANES>();
            for (s, d) in sums.iter_mut().zip(row) {
                l.store(l.add(l.load(s), l.load(d)), s);
            }
            for (s, d) in s_tail.iter_mut().zip(tail) {
                *s += d;
            }
        }
    }
}

/// See `Kernels::tanh`.
pub(super) struct Tanh<'a> {
    pub x: &'a [f32],
    pub y: &'a mut [f32],
}

impl Op for Tanh<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        assert_eq!(self.x.len(), self.y.len());
        let (xs, x_tail) = self.x.as_chunks::<LANES>();
        let (ys, y_tail) = self.y.as_chunks_mut::<LANES>();
        for (x, y) in xs.iter().zip(ys) {
            l.store(math::tanh(l, l.load(x)), y);
        }
        l.store_part(math::tanh(l, l.load_part(x_tail, 0.0)), y_tail);
    }
}

/// Loads up to 16 halves, zeros beyond.
#[inline(always)]
pub(super) fn load_f16_part<L: Lanes>(l: L, x: &[f16]) -> L::F {
    let mut all = [f16::ZERO; LANES];
    all[..x.len()].copy_from_slice(x);
    l.load_f16(&all)
}

/// Stores the first `to.len()` lanes.
#[inline(always)]
pub(super) fn store_f16_part<L: Lanes>(l: L, v: L::F, to: &mut [f16]) {
    let mut all = [f16::ZERO; LANES];
    l.store_f16(v, &mut all);
    to.copy_from_slice(&all[..to.len()]);
}
