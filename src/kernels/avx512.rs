//! AVX-512 with VNNI: one register holds the 16 lanes, `vpdpbusd` multiplies 64 pairs of bytes.
//!
//! `vpdpbusd` wants unsigned times signed, so activations are quantized to `q + 128` (`q xor 0x80`) and the
//! accumulators start from `-128 · Σ w` over the block. The instruction wraps and so does i32: exact. Rows and the
//! forward's panels are read where they lie.

use super::isa::{Int8, Isa, Op};
use super::lanes::{LANES, Lanes};
use super::tiles::{self, Ahead, GROUP, MR_MAX, PANEL, Tile};
use super::{BLOCK, Block, MatI8};
use half::f16;
use std::arch::asm;
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

/// Seven rows by two panels: 14 sums of a block, 14 of all blocks, 2 of the panels and one of a row take 31 of 32
/// registers. Fewer sums have to wait for each other.
const MR: usize = 7;
/// Bytes of a panel for one group of 4 in the contraction: one register.
const STEP: usize = PANEL * GROUP;
/// Groups of a block.
const GROUPS: usize = BLOCK / GROUP;
const _: () = assert!(
    MR <= MR_MAX
        && GROUPS == 16
        && BLOCK == 64
        && PANEL == 16
        && Ahead::PIECE == 4 * 64
        && Ahead::SQUARE == 16 * 64
);

/// Four values of the contraction: two registers of the panels, and of each row 4 bytes in all lanes.
macro_rules! group {
    ($g:literal $([$s0:literal $s1:literal $at:literal])*) => {
        concat!(
            "vmovdqu64 zmm28, [{b0}+64*", $g, "]\nvmovdqu64 zmm29, [{b1}+64*", $g, "]\n",
            $("vpbroadcastd zmm30, dword ptr [", $at, "+4*", $g, "]\n",
            "vpdpbusd zmm", $s0, ", zmm30, zmm28\nvpdpbusd zmm", $s1, ", zmm30, zmm29\n",)*
        )
    };
}

