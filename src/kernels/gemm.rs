//! The int8 GEMM: one driver for both contractions of the one copy of a weight.
//!
//! ```text
//! threads: for a strip of 64 columns of the result
//!   its four panels: read where they are stored, or packed: [k / KU][16][KU]
//!   for a tile of up to MR rows                       i32 sums in registers over a block of k
//!     after each block of k: times its scale, added in f32
//!     what follows, row by row                        while the tile is hot: scales, bias, GELU, quantization
//! ```
//!
//! A strip is as wide as a block of the next product's rows, so a result can be quantized while it is hot.

use super::epilogue::{Sink, Strip, finish};
use super::isa::{Isa, Op};
use super::tiles::{Ahead, MR_MAX, PANEL, Tile, padded};
use super::{BLOCK, Backward, Block, Forward, MatI8, Part, blocks, tiles};
use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Panels of a strip.
const PANELS: usize = BLOCK / PANEL;

/// Multiply-adds below which threads cost more than they bring.
const THREADED: usize = 4 << 20;
/// Multiply-adds of a strip below which its weights take as long to come as to be used.
const SMALL: usize = 64 << 20;

pub(super) fn forward<I: Isa>(isa: I, x: &[Block], parts: &[Part], to: Forward) {
    let (Some(first), n) = (parts.first(), parts.iter().map(|p| p.w.rows).sum()) else { return };
    let k = blocks(first.w.cols);
    if n == 0 {
        return;
    }
    assert!(k > 0, "gemm_forward: nothing to contract");
    let rows = x.len() / k;
    assert!(rows * k == x.len(), "gemm_forward: rows are not whole");
    for p in parts {
        check(p.w);
        assert!(p.w.cols == first.w.cols && p.scale.len() == p.w.rows && p.bias.len() == p.w.rows);
        assert!(
            I::FLIP == 0 || p.sums.len() == p.w.tiles.len() / BLOCK,
            "gemm_forward: the sums of other weights"
        );
    }
    assert!(parts.len() == 1 || !matches!(to, Forward::Gelu { .. }), "gemm_forward: GELU follows one part");
    let sink = Sink::forward(rows, n, to);
    let mut strips = Vec::new();
    let mut col = 0;
    for (part, p) in parts.iter().enumerate() {
        for at in (0..p.w.rows).step_by(BLOCK) {
            let n = BLOCK.min(p.w.rows - at);
            strips.push(Strip { part, at, col: col + at, n });
        }
        col += p.w.rows;
    }
    run(isa, Job { x, rows, k, parts, over_outs: &[], sink, strips: &strips });
}

pub(super) fn backward<I: Isa>(isa: I, d: &[Block], parts: &[MatI8], to: Backward) {
    let Some(first) = parts.first() else { return };
    let (k, n) = (parts.iter().map(|w| blocks(w.rows)).sum::<usize>(), first.cols);
    if n == 0 {
        return;
    }
    assert!(k > 0, "gemm_backward: nothing to contract");
    let rows = d.len() / k;
    assert!(rows * k == d.len(), "gemm_backward: rows are not whole");
    for w in parts {
        check(*w);
        assert!(w.cols == n, "gemm_backward: shapes differ");
    }
    let sink = Sink::backward(rows, n, to);
    let strips: Vec<_> =
        (0..n).step_by(BLOCK).map(|at| Strip { part: 0, at, col: at, n: BLOCK.min(n - at) }).collect();
    run(isa, Job { x: d, rows, k, parts: &[], over_outs: parts, sink, strips: &strips });
}

/// `[out/16][blocks][16]`, see [`super::isa::Int8::panel_sums`]; empty for sets that do without.
pub(super) fn weight_sums<I: Isa>(isa: I, w: MatI8) -> Vec<i32> {
    check(w);
    let mut sums = vec![0; if I::FLIP == 0 { 0 } else { w.tiles.len() / BLOCK }];
    isa.vectorize(WeightSums { w, sums: &mut sums });
    sums
}

struct WeightSums<'a> {
    w: MatI8<'a>,
    sums: &'a mut [i32],
}

impl Op for WeightSums<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let panel = padded(self.w.cols) * PANEL;
        if I::FLIP != 0 && I::OUTS_IN_PLACE && panel > 0 {
            for (b, sums) in self.w.tiles.chunks_exact(panel).zip(self.sums.chunks_exact_mut(panel / BLOCK)) {
                isa.panel_sums(bytemuck::cast_slice(b), sums);
            }
        }
    }
}

