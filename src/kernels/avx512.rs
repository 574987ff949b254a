//! AVX-512 with VNNI: one register holds the 16 lanes, `vpdpbusd` multiplies 64 pairs of bytes.
//!
//! `vpdpbusd` wants unsigned times signed, so activations are shifted to `q + 128` (`q xor 0x80`) and the
//! accumulators start from `-128 · Σ w` over the block. The instruction wraps and so does i32: exact.

use super::gemm::{MR_MAX, NR_MAX, Tile};
use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::{BLOCK, MatI8};
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
const NR: usize = 32;
/// Bytes of a panel for one group of 4 in the contraction.
const STEP: usize = NR * 4;
const _: () = assert!(MR <= MR_MAX && NR <= NR_MAX);

impl Int8 for Avx512Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const PACK: usize = 2;
    const KU: usize = 4;
    type A = u8;
    type B = i8;

    #[inline(always)]
    fn lift_a(q: i8) -> u8 {
        q as u8 ^ 0x80
    }
    #[inline(always)]
    fn lift_b(w: i8) -> i8 {
        w
    }

    #[inline(always)]
    fn pack_rows(self, q: &[i8], k: usize, mr: usize, to: &mut [u8]) {
        self.transpose_rows(q, k, 0x80, mr, to, mr * 4);
    }

    #[inline(always)]
    fn pack_outs(self, w: MatI8, o: usize, n: usize, to: &mut [i8]) {
        let to: &mut [u8] = bytemuck::cast_slice_mut(to);
        for half in [0, 16] {
            if half < n && w.cols > 0 {
                self.transpose_rows(&w.data[(o + half) * w.cols..], w.cols, 0, 16, &mut to[half * 4..], STEP);
            }
        }
    }

    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, n: usize, panel: usize, to: &mut [i8]) {
        // Dwords: lane L (128 bits) takes columns 4 L .. 4 L + 4 of each of 4 rows; then bytes within the lane.
        // Hidden from LLVM 22, which else rewrites the two shuffles as ten.
        let order = std::hint::black_box(cpu!((
            _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)),
        )));
        for p in (0..w.rows).step_by(4) {
            let rows = (w.rows - p).min(4);
            let to = &mut to[p / 4 * STEP..];
            let (block, stride) = (&w.data[p * w.cols + i..], w.cols);
            let mut padded = [0; 4 * 64];
            let (block, stride) = if rows == 4 && n == 64 {
                (&block[..3 * stride + 64], stride)
            } else {
                for (r, padded) in padded.chunks_exact_mut(64).take(rows).enumerate() {
                    padded[..n].copy_from_slice(&block[r * stride..][..n]);
                }
                (&padded[..], 64)
            };
            self.interleave(block, stride, panel, to, order);
        }
    }

    #[inline(always)]
    fn panel_sums(self, b: &[i8], sums: &mut [i32]) {
        let blocks = b.chunks(BLOCK / 4 * STEP).zip(sums.chunks_exact_mut(NR));
        for (b, sums) in blocks {
            let mut sum = cpu!([_mm512_setzero_si512(); 2]);
            for group in b.chunks_exact(STEP) {
                cpu!({
                    let ones = _mm512_set1_epi8(1);
                    let p = group.as_ptr();
                    sum[0] = _mm512_dpbusd_epi32(sum[0], ones, _mm512_loadu_si512(p.cast()));
                    sum[1] = _mm512_dpbusd_epi32(sum[1], ones, _mm512_loadu_si512(p.add(64).cast()));
                });
            }
            let p = sums.as_mut_ptr();
            cpu!({
                _mm512_storeu_si512(p.cast(), sum[0]);
                _mm512_storeu_si512(p.add(16).cast(), sum[1]);
            });
        }
    }

    #[inline(always)]
    fn tile(self, mr: usize, a: &[u8], b: &[i8], scale: &[f32], blocks: usize, sums: &[i32], acc: &mut Tile) {
        let groups = b.len() / STEP;
        assert!(a.len() == groups * mr * 4 && blocks == groups.div_ceil(BLOCK / 4));
        assert!(scale.len() == mr * blocks && sums.len() == blocks * NR);
        macro_rules! heights {
            ($($m:literal)*) => {
                match mr {
                    // SAFETY: the lengths are those `tile_of` asks for, by the assertions.
                    $($m => unsafe {
                        self.tile_of::<$m>(groups, a.as_ptr(), b.as_ptr(), scale.as_ptr(), sums.as_ptr(), acc)
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
    /// With `blocks = ⌈groups / (BLOCK / 4)⌉`: `a` points to `groups * M * 4` bytes, `b` to `groups * STEP`,
    /// `scale` to `M * blocks` values and `panel_sums` to `blocks * NR`.
    #[inline(always)]
    unsafe fn tile_of<const M: usize>(
        self,
        groups: usize,
        a: *const u8,
        b: *const i8,
        scale: *const f32,
        panel_sums: *const i32,
        acc: &mut Tile,
    ) {
        const GROUPS: usize = BLOCK / 4;
        let blocks = groups.div_ceil(GROUPS);
        // 12 sums of a block, 12 of all blocks, 2 of the panel and one broadcast: all stay in the 32 registers.
        let mut all = [[cpu!(_mm512_setzero_ps()); 2]; M];
        for block in 0..blocks {
            // SAFETY: the groups, scales and sums of this block, in bounds by the caller's word; the CPU by `self`.
            unsafe {
                // Activations are shifted by 128 to be unsigned: start from minus 128 times the weights' sums.
                let shift = |half: usize| {
                    let sums = _mm512_loadu_si512(panel_sums.add(block * NR + half * 16).cast());
                    _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32::<7>(sums))
                };
                let mut sums = [[shift(0), shift(1)]; M];
                let (a, b) = (a.add(block * GROUPS * M * 4), b.add(block * GROUPS * STEP));
                for g in 0..GROUPS.min(groups - block * GROUPS) {
                    let b = b.add(g * STEP);
                    let (b0, b1) = (_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(64).cast()));
                    let a = a.add(g * M * 4).cast::<i32>();
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(a.add(r).read_unaligned());
                        sum[0] = _mm512_dpbusd_epi32(sum[0], x, b0);
                        sum[1] = _mm512_dpbusd_epi32(sum[1], x, b1);
                    }
                }
                for r in 0..M {
                    let scale = _mm512_set1_ps(*scale.add(r * blocks + block));
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
            cpu!({
                _mm512_storeu_ps(row.as_mut_ptr(), all[0]);
                _mm512_storeu_ps(row.as_mut_ptr().add(16), all[1]);
            });
        }
    }

    /// The first `lanes` rows of `q: [_, k]`, groups of 4 bytes of them side by side: group `g` of row `r` goes,
    /// each byte xor `flip`, to `to[g * step + 4 r]`. What pads `k` is `flip`; rows that `q` lacks hold anything.
    #[inline(always)]
    fn transpose_rows(self, q: &[i8], k: usize, flip: u8, lanes: usize, to: &mut [u8], step: usize) {
        assert!(k > 0 && (1..=16).contains(&lanes));
        let there = (q.len() / k).min(16);
        assert!(there > 0 && to.len() >= (k.div_ceil(4) - 1) * step + lanes * 4);
        let flip = cpu!(_mm512_set1_epi8(flip as i8));
        let mask = first(lanes);
        for p in (0..k).step_by(64) {
            let bytes = (k - p).min(64);
            let mut padded = [0; 16 * 64];
            let (block, stride) = if there == 16 && bytes == 64 {
                (&q[p..][..15 * k + 64], k)
            } else {
                for (r, padded) in padded.chunks_exact_mut(64).take(there).enumerate() {
                    match q[r * k + p..].first_chunk::<64>() {
                        // A copy of known length is two instructions.
                        Some(whole) if bytes == 64 => padded.copy_from_slice(whole),
                        _ => padded[..bytes].copy_from_slice(&q[r * k + p..][..bytes]),
                    }
                }
                (&padded[..], 64)
            };
            let groups = bytes.div_ceil(4);
            for c in 0..4 {
                let t = self.transpose(block, stride, c);
                for (d, t) in t.into_iter().enumerate() {
                    if c * 4 + d < groups {
                        // SAFETY: `lanes` dwords at group `p / 4 + 4 c + d`, in bounds by the assertion.
                        unsafe {
                            let to = to.as_mut_ptr().add((p / 4 + c * 4 + d) * step);
                            _mm512_mask_storeu_epi32(to.cast(), mask, _mm512_xor_si512(t, flip));
                        }
                    }
                }
            }
        }
    }

    /// Bytes `[16 c, 16 c + 16)` of 16 rows, `stride` apart: dword `d` of every row, in the order of the rows.
    #[inline(always)]
    fn transpose(self, block: &[i8], stride: usize, c: usize) -> [__m512i; 4] {
        assert!(block.len() >= 15 * stride + c * 16 + 16);
        // SAFETY: 16 bytes at `16 c` of each row, in bounds by the assertion; the CPU by `self`.
        unsafe {
            let at = |row: usize| _mm_loadu_si128(block.as_ptr().add(row * stride + c * 16).cast());
            let mut t = [_mm512_setzero_si512(); 4];
            for (r, t) in t.iter_mut().enumerate() {
                // Lane L (128 bits) holds row 4 L + r.
                let v = _mm512_castsi128_si512(at(r));
                let v = _mm512_inserti32x4::<1>(v, at(r + 4));
                let v = _mm512_inserti32x4::<2>(v, at(r + 8));
                *t = _mm512_inserti32x4::<3>(v, at(r + 12));
            }
            let (u0, u1) = (_mm512_unpacklo_epi32(t[0], t[1]), _mm512_unpackhi_epi32(t[0], t[1]));
            let (u2, u3) = (_mm512_unpacklo_epi32(t[2], t[3]), _mm512_unpackhi_epi32(t[2], t[3]));
            [
                _mm512_unpacklo_epi64(u0, u2),
                _mm512_unpackhi_epi64(u0, u2),
                _mm512_unpacklo_epi64(u1, u3),
                _mm512_unpackhi_epi64(u1, u3),
            ]
        }
    }

    /// 4 rows of 64 bytes, `stride` apart, to 64 groups of 4, byte `c` of row `r` to byte `4 c + r`: the first 32
    /// groups to the start of `to`, the others `panel` further on.
    #[inline(always)]
    fn interleave(self, block: &[i8], stride: usize, panel: usize, to: &mut [i8], order: (__m512i, __m512i)) {
        assert!(block.len() >= 3 * stride + 64 && to.len() >= panel + STEP);
        for quarter in 0..4 {
            // SAFETY: 16 bytes at `16 quarter` of each row and 64 bytes of `to`, in bounds by the assertion; the CPU
            // by `self`.
            unsafe {
                let at = |row: usize| _mm_loadu_si128(block.as_ptr().add(row * stride + quarter * 16).cast());
                let v = _mm512_castsi128_si512(at(0));
                let v = _mm512_inserti32x4::<1>(v, at(1));
                let v = _mm512_inserti32x4::<2>(v, at(2));
                let v = _mm512_inserti32x4::<3>(v, at(3));
                let v = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(order.0, v), order.1);
                let to = to.as_mut_ptr().add(quarter / 2 * panel + quarter % 2 * 64);
                _mm512_storeu_si512(to.cast(), v);
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
