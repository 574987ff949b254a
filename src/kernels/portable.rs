//! The definition: arrays and plain loops, which any compiler vectorizes as far as the CPU goes.

use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::tiles::{Ahead, MR_MAX, PANEL, Tile};
use super::{BLOCK, Block};
use half::f16;

/// Runs everywhere; no instruction beyond the target's baseline.
#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn each<A: Copy, B: Copy, T>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> T) -> [T; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn bits(self, v: Self::F) -> Self::I {
        v.map(|v| v.to_bits() as i32)
    }
    #[inline(always)]
    fn of_bits(self, v: Self::I) -> Self::F {
        v.map(|v| f32::from_bits(v as u32))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a.max(b))
    }
    #[inline(always)]
    fn shl23(self, v: Self::I) -> Self::I {
        v.map(|v| v << 23)
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::F {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::F {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]) {
        *to = v.map(|v| v as u8);
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        x.map(f16::to_f32)
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, to: &mut [f16; LANES]) {
        *to = v.map(f16::from_f32);
    }
}

const MR: usize = 4;
const _: () = assert!(MR <= MR_MAX);

impl Int8 for Portable {
    const MR: usize = MR;
    const PANELS: usize = 1;
    const KU: usize = 1;
    // Widened when packed: products of i16 in i32 are what baselines have. LLVM does not see pairs (`KU = 2`).
    type A = i16;
    type B = i16;

    #[inline(always)]
    fn lift_a(q: i8) -> i16 {
        q.into()
    }
    #[inline(always)]
    fn lift_b(w: i8) -> i16 {
        w.into()
    }

    #[inline(always)]
    fn tile(
        self,
        mr: usize,
        x: &[Block],
        a: &[i16],
        b: &[&[i16]],
        _sums: &[i32],
        acc: &mut Tile,
        col: usize,
        _ahead: Ahead,
    ) {
        let blocks = x.len() / mr;
        for (block, (a, b)) in a.chunks_exact(BLOCK * mr).zip(b[0].chunks_exact(BLOCK * PANEL)).enumerate() {
            for (r, row) in acc.0[..mr].iter_mut().enumerate() {
                let mut sum = [0; PANEL];
                for (a, b) in a.chunks_exact(mr).zip(b.as_chunks::<PANEL>().0) {
                    for (sum, &b) in sum.iter_mut().zip(b) {
                        *sum += i32::from(a[r]) * i32::from(b);
                    }
                }
                let scale = x[r * blocks + block].scale;
                for (f, &sum) in row[col..].iter_mut().zip(&sum) {
                    *f = if block == 0 { sum as f32 * scale } else { (sum as f32).mul_add(scale, *f) };
                }
            }
        }
    }
}

impl Isa for Portable {
    const NAME: &'static str = "portable";

    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        op.run(self)
    }
}
