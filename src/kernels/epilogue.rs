//! What follows the sums of a GEMM: weight scales, bias, GELU and its code, while the tile is hot.

use super::gemm::Tile;
use super::isa::Isa;
use super::lanes::{LANES, Lanes};
use super::{Gelu, MatI8, RowsI8, gelu};
use std::ops::Range;

/// What follows the sums.
#[derive(Clone, Copy)]
pub(super) enum Epilogue<'a> {
    Forward { w_scale: &'a [f32], bias: &'a [f32], gelu: Option<Gelu> },
    Backward { accumulate: bool },
}

/// A product, as all threads see it.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub x: RowsI8<'a>,
    pub w: MatI8<'a>,
    /// Columns of the result.
    pub n: usize,
    pub epilogue: Epilogue<'a>,
    /// `[rows, ld]`, columns `[0, n)` of it ours.
    pub y: Shared<f32>,
    pub ld: usize,
    /// `[rows, n]`.
    pub code: Option<Shared<u8>>,
}

/// A matrix that threads write in disjoint columns, which slices cannot express.
pub(super) struct Shared<T> {
    first: *mut T,
    len: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: a pointer to plain numbers; `Shared::part` states who may write where.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(data: &mut [T]) -> Self {
        Shared { first: data.as_mut_ptr(), len: data.len() }
    }

    /// `len` values from `at`.
    ///
    /// # Safety
    /// The slice given to `new` is still borrowed by the caller of the GEMM, and no other live reference
    /// overlaps the part.
    #[inline(always)]
    pub unsafe fn part<'a>(self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: in bounds by the assertion, unique and alive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), len) }
    }
}

/// From the sums of a tile to the result.
#[inline(always)]
pub(super) fn finish<I: Isa>(l: I, job: &Job, rows: Range<usize>, col: usize, n: usize, acc: &Tile) {
    for c in (0..n).step_by(LANES) {
        let lanes = LANES.min(n - c);
        match job.epilogue {
            Epilogue::Forward { w_scale, bias, gelu } => {
                let linear = Linear {
                    w_scale: l.load_part(&w_scale[col + c..][..lanes], 0.0),
                    bias: l.load_part(&bias[col + c..][..lanes], 0.0),
                };
                match (gelu, I::WIDE) {
                    (None, _) => {
                        for r in rows.clone() {
                            let v = linear.row(l, acc, &rows, c, r);
                            // SAFETY: the GEMM's caller lends `y` for the whole call; this part lies in columns
                            // that belong to this thread alone, and no other part of it is alive.
                            store(l, v, unsafe { job.y.part(r * job.ld + col + c, lanes) });
                        }
                    }
                    (Some(kind), true) => {
                        finish_gelu::<I, 4>(l, job, &linear, kind, rows.clone(), col, c, lanes, acc)
                    }
                    (Some(kind), false) => {
                        finish_gelu::<I, 2>(l, job, &linear, kind, rows.clone(), col, c, lanes, acc)
                    }
                }
            }
            Epilogue::Backward { accumulate } => {
                for r in rows.clone() {
                    let v = load_acc(l, acc, r - rows.start, c);
                    // SAFETY: as above.
                    let y = unsafe { job.y.part(r * job.ld + col + c, lanes) };
                    let v = if accumulate { l.add(load(l, y), v) } else { v };
                    store(l, v, y);
                }
            }
        }
    }
}

/// Scales and biases of 16 columns.
struct Linear<F> {
    w_scale: F,
    bias: F,
}

impl<F: Copy> Linear<F> {
    /// Row `r` at column `c` of the tile that holds `rows`.
    #[inline(always)]
    fn row<L: Lanes<F = F>>(&self, l: L, acc: &Tile, rows: &Range<usize>, c: usize, r: usize) -> F {
        l.fma(load_acc(l, acc, r - rows.start, c), self.w_scale, self.bias)
    }
}

/// 16 columns of a tile with GELU behind, `N` rows at a time.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn finish_gelu<I: Isa, const N: usize>(
    l: I,
    job: &Job,
    linear: &Linear<I::F>,
    kind: Gelu,
    rows: Range<usize>,
    col: usize,
    c: usize,
    lanes: usize,
    acc: &Tile,
) {
    for first in rows.clone().step_by(N) {
        // Past the tile's last row that row is computed again, and not stored again.
        let mut v = [linear.bias; N];
        for (i, v) in v.iter_mut().enumerate() {
            *v = linear.row(l, acc, &rows, c, (first + i).min(rows.end - 1));
        }
        let (v, codes) = match job.code {
            Some(_) => gelu::gelu::<_, true, N>(l, kind, v),
            None => gelu::gelu::<_, false, N>(l, kind, v),
        };
        for (i, r) in (first..rows.end.min(first + N)).enumerate() {
            // SAFETY: as in `finish`.
            store(l, v[i], unsafe { job.y.part(r * job.ld + col + c, lanes) });
            if let Some(code) = job.code {
                // SAFETY: as in `finish`.
                store_code(l, codes[i], unsafe { code.part(r * job.n + col + c, lanes) });
            }
        }
    }
}

#[inline(always)]
fn load_acc<L: Lanes>(l: L, acc: &Tile, r: usize, c: usize) -> L::F {
    let (chunks, _) = acc.0[r].as_chunks::<LANES>();
    l.load(&chunks[c / LANES])
}

#[inline(always)]
fn load<L: Lanes>(l: L, x: &[f32]) -> L::F {
    match x.try_into() {
        Ok(x) => l.load(x),
        Err(_) => l.load_part(x, 0.0),
    }
}

#[inline(always)]
fn store<L: Lanes>(l: L, v: L::F, to: &mut [f32]) {
    match to.try_into() {
        Ok(to) => l.store(v, to),
        Err(_) => l.store_part(v, to),
    }
}

#[inline(always)]
fn store_code<L: Lanes>(l: L, v: L::I, to: &mut [u8]) {
    match to.try_into() {
        Ok(to) => l.store_u8(v, to),
        Err(_) => {
            let mut all = [0; LANES];
            l.store_u8(v, &mut all);
            to.copy_from_slice(&all[..to.len()]);
        }
    }
}
