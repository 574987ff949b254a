//! The small f32 products of attention: accumulators in registers, `p` ascending, one `fma` each.
//!
//! Every element of the result is its own chain, so the size of a tile does not change a bit of it.

use super::Strided;
use super::isa::{Isa, Op};
use super::lanes::{LANES, Lanes};

/// See `Kernels::gemm_f32`.
pub(super) struct GemmF32<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Strided<'a>,
    pub b: &'a [f32],
    pub ldb: usize,
    pub c: &'a mut [f32],
    pub ldc: usize,
}

impl Op for GemmF32<'_> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self, l: I) {
        let GemmF32 { m, n, k, a, b, ldb, c, ldc } = self;
        assert!(n.is_multiple_of(LANES) && n <= ldc && (n <= ldb || k == 0), "gemm_f32: columns");
        if m == 0 || n == 0 {
            return;
        }
        // What the raw pointers below rely on.
        assert!(k == 0 || fits((m, a.rs), (k, a.cs), a.data), "gemm_f32: a is too small");
        assert!(k == 0 || fits((k, ldb), (n, 1), b), "gemm_f32: b is too small");
        assert!(fits((m, ldc), (n, 1), c), "gemm_f32: c is too small");
        let t =
            Tile { k, a: a.data.as_ptr(), rs: a.rs, cs: a.cs, b: b.as_ptr(), ldb, c: c.as_mut_ptr(), ldc };
        let wide = if I::WIDE { n / 32 * 32 } else { 0 };
        for j in (0..wide).step_by(32) {
            let mut i = 0;
            while i < m {
                // SAFETY: rows `[i, i + rows)` and columns `[j, j + 32)` lie within `m` and `n`.
                unsafe {
                    i += match m - i {
                        8.. => t.run::<I, 8, 2>(l, i, j),
                        4.. => t.run::<I, 4, 2>(l, i, j),
                        2.. => t.run::<I, 2, 2>(l, i, j),
                        _ => t.run::<I, 1, 2>(l, i, j),
                    }
                }
            }
        }
        for j in (wide..n).step_by(LANES) {
            let mut i = 0;
            while i < m {
                // SAFETY: rows `[i, i + rows)` and columns `[j, j + 16)` lie within `m` and `n`.
                unsafe {
                    i += match m - i {
                        6.. => t.run::<I, 6, 1>(l, i, j),
                        4.. => t.run::<I, 4, 1>(l, i, j),
                        2.. => t.run::<I, 2, 1>(l, i, j),
                        _ => t.run::<I, 1, 1>(l, i, j),
                    }
                }
            }
        }
    }
}

/// Whether a matrix with these (not zero) lengths and steps lies within `data`; not if its size overflows.
#[inline(always)]
fn fits((m, rs): (usize, usize), (n, cs): (usize, usize), data: &[f32]) -> bool {
    let last = || (m - 1).checked_mul(rs)?.checked_add((n - 1).checked_mul(cs)?);
    last().is_some_and(|last| last < data.len())
}

struct Tile {
    k: usize,
    a: *const f32,
    rs: usize,
    cs: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
}

impl Tile {
    /// `M` rows from `i` by `16 N` columns from `j`; returns `M`.
    ///
    /// # Safety
    /// The pointers are those of slices that hold the tile's rows and columns, `c` unique.
    #[inline(always)]
    unsafe fn run<L: Lanes, const M: usize, const N: usize>(&self, l: L, i: usize, j: usize) -> usize {
        let mut acc = [[l.splat(0.0); N]; M];
        for p in 0..self.k {
            // SAFETY: `(i + r, p)` of `a` and `(p, j ..)` of `b` are in bounds by the caller's word.
            unsafe {
                let a = self.a.add(i * self.rs + p * self.cs);
                let b = self.b.add(p * self.ldb + j) as *const [f32; LANES];
                let mut bs = [l.splat(0.0); N];
                for (s, b_s) in bs.iter_mut().enumerate() {
                    *b_s = l.load(&*b.add(s));
                }
                for (r, acc) in acc.iter_mut().enumerate() {
                    let x = l.splat(*a.add(r * self.rs));
                    for s in 0..N {
                        acc[s] = l.fma(x, bs[s], acc[s]);
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (s, &v) in acc.iter().enumerate() {
                // SAFETY: `(i + r, j + 16 s ..)` of `c` is in bounds by the caller's word.
                unsafe { l.store(v, &mut *(self.c.add((i + r) * self.ldc + j) as *mut [f32; LANES]).add(s)) };
            }
        }
        M
    }
}
