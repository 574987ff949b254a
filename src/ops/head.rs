//! Task head: `logits = drop(p) Wᵀ + b`, in f32 and trained whole.
//!
//! Backward: `d_b = Σ d_y`, `d_W = d_yᵀ drop(p)`, `d_p = drop(d_y W)`. Saved: nothing; `p` is the pooler's output,
//! the mask is computed again.

use super::dropout::Dropout;
use super::{Numerics, ndarray::*, pad};
use crate::kernels::Strided;

/// Shapes: `p: [rows, features]`, `keys: [examples]` (dropout), `offsets: [examples + 1]` where the rows of each example begin
/// (one, or its tokens), `w: [labels, features]`, `b: [labels]`, `y: [rows, labels]`.
pub fn forward(
    p: ArrayView2<f32>,
    dropout: Dropout,
    (keys, offsets): (&[i64], &[i32]),
    w: ArrayView2<f32>,
    b: &[f32],
    mut y: ArrayViewMut2<f32>,
) {
    let p = dropped(p, dropout, (keys, offsets));
    for (p, mut y) in p.rows().into_iter().zip(y.rows_mut()) {
        let p = p.to_slice().expect("row-major tensor");
        for (o, w) in w.rows().into_iter().enumerate() {
            y[o] = dot(p, w.to_slice().expect("row-major tensor")) + b[o];
        }
    }
}

/// Shapes as in [`forward`]; `d_p: [rows, features]`.
pub fn backward(
    num: &Numerics,
    d_y: ArrayView2<f32>,
    dropout: Dropout,
    (keys, offsets): (&[i64], &[i32]),
    w: ArrayView2<f32>,
    mut d_p: ArrayViewMut2<f32>,
) {
    d_p.assign(&product(num, d_y, w));
    let hidden = d_p.ncols();
    dropout.apply_rows(keys, offsets, hidden, d_p.as_slice_mut().expect("row-major tensor"));
}

/// The gradients of the parameters, `d_w: [labels, features]` and `d_b: [labels]`, from whole batches `d_y: [rows,
/// labels]` and `p: [rows, features]`: the sums run over the texts in their order, so they are for once, not by text.
pub fn parameters(
    num: &Numerics,
    d_y: ArrayView2<f32>,
    p: ArrayView2<f32>,
    dropout: Dropout,
    texts: (&[i64], &[i32]),
    d_w: &mut [f32],
    d_b: &mut [f32],
) {
    let p = dropped(p, dropout, texts);
    d_w.iter_mut().zip(&product(num, d_y.t(), p.view())).for_each(|(d_w, v)| *d_w = *v);
    d_b.fill(0.0);
    d_y.rows().into_iter().for_each(|d_y| d_b.iter_mut().zip(d_y).for_each(|(b, d)| *b += d));
}

fn dropped(p: ArrayView2<f32>, dropout: Dropout, (keys, offsets): (&[i64], &[i32])) -> Array2<f32> {
    let (mut p, hidden) = (p.as_standard_layout().into_owned(), p.ncols());
    dropout.apply_rows(keys, offsets, hidden, p.as_slice_mut().expect("row-major tensor"));
    p
}

/// `a b`, each sum ascending.
fn product(num: &Numerics, a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    let Numerics::Int8(kernels) = num else { return a.dot(&b) };
    let ((m, k), n, wide) = (a.dim(), b.ncols(), pad(b.ncols()));
    let (a, mut rows) = (a.as_standard_layout(), Array2::zeros((k, wide)));
    rows.slice_mut(s![.., ..n]).assign(&b);
    let mut c = Array2::zeros((m, wide));
    let a = Strided { data: a.as_slice().expect("row-major tensor"), rs: k, cs: 1 };
    let (rows, to) = (rows.as_slice().expect("as made"), c.as_slice_mut().expect("as made"));
    kernels.gemm_f32(m, wide, k, a, rows, wide, to, wide);
    c.slice_move(s![.., ..n])
}

/// A dot product in the fixed order of the project: 16 lanes, then a tree.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for ((l, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *l += a * b;
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}
