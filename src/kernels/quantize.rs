//! From f32 to [`Block`]s: 64 columns at a time, in registers.
//!
//! Here and wherever lanes are used there are loops instead of closures: a closure is a function of its own, compiled
//! without the set's instructions.

use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::math::ROUND;
use super::{BLOCK, Block, blocks};

/// Vectors of a block.
pub(super) const VECTORS: usize = BLOCK / LANES;

/// See `Kernels::quantize_rows`.
pub(super) struct QuantizeRows<'a> {
    pub x: &'a [f32],
    pub k: usize,
    pub fold: Option<&'a [f32]>,
    pub to: &'a mut [Block],
}

impl Op for QuantizeRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let QuantizeRows { x, k, fold, to } = self;
        assert!(fold.is_none_or(|f| f.len() == k) && x.len() * blocks(k) == to.len() * k);
        if k > 0 {
            for (x, to) in x.chunks_exact(k).zip(to.chunks_exact_mut(blocks(k))) {
                row(l, x, fold, to);
            }
        }
    }
}

/// A row of `x`, or of `x ∘ fold`.
#[inline(always)]
pub(super) fn row<I: Isa>(l: I, x: &[f32], fold: Option<&[f32]>, to: &mut [Block]) {
    match fold {
        None => {
            for (x, to) in x.chunks(BLOCK).zip(to) {
                block(l, load(l, x), to);
            }
        }
        Some(fold) => {
            for ((x, f), to) in x.chunks(BLOCK).zip(fold.chunks(BLOCK)).zip(to) {
                let (mut v, f) = (load(l, x), load(l, f));
                for i in 0..VECTORS {
                    v[i] = l.mul(v[i], f[i]);
                }
                block(l, v, to);
            }
        }
    }
}

/// One block.
#[inline(always)]
pub(super) fn block<I: Int8>(l: I, v: [I::F; VECTORS], to: &mut Block) {
    // The bits of |x| order as |x| does, with infinity and then NaN on top: no float maximum loses a NaN here.
    let magnitude = l.splat_i(i32::MAX);
    let mut bits = l.and(l.bits(v[0]), magnitude);
    for v in &v[1..] {
        bits = l.max_i(bits, l.and(l.bits(*v), magnitude));
    }
    let max = f32::from_bits(l.max_i_lane(bits) as u32);
    // Below the lower bound 127 / max may overflow or max / 127 be subnormal: it is zero for every purpose.
    if !(max.is_finite() && max >= 128.0 * f32::MIN_POSITIVE) {
        to.q = [I::FLIP as i8; BLOCK];
        to.scale = if max.is_finite() { 0.0 } else { f32::NAN };
        return;
    }
    // `round_half_even(v · inverse)`, two roundings as if written so in scalar code, in the low byte. 128 more
    // flips its top bit, and 128 is even: halves round as before.
    let (inverse, shift) = (l.splat(127.0 / max), l.splat(ROUND + f32::from(I::FLIP)));
    let mut low = [bits; VECTORS];
    for (low, v) in low.iter_mut().zip(v) {
        *low = l.bits(l.add(l.mul(v, inverse), shift));
    }
    l.store_bytes(low, bytemuck::cast_mut::<[i8; BLOCK], [u8; BLOCK]>(&mut to.q));
    to.scale = max / 127.0;
}

/// Up to 64 values, zeros behind.
#[inline(always)]
pub(super) fn load<L: Lanes>(l: L, x: &[f32]) -> [L::F; VECTORS] {
    let mut v = [l.splat(0.0); VECTORS];
    match x.as_chunks::<LANES>() {
        (whole, []) if whole.len() == VECTORS => {
            for (v, x) in v.iter_mut().zip(whole) {
                *v = l.load(x);
            }
        }
        _ => {
            for (v, x) in v.iter_mut().zip(x.chunks(LANES)) {
                *v = l.load_part(x, 0.0);
            }
        }
    }
    v
}

/// Up to 64 values.
#[inline(always)]
pub(super) fn store<L: Lanes>(l: L, v: [L::F; VECTORS], to: &mut [f32]) {
    match to.as_chunks_mut::<LANES>() {
        (whole, []) if whole.len() == VECTORS => {
            for (v, to) in v.into_iter().zip(whole) {
                l.store(v, to);
            }
        }
        _ => {
            for (v, to) in v.into_iter().zip(to.chunks_mut(LANES)) {
                l.store_part(v, to);
            }
        }
    }
}
