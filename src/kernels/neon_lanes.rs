//! The 16 lanes in four NEON registers, for every ARM set, and what their int8 tiles share.

use super::lanes::{LANES, Lanes};
use half::f16;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

/// Sixteen f32.
pub type F = [float32x4_t; 4];
/// Sixteen i32.
pub type I = [int32x4_t; 4];

/// Intrinsics on values, or on whole arrays by reference.
macro_rules! cpu {
    ($e:expr) => {{
        // SAFETY: this file is compiled only for targets that have NEON; pointers are as said where they are made.
        unsafe { $e }
    }};
}

/// Tokens of CPUs that have NEON, which is every CPU these files are compiled for.
pub trait Neon4: Copy + Send + Sync + 'static {}

#[inline(always)]
fn each<A: Copy, B: Copy, T>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> T) -> [T; 4] {
    from_fn(|i| f(a[i], b[i]))
}

impl<T: Neon4> Lanes for T {
    type F = F;
    type I = I;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [cpu!(vdupq_n_f32(x)); 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        // SAFETY: four values from each multiple of 4 below 16.
        from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn store(self, v: F, to: &mut [f32; LANES]) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut::<4>().0) {
            // SAFETY: four values.
            unsafe { vst1q_f32(to.as_mut_ptr(), v) };
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vaddq_f32(a, b)))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vsubq_f32(a, b)))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vmulq_f32(a, b)))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vdivq_f32(a, b)))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| cpu!(vfmaq_f32(c[i], a[i], b[i])))
    }
    // Not `vmaxq`: it orders the zeros and keeps a NaN of either operand.
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vbslq_f32(vcgtq_f32(a, b), a, b)))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        each(a, b, |a, b| cpu!(vbslq_f32(vcltq_f32(a, b), a, b)))
    }
    #[inline(always)]
    fn bits(self, v: F) -> I {
        v.map(|v| cpu!(vreinterpretq_s32_f32(v)))
    }
    #[inline(always)]
    fn of_bits(self, v: I) -> F {
        v.map(|v| cpu!(vreinterpretq_f32_s32(v)))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        [cpu!(vdupq_n_s32(x)); 4]
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        each(a, b, |a, b| cpu!(vandq_s32(a, b)))
    }
    #[inline(always)]
    fn max_i(self, a: I, b: I) -> I {
        each(a, b, |a, b| cpu!(vmaxq_s32(a, b)))
    }
    #[inline(always)]
    fn shl23(self, v: I) -> I {
        v.map(|v| cpu!(vshlq_n_s32::<23>(v)))
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> F {
        // SAFETY: four values from each multiple of 4 below 16.
        from_fn(|i| unsafe { vcvtq_f32_s32(vld1q_s32(x.as_ptr().add(4 * i))) })
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> F {
        cpu!({
            let x = vld1q_u8(x.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_high_u8(x));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_high_u16(low)),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_high_u16(high)),
            ]
        })
    }
    #[inline(always)]
    fn store_u8(self, v: I, to: &mut [u8; LANES]) {
        // The even bytes of the even bytes.
        cpu!({
            let v = v.map(|v| vreinterpretq_u8_s32(v));
            let v = vuzp1q_u8(vuzp1q_u8(v[0], v[1]), vuzp1q_u8(v[2], v[3]));
            vst1q_u8(to.as_mut_ptr(), v);
        })
    }
    // The intrinsics on f16 are stable since Rust 1.94 only.
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> F {
        let mut v = self.splat(0.0);
        for (i, v) in v.chunks_exact_mut(2).enumerate() {
            // SAFETY: eight halves from 0 and from 8; `fcvtl` only reads and writes registers and flags, and NEON has it.
            unsafe {
                let x = vld1q_u16(x.as_ptr().add(8 * i).cast());
                asm!(
                    "fcvtl {low:v}.4s, {x:v}.4h",
                    "fcvtl2 {high:v}.4s, {x:v}.8h",
                    x = in(vreg) x, low = out(vreg) v[0], high = lateout(vreg) v[1],
                    options(pure, nomem, nostack)
                );
            }
        }
        v
    }
    #[inline(always)]
    fn store_f16(self, v: F, to: &mut [f16; LANES]) {
        for (v, to) in v.as_chunks::<2>().0.iter().zip(to.as_chunks_mut::<8>().0) {
            let halves: uint16x8_t;
            // SAFETY: `fcvtn` only reads and writes registers and flags, and NEON has it; eight halves are stored.
            unsafe {
                asm!(
                    "fcvtn {to:v}.4h, {low:v}.4s",
                    "fcvtn2 {to:v}.8h, {high:v}.4s",
                    low = in(vreg) v[0], high = in(vreg) v[1], to = out(vreg) halves,
                    options(pure, nomem, nostack)
                );
                vst1q_u16(to.as_mut_ptr().cast(), halves);
            }
        }
    }
    #[inline(always)]
    fn sum(self, v: F) -> f32 {
        cpu!({
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        })
    }
    #[inline(always)]
    fn max_lane(self, v: F) -> f32 {
        let (a, b) = cpu!({
            let max = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
            let v = max(max(v[0], v[2]), max(v[1], v[3]));
            let v = max(v, vextq_f32::<2>(v, v));
            (vgetq_lane_f32::<0>(v), vgetq_lane_f32::<1>(v))
        });
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn max_i_lane(self, v: I) -> i32 {
        cpu!(vmaxvq_s32(vmaxq_s32(vmaxq_s32(v[0], v[1]), vmaxq_s32(v[2], v[3]))))
    }
    #[inline(always)]
    fn transpose(self, v: [F; LANES]) -> [F; LANES] {
        // Squares of 4 by 4, transposed and at transposed places.
        let mut out = v;
        for (q, rows) in v.as_chunks::<4>().0.iter().enumerate() {
            for c in 0..4 {
                let square = cpu!({
                    let r: [float64x2_t; 4] = [
                        vreinterpretq_f64_f32(vtrn1q_f32(rows[0][c], rows[1][c])),
                        vreinterpretq_f64_f32(vtrn2q_f32(rows[0][c], rows[1][c])),
                        vreinterpretq_f64_f32(vtrn1q_f32(rows[2][c], rows[3][c])),
                        vreinterpretq_f64_f32(vtrn2q_f32(rows[2][c], rows[3][c])),
                    ];
                    [
                        vtrn1q_f64(r[0], r[2]),
                        vtrn1q_f64(r[1], r[3]),
                        vtrn2q_f64(r[0], r[2]),
                        vtrn2q_f64(r[1], r[3]),
                    ]
                    .map(|v| vreinterpretq_f32_f64(v))
                });
                for (i, line) in square.into_iter().enumerate() {
                    out[4 * c + i][q] = line;
                }
            }
        }
        out
    }
}
