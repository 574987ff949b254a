//! What an instruction set must bring: lanes, an int8 microkernel, and a way to run code compiled for it.

use super::lanes::Lanes;
use super::{MatI8, gemm::Tile};
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

/// The int8 microkernel of a set: `acc[r][c] = Σ_p a[r, p] · b[p, c]` over packed operands, exact in i32.
///
/// Both operands are packed in groups of `KU` values of the contraction, which is padded to a multiple of `KU`:
/// rows to `[k / KU][mr][KU]`, a panel of columns to `[k / KU][NR][KU]`, zeros where the panel pads `k`. Columns
/// beyond the last may hold anything: their results are not read.
pub trait Int8: Lanes {
    /// Most rows of a tile, at most [`super::gemm::MR_MAX`].
    const MR: usize;
    /// Columns of a panel, a multiple of 16, at most [`super::gemm::NR_MAX`].
    const NR: usize;
    /// Panels that [`Int8::pack_ins`] packs in one go: enough for a cache line of a row of weights.
    const PACK: usize;
    /// Values of the contraction that lie together.
    const KU: usize;
    /// A packed activation.
    type A: Pod + Send + Sync;
    /// A packed weight.
    type B: Pod + Send + Sync;

    /// The activation as the microkernel wants it.
    fn lift_a(q: i8) -> Self::A;
    /// The weight as the microkernel wants it.
    fn lift_b(w: i8) -> Self::B;

    /// Packs `mr` rows of `q: [_, k]` to `[k / KU][mr][KU]`; `q` may go on behind them. Padding may hold anything.
    #[inline(always)]
    fn pack_rows(self, q: &[i8], k: usize, mr: usize, to: &mut [Self::A]) {
        for (r, row) in q.chunks_exact(k).take(mr).enumerate() {
            for (g, group) in row.chunks(Self::KU).enumerate() {
                for (u, &q) in group.iter().enumerate() {
                    to[(g * mr + r) * Self::KU + u] = Self::lift_a(q);
                }
            }
        }
    }

    /// Packs rows `[o, o + n)` of `w` as the columns of a panel that contracts over `w.cols`; `0 < n <= NR`.
    #[inline(always)]
    fn pack_outs(self, w: MatI8, o: usize, n: usize, to: &mut [Self::B]) {
        to.fill(Self::lift_b(0));
        for c in 0..n {
            for (g, group) in w.data[(o + c) * w.cols..][..w.cols].chunks(Self::KU).enumerate() {
                for (u, &v) in group.iter().enumerate() {
                    to[(g * Self::NR + c) * Self::KU + u] = Self::lift_b(v);
                }
            }
        }
    }

    /// Packs columns `[i, i + n)` of `w` as the columns of `PACK` panels, one after the other, that contract over
    /// `w.rows`; `0 < n <= PACK · NR`. A panel is `panel` values long.
    #[inline(always)]
    fn pack_ins(self, w: MatI8, i: usize, n: usize, panel: usize, to: &mut [Self::B]) {
        to.fill(Self::lift_b(0));
        for p in 0..w.rows {
            let (g, u) = (p / Self::KU, p % Self::KU);
            for (block, values) in w.data[p * w.cols + i..][..n].chunks(Self::NR).enumerate() {
                let to = &mut to[block * panel + g * Self::NR * Self::KU..][..Self::NR * Self::KU];
                for (to, &v) in to.chunks_exact_mut(Self::KU).zip(values) {
                    to[u] = Self::lift_b(v);
                }
            }
        }
    }

    /// The sums of a packed panel's columns, `[blocks][NR]`, for sets that shift activations to unsigned.
    #[inline(always)]
    fn panel_sums(self, _b: &[Self::B], _sums: &mut [i32]) {}

    /// The tile of `mr` packed rows by one panel: in `acc` the `f` of `Kernels::gemm_forward`.
    ///
    /// `scale` holds the rows' scales, `blocks` a row; `sums` is what [`Int8::panel_sums`] gave.
    #[allow(clippy::too_many_arguments)]
    fn tile(
        self,
        mr: usize,
        a: &[Self::A],
        b: &[Self::B],
        scale: &[f32],
        blocks: usize,
        sums: &[i32],
        acc: &mut Tile,
    );
}
