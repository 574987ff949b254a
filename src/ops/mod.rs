//! The fused ops of the encoder, one file each, forward and backward side by side, on ndarray views.
//!
//! In network order: [`embed`], [`add_norm`], then per layer [`linear`] (q, k and v in one), [`attention`],
//! [`linear`] (m1), [`add_norm`], [`linear`] with GELU (m2), [`linear`] (m3), [`add_norm`]; at the end
//! [`pooler`], [`head`] and [`loss`].
//!
//! Conventions:
//! - A batch is ragged: the tokens of all texts one after another, `[rows, hidden]`, and `offsets: [batch + 1]`.
//! - `d_x` is dLoss/dx, of the shape of `x`. Gradients of parameters accumulate (`+=`); gradients of
//!   activations overwrite, except where a function says that it adds (a residual joins).
//! - What an op saves for its backward is an `Option` of its forward: without it nothing is saved.
//! - [`Numerics::Int8`] is the product; [`Numerics::Reference`] the same equations with f32 activations over
//!   the dequantized weights in plain code, for `--exact`, golden tests and gradient checks.

pub mod add_norm;
pub mod attention;
pub mod dropout;
pub mod embed;
pub mod head;
pub mod linear;
pub mod loss;
pub mod pooler;

use crate::kernels::Kernels;
use half::f16;
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

/// A tensor kept for the backward, in the most compact form that keeps the gradient.
#[derive(Clone, Copy, Debug)]
pub enum Saved<'a> {
    /// As computed; reference mode.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// One byte a value.
    U8(&'a [u8]),
}

/// A tensor to be kept for the backward, as its op fills it.
#[derive(Debug)]
pub enum SavedMut<'a> {
    /// As computed; reference mode.
    F32(&'a mut [f32]),
    /// Half precision.
    F16(&'a mut [f16]),
    /// One byte a value.
    U8(&'a mut [u8]),
}

/// Rows that one task of a row-wise kernel takes; large enough that a task outweighs its start.
const TASK_ROWS: usize = 32;

/// Row-major values of a view. All tensors of the graph are.
fn flat<'a, D: ndarray::Dimension>(x: &'a ndarray::ArrayView<'_, f32, D>) -> &'a [f32] {
    x.as_slice().expect("row-major tensor")
}

/// Rounds up to whole vectors of 16 lanes, which the f32 kernels ask for.
fn pad(n: usize) -> usize {
    n.next_multiple_of(16)
}

/// `sum[c] += Σ_r d[r, c]`, rows ascending, so that the sum does not depend on how a batch was cut.
pub(crate) fn add_rows(num: &Numerics, d: &[f32], sum: &mut [f32]) {
    match num {
        Numerics::Int8(k) => k.add_rows(d, sum),
        Numerics::Reference => {
            let cols = sum.len();
            for (c, sum) in sum.iter_mut().enumerate() {
                *sum += d[c..].iter().step_by(cols).map(|&v| f64::from(v)).sum::<f64>() as f32;
            }
        }
    }
}