fn check(w: MatI8) {
    assert!(Some(w.tiles.len()) == tiles::len(w.rows, w.cols), "gemm: the tiles do not fit the shape");
}

/// A product, as all threads see it.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// `[rows, k]`
    x: &'a [Block],
    rows: usize,
    /// Blocks of the contraction.
    k: usize,
    /// The forward's Linears; empty for the backward.
    parts: &'a [Part<'a>],
    /// The weights of a backward, whose outputs are contracted one after the other.
    over_outs: &'a [MatI8<'a>],
    sink: Sink<'a>,
    strips: &'a [Strip],
}

impl<'a> Job<'a> {
    /// The weights of a forward's strip as they are stored.
    #[inline(always)]
    fn stored(&self, strip: &Strip) -> &'a [i8] {
        let w = self.parts[strip.part].w;
        &w.tiles[strip.at * padded(w.cols)..][..self.k * BLOCK * BLOCK]
    }

    /// Where the squares of a strip's weights begin, `[PANELS][k]`. Those of a backward are 64 columns of 16 outputs.
    #[inline(always)]
    fn squares(&self, strip: &Strip, to: &mut Vec<*const i8>) {
        if !self.parts.is_empty() {
            to.extend(self.stored(strip).chunks_exact(Ahead::SQUARE).map(<[i8]>::as_ptr));
            return;
        }
        for q in 0..PANELS {
            for w in self.over_outs {
                let row = padded(w.cols) * PANEL;
                for outs in w.tiles.chunks_exact(PANELS * row) {
                    to.push(outs[q * row + strip.at * PANEL..][..Ahead::SQUARE].as_ptr());
                }
            }
        }
    }
}

fn run<I: Isa>(isa: I, job: Job) {
    if job.rows == 0 {
        return;
    }
    let mut packed = ROWS.take();
    let a = isa.vectorize(PackRows { job, buffer: &mut packed });
    share(job.strips.len(), job.rows * job.k * BLOCK * BLOCK, |part| {
        let mut panels = PANEL_BUFFER.take();
        isa.vectorize(Strips { job, a, strips: &job.strips[part], buffer: &mut panels });
        PANEL_BUFFER.set(panels);
    });
    ROWS.set(packed);
}

/// Cuts `strips` among the threads, or runs them here where that is no gain; `work` is that of a strip.
fn share(strips: usize, work: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || strips == 1 || strips * work < THREADED {
        return f(0..strips);
    }
    // A few parts a thread, for cores that are not equally fast; but in small products the weights' way to the core
    // counts for more, and each part begins without any at hand.
    let each = if work < SMALL { 1 } else { 4 };
    let parts = (each * threads).min(strips);
    (0..parts).into_par_iter().for_each(|i| f(strips * i / parts..strips * (i + 1) / parts));
}

/// Memory in whole cache lines, so that what is packed is aligned to one.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    // Taken for the time of a call and put back. If work stealing starts another GEMM on this thread in
    // between, that one finds them empty and allocates its own.
    static ROWS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static PANEL_BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// The first `len` values of a buffer that grows as needed.
fn typed<T: Pod>(buffer: &mut Vec<Line>, len: usize) -> &mut [T] {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if buffer.len() < lines {
        buffer.resize(lines, Line::zeroed());
    }
    &mut bytemuck::cast_slice_mut(&mut buffer[..lines])[..len]
}

/// Tiles of nearly equal height: 128 rows in tiles of up to 6 are 18 of 6 and 4 of 5, not 21 of 6 and one of 2. Where
/// rows are multiplied in pairs, heights are even but for the last: 16 rows are 4, 6 and 6.
#[inline(always)]
fn tiles_of<I: Isa>(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let (count, steps) = (rows.div_ceil(I::MR), rows.div_ceil(I::ROWS_AT_ONCE));
    let cut = move |t: usize| (steps * t / count * I::ROWS_AT_ONCE).min(rows);
    (0..count).map(move |t| cut(t)..cut(t + 1))
}

/// Packs the rows, tile after tile, for sets that do not read them in place.
struct PackRows<'a, 'b> {
    job: Job<'a>,
    buffer: &'b mut Vec<Line>,
}

