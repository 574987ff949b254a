//! Linear layer with frozen int8 weight and trainable bias: `y = x Wᵀ + b`, or `y = gelu(x Wᵀ + b)`.
//!
//! Backward: `d_b = Σ_rows d_y`; `d_x = d_y W`. **Nothing is saved**: that is what training only biases buys;
//! the weight's gradient would need `x`. With GELU, `d_y` is first multiplied by `gelu'`, kept in one byte.
//!
//! Int8: `x` is quantized per row and block of columns, `y = s_w Σ_blocks s_x (q_x W_qᵀ) + b`. Backward folds the
//! output-channel scales into `d_y` first, `d_x = (d_y ∘ s_w) W_q`, which leaves a pure int8 contraction over the
//! output channels: quantize `d_y ∘ s_w` likewise and run the integer kernel along the other axis.
//!
//! A `Linear` may have several parts (q, k and v) that read one input: it is then quantized once, and the
//! parts' outputs stand side by side.

use super::{Numerics, Saved, SavedMut, TASK_ROWS, add_rows, flat, ndarray::*};
use crate::config::Gelu;
use crate::kernels::{BLOCK, GeluOut, Kernels, MatI8, Out, RowsI8};
use crate::quant::QMatrix;
use rayon::prelude::*;

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
}

/// Int8 rows with their scales.
struct Quantized {
    q: Vec<i8>,
    scale: Vec<f32>,
    rows: usize,
    k: usize,
}

impl Quantized {
    fn new(kernels: &dyn Kernels, x: &[f32], k: usize, fold: Option<&[f32]>) -> Quantized {
        let rows = x.len() / k;
        let blocks = k.div_ceil(BLOCK);
        let (mut q, mut scale) = (vec![0; x.len()], vec![0.0; rows * blocks]);
        q.par_chunks_mut(TASK_ROWS * k)
            .zip(scale.par_chunks_mut(TASK_ROWS * blocks))
            .zip(x.par_chunks(TASK_ROWS * k))
            .for_each(|((q, scale), x)| kernels.quantize_rows(x, k, fold, q, scale));
        Quantized { q, scale, rows, k }
    }

    fn rows(&self) -> RowsI8<'_> {
        RowsI8 { q: &self.q, scale: &self.scale, rows: self.rows, k: self.k }
    }
}

fn mat(w: &QMatrix) -> MatI8<'_> {
    MatI8 { data: w.data(), rows: w.rows(), cols: w.cols() }
}

/// Shapes: `x: [rows, in]`; one bias `[out]` a part; `y: [rows, Σ out]`; saves `gelu'`: `[rows, out]`.
pub fn forward(
    num: &Numerics,
    l: &Linear,
    x: ArrayView2<f32>,
    biases: &[&[f32]],
    mut y: ArrayViewMut2<f32>,
    saved: Option<SavedMut>,
) {
    let ld = l.out();
    match num {
        Numerics::Int8(k) => {
            let q = Quantized::new(&**k, flat(&x), x.ncols(), None);
            let y = y.as_slice_mut().expect("row-major tensor");
            let mut gelu = l.gelu.map(|kind| GeluOut {
                kind,
                derivative: match saved {
                    Some(SavedMut::U8(d)) => Some(d),
                    None => None,
                    _ => panic!("int8 gelu saves bytes"),
                },
            });
            let mut col = 0;
            for (w, b) in l.parts.iter().zip(biases) {
                let out = Out { data: &mut *y, ld, col };
                k.gemm_forward(q.rows(), mat(w), w.scale(), b, gelu.take(), out);
                col += w.rows();
            }
        }
        Numerics::Reference => {
            let mut col = 0;
            for (w, b) in l.parts.iter().zip(biases) {
                let dense = Array2::from_shape_vec((w.rows(), w.cols()), w.dequantize()).expect("its shape");
                let part = x.dot(&dense.t()) + ArrayView1::from(*b);
                y.slice_mut(s![.., col..col + w.rows()]).assign(&part);
                col += w.rows();
            }
            if let Some(kind) = l.gelu {
                let mut kept = saved;
                for (i, y) in y.iter_mut().enumerate() {
                    let (value, derivative) = reference_gelu(kind, f64::from(*y));
                    *y = value as f32;
                    if let Some(SavedMut::F32(kept)) = &mut kept {
                        kept[i] = derivative as f32;
                    }
                }
            }
        }
    }
}

/// What a Linear's backward writes its input's gradient to.
pub enum InputGrad<'a> {
    /// Nothing below is trained.
    None,
    /// `d_x = …`
    Set(ArrayViewMut2<'a, f32>),
    /// `d_x += …`: a residual joins here.
    Add(ArrayViewMut2<'a, f32>),
}

/// GELU's backward in place: `d: [rows, out]` becomes the gradient before it.
pub fn gelu_backward(num: &Numerics, mut d: ArrayViewMut2<f32>, derivative: Saved) {
    let task = TASK_ROWS * d.ncols();
    let d = d.as_slice_mut().expect("row-major tensor");
    match (num, derivative) {
        (Numerics::Int8(k), Saved::U8(code)) => {
            d.par_chunks_mut(task).zip(code.par_chunks(task)).for_each(|(d, code)| k.gelu_backward(d, code))
        }
        (Numerics::Reference, Saved::F32(g)) => d.iter_mut().zip(g).for_each(|(d, g)| *d *= g),
        _ => panic!("gelu saves bytes in int8 mode and f32 in reference mode"),
    }
}

/// One gradient a part, `d_y: [rows, out]`, that of the output before any GELU; `d_x: [rows, in]`.
///
/// `d_b` has one entry a part: the bias gradient `[out]` to add to, where it is wanted.
pub fn backward(
    num: &Numerics,
    l: &Linear,
    d_y: &[ArrayView2<f32>],
    d_b: &mut [Option<&mut [f32]>],
    d_x: InputGrad,
) {
    let (mut d_x, mut add) = match d_x {
        InputGrad::None => (None, false),
        InputGrad::Set(d) => (Some(d), false),
        InputGrad::Add(d) => (Some(d), true),
    };
    for ((w, d_y), d_b) in l.parts.iter().zip(d_y).zip(d_b) {
        let rows = flat(d_y);
        if let Some(d_b) = d_b {
            add_rows(num, rows, d_b);
        }
        match (num, &mut d_x) {
            (_, None) => {}
            (Numerics::Int8(k), Some(d_x)) => {
                let q = Quantized::new(&**k, rows, w.rows(), Some(w.scale()));
                let ld = w.cols();
                let out = Out { data: d_x.as_slice_mut().expect("row-major tensor"), ld, col: 0 };
                k.gemm_backward(q.rows(), mat(w), add, out);
            }
            (Numerics::Reference, Some(d_x)) => {
                let dense = Array2::from_shape_vec((w.rows(), w.cols()), w.dequantize()).expect("its shape");
                let grad = d_y.dot(&dense);
                if add {
                    *d_x += &grad;
                } else {
                    d_x.assign(&grad);
                }
            }
        }
        add = true;
    }
}

/// `gelu(x)` and `gelu'(x)` in f64.
fn reference_gelu(kind: Gelu, x: f64) -> (f64, f64) {
    use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};
    match kind {
        Gelu::Erf => {
            let cdf = 0.5 * (1.0 + libm::erf(x / SQRT_2));
            let pdf = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
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