/// A tile, of each row: the registers of its two sums in the block at hand and of its two over all blocks, its number,
/// and where its bytes lie.
///
/// In assembly, since the compiler neither keeps the order nor the registers: it has three products in a row wait for
/// each other, and puts sums that it then has no room for on the stack.
macro_rules! tile_of {
    ($blocks:expr, $x:expr, $b:expr, $sums:expr, $to:expr, $ahead:expr, $at_ahead:expr, [$($line:literal)*],
     $([$s0:literal $s1:literal $a0:literal $a1:literal $r:literal $at:literal])*) => {
        asm!(
            // All sums are -0, so that the first block's fma is a product: with 0 it would make 0 of -0.
            "vpternlogd zmm31, zmm31, zmm31, 255",
            "vpslld zmm31, zmm31, 31",
            $(concat!("vmovaps zmm", $a0, ", zmm31\nvmovaps zmm", $a1, ", zmm31"),)*
            "2:",
            $(concat!("vmovdqu64 zmm", $s0, ", [{sums}]\nvmovdqu64 zmm", $s1, ", [{sums}+{panel}]"),)*
            "test {ahead}, {ahead}",
            "jz 3f",
            "mov {n}, [{ahead}]",
            $(concat!("prefetcht1 [{n}+{at_ahead}+64*", $line, "]"),)*
            "add {ahead}, 8",
            "3:",
            "mov {n:e}, 4",
            "4:",
            group!(0 $([$s0 $s1 $at])*),
            group!(1 $([$s0 $s1 $at])*),
            group!(2 $([$s0 $s1 $at])*),
            group!(3 $([$s0 $s1 $at])*),
            "add {x0}, 16",
            "add {x3}, 16",
            "add {x6}, 16",
            "add {b0}, 256",
            "add {b1}, 256",
            "dec {n:e}",
            "jnz 4b",
            // The scale lies behind a block's bytes.
            $(concat!(
                "vbroadcastss zmm30, dword ptr [", $at, "]\n",
                "vcvtdq2ps zmm", $s0, ", zmm", $s0, "\nvcvtdq2ps zmm", $s1, ", zmm", $s1, "\n",
                "vfmadd231ps zmm", $a0, ", zmm", $s0, ", zmm30\nvfmadd231ps zmm", $a1, ", zmm", $s1, ", zmm30",
            ),)*
            "add {x0}, 4",
            "add {x3}, 4",
            "add {x6}, 4",
            "add {sums}, 64",
            "dec {blocks}",
            "jnz 2b",
            $(concat!("vmovups [{to}+256*", $r, "], zmm", $a0, "\nvmovups [{to}+256*", $r, "+64], zmm", $a1),)*
            // A tile of one row does without.
            "/* {row} */",
            blocks = inout(reg) $blocks => _,
            n = out(reg) _,
            row = in(reg) $blocks * size_of::<Block>(),
            x0 = inout(reg) $x => _,
            x3 = inout(reg) $x.wrapping_add(3 * $blocks) => _,
            x6 = inout(reg) $x.wrapping_add(6 * $blocks) => _,
            b0 = inout(reg) $b[0].as_ptr() => _,
            b1 = inout(reg) $b[1].as_ptr() => _,
            sums = inout(reg) $sums => _,
            panel = in(reg) $blocks * PANEL * size_of::<i32>(),
            to = in(reg) $to,
            ahead = inout(reg) $ahead => _,
            at_ahead = in(reg) $at_ahead,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
            out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
            out("zmm30") _, out("zmm31") _,
            options(nostack)
        )
    };
}

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
    fn pack_ins_and_sums(self, w: MatI8, i: usize, panel: usize, to: &mut [i8], sums: &mut [i32]) {
        // Bytes within 128 bits: four outputs of four inputs to four inputs of four outputs. Hidden from the
        // compiler, which else rewrites the shuffle as several.
        let order = std::hint::black_box(cpu!(_mm512_broadcast_i32x4(_mm_setr_epi8(
            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15
        ))));
        let (shift, zero) = cpu!((_mm512_set1_epi8(-128), _mm512_setzero_si512()));
        let row = tiles::padded(w.cols) * PANEL;
        const SQUARE: usize = PANEL * PANEL;
        for (block, outs) in w.tiles.chunks_exact(row * (BLOCK / PANEL)).enumerate() {
            let mut shifts = [zero; BLOCK / PANEL];
            for (p, outs) in outs.chunks_exact(row).enumerate() {
                let (squares, _) = outs[i * PANEL..][..BLOCK * PANEL].as_chunks::<SQUARE>();
                for (q, (square, shifts)) in squares.iter().zip(&mut shifts).enumerate() {
                    let to = &mut to[q * panel + block * BLOCK * PANEL + p * SQUARE..][..SQUARE];
                    for k in 0..PANEL / GROUP {
                        cpu!({
                            // Where the next square of this panel goes: the buffer is larger than the first cache.
                            _mm_prefetch::<_MM_HINT_T0>(to.as_ptr().wrapping_add(SQUARE + k * STEP));
                            // Inputs 4 L .. 4 L + 4 of outputs 4 k .. 4 k + 4 lie at 64 L + 16 k.
                            let p = square.as_ptr().add(k * 16);
                            let v = _mm512_castsi128_si512(_mm_loadu_si128(p.cast()));
                            let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(p.add(STEP).cast()));
                            let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(p.add(2 * STEP).cast()));
                            let v = _mm512_inserti32x4::<3>(v, _mm_loadu_si128(p.add(3 * STEP).cast()));
                            let v = _mm512_shuffle_epi8(v, order);
                            _mm512_storeu_si512(to[k * STEP..][..STEP].as_mut_ptr().cast(), v);
                            *shifts = _mm512_dpbusd_epi32(*shifts, shift, v);
                        });
                    }
                }
            }
            for (q, shifts) in shifts.iter().enumerate() {
                let to = &mut sums[q * (panel / BLOCK) + block * PANEL..][..PANEL];
                cpu!(_mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_sub_epi32(zero, *shifts)));
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
    fn tile(
        self,
        mr: usize,
        x: &[Block],
        _a: &[i8],
        b: &[&[i8]],
        sums: &[i32],
        acc: &mut Tile,
        col: usize,
        ahead: Ahead,
    ) {
        let blocks = x.len() / mr;
        assert!(x.len() == mr * blocks && blocks > 0 && col + 2 * PANEL <= BLOCK && mr <= MR_MAX);
        assert!(b.len() == 2 && b.iter().all(|b| b.len() == blocks * GROUPS * STEP));
        assert!(sums.len() == 2 * blocks * PANEL);
        assert!(ahead.squares.is_empty() || ahead.squares.len() == blocks);
        let (x, sums, to) = (x.as_ptr(), sums.as_ptr(), acc.0.as_flattened_mut()[col..].as_mut_ptr());
        let squares = if ahead.squares.is_empty() { std::ptr::null() } else { ahead.squares.as_ptr() };
        macro_rules! heights {
            ($($m:literal: $([$($row:tt)*])*;)*) => {
                match mr {
                    // SAFETY: the rows, panels, sums and squares have the lengths asserted above, `acc` has MR_MAX
                    // rows with room for two panels from `col` on, addresses to fetch need not be memory; the CPU
                    // by `self`.
                    $($m if ahead.whole => unsafe {
                        tile_of!(
                            blocks, x, b, sums, to, squares, ahead.at,
                            [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], $([$($row)*])*
                        )
                    },
                    // SAFETY: as above.
                    $m => unsafe {
                        tile_of!(blocks, x, b, sums, to, squares, ahead.at, [0 1 2 3], $([$($row)*])*)
                    },)*
                    _ => unreachable!("tiles have 1 to MR rows"),
                }
            };
        }
        heights! {
            1: [0 1 14 15 0 "{x0}"];
            2: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"];
            3: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"] [4 5 18 19 2 "{x0}+2*{row}"];
            4: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"] [4 5 18 19 2 "{x0}+2*{row}"] [6 7 20 21 3 "{x3}"];
            5: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"] [4 5 18 19 2 "{x0}+2*{row}"] [6 7 20 21 3 "{x3}"]
                [8 9 22 23 4 "{x3}+{row}"];
            6: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"] [4 5 18 19 2 "{x0}+2*{row}"] [6 7 20 21 3 "{x3}"]
                [8 9 22 23 4 "{x3}+{row}"] [10 11 24 25 5 "{x3}+2*{row}"];
            7: [0 1 14 15 0 "{x0}"] [2 3 16 17 1 "{x0}+{row}"] [4 5 18 19 2 "{x0}+2*{row}"] [6 7 20 21 3 "{x3}"]
                [8 9 22 23 4 "{x3}+{row}"] [10 11 24 25 5 "{x3}+2*{row}"] [12 13 26 27 6 "{x6}"];
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