impl<'b> Op for PackRows<'_, 'b> {
    // A byte slice, since the element type depends on the set.
    type Out = &'b [Line];
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> &'b [Line] {
        if I::ROWS_IN_PLACE {
            return &[];
        }
        let (rows, k) = (self.job.rows, self.job.k);
        let len = rows * k * BLOCK;
        let to = typed::<I::A>(self.buffer, len);
        for t in tiles_of::<I>(rows) {
            let x = &self.job.x[t.start * k..t.end * k];
            isa.pack_rows(x, t.len(), &mut to[t.start * k * BLOCK..t.end * k * BLOCK]);
        }
        &self.buffer[..(len * size_of::<I::A>()).div_ceil(size_of::<Line>())]
    }
}

/// Some strips of the result.
struct Strips<'a> {
    job: Job<'a>,
    a: &'a [Line],
    strips: &'a [Strip],
    buffer: &'a mut Vec<Line>,
}

impl Op for Strips<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Strips { job, a, strips, buffer } = self;
        let a: &[I::A] = bytemuck::cast_slice(a);
        let k = job.k;
        let panel = k * BLOCK * PANEL;
        let mut sums = vec![0; if I::FLIP == 0 { 0 } else { PANELS * k * PANEL }];
        let mut acc = Tile([[0.0; BLOCK]; MR_MAX]);
        let mut squares = Vec::new();
        for (i, strip) in strips.iter().enumerate() {
            let packed: &[I::B] = match job.parts.is_empty() {
                false => {
                    let stored = job.stored(strip);
                    if I::OUTS_IN_PLACE {
                        bytemuck::cast_slice(stored)
                    } else {
                        let to = typed::<I::B>(buffer, PANELS * panel);
                        for (stored, to) in stored.chunks_exact(panel).zip(to.chunks_exact_mut(panel)) {
                            isa.pack_outs(stored, to);
                        }
                        to
                    }
                }
                true => {
                    let to = typed::<I::B>(buffer, PANELS * panel);
                    let mut out = 0;
                    for w in job.over_outs {
                        let sums = if I::FLIP == 0 { &mut [][..] } else { &mut sums[out / BLOCK * PANEL..] };
                        isa.pack_ins_and_sums(*w, strip.at, panel, &mut to[out * PANEL..], sums);
                        out += padded(w.rows);
                    }
                    to
                }
            };
            let b: [&[I::B]; PANELS] = std::array::from_fn(|p| &packed[p * panel..][..panel]);
            let sums = match job.parts.get(strip.part) {
                _ if I::FLIP == 0 => &[][..],
                Some(part) => &part.sums[strip.at * k..][..PANELS * k * PANEL],
                None => &sums,
            };
            // Weights come from memory further away than the rows: the next strip's are fetched meanwhile.
            squares.clear();
            if let Some(next) = strips.get(i + 1) {
                job.squares(next, &mut squares);
            }
            let calls = job.rows.div_ceil(I::MR) * PANELS / I::PANELS;
            let whole = calls * Ahead::PIECE < PANELS * Ahead::SQUARE;
            let step = if whole { Ahead::SQUARE } else { Ahead::PIECE };
            let mut fetched = 0;
            for t in tiles_of::<I>(job.rows) {
                let x = &job.x[t.start * k..t.end * k];
                let a = if I::ROWS_IN_PLACE { a } else { &a[t.start * k * BLOCK..t.end * k * BLOCK] };
                for p in (0..PANELS).step_by(I::PANELS) {
                    // Panels beyond the last column hold nothing but padding.
                    if p * PANEL < strip.n {
                        let squares = squares.get(fetched / Ahead::SQUARE * k..).unwrap_or_default();
                        let squares = &squares[..k.min(squares.len())];
                        let ahead = Ahead { squares, at: fetched % Ahead::SQUARE, whole };
                        fetched += step;
                        let sums =
                            if I::FLIP == 0 { &[] } else { &sums[p * k * PANEL..][..I::PANELS * k * PANEL] };
                        isa.tile(t.len(), x, a, &b[p..p + I::PANELS], sums, &mut acc, p * PANEL, ahead);
                    }
                }
                finish(isa, (job.parts, job.sink), strip, t, &acc);
            }
        }
    }
}
