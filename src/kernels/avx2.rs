//! AVX2 with FMA and F16C: two registers hold the 16 lanes, `vpmaddwd` multiplies 16 pairs of i16.
//!
//! Bytes are widened to i16 when packed. `vpmaddubsw`, which would take bytes, saturates: 2 · 255 · 127 does not
//! fit i16. `vpmaddwd` adds two products of at most 127² in i32: exact.

use super::gemm::{MR_MAX, NR_MAX, Tile};
use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::{BLOCK, MatI8};
use half::f16;
use std::arch::x86_64::*;

/// Proof that the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The set, if this CPU has it.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// An intrinsic on values.
macro_rules! cpu {
    ($e:expr) => {{
        // SAFETY: `self` exists, so the CPU has the instruction; operands are values or whole arrays by reference.
        unsafe { $e }
    }};
}

impl Lanes for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [cpu!(_mm256_set1_ps(x)); 2]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        cpu!([_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))])
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        cpu!({
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        })
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        cpu!({
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        cpu!({
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], pad: f32) -> Self::F {
        assert!(x.len() <= LANES);
        let mask = self.first(x.len());
        let pad = cpu!(_mm256_set1_ps(pad));
        // SAFETY: only the lanes within `x` are read; the pointer past its end is not. The CPU by `self`.
        unsafe {
            let low = _mm256_maskload_ps(x.as_ptr(), mask[0]);
            let high = _mm256_maskload_ps(x.as_ptr().wrapping_add(8), mask[1]);
            [
                _mm256_blendv_ps(pad, low, _mm256_castsi256_ps(mask[0])),
                _mm256_blendv_ps(pad, high, _mm256_castsi256_ps(mask[1])),
            ]
        }
    }
    #[inline(always)]
    fn store_part(self, v: Self::F, to: &mut [f32]) {
        assert!(to.len() <= LANES);
        let mask = self.first(to.len());
        // SAFETY: only the lanes within `to` are written; the CPU by `self`.
        unsafe {
            _mm256_maskstore_ps(to.as_mut_ptr(), mask[0], v[0]);
            _mm256_maskstore_ps(to.as_mut_ptr().wrapping_add(8), mask[1], v[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        cpu!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        cpu!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn bits(self, v: Self::F) -> Self::I {
        cpu!([_mm256_castps_si256(v[0]), _mm256_castps_si256(v[1])])
    }
    #[inline(always)]
    fn of_bits(self, v: Self::I) -> Self::F {
        cpu!([_mm256_castsi256_ps(v[0]), _mm256_castsi256_ps(v[1])])
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [cpu!(_mm256_set1_epi32(x)); 2]
    }
    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        cpu!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        cpu!([_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn shl23(self, v: Self::I) -> Self::I {
        cpu!([_mm256_slli_epi32::<23>(v[0]), _mm256_slli_epi32::<23>(v[1])])
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::F {
        let p = x.as_ptr().cast::<__m256i>();
        cpu!([_mm256_cvtepi32_ps(_mm256_loadu_si256(p)), _mm256_cvtepi32_ps(_mm256_loadu_si256(p.add(1))),])
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> Self::F {
        cpu!({
            let v = _mm_loadu_si128(x.as_ptr().cast());
            [
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(v))),
            ]
        })
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]) {
        cpu!({
            let low = _mm256_set1_epi32(0xff);
            let v = _mm256_packus_epi32(_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low));
            let v = _mm256_packus_epi16(v, v);
            // Packing works within 128 bits: dwords 0 and 4 hold the first register's bytes, 1 and 5 the second's.
            let v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_castsi256_si128(v));
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let p = x.as_ptr().cast::<__m128i>();
        cpu!([_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))])
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, to: &mut [f16; LANES]) {
        let p = to.as_mut_ptr().cast::<__m128i>();
        cpu!({
            _mm_storeu_si128(p, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        })
    }
}

const MR: usize = 6;
const NR: usize = 16;
const _: () = assert!(MR <= MR_MAX && NR <= NR_MAX);

impl Int8 for Avx2 {
    const MR: usize = MR;
    const NR: usize = NR;
    const PACK: usize = 4;
    const KU: usize = 2;
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
    fn pack_outs(self, w: MatI8, o: usize, n: usize, to: &mut [i16]) {
        let (q, k) = (&w.data[o * w.cols..(o + n) * w.cols], w.cols);
        for p in (0..k).step_by(16) {
            let bytes = (k - p).min(16);
            let mut padded = [0; 16 * 16];
            let (block, stride) = if n == 16 && bytes == 16 {
                (&q[p..][..15 * k + 16], k)
            } else {
                for (c, padded) in padded.chunks_exact_mut(16).take(n).enumerate() {
                    padded[..bytes].copy_from_slice(&q[c * k + p..][..bytes]);
                }
                (&padded[..], 16)
            };
            for (g, pairs) in self.transpose(block, stride).into_iter().enumerate().take(bytes.div_ceil(2)) {
                self.widen(pairs, &mut to[(p / 2 + g) * 2 * NR..]);
            }
        }
    }

    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, n: usize, panel: usize, to: &mut [i16]) {
        for p in (0..w.rows).step_by(2) {
            for block in 0..n.div_ceil(NR) {
                let (at, cols) = (p * w.cols + i + block * NR, (n - block * NR).min(NR));
                let mut rows = [[0; NR]; 2];
                for (r, row) in rows.iter_mut().enumerate().take(w.rows - p) {
                    match w.data[at + r * w.cols..].first_chunk() {
                        // A copy of known length is two instructions.
                        Some(whole) if cols == NR => *row = *whole,
                        _ => row[..cols].copy_from_slice(&w.data[at + r * w.cols..][..cols]),
                    }
                }
                let pairs = cpu!({
                    let (a, b) =
                        (_mm_loadu_si128(rows[0].as_ptr().cast()), _mm_loadu_si128(rows[1].as_ptr().cast()));
                    _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b))
                });
                self.widen(pairs, &mut to[block * panel + p * NR..]);
            }
        }
    }

    #[inline(always)]
    fn tile(
        self,
        mr: usize,
        a: &[i16],
        b: &[i16],
        scale: &[f32],
        blocks: usize,
        _sums: &[i32],
        acc: &mut Tile,
    ) {
        let groups = b.len() / (2 * NR);
        assert!(
            a.len() == groups * mr * 2 && blocks == groups.div_ceil(BLOCK / 2) && scale.len() == mr * blocks
        );
        macro_rules! heights {
            ($($m:literal)*) => {
                match mr {
                    // SAFETY: the lengths are those `tile_of` asks for, by the assertion.
                    $($m => unsafe {
                        self.tile_of::<$m>(groups, a.as_ptr(), b.as_ptr(), scale.as_ptr(), acc)
                    },)*
                    _ => unreachable!("tiles have 1 to MR rows"),
                }
            };
        }
        heights!(1 2 3 4 5 6)
    }
}

impl Avx2 {
    /// All ones in the first `n` of 16 lanes.
    #[inline(always)]
    fn first(self, n: usize) -> [__m256i; 2] {
        cpu!({
            let n = _mm256_set1_epi32(n as i32);
            [
                _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)),
            ]
        })
    }

    /// 16 rows of 16 bytes, `stride` apart: pair of bytes `g` of every row, in the order of the rows.
    #[inline(always)]
    fn transpose(self, block: &[i8], stride: usize) -> [__m256i; 8] {
        assert!(block.len() >= 15 * stride + 16);
        // SAFETY: 16 bytes of each row, in bounds by the assertion; the CPU by `self`.
        unsafe {
            let at = |row: usize| _mm_loadu_si128(block.as_ptr().add(row * stride).cast());
            let mut r = [_mm256_setzero_si256(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm256_set_m128i(at(i + 8), at(i));
            }
            // Three rounds of interleaving: words, pairs of words, fours.
            let mut a = r;
            for i in 0..4 {
                a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
                a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
            }
            let mut b = a;
            for (i, (x, y)) in [(0, 2), (1, 3), (4, 6), (5, 7)].into_iter().enumerate() {
                b[2 * i] = _mm256_unpacklo_epi32(a[x], a[y]);
                b[2 * i + 1] = _mm256_unpackhi_epi32(a[x], a[y]);
            }
            let mut c = b;
            for i in 0..4 {
                c[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
                c[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
            }
            c
        }
    }

    /// Stores 32 bytes as i16.
    #[inline(always)]
    fn widen(self, bytes: __m256i, to: &mut [i16]) {
        assert!(to.len() >= 2 * NR);
        // SAFETY: 32 values fit by the assertion; the CPU by `self`.
        unsafe {
            let to = to.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(bytes)));
            _mm256_storeu_si256(to.add(1), _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(bytes)));
        }
    }

    /// # Safety
    /// With `blocks = ⌈groups / (BLOCK / 2)⌉`: `a` points to `groups * M * 2` values, `b` to `groups * 2 * NR`,
    /// `scale` to `M * blocks`.
    #[inline(always)]
    unsafe fn tile_of<const M: usize>(
        self,
        groups: usize,
        a: *const i16,
        b: *const i16,
        scale: *const f32,
        acc: &mut Tile,
    ) {
        const GROUPS: usize = BLOCK / 2;
        let blocks = groups.div_ceil(GROUPS);
        for block in 0..blocks {
            // SAFETY: the groups and scales of this block, in bounds by the caller's word; the CPU by `self`.
            unsafe {
                let mut sums = [[_mm256_setzero_si256(); 2]; M];
                for g in block * GROUPS..groups.min((block + 1) * GROUPS) {
                    let b = b.add(g * 2 * NR).cast::<__m256i>();
                    let (b0, b1) = (_mm256_loadu_si256(b), _mm256_loadu_si256(b.add(1)));
                    let a = a.add(g * M * 2).cast::<i32>();
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(a.add(r).read_unaligned());
                        sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(x, b0));
                        sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(x, b1));
                    }
                }
                for (r, (sum, row)) in sums.iter().zip(&mut acc.0).enumerate() {
                    let scale = _mm256_set1_ps(*scale.add(r * blocks + block));
                    let row = row.as_mut_ptr();
                    for (half, sum) in sum.iter().enumerate() {
                        let (v, p) = (_mm256_cvtepi32_ps(*sum), row.add(half * 8));
                        let v = match block {
                            0 => _mm256_mul_ps(v, scale),
                            _ => _mm256_fmadd_ps(v, scale, _mm256_loadu_ps(p)),
                        };
                        _mm256_storeu_ps(p, v);
                    }
                }
            }
        }
    }
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";

    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<O: Op>(isa: Avx2, op: O) -> O::Out {
            op.run(isa)
        }
        // SAFETY: `self` exists, so the CPU has the features.
        unsafe { inner(self, op) }
    }
}
