//! Embeddings: `x = word[id] + position[p] + type[t]`, dequantized from int8 rows.
//!
//! Nothing below is trained, so there is nothing to save and no backward.

use super::{TASK_ROWS, ndarray::*};
use crate::quant::QMatrix;
use rayon::prelude::*;

/// The three embedding tables.
#[derive(Clone, Debug)]
pub struct Embed {
    /// `[vocab, hidden]`
    pub word: QMatrix,
    /// `[max_positions, hidden]`
    pub position: QMatrix,
    /// `[types, hidden]`
    pub types: QMatrix,
}

/// Shapes: `tokens: [3, rows]` (word, position and type ids, each inside its table), `x: [rows, hidden]`.
pub fn forward(e: &Embed, tokens: ArrayView2<i32>, mut x: ArrayViewMut2<f32>) {
    let hidden = e.word.cols();
    x.as_slice_mut().expect("row-major tensor").par_chunks_mut(TASK_ROWS * hidden).enumerate().for_each(
        |(task, rows)| {
            for (i, row) in rows.chunks_exact_mut(hidden).enumerate() {
                let r = task * TASK_ROWS + i;
                let at = |which: usize| tokens[[which, r]] as usize;
                let (w, p, t) = (at(0), at(1), at(2));
                let (ws, ps, ts) = (e.word.scale()[w], e.position.scale()[p], e.types.scale()[t]);
                let words = &e.word.data()[w * hidden..][..hidden];
                let positions = &e.position.data()[p * hidden..][..hidden];
                let types = &e.types.data()[t * hidden..][..hidden];
                for (((x, &w), &p), &t) in row.iter_mut().zip(words).zip(positions).zip(types) {
                    *x = (f32::from(w) * ws + f32::from(t) * ts) + f32::from(p) * ps;
                }
            }
        },
    );
}
