//! What an instruction set must bring: lanes, an int8 microkernel, and a way to run code compiled for it.

use super::lanes::Lanes;
use super::tiles::{self, Ahead, GROUP, PANEL, Tile};
use super::{BLOCK, Block, MatI8};
use bytemuck::Pod;

/// Work written once, generic over the instruction set. `run` must be `#[inline(always)]`, so that it is
/// compiled inside the function that [`Isa::vectorize`] marks with the set's target features.
pub trait Op {
    /// What the work returns.
    type Out;
    /// Does the work.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// An instruction set. Holding a value proves that the CPU has it: only `detect` makes one.
pub trait Isa: Int8 {
    /// The name that `TRIMTAB_KERNEL` takes.
    const NAME: &'static str;
    /// Whether there are 32 registers of 16 lanes: room for an f32 tile of 8 rows by 32 columns, and for four
    /// chains of a polynomial side by side.
    const WIDE: bool = false;

    /// Runs `op` in a function compiled for this set.
    fn vectorize<O: Op>(self, op: O) -> O::Out;
}

/// The int8 microkernel of a set: products of quantized rows with panels of 16 columns, exact in i32 over a block.
///
/// Operands are packed in groups of `KU` values of the contraction: rows to `[k / KU][mr][KU]`, a panel to
/// `[k / KU][16][KU]`. `k`, the contraction, is always a whole number of blocks.
pub trait Int8: Lanes {
    /// Most rows of a tile, at most [`super::tiles::MR_MAX`].
    const MR: usize;
    /// Rows that one instruction multiplies; divides [`Int8::MR`].
    const ROWS_AT_ONCE: usize = 1;
    /// Panels that a tile is wide: 1, 2 or 4.
    const PANELS: usize;
    /// Values of the contraction that lie together; divides [`BLOCK`].
    const KU: usize;
    /// What the bytes of a quantized row are xor'ed with.
    const FLIP: u8 = 0;
    /// Whether [`Int8::tile`] reads the rows as they were quantized; they are not packed then.
    const ROWS_IN_PLACE: bool = false;
    /// Whether [`Int8::tile`] reads the forward's panels as they are stored (`B = i8`, `KU = 4`); they are not packed then.
    const OUTS_IN_PLACE: bool = false;
    /// A packed activation.
    type A: Pod + Send + Sync;
    /// A packed weight.
    type B: Pod + Send + Sync;

    /// The activation as the microkernel wants it.
    fn lift_a(q: i8) -> Self::A;
    /// The weight as the microkernel wants it.
    fn lift_b(w: i8) -> Self::B;

    /// Packs `mr` rows `x: [mr, blocks]` to `[k / KU][mr][KU]`.
    #[inline(always)]
    fn pack_rows(self, x: &[Block], mr: usize, to: &mut [Self::A]) {
        let blocks = x.len() / mr;
        let block_len = BLOCK * mr;
        for (r, row) in x.chunks_exact(blocks).enumerate() {
            for (block, to) in row.iter().zip(to.chunks_exact_mut(block_len)) {
                for (q, to) in block.q.chunks_exact(Self::KU).zip(to.chunks_exact_mut(mr * Self::KU)) {
                    for (q, to) in q.iter().zip(&mut to[r * Self::KU..]) {
                        *to = Self::lift_a(*q);
                    }
                }
            }
        }
    }

    /// Packs a stored panel `[k / 4][16][4]`, 16 outputs over the inputs.
    #[inline(always)]
    fn pack_outs(self, stored: &[i8], to: &mut [Self::B]) {
        for (i, v) in stored.iter().enumerate() {
            let (k, c) = (i / (PANEL * GROUP) * GROUP + i % GROUP, i / GROUP % PANEL);
            to[(k / Self::KU * PANEL + c) * Self::KU + k % Self::KU] = Self::lift_b(*v);
        }
    }

    /// Packs columns `[i, i + 64)` of `w`, over its outputs, as four panels that lie `panel` values apart.
    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, panel: usize, to: &mut [Self::B]) {
        let row = tiles::padded(w.cols) * PANEL;
        for (p, outs) in w.tiles.chunks_exact(row.max(1)).enumerate() {
            for (j, v) in outs[i * PANEL..][..BLOCK * PANEL].iter().enumerate() {
                let (c, k) = (j / (PANEL * GROUP) * GROUP + j % GROUP, p * PANEL + j / GROUP % PANEL);
                let at = c / PANEL * panel + (k / Self::KU * PANEL + c % PANEL) * Self::KU;
                to[at + k % Self::KU] = Self::lift_b(*v);
            }
        }
    }

    /// What each block's sums of a panel's 16 columns start from, `[blocks][16]`, for sets that shift activations.
    #[inline(always)]
    fn panel_sums(self, _b: &[Self::B], _sums: &mut [i32]) {}

    /// [`Int8::pack_ins`], and at `panel / BLOCK` from each other what [`Int8::panel_sums`] would give of the panels.
    #[inline(always)]
    fn pack_ins_and_sums(self, w: MatI8, i: usize, panel: usize, to: &mut [Self::B], _sums: &mut [i32]) {
        self.pack_ins(w, i, panel, to);
    }

    /// The tile of `mr` rows by `PANELS` panels, `f` of `Kernels::gemm_forward`: panel `p` to columns
    /// `[col + 16 p, col + 16 p + 16)` of `acc`.
    ///
    /// `x: [mr, blocks]` are the rows, `a` the same packed (empty where they are read in place); `sums:
    /// [PANELS][blocks][16]` is what [`Int8::panel_sums`] gave; `ahead` may be ignored.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        self,
        mr: usize,
        x: &[Block],
        a: &[Self::A],
        b: &[&[Self::B]],
        sums: &[i32],
        acc: &mut Tile,
        col: usize,
        ahead: Ahead,
    );
}
