//! The int8 GEMM: one driver for both contractions of the one row-major copy of a weight.
//!
//! ```text
//! for a block of rows that fits the second-level cache       pack it once: [k / KU][mr][KU] a tile
//!   threads: for a panel of NR columns of the result         pack it: [k / KU][NR][KU]
//!     for a tile of up to MR rows                            i32 accumulators in registers over a block of k
//!       after each block of k: times its scale, added in f32
//!       scales, bias and GELU                                while the tile is hot
//! ```
//!
//! Forward contracts over the inputs, so a panel is rows of `w`, transposed; backward contracts over the outputs,
//! so a panel is columns of `w`. Either is packed on the fly, which the rows of the batch pay for; no second copy
//! of the weight is held.

use super::epilogue::{Epilogue, Job, Shared, finish};
use super::isa::{Isa, Op};
use super::{BLOCK, GeluOut, MatI8, Out, RowsI8};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Most rows of a tile in any set.
pub const MR_MAX: usize = 16;
/// Most columns of a panel in any set.
pub const NR_MAX: usize = 32;

/// The results of a tile before weight scales and bias: row `r`, column `c`.
#[repr(align(64))]
pub struct Tile(pub [[f32; NR_MAX]; MR_MAX]);

/// Packed rows held at once: half of a small second-level cache.
const ROWS_BYTES: usize = 512 << 10;
/// Multiply-adds below which threads cost more than they bring.
const THREADED: usize = 4 << 20;

#[allow(clippy::too_many_arguments)]
pub(super) fn forward<I: Isa>(
    isa: I,
    x: RowsI8,
    w: MatI8,
    w_scale: &[f32],
    bias: &[f32],
    gelu: Option<GeluOut>,
    y: Out,
) {
    let (rows, n) = (x.rows, w.rows);
    assert!(x.k == w.cols && w_scale.len() == n && bias.len() == n, "gemm_forward: shapes differ");
    let kind = gelu.as_ref().map(|g| g.kind);
    let code = gelu.and_then(|g| g.derivative);
    assert!(code.as_ref().is_none_or(|c| c.len() == rows * n), "gemm_forward: derivative is not [rows, n]");
    let epilogue = Epilogue::Forward { w_scale, bias, gelu: kind };
    run(isa, x, w, n, epilogue, y, code);
}

pub(super) fn backward<I: Isa>(isa: I, d: RowsI8, w: MatI8, accumulate: bool, d_x: Out) {
    assert!(d.k == w.rows, "gemm_backward: shapes differ");
    run(isa, d, w, w.cols, Epilogue::Backward { accumulate }, d_x, None);
}

#[allow(clippy::too_many_arguments)]
fn run<I: Isa>(isa: I, x: RowsI8, w: MatI8, n: usize, epilogue: Epilogue, y: Out, code: Option<&mut [u8]>) {
    let (rows, k) = (x.rows, x.k);
    assert!(
        x.q.len() == rows * k && x.scale.len() == rows * k.div_ceil(BLOCK) && w.data.len() == w.rows * w.cols,
        "gemm: shapes differ"
    );
    assert!(y.col + n <= y.ld && y.data.len() >= rows * y.ld, "gemm: the output is too small");
    if rows == 0 || n == 0 {
        return;
    }
    let y_len = (rows - 1) * y.ld + n;
    let first = Shared::new(&mut y.data[y.col..][..y_len]);
    let job = Job { x, w, n, epilogue, y: first, ld: y.ld, code: code.map(Shared::new) };

    let mut packed = ROWS.take();
    let threads = rayon::current_num_threads();
    let width = I::NR * I::PACK;
    let panels = n.div_ceil(width);
    let kp = k.next_multiple_of(I::KU);
    let block = (ROWS_BYTES / (kp * size_of::<I::A>()).max(1)).max(8 * I::MR).next_multiple_of(I::MR);
    for first in (0..rows).step_by(block) {
        let rows = first..rows.min(first + block);
        let a = isa.vectorize(PackRows { x, rows: rows.clone(), buffer: &mut packed });
        share(threads, panels, rows.len() * k * n, |part| {
            let mut panel = PANEL.take();
            let cols = part.start * width..n.min(part.end * width);
            isa.vectorize(Panels { job, rows: rows.clone(), a, cols, buffer: &mut panel });
            PANEL.set(panel);
        });
    }
    ROWS.set(packed);
}

