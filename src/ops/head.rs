//! Task head: `logits = drop(p) Wᵀ + b`, in f32 and trained whole.
//!
//! Backward: `d_b = Σ d_y`, `d_W = d_yᵀ drop(p)`, `d_p = drop(d_y W)`. Saved: nothing; `p` is the pooler's output,
//! the mask is computed again.

use super::dropout::Dropout;
use super::ndarray::*;

/// Shapes: `p: [batch, hidden]`, `keys: [batch]` (dropout), `w: [labels, hidden]`, `b: [labels]`,
/// `y: [batch, labels]`.
pub fn forward(
    p: ArrayView2<f32>,
    dropout: Dropout,
    keys: &[i64],
    w: ArrayView2<f32>,
    b: &[f32],
    mut y: ArrayViewMut2<f32>,
) {
    for ((p, key), mut y) in p.rows().into_iter().zip(keys).zip(y.rows_mut()) {
        let mut p = p.to_vec();
        dropout.apply(*key, 0, &mut p);
        for (o, w) in w.rows().into_iter().enumerate() {
            y[o] = dot(&p, w.to_slice().expect("row-major tensor")) + b[o];
        }
    }
}

/// Shapes as in [`forward`]. The gradients of each text are handed to `parameters(d_w: [labels, hidden], d_b: [labels])`,
/// in order. `d_p` is `None` where nothing below is trained.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    d_y: ArrayView2<f32>,
    p: ArrayView2<f32>,
    dropout: Dropout,
    keys: &[i64],
    w: ArrayView2<f32>,
    mut parameters: impl FnMut(&[f32], &[f32]),
    mut d_p: Option<ArrayViewMut2<f32>>,
) {
    let hidden = p.ncols();
    let mut d_w = vec![0.0; w.len()];
    for (i, (d_y, key)) in d_y.rows().into_iter().zip(keys).enumerate() {
        let mut p = p.row(i).to_vec();
        dropout.apply(*key, 0, &mut p);
        for (&d, d_w) in d_y.iter().zip(d_w.chunks_exact_mut(hidden)) {
            d_w.iter_mut().zip(&p).for_each(|(d_w, p)| *d_w = d * p);
        }
        parameters(&d_w, d_y.to_slice().expect("row-major tensor"));
        if let Some(d_p) = &mut d_p {
            let mut row = d_p.row_mut(i);
            let row = row.as_slice_mut().expect("row-major tensor");
            row.fill(0.0);
            for (&d, w) in d_y.iter().zip(w.rows()) {
                row.iter_mut().zip(w).for_each(|(r, w)| *r += d * w);
            }
            dropout.apply(*key, 0, row);
        }
    }
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
