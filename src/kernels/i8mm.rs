//! ARMv8.6 matrix products of bytes: `smmla` multiplies 2 rows by 2 columns over 8 values of the contraction.
//!
//! Both operands are packed: from stored weights every third instruction of the loop would be a shuffle, in the
//! pipes that multiply.

use super::arm::{ROW, START, TileFn, add_block, clear, only, pack_ins, tile, zip_fours};
use super::isa::{Int8, Isa, Op};
use super::neon_lanes::Neon4;
use super::tiles::{Ahead, Tile};
use super::{BLOCK, Block, MatI8};
use std::arch::aarch64::*;
use std::arch::asm;

/// Proof that the CPU has the matrix product instructions.
#[derive(Clone, Copy)]
pub struct I8mm(());

impl I8mm {
    /// The set, if this CPU has it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("i8mm").then_some(Self(()))
    }
}

/// Weights of two outputs.
macro_rules! load {
    ($w:ident $at:literal) => {
        concat!("ldr {", stringify!($w), ":q}, [{w}, #", $at, "]\n")
    };
}

/// One `smmla` a pair of rows: `$x` by the two outputs of `$w`.
#[rustfmt::skip]
macro_rules! smmla {
    ($acc:ident $x:ident $w:ident) => {
        concat!(
            "smmla {", stringify!($acc), ":v}.4s, {", stringify!($x), ":v}.16b, {", stringify!($w), ":v}.16b\n"
        )
    };
}

/// The activations of the next pair of rows, or of a last single row.
macro_rules! rows {
    (pair $x:ident) => {
        concat!("ldr {", stringify!($x), ":q}, [{a}], #16\n")
    };
    (single $x:ident) => {
        concat!("ldr {", stringify!($x), ":d}, [{a}], #8\n")
    };
}

/// The scales of a pair of rows, each twice; those of the next rows are `{row}` bytes on.
macro_rules! scales {
    (pair $x:ident) => {
        concat!(
            "ld1r {{{",
            stringify!($x),
            ":v}.4s}}, [{scale}], {row}\n",
            "ld1r {{{w1:v}.4s}}, [{scale}], {row}\n",
            "mov {",
            stringify!($x),
            ":v}.d[1], {w1:v}.d[0]\n",
        )
    };
    (single $x:ident) => {
        concat!("ld1r {{{", stringify!($x), ":v}.4s}}, [{scale}], {row}\n")
    };
}

/// 8 values of the contraction. Four registers of weights take turns in twos, loaded as soon as they are free.
macro_rules! group {
    ($which:ident;
        $($x:ident $kind:ident: $c0:ident $c1:ident $c2:ident $c3:ident $c4:ident $c5:ident $c6:ident $c7:ident,)*) => {
        concat!(
            $(smmla!($c0 $x w0), smmla!($c1 $x w1),)* load!(w0 64), load!(w1 80),
            $(smmla!($c2 $x w2), smmla!($c3 $x w3),)* load!(w2 96), load!(w3 112),
            $(smmla!($c4 $x w0), smmla!($c5 $x w1),)* only!($which load!(w0 128)), only!($which load!(w1 144)),
            $(smmla!($c6 $x w2), smmla!($c7 $x w3), only!($which rows!($kind $x)),)*
            only!($which load!(w2 160)), only!($which load!(w3 176)),
            "add {w}, {w}, #128\n"
        )
    };
}

