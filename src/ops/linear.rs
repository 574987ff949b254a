//! Linear layer with frozen int8 weight and trainable bias: `y = x Wᵀ + b`, or `y = gelu(x Wᵀ + b)`.
//!
//! Backward: `d_b = Σ_rows d_y` ([`super::text_sums`]); `d_x = d_y W`. **Nothing is saved**: that is what training only biases buys;
//! the weight's gradient would need `x`. With GELU, `d_y` is first multiplied by `gelu'`, kept in one byte.
//!
//! Int8: `x` is quantized per row and block of columns, `y = s_w Σ_blocks s_x (q_x W_qᵀ) + b`. Backward folds the
//! output-channel scales into `d_y` first, `d_x = (d_y ∘ s_w) W_q`, which leaves a pure int8 contraction over the
//! output channels: quantize `d_y ∘ s_w` likewise and run the integer kernel along the other axis.
//!
//! A `Linear` may have several parts (q, k and v) that read one input: their outputs stand side by side, and their
//! gradients are one contraction.

use super::{Numerics, Values, ValuesMut, mismatch, ndarray::*, text_sums};
use crate::config::Gelu;
use crate::kernels::{Backward, Forward, MatI8, Part};
use crate::quant::QMatrix;

/// Weights of one or several Linears over the same input, `[out, in]` each.
#[derive(Clone, Debug)]
pub struct Linear {
    /// The parts, in the order of their outputs.
    pub parts: Vec<QMatrix>,
    /// Activation behind it; with one part only.
    pub gelu: Option<Gelu>,
}

impl Linear {
    /// Width of the output, all parts together.
    pub fn out(&self) -> usize {
        self.parts.iter().map(QMatrix::rows).sum()
    }

    /// Width of the input.
    pub fn input(&self) -> usize {
        self.parts.first().map_or(0, QMatrix::cols)
    }

    /// All parts in f32, `[Σ out, in]`.
    fn dequantize(&self) -> Array2<f32> {
        let rows = self.parts.iter().flat_map(QMatrix::dequantize).collect();
        Array2::from_shape_vec((self.out(), self.input()), rows).expect("its shape")
    }
}

fn mat(w: &QMatrix) -> MatI8<'_> {
    MatI8 { tiles: w.data(), rows: w.rows(), cols: w.cols() }
}

fn matrix(x: &[f32], cols: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((x.len() / cols.max(1), cols), x).expect("whole rows")
}

/// Shapes: `x: [rows, in]`; one bias `[out]` a part; `y: [rows, Σ out]`; `derivative`, behind a GELU: `[rows, out]`.
///
/// Int8: `x` quantized; `y` in f32 or f16, or behind a GELU quantized.
pub fn forward(
    num: &Numerics,
    l: &Linear,
    x: Values,
    biases: &[&[f32]],
    y: ValuesMut,
    derivative: Option<ValuesMut>,
) {
    match (num, x) {
        (Numerics::Int8(k), Values::I8(x)) => {
            let mut parts = Vec::with_capacity(l.parts.len());
            for (w, bias) in l.parts.iter().zip(biases) {
                // The sums of one base's weights are the same for every set that wants any.
                let sums = if k.flip() == 0 { &[][..] } else { w.sums(|| k.weight_sums(mat(w))) };
                parts.push(Part { w: mat(w), sums, scale: w.scale(), bias });
            }
            let to = match (y, l.gelu) {
                (ValuesMut::F32(y), None) => Forward::F32(y),
                (ValuesMut::F16(y), None) => Forward::F16(y),
                (ValuesMut::I8(to), Some(kind)) => {
                    let derivative = match derivative {
                        None => None,
                        Some(ValuesMut::U8(d)) => Some(d),
                        Some(_) => mismatch("linear"),
                    };
                    Forward::Gelu { kind, to, derivative }
                }
                _ => mismatch("linear"),
            };
            k.gemm_forward(x, &parts, to);
        }
        (Numerics::Reference, Values::F32(x)) => {
            let ValuesMut::F32(y) = y else { mismatch("linear") };
            let product =
                matrix(x, l.input()).dot(&l.dequantize().t()) + ArrayView1::from(&biases.concat()[..]);
            y.iter_mut().zip(&product).for_each(|(y, v)| *y = *v);
            if let Some(kind) = l.gelu {
                let mut kept = derivative;
                for (i, y) in y.iter_mut().enumerate() {
                    let (value, derivative) = reference_gelu(kind, f64::from(*y));
                    *y = value as f32;
                    if let Some(ValuesMut::F32(kept)) = &mut kept {
                        kept[i] = derivative as f32;
                    }
                }
            }
        }
        _ => mismatch("linear"),
    }
}

