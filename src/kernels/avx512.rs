//! AVX-512 with VNNI: one register holds the 16 lanes, `vpdpbusd` multiplies 64 pairs of bytes.
//!
//! `vpdpbusd` wants unsigned times signed, so activations are quantized to `q + 128` (`q xor 0x80`) and the
//! accumulators start from `-128 · Σ w` over the block. The instruction wraps and so does i32: exact. Rows and the
//! forward's panels are read where they lie.

use super::gemm::{MR_MAX, Tile};
use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::tiles::{self, GROUP, PANEL};
use super::{BLOCK, Block, MatI8};
use half::f16;
use std::arch::x86_64::*;

/// Proof that the CPU has AVX-512 F, BW, DQ, VL and VNNI, FMA and F16C.
#[derive(Clone, Copy)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// The set, if this CPU has it.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
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

impl Lanes for Avx512Vnni {
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        cpu!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        cpu!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut [f32; LANES]) {
        cpu!(_mm512_storeu_ps(to.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], pad: f32) -> __m512 {
        assert!(x.len() <= LANES);
        // SAFETY: only the lanes within `x` are read; the CPU by `self`.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(pad), first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store_part(self, v: __m512, to: &mut [f32]) {
        assert!(to.len() <= LANES);
        // SAFETY: only the lanes within `to` are written; the CPU by `self`.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), v) }
    }
    // `_mm512_reduce_add_ps` promises no order; these follow the tree of `Lanes`.
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        cpu!({
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        cpu!({
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        cpu!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        cpu!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn bits(self, v: __m512) -> __m512i {
        cpu!(_mm512_castps_si512(v))
    }
    #[inline(always)]
    fn of_bits(self, v: __m512i) -> __m512 {
        cpu!(_mm512_castsi512_ps(v))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        cpu!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn max_i(self, a: __m512i, b: __m512i) -> __m512i {
        cpu!(_mm512_max_epi32(a, b))
    }
    #[inline(always)]
    fn shl23(self, v: __m512i) -> __m512i {
        cpu!(_mm512_slli_epi32::<23>(v))
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> __m512 {
        cpu!(_mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512 {
        cpu!(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast()))))
    }
    #[inline(always)]
    fn store_u8(self, v: __m512i, to: &mut [u8; LANES]) {
        cpu!(_mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)))
    }
    #[inline(always)]
    fn store_bytes(self, v: [__m512i; 4], to: &mut [u8; 64]) {
        cpu!({
            let low = _mm512_set1_epi32(0xff);
            let a = _mm512_packus_epi32(_mm512_and_si512(v[0], low), _mm512_and_si512(v[1], low));
            let b = _mm512_packus_epi32(_mm512_and_si512(v[2], low), _mm512_and_si512(v[3], low));
            let v = _mm512_packus_epi16(a, b);
            // Packing works within 128 bits: lane L holds dword L of each vector.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_permutexvar_epi32(order, v));
        })
    }
    #[inline(always)]
    fn max_i_lane(self, v: __m512i) -> i32 {
        cpu!({
            let v = _mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
            let v = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            let v = _mm_max_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
            _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v)))
        })
    }
    #[inline(always)]
    fn transpose(self, v: [__m512; LANES]) -> [__m512; LANES] {
        cpu!({
            let mut a = v;
            for i in 0..8 {
                a[2 * i] = _mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]);
                a[2 * i + 1] = _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]);
            }
            // Four columns of four rows in each 128 bits: b[4 q + j] holds column 4 L + j of rows 4 q .. 4 q + 4.
            let mut b = a;
            for q in 0..4 {
                let (x, y) = (_mm512_castps_pd(a[4 * q]), _mm512_castps_pd(a[4 * q + 2]));
                b[4 * q] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
                b[4 * q + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
                let (x, y) = (_mm512_castps_pd(a[4 * q + 1]), _mm512_castps_pd(a[4 * q + 3]));
                b[4 * q + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(x, y));
                b[4 * q + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(x, y));
            }
            // Then the 128-bit lanes, a square of four by four for each j.
            let mut c = b;
            for j in 0..4 {
                let lo = _mm512_shuffle_f32x4::<0b01_00_01_00>(b[j], b[4 + j]);
                let hi = _mm512_shuffle_f32x4::<0b11_10_11_10>(b[j], b[4 + j]);
                let lo2 = _mm512_shuffle_f32x4::<0b01_00_01_00>(b[8 + j], b[12 + j]);
                let hi2 = _mm512_shuffle_f32x4::<0b11_10_11_10>(b[8 + j], b[12 + j]);
                c[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(lo, lo2);
                c[4 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(lo, lo2);
                c[8 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(hi, hi2);
                c[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(hi, hi2);
            }
            c
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> __m512 {
        cpu!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn store_f16(self, v: __m512, to: &mut [f16; LANES]) {
        cpu!(_mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)))
    }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
fn first(n: usize) -> u16 {
    ((1u32 << n) - 1) as u16
}

const MR: usize = 6;
/// Bytes of a panel for one group of 4 in the contraction: one register.
const STEP: usize = PANEL * GROUP;
/// Groups of a block.
const GROUPS: usize = BLOCK / GROUP;
const _: () = assert!(MR <= MR_MAX);

impl Int8 for Avx512Vnni {
    const MR: usize = MR;
    const PANELS: usize = 2;
    const KU: usize = GROUP;
    const FLIP: u8 = 0x80;
    const ROWS_IN_PLACE: bool = true;
    const OUTS_IN_PLACE: bool = true;
    type A = i8;
    type B = i8;

    #[inline(always)]
    fn lift_a(q: i8) -> i8 {
        q
    }
    #[inline(always)]
    fn lift_b(w: i8) -> i8 {
        w
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[i8]) {
        for line in bytes.chunks(64) {
            cpu!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr()));
        }
    }

    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, panel: usize, to: &mut [i8]) {
        // Bytes within 128 bits: four outputs of four inputs to four inputs of four outputs. Hidden from the
        // compiler, which else rewrites the shuffle as several.
        let order = std::hint::black_box(cpu!(_mm512_broadcast_i32x4(_mm_setr_epi8(
            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15
        ))));
        let row = tiles::padded(w.cols) * PANEL;
        for (p, outs) in w.tiles.chunks_exact(row).enumerate() {
            let (squares, _) = outs[i * PANEL..][..BLOCK * PANEL].as_chunks::<{ PANEL * PANEL }>();
            for (q, square) in squares.iter().enumerate() {
                let (to, _) = to[q * panel + p * PANEL * PANEL..].as_chunks_mut::<STEP>();
                for (k, to) in to.iter_mut().enumerate().take(PANEL / GROUP) {
                    cpu!({
                        // Inputs 4 L .. 4 L + 4 of outputs 4 k .. 4 k + 4 lie at 64 L + 16 k.
                        let p = square.as_ptr().add(k * 16);
                        let v = _mm512_castsi128_si512(_mm_loadu_si128(p.cast()));
                        let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(p.add(STEP).cast()));
                        let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(p.add(2 * STEP).cast()));
                        let v = _mm512_inserti32x4::<3>(v, _mm_loadu_si128(p.add(3 * STEP).cast()));
                        _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_shuffle_epi8(v, order));
                    });
                }
            }
        }
    }

    /// Minus 128 times the sums of the weights, since activations are shifted by 128 to be unsigned.
    #[inline(always)]
    fn panel_sums(self, b: &[i8], sums: &mut [i32]) {
        let blocks = b.chunks_exact(GROUPS * STEP).zip(sums.as_chunks_mut::<PANEL>().0);
        for (b, sums) in blocks {
            // Two chains, so that one need not wait for itself.
            let (mut even, mut odd) = cpu!((_mm512_setzero_si512(), _mm512_setzero_si512()));
            for pair in b.chunks_exact(2 * STEP) {
                cpu!({
                    let shift = _mm512_set1_epi8(-128);
                    let p = pair.as_ptr();
                    even = _mm512_dpbusd_epi32(even, shift, _mm512_loadu_si512(p.cast()));
                    odd = _mm512_dpbusd_epi32(odd, shift, _mm512_loadu_si512(p.add(STEP).cast()));
                });
            }
            cpu!({
                let sum = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_add_epi32(even, odd));
                _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum);
            });
        }
    }

    #[inline(always)]
    fn tile(self, mr: usize, x: &[Block], _a: &[i8], b: &[&[i8]], sums: &[i32], acc: &mut Tile, col: usize) {
        let blocks = x.len() / mr;
        let &[b0, b1] = b else { unreachable!("two panels") };
        assert!(x.len() == mr * blocks && col + 2 * PANEL <= BLOCK && mr <= MR_MAX);
        assert!(
            b0.len() == blocks * GROUPS * STEP && b1.len() == b0.len() && sums.len() == 2 * blocks * PANEL
        );
        // GROUPS / 4, but the compiler does not know: it would unroll the loop whole and spill half the registers. Four
        // at a time, since counting goes through the ports that multiply.
        let fours = b0.len() / (4 * blocks * STEP);
        macro_rules! heights {
            ($($m:literal)*) => {
                match mr {
                    // SAFETY: the lengths are those `tile_of` asks for, by the assertions.
                    $($m => unsafe {
                        let b = [b0.as_ptr(), b1.as_ptr()];
                        self.tile_of::<$m>(blocks, fours, x.as_ptr(), b, sums.as_ptr(), acc, col)
                    },)*
                    _ => unreachable!("tiles have 1 to MR rows"),
                }
            };
        }
        heights!(1 2 3 4 5 6)
    }
}

