//! AVX2 with FMA and F16C: two registers hold the 16 lanes, `vpmaddwd` multiplies 16 pairs of i16.
//!
//! Bytes are widened to i16 when packed. `vpmaddubsw`, which would take bytes, saturates: 2 · 255 · 127 does not
//! fit i16. `vpmaddwd` adds two products of at most 127² in i32: exact.

use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::tiles::{self, Ahead, GROUP, MR_MAX, PANEL, Tile};
use super::{BLOCK, Block, MatI8};
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
/// Pairs of a block.
const PAIRS: usize = BLOCK / 2;
const _: () = assert!(MR <= MR_MAX);

impl Int8 for Avx2 {
    const MR: usize = MR;
    const PANELS: usize = 1;
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
    fn pack_outs(self, stored: &[i8], to: &mut [i16]) {
        let groups = stored.as_chunks::<{ PANEL * GROUP }>().0.iter();
        for (group, to) in groups.zip(to.as_chunks_mut::<{ PANEL * GROUP }>().0) {
            self.widen_groups(group, to);
        }
    }

    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, panel: usize, to: &mut [i16]) {
        // Bytes within 128 bits: four outputs of four inputs to four inputs of four outputs.
        let order = cpu!(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        let row = tiles::padded(w.cols) * PANEL;
        for (p, outs) in w.tiles.chunks_exact(row).enumerate() {
            let (squares, _) = outs[i * PANEL..][..BLOCK * PANEL].as_chunks::<{ PANEL * PANEL }>();
            for (q, square) in squares.iter().enumerate() {
                let (to, _) = to[q * panel + p * PANEL * PANEL..].as_chunks_mut::<{ PANEL * GROUP }>();
                for (k, to) in to.iter_mut().enumerate().take(PANEL / GROUP) {
                    let mut group = [0i8; PANEL * GROUP];
                    for (l, group) in group.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                        let from = &square[l * PANEL * GROUP + k * 16..][..16];
                        cpu!({
                            let v = _mm_shuffle_epi8(_mm_loadu_si128(from.as_ptr().cast()), order);
                            _mm_storeu_si128(group.as_mut_ptr().cast(), v);
                        });
                    }
                    self.widen_groups(&group, to);
                }
            }
        }
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
        ahead: Ahead,
    ) {
        let blocks = x.len() / mr;
        let &[b] = b else { unreachable!("one panel") };
        assert!(x.len() == mr * blocks && a.len() == x.len() * BLOCK && col + PANEL <= BLOCK && mr <= MR_MAX);
        assert!(b.len() == blocks * BLOCK * PANEL);
        macro_rules! heights {
            ($($m:literal)*) => {
                match mr {
                    // SAFETY: the lengths are those `tile_of` asks for, by the assertions.
                    $($m => unsafe {
                        self.tile_of::<$m>(blocks, x.as_ptr(), a.as_ptr(), b.as_ptr(), acc, col, ahead)
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

    /// 16 groups of four bytes to the i16 of their first pairs, then those of their second pairs.
    #[inline(always)]
    fn widen_groups(self, groups: &[i8; PANEL * GROUP], to: &mut [i16; PANEL * GROUP]) {
        for (i, eight) in groups.as_chunks::<32>().0.iter().enumerate() {
            cpu!({
                // First pairs of the four groups in each 128 bits, then the second pairs; then whole lanes.
                let order = _mm256_broadcastsi128_si256(_mm_setr_epi8(
                    0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                ));
                let v = _mm256_shuffle_epi8(_mm256_loadu_si256(eight.as_ptr().cast()), order);
                let v = _mm256_permute4x64_epi64::<0b11_01_10_00>(v);
                let first = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v));
                let second = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(v));
                let (low, high) = to.split_at_mut(PANEL * 2);
                _mm256_storeu_si256(low[i * 16..][..16].as_mut_ptr().cast(), first);
                _mm256_storeu_si256(high[i * 16..][..16].as_mut_ptr().cast(), second);
            });
        }
    }

    /// # Safety
    /// `x` points to `M * blocks` blocks, `a` to as many times `BLOCK` values, `b` to `blocks * BLOCK * PANEL`;
    /// `col + 16 <= BLOCK`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn tile_of<const M: usize>(
        self,
        blocks: usize,
        x: *const Block,
        a: *const i16,
        b: *const i16,
        acc: &mut Tile,
        col: usize,
        ahead: Ahead,
    ) {
        for block in 0..blocks {
            if let Some(square) = ahead.squares.get(block) {
                for line in (0..if ahead.whole { Ahead::SQUARE } else { Ahead::PIECE }).step_by(64) {
                    cpu!(_mm_prefetch::<_MM_HINT_T1>(square.wrapping_add(ahead.at + line)));
                }
            }
            // SAFETY: the pairs and scales of this block, in bounds by the caller's word; the CPU by `self`.
            unsafe {
                let mut sums = [[_mm256_setzero_si256(); 2]; M];
                for g in block * PAIRS..(block + 1) * PAIRS {
                    let b = b.add(g * 2 * PANEL).cast::<__m256i>();
                    let (b0, b1) = (_mm256_loadu_si256(b), _mm256_loadu_si256(b.add(1)));
                    let a = a.add(g * M * 2).cast::<i32>();
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(a.add(r).read_unaligned());
                        sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(x, b0));
                        sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(x, b1));
                    }
                }
                for (r, (sum, row)) in sums.iter().zip(&mut acc.0).enumerate() {
                    let scale = _mm256_set1_ps((*x.add(r * blocks + block)).scale);
                    let row = row.as_mut_ptr().add(col);
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