/// Cuts `panels` among the threads, or runs them here where that is no gain.
fn share(threads: usize, panels: usize, work: usize, f: impl Fn(Range<usize>) + Sync) {
    if threads == 1 || panels == 1 || work < THREADED {
        return f(0..panels);
    }
    // A few parts a thread, for cores that are not equally fast.
    let parts = (4 * threads).min(panels);
    (0..parts).into_par_iter().for_each(|i| f(panels * i / parts..panels * (i + 1) / parts));
}

/// Memory in whole cache lines, so that what is packed is aligned to one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);
// SAFETY: 64 bytes of any value, no padding.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

thread_local! {
    // Taken for the time of a call and put back. If work stealing starts another GEMM on this thread in
    // between, that one finds them empty and allocates its own.
    static ROWS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static PANEL: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The first `len` values of a buffer that grows as needed.
fn typed<T: bytemuck::Pod>(buffer: &mut Vec<Line>, len: usize) -> &mut [T] {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if buffer.len() < lines {
        buffer.resize(lines, Line([0; 64]));
    }
    &mut bytemuck::cast_slice_mut(&mut buffer[..lines])[..len]
}

/// Tiles of nearly equal height: 128 rows in tiles of up to 6 are 18 of 6 and 4 of 5, not 21 of 6 and one of 2.
#[inline(always)]
fn tiles(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(most);
    (0..count).map(move |t| rows * t / count..rows * (t + 1) / count)
}

/// Packs a block of rows: tile after tile, `kp` values a row.
struct PackRows<'a, 'b> {
    x: RowsI8<'a>,
    rows: Range<usize>,
    buffer: &'b mut Vec<Line>,
}

impl<'b> Op for PackRows<'_, 'b> {
    // A byte slice, since the element type depends on the set.
    type Out = &'b [Line];
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> &'b [Line] {
        let k = self.x.k;
        let kp = k.next_multiple_of(I::KU);
        let len = self.rows.len() * kp;
        let to = typed::<I::A>(self.buffer, len);
        for tile in tiles(self.rows.len(), I::MR) {
            let q = &self.x.q[(self.rows.start + tile.start) * k..];
            if k > 0 {
                isa.pack_rows(q, k, tile.len(), &mut to[tile.start * kp..tile.end * kp]);
            }
        }
        &self.buffer[..(len * size_of::<I::A>()).div_ceil(size_of::<Line>())]
    }
}

/// Columns `cols` of the result for packed rows: packs the panels and runs the tiles.
struct Panels<'a> {
    job: Job<'a>,
    rows: Range<usize>,
    a: &'a [Line],
    cols: Range<usize>,
    buffer: &'a mut Vec<Line>,
}

impl Op for Panels<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Panels { job, rows, a, cols, buffer } = self;
        let a: &[I::A] = bytemuck::cast_slice(a);
        let kp = job.x.k.next_multiple_of(I::KU);
        let panel = kp * I::NR;
        let b = typed::<I::B>(buffer, panel * I::PACK);
        let blocks = job.x.k.div_ceil(BLOCK);
        let mut sums = vec![0; blocks * I::NR];
        let mut acc = Tile([[0.0; NR_MAX]; MR_MAX]);
        let width = I::NR * I::PACK;
        for col in cols.clone().step_by(width) {
            let n = width.min(cols.end - col);
            match job.epilogue {
                Epilogue::Forward { .. } => {
                    for c in (0..n).step_by(I::NR) {
                        isa.pack_outs(job.w, col + c, I::NR.min(n - c), &mut b[c * kp..][..panel]);
                    }
                }
                Epilogue::Backward { .. } => isa.pack_ins(job.w, col, n, panel, b),
            }
            for c in (0..n).step_by(I::NR) {
                let (b, n) = (&b[c * kp..][..panel], I::NR.min(n - c));
                isa.panel_sums(b, &mut sums);
                for tile in tiles(rows.len(), I::MR) {
                    let a = &a[tile.start * kp..tile.end * kp];
                    let tile = rows.start + tile.start..rows.start + tile.end;
                    let scale = &job.x.scale[tile.start * blocks..tile.end * blocks];
                    isa.tile(tile.len(), a, b, scale, blocks, &sums, &mut acc);
                    finish(isa, &job, tile, col + c, n, &acc);
                }
            }
        }
    }
}