/// The tile of some rows by 16 columns. Of a pair of rows: the first's number, whether there is a second, the
/// activations, and eight registers of 2 by 2 sums.
macro_rules! tile {
    ($name:ident $m:literal; $($r:literal $kind:ident $x:ident:
        $c0:ident $c1:ident $c2:ident $c3:ident $c4:ident $c5:ident $c6:ident $c7:ident,)*) => {
        /// # Safety
        /// The CPU has i8mm; `x` points to rows of `blocks`, `a` to the same packed, `w` to their packed weights for
        /// 16 columns, `f` to rows of 16 that are [`ROW`] apart, an even number of them.
        #[target_feature(enable = "neon,i8mm")]
        #[inline(never)]
        unsafe fn $name(x: *const Block, blocks: usize, mut a: *const i8, mut w: *const i8, f: *mut f32) {
            // SAFETY: a block reads 64 bytes and a scale of each row and 64 * 16 bytes of weights, and adds to 16 results
            // a row: in bounds by the caller's word. The loads that run ahead of the sums end with the block.
            unsafe {
                $(
                    clear(f.add($r * ROW));
                    clear(f.add(($r + 1) * ROW));
                )*
                for block in 0..blocks {
                    asm!(
                        concat!(
                            load!(w0 0), load!(w1 16), load!(w2 32), load!(w3 48),
                            $(
                                rows!($kind $x),
                                "ldp {", stringify!($c0), ":q}, {", stringify!($c1), ":q}, [{start}]\n",
                                "ldp {", stringify!($c2), ":q}, {", stringify!($c3), ":q}, [{start}]\n",
                                "ldp {", stringify!($c4), ":q}, {", stringify!($c5), ":q}, [{start}]\n",
                                "ldp {", stringify!($c6), ":q}, {", stringify!($c7), ":q}, [{start}]\n",
                            )*
                            "// LLVM-MCA-BEGIN i8mm-", $m, "x16\n",
                            "2:\n",
                            "subs {n}, {n}, #1\n",
                            group!(next; $($x $kind: $c0 $c1 $c2 $c3 $c4 $c5 $c6 $c7,)*),
                            "b.ne 2b\n",
                            "// LLVM-MCA-END\n",
                            group!(last; $($x $kind: $c0 $c1 $c2 $c3 $c4 $c5 $c6 $c7,)*),
                            // Until the last block the results stay 2 by 2: eight registers in the pair's two rows.
                            "ldr {w0:q}, [{start}, #32]\n",
                            $(
                                scales!($kind $x),
                                add_block!($r 0 $x ".4s"; $c0 w1 0 $c1 w2 1 $c2 w3 2 $c3 t 3),
                                add_block!($r 256 $x ".4s"; $c4 w1 0 $c5 w2 1 $c6 w3 2 $c7 t 3),
                            )*
                        ),
                        n = inout(reg) BLOCK / 8 - 1 => _,
                        start = in(reg) &raw const START,
                        w = inout(reg) w,
                        f = in(reg) f,
                        scale = inout(reg) &raw const (*x.add(block)).scale => _,
                        row = in(reg) blocks * size_of::<Block>(),
                        a = inout(reg) a,
                        w0 = out(vreg) _,
                        w1 = out(vreg) _,
                        w2 = out(vreg) _,
                        w3 = out(vreg) _,
                        t = out(vreg) _,
                        $(
                            $x = out(vreg) _,
                            $c0 = out(vreg) _,
                            $c1 = out(vreg) _,
                            $c2 = out(vreg) _,
                            $c3 = out(vreg) _,
                            $c4 = out(vreg) _,
                            $c5 = out(vreg) _,
                            $c6 = out(vreg) _,
                            $c7 = out(vreg) _,
                        )*
                        options(nostack)
                    );
                }
                $(split(f.add($r * ROW));)*
            }
        }
    };
}

/// 2 rows of 16 results that lie as 2 by 2 of two columns each, in place to rows.
///
/// # Safety
/// `f` points to two rows of 16 that are [`ROW`] apart.
#[inline(always)]
unsafe fn split(f: *mut f32) {
    // SAFETY: the two rows by the caller's word.
    unsafe {
        let load = |i: usize| vreinterpretq_f64_f32(vld1q_f32(f.add(i / 4 * ROW + i % 4 * 4)));
        let pairs: [float64x2_t; 8] = std::array::from_fn(load);
        for (i, pair) in pairs.chunks_exact(2).enumerate() {
            let (first, second) = (vzip1q_f64(pair[0], pair[1]), vzip2q_f64(pair[0], pair[1]));
            vst1q_f32(f.add(4 * i), vreinterpretq_f32_f64(first));
            vst1q_f32(f.add(ROW + 4 * i), vreinterpretq_f32_f64(second));
        }
    }
}