/// What a Linear's backward writes its input's gradient to.
pub enum InputGrad<'a> {
    /// `d_x = …`
    Set(&'a mut [f32]),
    /// `d_x += …`: a residual joins here.
    Add(&'a mut [f32]),
    /// The input is `gelu(z)`: the gradient of `z`, ready for the Linear that made `z`.
    Gelu {
        /// `gelu'(z)`: `[rows, in]`.
        derivative: Values<'a>,
        /// Where the rows of each text begin.
        offsets: &'a [i32],
        /// `[texts, in]`: the gradient of the bias of the Linear below, where it is wanted.
        d_b: Option<&'a mut [f32]>,
        /// The Linear below.
        below: &'a Linear,
        /// `[rows, in]`; int8: times the scales of the Linear below, quantized.
        d_z: ValuesMut<'a>,
    },
}

/// `d_y: [rows, Σ out]`, the gradient of the output before any GELU; `d_x: [rows, in]`.
///
/// Int8: `d_y` times the scales of the parts, quantized, each part from a whole block on.
pub fn backward(num: &Numerics, l: &Linear, d_y: Values, d_x: InputGrad) {
    match (num, d_y) {
        (Numerics::Int8(k), Values::I8(d_y)) => {
            let parts: Vec<MatI8> = l.parts.iter().map(mat).collect();
            let to = match d_x {
                InputGrad::Set(d) => Backward::Set(d),
                InputGrad::Add(d) => Backward::Add(d),
                InputGrad::Gelu { derivative, offsets, d_b, below, d_z } => match (derivative, d_z) {
                    (Values::U8(derivative), ValuesMut::I8(to)) => {
                        let [below] = &below.parts[..] else { mismatch("linear") };
                        Backward::Gelu { derivative, offsets, sums: d_b, fold: below.scale(), to }
                    }
                    _ => mismatch("linear"),
                },
            };
            k.gemm_backward(d_y, &parts, to);
        }
        (Numerics::Reference, Values::F32(d_y)) => {
            let grad = matrix(d_y, l.out()).dot(&l.dequantize());
            match d_x {
                InputGrad::Set(d) => d.iter_mut().zip(&grad).for_each(|(d, g)| *d = *g),
                InputGrad::Add(d) => d.iter_mut().zip(&grad).for_each(|(d, g)| *d += *g),
                InputGrad::Gelu { derivative, offsets, d_b, d_z, .. } => match (derivative, d_z) {
                    (Values::F32(slope), ValuesMut::F32(d)) => {
                        d.iter_mut().zip(&grad).zip(slope).for_each(|((d, g), s)| *d = g * s);
                        if let Some(d_b) = d_b {
                            text_sums(num, d, l.input(), offsets, d_b);
                        }
                    }
                    _ => mismatch("linear"),
                },
            }
        }
        _ => mismatch("linear"),
    }
}

/// `gelu(x)` and `gelu'(x)` in f64.
pub(crate) fn reference_gelu(kind: Gelu, x: f64) -> (f64, f64) {
    use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};
    match kind {
        Gelu::Erf => {
            let cdf = 0.5 * (1.0 + libm::erf(x / SQRT_2));
            let pdf = libm::exp(-0.5 * x * x) / (2.0 * PI).sqrt();
            (x * cdf, cdf + x * pdf)
        }
        Gelu::Tanh => {
            let c = FRAC_2_SQRT_PI / SQRT_2; // √(2/π)
            let t = libm::tanh(c * (x + 0.044715 * x * x * x));
            let d_inner = c * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * d_inner)
        }
    }
}
