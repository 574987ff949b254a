//! ARMv8.2 dot products: `sdot` adds four products of bytes to each of four lanes.
//!
//! Nothing is packed in the forward: a register holds the stored weights of four outputs, and `sdot` takes four
//! activations of a row, as they were quantized, by element.

use super::arm::{ROW, START, TileFn, add_block, clear, only, pack_ins, tile};
use super::isa::{Int8, Isa, Op};
use super::neon_lanes::Neon4;
use super::tiles::{Ahead, Tile};
use super::{BLOCK, Block, MatI8};
use std::arch::asm;

/// Proof that the CPU has the dot product instructions.
#[derive(Clone, Copy)]
pub struct DotProd(());

impl DotProd {
    /// The set, if this CPU has it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}

/// Weights of four outputs.
macro_rules! load {
    ($w:ident $at:literal) => {
        concat!("ldur {", stringify!($w), ":q}, [{w}, #", $at, "]\n")
    };
}

/// 16 values of a row.
macro_rules! row {
    ($x:ident $p:ident) => {
        concat!("ldr {", stringify!($x), ":q}, [{", stringify!($p), "}, {k}]\n")
    };
}

/// One `sdot` a row: four values of the contraction, element `$lane` of the row's activations `$x`.
macro_rules! sdots {
    ($w:ident $lane:literal; $($acc:ident $x:ident)*) => {
        concat!($(
            "sdot {", stringify!($acc), ":v}.4s, {", stringify!($w), ":v}.16b, {",
            stringify!($x), ":v}.4b[", $lane, "]\n"
        ),*)
    };
}

/// 4 values of the contraction. Two registers of weights take turns, each loaded as soon as it is free.
macro_rules! group {
    ($lane:literal $l0:literal $l1:literal $l2:literal $l3:literal;
        $($x:ident: $a0:ident $a1:ident $a2:ident $a3:ident,)*) => {
        concat!(
            sdots!(w0 $lane; $($a0 $x)*), load!(w0 $l0), sdots!(w1 $lane; $($a1 $x)*), load!(w1 $l1),
            sdots!(w0 $lane; $($a2 $x)*), load!(w0 $l2), sdots!(w1 $lane; $($a3 $x)*), load!(w1 $l3)
        )
    };
}

/// 16 values of the contraction; the last loads are for the next 16.
macro_rules! groups {
    ($which:ident; $($p:ident $x:ident: $a0:ident $a1:ident $a2:ident $a3:ident,)*) => {
        concat!(
            "add {k}, {k}, #16\n",
            group!(0 32 48 64 80; $($x: $a0 $a1 $a2 $a3,)*),
            group!(1 96 112 128 144; $($x: $a0 $a1 $a2 $a3,)*),
            group!(2 160 176 192 208; $($x: $a0 $a1 $a2 $a3,)*),
            sdots!(w0 3; $($a0 $x)*), load!(w0 224), sdots!(w1 3; $($a1 $x)*), load!(w1 240),
            "add {w}, {w}, #256\n",
            sdots!(w0 3; $($a2 $x)*), only!($which load!(w0 0)),
            $(sdots!(w1 3; $a3 $x), only!($which row!($x $p)),)*
            only!($which load!(w1 16))
        )
    };
}

/// The tile of some rows by 16 columns: four registers to spare behind the sums, those of them not among the rows', and
/// of each row its number, pointer, activations and four registers of sums.
macro_rules! tile {
    ($name:ident $m:literal [$t0:ident $t1:ident $t2:ident $t3:ident] [$($spare:ident)*];
        $($r:literal $p:ident $x:ident: $a0:ident $a1:ident $a2:ident $a3:ident,)*) => {
        /// # Safety
        /// The CPU has dotprod; `x` points to rows of `blocks`, `w` to their weights for 16 columns, `f` to rows of
        /// 16 that are [`ROW`] apart.
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        unsafe fn $name(x: *const Block, blocks: usize, _: *const i8, mut w: *const i8, f: *mut f32) {
            // SAFETY: a block reads 64 bytes and a scale of each row and 64 * 16 bytes of weights, and adds to 16 results
            // a row: in bounds by the caller's word. The loads that run ahead of the sums end with the block.
            unsafe {
                $(
                    let $p = x.add($r * blocks);
                    clear(f.add($r * ROW));
                )*
                for block in 0..blocks {
                    asm!(
                        concat!(
                            load!(w0 0), load!(w1 16),
                            $(
                                row!($x $p),
                                "ldp {", stringify!($a0), ":q}, {", stringify!($a1), ":q}, [{start}]\n",
                                "ldp {", stringify!($a2), ":q}, {", stringify!($a3), ":q}, [{start}]\n",
                            )*
                            "// LLVM-MCA-BEGIN dotprod-", $m, "x16\n",
                            "2:\n",
                            "subs {n}, {n}, #1\n",
                            groups!(next; $($p $x: $a0 $a1 $a2 $a3,)*),
                            "b.ne 2b\n",
                            "// LLVM-MCA-END\n",
                            groups!(last; $($p $x: $a0 $a1 $a2 $a3,)*),
                            // `k` has come to the block's scale.
                            "ldr {w0:q}, [{start}, #32]\n",
                            $(
                                "ldr {w1:s}, [{", stringify!($p), "}, {k}]\n",
                                add_block!($r 0 w1 ".s[0]"; $a0 $t0 0 $a1 $t1 1 $a2 $t2 2 $a3 $t3 3),
                            )*
                        ),
                        n = inout(reg) BLOCK / 16 - 1 => _,
                        start = in(reg) &raw const START,
                        w = inout(reg) w,
                        f = in(reg) f,
                        k = inout(reg) block * size_of::<Block>() => _,
                        w0 = out(vreg) _,
                        w1 = out(vreg) _,
                        $(
                            $p = in(reg) $p,
                            $x = out(vreg) _,
                            $a0 = out(vreg) _,
                            $a1 = out(vreg) _,
                            $a2 = out(vreg) _,
                            $a3 = out(vreg) _,
                        )*
                        $($spare = out(vreg) _,)*
                        options(nostack)
                    );
                }
            }
        }
    };
}

tile!(tile1 1 [t0 t1 t2 t3] [t0 t1 t2 t3];
    0 p0 x0: a00 a01 a02 a03,);
tile!(tile2 2 [t0 t1 t2 t3] [t0 t1 t2 t3];
    0 p0 x0: a00 a01 a02 a03,
    1 p1 x1: a10 a11 a12 a13,);
tile!(tile3 3 [t0 t1 t2 t3] [t0 t1 t2 t3];
    0 p0 x0: a00 a01 a02 a03,
    1 p1 x1: a10 a11 a12 a13,
    2 p2 x2: a20 a21 a22 a23,);
tile!(tile4 4 [t0 t1 t2 t3] [t0 t1 t2 t3];
    0 p0 x0: a00 a01 a02 a03,
    1 p1 x1: a10 a11 a12 a13,
    2 p2 x2: a20 a21 a22 a23,
    3 p3 x3: a30 a31 a32 a33,);
tile!(tile5 5 [t0 t1 t2 t3] [t0 t1 t2 t3];
    0 p0 x0: a00 a01 a02 a03,
    1 p1 x1: a10 a11 a12 a13,
    2 p2 x2: a20 a21 a22 a23,
    3 p3 x3: a30 a31 a32 a33,
    4 p4 x4: a40 a41 a42 a43,);
tile!(tile6 6 [x0 x1 x2 x3] [];
    0 p0 x0: a00 a01 a02 a03,
    1 p1 x1: a10 a11 a12 a13,
    2 p2 x2: a20 a21 a22 a23,
    3 p3 x3: a30 a31 a32 a33,
    4 p4 x4: a40 a41 a42 a43,
    5 p5 x5: a50 a51 a52 a53,);

/// Most rows of a tile: 24 registers of sums, 6 of activations, 2 of weights.
const MR: usize = 6;
/// The tile of `index + 1` rows.
const TILES: [TileFn; MR] = [tile1, tile2, tile3, tile4, tile5, tile6];

impl Neon4 for DotProd {}

impl Int8 for DotProd {
    const MR: usize = MR;
    const PANELS: usize = 1;
    const KU: usize = 4;
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
    fn pack_ins(self, w: MatI8, i: usize, panel: usize, to: &mut [i8]) {
        pack_ins::<4>(w, i, panel, to);
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
        // SAFETY: `self` exists, so the CPU has dotprod.
        unsafe { tile::<Self, MR>(&TILES, mr, x, a, b[0], acc, col) }
    }
}

impl Isa for DotProd {
    const NAME: &'static str = "dotprod";

    // Every function has NEON here; what the set has besides, only the tiles use.
    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        op.run(self)
    }
}
