//! What follows the sums of a GEMM, row by row while the tile is hot: weight scales, bias, GELU and its code; or
//! the residual; or GELU's derivative and the gradient of a bias. A result that is the next product's input leaves
//! quantized.

use super::isa::Isa;
use super::lanes::{LANES, Lanes};
use super::quantize::{VECTORS, block, load, store};
use super::tiles::Tile;
use super::{BLOCK, Backward, Block, Forward, Gelu, Part, blocks, gelu};
use half::f16;
use std::ops::Range;

/// Up to 64 columns of the result.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// Which of the forward's Linears.
    pub part: usize,
    /// Its first output there; the first input of a backward.
    pub at: usize,
    /// First column of the result.
    pub col: usize,
    /// Columns.
    pub n: usize,
}

/// Where results go: [`Forward`] and [`Backward`] as all threads see them. `ld` is the length of a row.
#[derive(Clone, Copy)]
pub(super) enum Sink<'a> {
    F32 {
        y: Shared<f32>,
        ld: usize,
    },
    F16 {
        y: Shared<f16>,
        ld: usize,
    },
    Gelu {
        kind: Gelu,
        to: Shared<Block>,
        code: Option<Shared<u8>>,
        ld: usize,
    },
    Set {
        d: Shared<f32>,
        ld: usize,
    },
    Add {
        d: Shared<f32>,
        ld: usize,
    },
    GeluBackward {
        code: &'a [u8],
        offsets: &'a [i32],
        sums: Option<Shared<f32>>,
        fold: &'a [f32],
        to: Shared<Block>,
        ld: usize,
    },
}

