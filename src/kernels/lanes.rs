//! Sixteen virtual f32 lanes: the one vector width all float kernels are written for.
//!
//! A set maps them to its registers: one `__m512`, two `__m256`, four NEON registers, or an array. Every
//! operation is defined to the bit, so a kernel written over [`Lanes`] gives the same bits in every set
//! (the payload and sign of a NaN apart).

use half::f16;

/// Number of virtual lanes.
pub const LANES: usize = 16;

/// Operations on 16 lanes. `self` is the proof that the CPU has the instructions, see [`super::isa::Isa`].
pub trait Lanes: Copy + Send + Sync + 'static {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// Loads 16 values.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Stores 16 values.
    fn store(self, v: Self::F, to: &mut [f32; LANES]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: a NaN in `b` stays, a NaN in `a` goes.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: a NaN in `b` stays, a NaN in `a` goes.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The bits of the floats.
    fn bits(self, v: Self::F) -> Self::I;
    /// Floats of these bits.
    fn of_bits(self, v: Self::I) -> Self::F;
    /// `x` in every lane.
    fn splat_i(self, x: i32) -> Self::I;
    /// Bitwise and.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// Signed maximum.
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `v << 23`: an integer to the exponent field.
    fn shl23(self, v: Self::I) -> Self::I;
    /// Converts 16 integers, each rounded once (half to even).
    fn load_i32(self, x: &[i32; LANES]) -> Self::F;
    /// Converts 16 bytes.
    fn load_u8(self, x: &[u8; LANES]) -> Self::F;
    /// Stores the low byte of every lane.
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]);
    /// Stores the low bytes of four vectors, one behind the other.
    #[inline(always)]
    fn store_bytes(self, v: [Self::I; 4], to: &mut [u8; 4 * LANES]) {
        for (v, to) in v.into_iter().zip(to.as_chunks_mut().0) {
            self.store_u8(v, to);
        }
    }
    /// Widens 16 halves.
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    /// Narrows to 16 halves, rounding half to even.
    fn store_f16(self, v: Self::F, to: &mut [f16; LANES]);

    /// Loads up to 16 values; the lanes beyond hold `pad`.
    #[inline(always)]
    fn load_part(self, x: &[f32], pad: f32) -> Self::F {
        let mut all = [pad; LANES];
        all[..x.len()].copy_from_slice(x);
        self.load(&all)
    }

    /// Stores the first `to.len()` lanes.
    #[inline(always)]
    fn store_part(self, v: Self::F, to: &mut [f32]) {
        let mut all = [0.0; LANES];
        self.store(v, &mut all);
        to.copy_from_slice(&all[..to.len()]);
    }

    /// Sum over the lanes, halving: lane `i` takes lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let mut a = [0.0; LANES];
        self.store(v, &mut a);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] += a[i + half];
            }
        }
        a[0]
    }

    /// Largest lane, signed.
    #[inline(always)]
    fn max_i_lane(self, v: Self::I) -> i32 {
        let mut a = [0.0f32; LANES];
        self.store(self.of_bits(v), &mut a);
        a.iter().fold(i32::MIN, |max, a| max.max(a.to_bits() as i32))
    }

    /// The transposed square: lane `j` of vector `i` becomes lane `i` of vector `j`.
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut rows = [[0.0f32; LANES]; LANES];
        for (v, row) in v.into_iter().zip(&mut rows) {
            self.store(v, row);
        }
        let mut out = v;
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.load(&std::array::from_fn(|j| rows[j][i]));
        }
        out
    }

    /// Largest lane, by `if a > b { a } else { b }` along the same tree as [`Lanes::sum`].
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        let mut a = [0.0f32; LANES];
        self.store(v, &mut a);
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                a[i] = if a[i] > a[i + half] { a[i] } else { a[i + half] };
            }
        }
        a[0]
    }
}
