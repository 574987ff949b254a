//! Embeddings: `x = word[id] + position[first + p] + type[t]`, dequantized from int8 rows.
//!
//! Nothing below is trained, so there is nothing to save and no backward. (Where they are narrower than the encoder, a
//! [`super::linear`] behind their LayerNorm widens them.)

use super::{TASK_ROWS, ndarray::*};
use crate::quant::QMatrix;
use rayon::prelude::*;

/// The embedding tables.
#[derive(Clone, Debug)]
pub struct Embed {
    /// `[vocab, embedding]`
    pub word: QMatrix,
    /// `[max_positions, embedding]`
    pub position: QMatrix,
    /// Row of `position` that a text's first token takes.
    pub first: usize,
    /// `[types, embedding]`, where the family has any.
    pub types: Option<QMatrix>,
}

/// Shapes: `tokens: [3, rows]` (word, position and type ids, each inside its table), `x: [rows, embedding]`.
pub fn forward(e: &Embed, tokens: ArrayView2<i32>, mut x: ArrayViewMut2<f32>) {
    let width = e.word.cols();
    x.as_slice_mut().expect("row-major tensor").par_chunks_mut(TASK_ROWS * width).enumerate().for_each(
        |(task, rows)| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                let r = task * TASK_ROWS + i;
                let at = |which: usize| tokens[[which, r]] as usize;
                let (w, p) = (at(0), e.first + at(1));
                let (ws, ps) = (e.word.scale()[w], e.position.scale()[p]);
                let words = &e.word.data()[w * width..][..width];
                let positions = &e.position.data()[p * width..][..width];
                match &e.types {
                    Some(types) => {
                        let t = at(2);
                        let (ts, types) = (types.scale()[t], &types.data()[t * width..][..width]);
                        for (((x, &w), &p), &t) in row.iter_mut().zip(words).zip(positions).zip(types) {
                            *x = (f32::from(w) * ws + f32::from(t) * ts) + f32::from(p) * ps;
                        }
                    }
                    None => {
                        for ((x, &w), &p) in row.iter_mut().zip(words).zip(positions) {
                            *x = f32::from(w) * ws + f32::from(p) * ps;
                        }
                    }
                }
            }
        },
    );
}
