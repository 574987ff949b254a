//! ARMv8.0: `smull` and `smlal` multiply eight pairs of bytes, `sadalp` adds the products in pairs to i32.
//!
//! Two products fit an i16: `2 · 127² = 32258`. Nothing is packed in the forward: a register holds the stored weights
//! of four outputs by four values of the contraction, the other operand repeats those four values of a row.

use super::arm::{ROW, START_PAIRS, TileFn, add_block, clear, only, pack_ins, tile};
use super::isa::{Int8, Isa, Op};
use super::neon_lanes::Neon4;
use super::tiles::{Ahead, Tile};
use super::{BLOCK, Block, MatI8};
use std::arch::asm;

/// Proof that the CPU has NEON, which every CPU has that this file is compiled for.
#[derive(Clone, Copy)]
pub struct Neon(());

impl Neon {
    /// The set, if this CPU has it.
    pub fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// Weights of four outputs.
macro_rules! load {
    ($w:ident $at:literal) => {
        concat!("ldr {", stringify!($w), ":q}, [{w}, #", $at, "]\n")
    };
}

/// 16 values of a row.
macro_rules! row {
    ($x:ident $p:ident) => {
        concat!("ldr {", stringify!($x), ":q}, [{", stringify!($p), "}, {k}]\n")
    };
}

/// Four of the 16 values, repeated.
macro_rules! repeat {
    ($to:ident $x:ident $four:literal) => {
        concat!("dup {", stringify!($to), ":v}.4s, {", stringify!($x), ":v}.s[", $four, "]\n")
    };
}

/// `$op` (`smull` or `smlal`) of four outputs' weights to two registers of products.
#[rustfmt::skip]
macro_rules! products {
    ($op:literal $low:ident $high:ident $w:ident $x:ident) => {
        concat!(
            $op, " {", stringify!($low), ":v}.8h, {", stringify!($w), ":v}.8b, {", stringify!($x), ":v}.8b\n",
            $op, "2 {", stringify!($high), ":v}.8h, {", stringify!($w), ":v}.16b, {", stringify!($x), ":v}.16b\n"
        )
    };
}

/// Products to sums.
macro_rules! sums {
    ($($acc:ident $from:ident)*) => {
        concat!($("sadalp {", stringify!($acc), ":v}.4s, {", stringify!($from), ":v}.8h\n"),*)
    };
}

/// 8 values of the contraction: outputs 0 to 7, then 8 to 15. Two registers of weights take turns, each loaded as
/// soon as it is free; the loads and repeats for the next 8 values depend on `$which`.
macro_rules! group {
    ($which:ident $w2:literal $w3:literal $w4:literal $w5:literal $w6:literal $w7:literal $w8:literal $w9:literal,
        $four_a:literal $four_b:literal;
        $($p:ident $x:ident $xa:ident $xb:ident $q0:ident $q1:ident $q2:ident $q3:ident:
        $a0:ident $a1:ident $a2:ident $a3:ident $a4:ident $a5:ident $a6:ident $a7:ident,)*) => {
        concat!(
            $(products!("smull" $q0 $q1 w0 $xa),)* load!(w0 $w2),
            $(products!("smull" $q2 $q3 w1 $xa),)* load!(w1 $w3),
            $(products!("smlal" $q0 $q1 w0 $xb),)* load!(w0 $w4),
            $(products!("smlal" $q2 $q3 w1 $xb),)* load!(w1 $w5),
            $(sums!($a0 $q0 $a1 $q1 $a2 $q2 $a3 $q3),)*
            $(products!("smull" $q0 $q1 w0 $xa),)* load!(w0 $w6),
            $(products!("smull" $q2 $q3 w1 $xa), only!($which repeat!($xa $x $four_a)),)* load!(w1 $w7),
            $(products!("smlal" $q0 $q1 w0 $xb),)* only!($which load!(w0 $w8)),
            $(products!("smlal" $q2 $q3 w1 $xb), only!($which repeat!($xb $x $four_b)),)*
            only!($which load!(w1 $w9)),
            $(sums!($a4 $q0 $a5 $q1 $a6 $q2 $a7 $q3),)*
        )
    };
}

/// 16 values of the contraction.
macro_rules! groups {
    ($which:ident; $($p:ident $x:ident $xa:ident $xb:ident $q0:ident $q1:ident $q2:ident $q3:ident:
        $a0:ident $a1:ident $a2:ident $a3:ident $a4:ident $a5:ident $a6:ident $a7:ident,)*) => {
        concat!(
            "add {k}, {k}, #16\n",
            group!(next 64 80 32 48 96 112 128 144, 2 3;
                $($p $x $xa $xb $q0 $q1 $q2 $q3: $a0 $a1 $a2 $a3 $a4 $a5 $a6 $a7,)*),
            $(only!($which row!($x $p)),)*
            group!($which 192 208 160 176 224 240 256 272, 0 1;
                $($p $x $xa $xb $q0 $q1 $q2 $q3: $a0 $a1 $a2 $a3 $a4 $a5 $a6 $a7,)*),
            "add {w}, {w}, #256\n"
        )
    };
}

/// The sums of four outputs, from two registers of pairs to the first.
#[rustfmt::skip]
macro_rules! pairs {
    ($a:ident $b:ident) => {
        concat!(
            "addp {", stringify!($a), ":v}.4s, {", stringify!($a), ":v}.4s, {", stringify!($b), ":v}.4s\n"
        )
    };
}

/// The tile of some rows by 16 columns. Of a row: its number, pointer, a register of activations, two of four of
/// them repeated, four of products and eight of sums, two outputs each.
macro_rules! tile {
    ($name:ident $m:literal;
        $($r:literal $p:ident $x:ident $xa:ident $xb:ident $q0:ident $q1:ident $q2:ident $q3:ident:
        $a0:ident $a1:ident $a2:ident $a3:ident $a4:ident $a5:ident $a6:ident $a7:ident,)*) => {
        /// # Safety
        /// `x` points to rows of `blocks`, `w` to their weights for 16 columns, `f` to rows of 16 that are [`ROW`] apart.
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
                            $(row!($x $p),)*
                            $(
                                "ldp {", stringify!($a0), ":q}, {", stringify!($a1), ":q}, [{start}]\n",
                                "ldp {", stringify!($a2), ":q}, {", stringify!($a3), ":q}, [{start}]\n",
                                "ldp {", stringify!($a4), ":q}, {", stringify!($a5), ":q}, [{start}]\n",
                                "ldp {", stringify!($a6), ":q}, {", stringify!($a7), ":q}, [{start}]\n",
                            )*
                            $(repeat!($xa $x 0), repeat!($xb $x 1),)*
                            "// LLVM-MCA-BEGIN neon-", $m, "x16\n",
                            "2:\n",
                            "subs {n}, {n}, #1\n",
                            groups!(next; $($p $x $xa $xb $q0 $q1 $q2 $q3: $a0 $a1 $a2 $a3 $a4 $a5 $a6 $a7,)*),
                            "b.ne 2b\n",
                            "// LLVM-MCA-END\n",
                            groups!(last; $($p $x $xa $xb $q0 $q1 $q2 $q3: $a0 $a1 $a2 $a3 $a4 $a5 $a6 $a7,)*),
                            // `k` has come to the block's scale.
                            "ldr {w0:q}, [{start}, #32]\n",
                            $(
                                "ldr {", stringify!($x), ":s}, [{", stringify!($p), "}, {k}]\n",
                                pairs!($a0 $a1), pairs!($a2 $a3), pairs!($a4 $a5), pairs!($a6 $a7),
                                add_block!($r 0 $x ".s[0]"; $a0 $q0 0 $a2 $q1 1 $a4 $q2 2 $a6 $q3 3),
                            )*
                        ),
                        n = inout(reg) BLOCK / 16 - 1 => _,
                        start = in(reg) &raw const START_PAIRS,
                        w = inout(reg) w,
                        f = in(reg) f,
                        k = inout(reg) block * size_of::<Block>() => _,
                        w0 = out(vreg) _,
                        w1 = out(vreg) _,
                        $(
                            $p = in(reg) $p,
                            $x = out(vreg) _,
                            $xa = out(vreg) _,
                            $xb = out(vreg) _,
                            $q0 = out(vreg) _,
                            $q1 = out(vreg) _,
                            $q2 = out(vreg) _,
                            $q3 = out(vreg) _,
                            $a0 = out(vreg) _,
                            $a1 = out(vreg) _,
                            $a2 = out(vreg) _,
                            $a3 = out(vreg) _,
                            $a4 = out(vreg) _,
                            $a5 = out(vreg) _,
                            $a6 = out(vreg) _,
                            $a7 = out(vreg) _,
                        )*
                        options(nostack)
                    );
                }
            }
        }
    };
}

tile!(tile1 1; 0 p0 x0 x00 x01 q00 q01 q02 q03: a00 a01 a02 a03 a04 a05 a06 a07,);
tile!(tile2 2; 0 p0 x0 x00 x01 q00 q01 q02 q03: a00 a01 a02 a03 a04 a05 a06 a07,
    1 p1 x1 x10 x11 q10 q11 q12 q13: a10 a11 a12 a13 a14 a15 a16 a17,);

/// Most rows of a tile: 16 registers of sums, 8 of products, 6 of activations, 2 of weights.
const MR: usize = 2;
/// The tile of `index + 1` rows.
const TILES: [TileFn; MR] = [tile1, tile2];

impl Neon4 for Neon {}

impl Int8 for Neon {
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
        // SAFETY: `self` exists, so the CPU has NEON.
        unsafe { tile::<Self, MR>(&TILES, mr, x, a, b[0], acc, col) }
    }
}

impl Isa for Neon {
    const NAME: &'static str = "neon";

    // Every function has NEON here; what the set has besides, only the tiles use.
    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Out {
        op.run(self)
    }
}
