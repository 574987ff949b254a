//! The fused ops of the encoder, one file each, forward and backward side by side, on slices.
//!
//! In network order: [`embed`], [`add_norm`], a [`linear`] where the embeddings are narrower, then per layer [`linear`] (q, k and v in one), [`attention`],
//! [`linear`] (m1), [`add_norm`], [`linear`] with GELU (m2), [`linear`] (m3), [`add_norm`]; at the end
//! [`pooler`], [`head`] and [`loss`], or [`similarity`] where there is no head, or [`masked_lm`] over tokens that
//! [`masking`] hid.
//!
//! Conventions:
//! - A batch is ragged: the tokens of all texts one after another, `[rows, hidden]`, and `offsets: [batch + 1]`.
//! - `d_x` is dLoss/dx, of the shape of `x`. Gradients overwrite, except where a function says that it adds (a
//!   residual joins).
//! - What an op saves for its backward is an `Option` of its forward: without it nothing is saved.
//! - The gradient of a bias is handed out by text, `[texts, width]`, each the sum over the text's rows in ascending
//!   order: it then depends neither on the other texts of a batch nor on how a batch was cut.
//! - What a Linear reads reaches it quantized ([`Values::I8`]): the op before does that while the row is at hand.
//! - [`Numerics::Int8`] is the product; [`Numerics::Reference`] the same equations with f32 activations over
//!   the dequantized weights in plain code, for `--exact`, golden tests and gradient checks.

pub mod add_norm;
pub mod attention;
pub mod compare;
pub mod dropout;
pub mod embed;
pub mod head;
pub mod linear;
pub mod loss;
pub mod masked_lm;
pub mod masking;
pub mod pooler;
pub mod similarity;

use crate::kernels::{Block, Kernels, blocks};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use tract_core::prelude::tract_ndarray as ndarray;

/// How the arithmetic of a graph is done.
#[derive(Clone)]
pub enum Numerics {
    /// Int8 activations and weights, compact saved tensors, the kernels chosen at load.
    Int8(Arc<dyn Kernels>),
    /// f32 activations over the dequantized weights, in plain code.
    Reference,
}

impl Numerics {
    /// `int8` with the kernel's name, or `reference`.
    pub fn describe(&self) -> String {
        match self {
            Numerics::Int8(k) => format!("int8, kernels {}", k.name()),
            Numerics::Reference => "reference (f32 activations)".into(),
        }
    }
}

/// The values of a tensor, in the form its op and [`Numerics`] call for.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// As computed; in reference mode everything.
    F32(&'a [f32]),
    /// Half precision: q, k and v, and what LayerNorm saves.
    F16(&'a [f16]),
    /// One byte a value: GELU's derivative.
    U8(&'a [u8]),
    /// Quantized rows: what a Linear reads.
    I8(&'a [Block]),
}

/// The same, to be filled.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// As computed; in reference mode everything.
    F32(&'a mut [f32]),
    /// Half precision.
    F16(&'a mut [f16]),
    /// One byte a value.
    U8(&'a mut [u8]),
    /// Quantized rows.
    I8(&'a mut [Block]),
}

/// Rows that one task of a row-wise kernel takes; large enough that a task outweighs its start.
const TASK_ROWS: usize = 32;

/// Rounds up to whole vectors of 16 lanes, which the f32 kernels ask for.
fn pad(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// Tokens of each text.
fn texts(offsets: &[i32]) -> impl ExactSizeIterator<Item = Range<usize>> {
    offsets.windows(2).map(|o| o[0] as usize..o[1] as usize)
}

/// `sums[t, c] = Σ d[r, c]` over the rows of text `t`, ascending: the gradient of a bias, by text.
///
/// Shapes: `d: [rows, cols]`, `offsets: [texts + 1]`, `sums: [texts, cols]`.
pub fn text_sums(num: &Numerics, d: &[f32], cols: usize, offsets: &[i32], sums: &mut [f32]) {
    for (text, sum) in texts(offsets).zip(sums.chunks_exact_mut(cols)) {
        let rows = &d[text.start * cols..text.end * cols];
        match num {
            Numerics::Int8(k) => {
                sum.fill(0.0);
                k.add_rows(rows, sum);
            }
            Numerics::Reference => {
                for (c, sum) in sum.iter_mut().enumerate() {
                    *sum = rows[c..].iter().step_by(cols).map(|&v| f64::from(v)).sum::<f64>() as f32;
                }
            }
        }
    }
}

/// Rows `x: [rows, k]`, times `fold: [k]` where there is one, quantized to `to: [rows, blocks(k)]`.
pub fn quantize(kernels: &dyn Kernels, x: &[f32], k: usize, fold: Option<&[f32]>, to: &mut [Block]) {
    to.par_chunks_mut(TASK_ROWS * blocks(k))
        .zip(x.par_chunks(TASK_ROWS * k))
        .for_each(|(to, x)| kernels.quantize_rows(x, k, fold, to));
}

/// The op was wired to tensors of another form than its numerics call for.
fn mismatch(op: &str) -> ! {
    panic!("{op}: int8 mode and reference mode are mixed")
}