impl Avx512Vnni {
    /// # Safety
    /// `fours` is `GROUPS / 4`; `x` points to `M * blocks` blocks, `b` to two panels of `blocks * GROUPS * STEP` bytes,
    /// `sums` to `2 * blocks * PANEL` values; `col + 32 <= BLOCK`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn tile_of<const M: usize>(
        self,
        blocks: usize,
        fours: usize,
        x: *const Block,
        b: [*const i8; 2],
        sums: *const i32,
        acc: &mut Tile,
        col: usize,
    ) {
        // 12 sums of a block, 12 of all blocks, 2 of the panels and one broadcast: all stay in the 32 registers.
        let mut all = [[cpu!(_mm512_setzero_ps()); 2]; M];
        for block in 0..blocks {
            // SAFETY: the groups, rows and sums of this block, in bounds by the caller's word; the CPU by `self`.
            unsafe {
                let sums = sums.add(block * PANEL);
                let start =
                    [_mm512_loadu_si512(sums.cast()), _mm512_loadu_si512(sums.add(blocks * PANEL).cast())];
                let mut sums = [start; M];
                let x = x.add(block);
                let (b0, b1) = (b[0].add(block * GROUPS * STEP), b[1].add(block * GROUPS * STEP));
                for fours in 0..fours {
                    let (x, b0, b1) =
                        (x.cast::<i32>().add(fours * 4), b0.add(fours * 4 * STEP), b1.add(fours * 4 * STEP));
                    for g in 0..4 {
                        let b0 = _mm512_loadu_si512(b0.add(g * STEP).cast());
                        let b1 = _mm512_loadu_si512(b1.add(g * STEP).cast());
                        for (r, sum) in sums.iter_mut().enumerate() {
                            let x = x.add(r * blocks * (size_of::<Block>() / 4) + g).read_unaligned();
                            let x = _mm512_set1_epi32(x);
                            sum[0] = _mm512_dpbusd_epi32(sum[0], x, b0);
                            sum[1] = _mm512_dpbusd_epi32(sum[1], x, b1);
                        }
                    }
                }
                for r in 0..M {
                    let scale = _mm512_set1_ps((*x.add(r * blocks)).scale);
                    for half in 0..2 {
                        let v = _mm512_cvtepi32_ps(sums[r][half]);
                        all[r][half] = match block {
                            // A product, not an fma with 0, which would make 0 of -0.
                            0 => _mm512_mul_ps(v, scale),
                            _ => _mm512_fmadd_ps(v, scale, all[r][half]),
                        };
                    }
                }
            }
        }
        for (all, row) in all.iter().zip(&mut acc.0) {
            // SAFETY: 32 values from `col` on lie within a row, by the caller's word; the CPU by `self`.
            unsafe {
                let to = row.as_mut_ptr().add(col);
                _mm512_storeu_ps(to, all[0]);
                _mm512_storeu_ps(to.add(PANEL), all[1]);
            }
        }
    }
}

impl Isa for Avx512Vnni {
    const NAME: &'static str = "avx512-vnni";
    const WIDE: bool = true;

    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]
        fn inner<O: Op>(isa: Avx512Vnni, op: O) -> O::Out {
            op.run(isa)
        }
        // SAFETY: `self` exists, so the CPU has the features.
        unsafe { inner(self, op) }
    }
}