impl<'a> Sink<'a> {
    pub fn forward(rows: usize, ld: usize, to: Forward<'a>) -> Sink<'a> {
        match to {
            Forward::F32(y) => {
                assert!(y.len() == rows * ld, "gemm_forward: the output is not [rows, n]");
                Sink::F32 { y: Shared::new(y), ld }
            }
            Forward::F16(y) => {
                assert!(y.len() == rows * ld, "gemm_forward: the output is not [rows, n]");
                Sink::F16 { y: Shared::new(y), ld }
            }
            Forward::Gelu { kind, to, derivative } => {
                assert!(to.len() == rows * blocks(ld), "gemm_forward: the output is not [rows, blocks]");
                assert!(
                    derivative.as_ref().is_none_or(|c| c.len() == rows * ld),
                    "derivative is not [rows, n]"
                );
                Sink::Gelu { kind, to: Shared::new(to), code: derivative.map(Shared::new), ld }
            }
        }
    }

    pub fn backward(rows: usize, ld: usize, to: Backward<'a>) -> Sink<'a> {
        match to {
            Backward::Set(d) => {
                assert!(d.len() == rows * ld, "gemm_backward: the output is not [rows, n]");
                Sink::Set { d: Shared::new(d), ld }
            }
            Backward::Add(d) => {
                assert!(d.len() == rows * ld, "gemm_backward: the output is not [rows, n]");
                Sink::Add { d: Shared::new(d), ld }
            }
            Backward::Gelu { derivative, offsets, sums, fold, to } => {
                assert!(derivative.len() == rows * ld && fold.len() == ld, "gemm_backward: shapes differ");
                assert!(to.len() == rows * blocks(ld), "gemm_backward: the output is not [rows, blocks]");
                let texts = offsets.len().saturating_sub(1);
                assert!(
                    offsets.first() == Some(&0)
                        && offsets.last() == Some(&(rows as i32))
                        && offsets.is_sorted()
                        && sums.as_ref().is_none_or(|s| s.len() == texts * ld),
                    "gemm_backward: texts"
                );
                let sums = sums.map(|s| {
                    s.fill(0.0);
                    Shared::new(s)
                });
                Sink::GeluBackward { code: derivative, offsets, sums, fold, to: Shared::new(to), ld }
            }
        }
    }
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

/// The Linears that are applied, none for a backward, and where results go.
type Outs<'a> = (&'a [Part<'a>], Sink<'a>);

/// From the sums of the tile of `rows` to the result.
#[inline(always)]
pub(super) fn finish<I: Isa>(l: I, to: Outs, s: &Strip, rows: Range<usize>, acc: &Tile) {
    match s.n == BLOCK {
        true => finish_columns(l, to, &Strip { n: BLOCK, ..*s }, rows, acc),
        false => finish_columns(l, to, s, rows, acc),
    }
}

/// Inlined twice, so that a whole strip is code without a loop over its columns.
#[inline(always)]
fn finish_columns<I: Isa>(l: I, to: Outs, s: &Strip, rows: Range<usize>, acc: &Tile) {
    let first = rows.start;
    macro_rules! sums {
        // What lies behind the last column is stale.
        ($r:expr) => {
            load(l, &acc.0[$r - first][..s.n])
        };
    }
    let (parts, sink) = to;
    match sink {
        Sink::F32 { y, ld } => {
            let linear = Linear::of(l, parts, s);
            for r in rows {
                let v = linear.row(l, sums!(r));
                // SAFETY: the GEMM's caller lends its output for the whole call; this part lies in columns that
                // belong to this thread alone, and no other reference to it is alive.
                store(l, v, unsafe { y.part(r * ld + s.col, s.n) });
            }
        }
        Sink::F16 { y, ld } => {
            let linear = Linear::of(l, parts, s);
            for r in rows {
                let v = linear.row(l, sums!(r));
                // SAFETY: as above.
                store_f16(l, v, unsafe { y.part(r * ld + s.col, s.n) });
            }
        }
        Sink::Gelu { kind, to, code, ld } => {
            let linear = Linear::of(l, parts, s);
            for r in rows {
                let v = linear.row(l, sums!(r));
                let v = match code {
                    Some(code) => {
                        let (v, codes) = gelu_of::<I, true>(l, kind, v);
                        // SAFETY: as above.
                        store_codes(l, codes, unsafe { code.part(r * ld + s.col, s.n) });
                        v
                    }
                    None => gelu_of::<I, false>(l, kind, v).0,
                };
                // SAFETY: as above.
                block(l, v, &mut unsafe { to.part(r * blocks(ld) + s.col / BLOCK, 1) }[0]);
            }
        }
        Sink::Set { d, ld } => {
            for r in rows {
                // SAFETY: as above.
                store(l, sums!(r), unsafe { d.part(r * ld + s.col, s.n) });
            }
        }
        Sink::Add { d, ld } => {
            for r in rows {
                // SAFETY: as above.
                let d = unsafe { d.part(r * ld + s.col, s.n) };
                let (mut v, old) = (sums!(r), load(l, d));
                for i in 0..VECTORS {
                    v[i] = l.add(old[i], v[i]);
                }
                store(l, v, d);
            }
        }
        Sink::GeluBackward { code, offsets, sums: total, fold, to, ld } => {
            let fold = load(l, &fold[s.col..][..s.n]);
            let mut text = offsets.partition_point(|&o| o as usize <= first) - 1;
            for r in rows {
                while offsets[text + 1] as usize <= r {
                    text += 1;
                }
                let (mut v, slope) = (sums!(r), load_codes(l, &code[r * ld + s.col..][..s.n]));
                for i in 0..VECTORS {
                    v[i] = l.mul(v[i], slope[i]);
                }
                if let Some(total) = total {
                    // SAFETY: as above.
                    let total = unsafe { total.part(text * ld + s.col, s.n) };
                    let mut sum = load(l, total);
                    for i in 0..VECTORS {
                        sum[i] = l.add(sum[i], v[i]);
                    }
                    store(l, sum, total);
                }
                for i in 0..VECTORS {
                    v[i] = l.mul(v[i], fold[i]);
                }
                // SAFETY: as above.
                block(l, v, &mut unsafe { to.part(r * blocks(ld) + s.col / BLOCK, 1) }[0]);
            }
        }
    }
}

/// Scales and biases of a strip's columns.
struct Linear<F> {
    scale: [F; VECTORS],
    bias: [F; VECTORS],
}

impl<F: Copy> Linear<F> {
    #[inline(always)]
    fn of<L: Lanes<F = F>>(l: L, parts: &[Part], s: &Strip) -> Self {
        let part = &parts[s.part];
        Linear { scale: load(l, &part.scale[s.at..][..s.n]), bias: load(l, &part.bias[s.at..][..s.n]) }
    }

    #[inline(always)]
    fn row<L: Lanes<F = F>>(&self, l: L, mut v: [F; VECTORS]) -> [F; VECTORS] {
        for ((v, scale), bias) in v.iter_mut().zip(self.scale).zip(self.bias) {
            *v = l.fma(*v, scale, bias);
        }
        v
    }
}

/// As many chains side by side as the registers hold.
#[inline(always)]
fn gelu_of<I: Isa, const CODE: bool>(
    l: I,
    kind: Gelu,
    v: [I::F; VECTORS],
) -> ([I::F; VECTORS], [I::I; VECTORS]) {
    if I::WIDE {
        return gelu::gelu::<_, CODE, VECTORS>(l, kind, v);
    }
    let [a, b, c, d] = v;
    let ([a, b], [ca, cb]) = gelu::gelu::<_, CODE, 2>(l, kind, [a, b]);
    let ([c, d], [cc, cd]) = gelu::gelu::<_, CODE, 2>(l, kind, [c, d]);
    ([a, b, c, d], [ca, cb, cc, cd])
}

#[inline(always)]
fn store_f16<L: Lanes>(l: L, v: [L::F; VECTORS], to: &mut [f16]) {
    match to.as_chunks_mut::<LANES>() {
        (whole, []) if whole.len() == VECTORS => {
            for (v, to) in v.into_iter().zip(whole) {
                l.store_f16(v, to);
            }
        }
        _ => {
            for (v, to) in v.into_iter().zip(to.chunks_mut(LANES)) {
                super::float::store_f16_part(l, v, to);
            }
        }
    }
}

#[inline(always)]
fn store_codes<L: Lanes>(l: L, v: [L::I; VECTORS], to: &mut [u8]) {
    match to.try_into() {
        Ok(to) => l.store_bytes(v, to),
        Err(_) => {
            let mut all = [0; BLOCK];
            l.store_bytes(v, &mut all);
            to.copy_from_slice(&all[..to.len()]);
        }
    }
}

#[inline(always)]
fn load_codes<L: Lanes>(l: L, code: &[u8]) -> [L::F; VECTORS] {
    let mut all = [0; BLOCK];
    let code: &[u8; BLOCK] = match code.try_into() {
        Ok(code) => code,
        Err(_) => {
            all[..code.len()].copy_from_slice(code);
            &all
        }
    };
    let (codes, _) = code.as_chunks::<LANES>();
    let mut v = [l.splat(0.0); VECTORS];
    for (v, code) in v.iter_mut().zip(codes) {
        *v = gelu::decode_lanes(l, l.load_u8(code));
    }
    v
}
