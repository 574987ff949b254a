//! What the int8 tiles of the three ARM sets share: how sums become floats, and transposes for the backward.
//!
//! The inner loops are `asm!`: the instructions of dotprod and i8mm have no stable intrinsics, and a tile takes all
//! 32 registers, with loads spread among the products. `docs/arm-kernels.md` has the listings and what they reach.

use super::isa::Int8;
use super::tiles::{PANEL, Tile, padded};
use super::{BLOCK, Block, MatI8};
use std::arch::aarch64::*;

/// Where integer sums start: the bits of `1.5 · 2^23`, whose last place is 1.
///
/// A sum of 64 products is below `2^22`, so its bits are those of the float `1.5 · 2^23 + sum`, and one exact
/// subtraction converts it: `scvtf` would take a quarter of the multiplies' time on one of two pipes.
///
/// 32 bytes to start from, then 16 to subtract.
#[repr(align(64))]
#[allow(dead_code)] // the tiles' asm reads it
pub struct Start(pub [f32; 12]);

/// `1.5 · 2^23`
const M: f32 = 12_582_912.0;
const _: () = assert!(BLOCK * 128 * 128 < 1 << 22);

/// For tiles whose lanes are sums.
pub static START: Start = Start([M; 12]);
/// For tiles whose sums are pairs of lanes.
pub static START_PAIRS: Start = Start([M, 0.0, M, 0.0, M, 0.0, M, 0.0, M, M, M, M]);

/// A tile of a fixed number of rows by 16 columns: the rows of so many blocks, packed rows, weights, results.
pub type TileFn = unsafe fn(*const Block, usize, *const i8, *const i8, *mut f32);

/// Text of an inner loop that the last group of a block, after which there is nothing to load, leaves out.
macro_rules! only {
    (next $text:expr) => {
        $text
    };
    (last $text:expr) => {
        ""
    };
}
pub(super) use only;

/// `f = fma(sum, scale, f)` of 16 results, `$at` bytes into row `$row` of `{f}`, from four registers of sums. Takes what
/// to subtract in `w0`, the scale as `$scale` with `$index` (an element, or all four), and four registers to spare.
macro_rules! add_block {
    ($row:literal $at:literal $scale:ident $index:literal; $($sum:ident $t:ident $i:literal)*) => {
        concat!(
            $("ldr {", stringify!($t), ":q}, [{f}, #256*", $row, "+", $at, "+16*", $i, "]\n",)*
            $("fsub {", stringify!($sum), ":v}.4s, {", stringify!($sum), ":v}.4s, {w0:v}.4s\n",)*
            $(
                "fmla {", stringify!($t), ":v}.4s, {", stringify!($sum), ":v}.4s, {", stringify!($scale), ":v}",
                $index, "\n",
            )*
            $("str {", stringify!($t), ":q}, [{f}, #256*", $row, "+", $at, "+16*", $i, "]\n",)*
        )
    };
}
pub(super) use add_block;

/// Columns of the tile: the step from one row of it to the next.
pub const ROW: usize = BLOCK;
const _: () = assert!(ROW * size_of::<f32>() == 256, "the tiles' asm steps so");

/// Sets 16 results to -0: `fma(a, b, -0)` is `a · b` to the bit, so the first block is no case of its own.
///
/// # Safety
/// `f` points to 16 values.
#[inline(always)]
pub unsafe fn clear(f: *mut f32) {
    for i in 0..4 {
        // SAFETY: 16 values by the caller's word.
        unsafe { vst1q_f32(f.add(4 * i), vdupq_n_f32(-0.0)) };
    }
}

/// A tile by the function for its height: `Int8::tile` of every ARM set.
///
/// # Safety
/// The CPU has the instructions of `tiles`, which has a function for each height and reads packed rows only where
/// `I` does.
#[inline(always)]
pub unsafe fn tile<I: Int8, const MR: usize>(
    tiles: &[TileFn; MR],
    mr: usize,
    x: &[Block],
    a: &[i8],
    b: &[i8],
    acc: &mut Tile,
    col: usize,
) {
    let blocks = x.len() / mr;
    assert!(x.len() == mr * blocks && b.len() == blocks * BLOCK * PANEL);
    assert!(I::ROWS_IN_PLACE || a.len() == x.len() * BLOCK);
    // A pair of rows at a time: odd heights of i8mm write one row more.
    let f = &mut acc.0[..mr.next_multiple_of(2)].as_flattened_mut()[col..];
    assert!(f.len() >= (mr.next_multiple_of(2) - 1) * ROW + PANEL);
    // SAFETY: the lengths are those the tiles ask for, by the assertions; the CPU by the caller's word.
    unsafe { tiles[mr - 1](x.as_ptr(), blocks, a.as_ptr(), b.as_ptr(), f.as_mut_ptr()) }
}

/// Stored weights, columns `[i, i + 64)`, to four panels `panel` bytes apart that contract over the outputs, in
/// groups of `KU` (4 or 8) outputs: `Int8::pack_ins`.
#[inline(always)]
pub fn pack_ins<const KU: usize>(w: MatI8, i: usize, panel: usize, to: &mut [i8]) {
    const { assert!(KU == 4 || KU == 8) };
    // 4 outputs by 4 inputs, transposed.
    const TURN: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];
    let (tiles, _) = w.tiles.as_chunks::<64>();
    for (o, tiles) in tiles.chunks_exact(padded(w.cols) / 4).enumerate() {
        // 16 outputs by 64 inputs, 16 inputs to a panel.
        let (quarters, _) = tiles[i / 4..][..16].as_chunks::<4>();
        for (p, quarter) in quarters.iter().enumerate() {
            let from = quarter.as_flattened();
            let to = &mut to[p * panel + o * 256..][..256];
            // SAFETY: 16 vectors of 16 bytes lie in either slice, both 256 bytes; NEON by the target.
            unsafe {
                let turn = vld1q_u8(TURN.as_ptr());
                let load =
                    |g: usize, o: usize| vqtbl1q_s8(vld1q_s8(from.as_ptr().add(g * 64 + o * 16)), turn);
                for g in 0..4 {
                    if KU == 4 {
                        for o in 0..4 {
                            vst1q_s8(to.as_mut_ptr().add(o * 64 + g * 16), load(g, o));
                        }
                    } else {
                        for o in 0..2 {
                            let to = to.as_mut_ptr().add(o * 128 + g * 32);
                            zip_fours(load(g, 2 * o), load(g, 2 * o + 1), to);
                        }
                    }
                }
            }
        }
    }
}

/// Fours of bytes of `a` and `b` in turn.
///
/// # Safety
/// `to` points to 32 bytes.
#[inline(always)]
pub unsafe fn zip_fours(a: int8x16_t, b: int8x16_t, to: *mut i8) {
    // SAFETY: 32 bytes by the caller's word; NEON by the target.
    unsafe {
        let (a, b) = (vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b));
        vst1q_s32(to.cast(), vzip1q_s32(a, b));
        vst1q_s32(to.add(16).cast(), vzip2q_s32(a, b));
    }
}