tile!(tile1 1; 0 single x0: a0 a1 a2 a3 a4 a5 a6 a7,);
tile!(tile2 2; 0 pair x0: a0 a1 a2 a3 a4 a5 a6 a7,);
tile!(tile3 3; 0 pair x0: a0 a1 a2 a3 a4 a5 a6 a7, 2 single x1: b0 b1 b2 b3 b4 b5 b6 b7,);
tile!(tile4 4; 0 pair x0: a0 a1 a2 a3 a4 a5 a6 a7, 2 pair x1: b0 b1 b2 b3 b4 b5 b6 b7,);
tile!(tile5 5; 0 pair x0: a0 a1 a2 a3 a4 a5 a6 a7, 2 pair x1: b0 b1 b2 b3 b4 b5 b6 b7,
    4 single x2: c0 c1 c2 c3 c4 c5 c6 c7,);
tile!(tile6 6; 0 pair x0: a0 a1 a2 a3 a4 a5 a6 a7, 2 pair x1: b0 b1 b2 b3 b4 b5 b6 b7,
    4 pair x2: c0 c1 c2 c3 c4 c5 c6 c7,);

/// Most rows of a tile: 24 registers of sums, 3 of activations, 4 of weights, 1 to spare.
const MR: usize = 6;
/// The tile of `index + 1` rows.
const TILES: [TileFn; MR] = [tile1, tile2, tile3, tile4, tile5, tile6];

impl Neon4 for I8mm {}

impl Int8 for I8mm {
    const MR: usize = MR;
    const ROWS_AT_ONCE: usize = 2;
    const PANELS: usize = 1;
    const KU: usize = 8;
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
    fn pack_rows(self, x: &[Block], mr: usize, to: &mut [i8]) {
        let (to, _) = to.as_chunks_mut::<8>();
        for (r, row) in x.chunks_exact(x.len() / mr).enumerate() {
            for (block, to) in row.iter().zip(to.chunks_exact_mut(mr * BLOCK / 8)) {
                for (eight, to) in block.q.as_chunks::<8>().0.iter().zip(to.chunks_exact_mut(mr)) {
                    to[r] = *eight;
                }
            }
        }
    }

    #[inline(always)]
    fn pack_outs(self, stored: &[i8], to: &mut [i8]) {
        for (from, to) in stored.as_chunks::<128>().0.iter().zip(to.as_chunks_mut::<128>().0) {
            for quad in 0..4 {
                // SAFETY: 16 bytes in each half of 128 bytes, 32 of as many; NEON by the target.
                unsafe {
                    let from = from.as_ptr().add(quad * 16);
                    zip_fours(vld1q_s8(from), vld1q_s8(from.add(64)), to.as_mut_ptr().add(quad * 32));
                }
            }
        }
    }

    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, panel: usize, to: &mut [i8]) {
        pack_ins::<8>(w, i, panel, to);
    }

    #[inline(always)]
    fn tile(
        self,
        mr: usize,
        x: &[Block],
        a: &[i8],
        b: &[&[i8]],
        _sums: &[i32],
        acc: &mut Tile,
        col: usize,
        _ahead: Ahead,
    ) {
        // SAFETY: `self` exists, so the CPU has i8mm.
        unsafe { tile::<Self, MR>(&TILES, mr, x, a, b[0], acc, col) }
    }
}

impl Isa for I8mm {
    const NAME: &'static str = "i8mm";

    // Every function has NEON here; what the set has besides, only the tiles use.
    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        op.run(self)
    }
}
