//! From the tokens' vectors to what the head reads: one vector a text or a pair, or for tags each token's own.
//!
//! `tokens`: `p = h`.
//! `mean`: `p = 1/T Σ_t h_t`; backward `d_h_t = d_p / T`.
//! `apart`: of each pair of texts `p = compare(mean, mean)` ([`super::compare`]); the two means are saved.
//! `first`: `p = h_0`, the text's first token; backward `d_h_0 = d_p`, zero for the other tokens.
//! `cls`: `p = f(z)`, `z = h_0 W_pᵀ + b_p`, `h_0` the text's first token; backward `d_z = d_p f'(z)`,
//! `d_b = Σ d_z`, `d_h_0 = d_z W_p`, zero for the other tokens. `f` is the family's: of tanh the derivative is `1 − p²`,
//! of ReLU 1 where `p > 0`, so nothing is saved but the output itself; of GELU the derivative is.

use super::linear::reference_gelu;
use super::{Numerics, compare, ndarray::*, pad};
use crate::config::{Activation, Gelu};
use crate::kernels::Strided;
use crate::quant::QMatrix;

/// The pooler: none of its own weights for the mean, a dense layer for `cls`.
///
/// The dense layer sees one row a text, so it is computed in f32 over the dequantized weight: that costs
/// nothing beside the encoder, and its gradient, a sum over texts that largely cancels, keeps its direction.
#[derive(Clone, Debug)]
pub enum Pooler {
    /// Each token by itself; `p` has the rows of `h`.
    Tokens,
    /// Mean over a text's tokens.
    Mean,
    /// Means over the tokens of two texts that follow one another, compared; `p` has half as many rows as there are texts.
    Apart,
    /// First token.
    First,
    /// First token through dense and an activation.
    Cls(Dense, Activation),
}

/// An f32 weight `[out, in]`, its rows padded with zeros to whole vectors of 16.
#[derive(Clone, Debug)]
pub struct Dense {
    weight: Array2<f32>,
    cols: usize,
}

impl Pooler {
    /// The `cls` pooler with weight `[hidden, hidden]`.
    pub fn cls(weight: &QMatrix, activation: Activation) -> Pooler {
        let (rows, cols) = (weight.rows(), weight.cols());
        let mut dense = Array2::zeros((rows, pad(cols)));
        for (i, mut row) in dense.rows_mut().into_iter().enumerate() {
            weight.dequantize_row(i, &mut row.as_slice_mut().expect("row-major tensor")[..cols]);
        }
        Pooler::Cls(Dense { weight: dense, cols }, activation)
    }

    /// Whether the backward needs more than the output.
    pub fn saves(&self) -> bool {
        matches!(self, Pooler::Apart | Pooler::Cls(_, Activation::Gelu))
    }
}

impl Dense {
    /// `x Wᵀ`; `x: [batch, in]`.
    fn forward(&self, num: &Numerics, x: &Array2<f32>) -> Array2<f32> {
        let Numerics::Int8(kernels) = num else {
            return x.dot(&self.weight.slice(s![.., ..self.cols]).t());
        };
        let (out, batch, wide) = (self.weight.nrows(), x.nrows(), pad(x.nrows()));
        let mut x_t = vec![0.0; self.cols * wide];
        for ((t, c), v) in x.indexed_iter() {
            x_t[c * wide + t] = *v;
        }
        let mut y_t = vec![0.0; out * wide];
        let w = Strided { data: self.slice(), rs: self.weight.ncols(), cs: 1 };
        kernels.gemm_f32(out, wide, self.cols, w, &x_t, wide, &mut y_t, wide);
        Array2::from_shape_fn((batch, out), |(t, o)| y_t[o * wide + t])
    }

    /// `d W`; `d: [batch, out]`.
    fn backward(&self, num: &Numerics, d: &Array2<f32>) -> Array2<f32> {
        let Numerics::Int8(kernels) = num else {
            return d.dot(&self.weight.slice(s![.., ..self.cols]));
        };
        let (out, ld) = self.weight.dim();
        let mut d_x = Array2::zeros((d.nrows(), ld));
        let rows = Strided { data: d.as_slice().expect("row-major tensor"), rs: out, cs: 1 };
        let c = d_x.as_slice_mut().expect("row-major tensor");
        kernels.gemm_f32(d.nrows(), ld, out, rows, self.slice(), ld, c, ld);
        d_x.slice_move(s![.., ..self.cols])
    }

    fn slice(&self) -> &[f32] {
        self.weight.as_slice().expect("row-major tensor")
    }
}

/// Shapes: `h: [rows, hidden]`, `offsets: [batch + 1]`, `b: [hidden]` (`cls` only), `p: [batch, hidden]`, `[rows,
/// hidden]` of each token, or `[batch / 2, 2 hidden]` of each pair; `kept: [batch, hidden]`, where [`Pooler::saves`] and
/// there is a backward to come.
pub fn forward(
    num: &Numerics,
    pooler: &Pooler,
    h: ArrayView2<f32>,
    offsets: &[i32],
    b: &[f32],
    mut p: ArrayViewMut2<f32>,
    kept: Option<&mut [f32]>,
) {
    match pooler {
        Pooler::Tokens => p.assign(&h),
        Pooler::Mean => means(h, offsets, p),
        Pooler::Apart => {
            let mut pairs = Array2::zeros((offsets.len() - 1, h.ncols()));
            means(h, offsets, pairs.view_mut());
            compare::forward(pairs.view(), p);
            if let Some(kept) = kept {
                kept.copy_from_slice(pairs.as_slice().expect("row-major tensor"));
            }
        }
        Pooler::First => p.assign(&first_tokens(h, offsets)),
        Pooler::Cls(dense, activation) => {
            let mut z = dense.forward(num, &first_tokens(h, offsets));
            z += &ArrayView1::from(b);
            let p = p.as_slice_mut().expect("row-major tensor");
            let z = z.as_slice().expect("row-major tensor");
            match (activation, num) {
                (Activation::Tanh, Numerics::Int8(k)) => k.tanh(z, p),
                (Activation::Tanh, Numerics::Reference) => {
                    p.iter_mut().zip(z).for_each(|(p, z)| *p = libm::tanh(f64::from(*z)) as f32);
                }
                (Activation::Relu, _) => p.iter_mut().zip(z).for_each(|(p, z)| *p = z.max(0.0)),
                // One row a text: f64 in plain code costs nothing beside the encoder.
                (Activation::Gelu, _) => {
                    let gelu = |z: &f32| reference_gelu(Gelu::Erf, f64::from(*z));
                    p.iter_mut().zip(z).for_each(|(p, z)| *p = gelu(z).0 as f32);
                    if let Some(slope) = kept {
                        slope.iter_mut().zip(z).for_each(|(s, z)| *s = gelu(z).1 as f32);
                    }
                }
            }
        }
    }
}

/// Shapes as in [`forward`]; `p` is the forward's output, `kept` what it saved; `d_b: [batch, hidden]` the gradient of the bias by text;
/// `d_h` is `None` where nothing below is trained.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    num: &Numerics,
    pooler: &Pooler,
    d_p: ArrayView2<f32>,
    (p, kept): (ArrayView2<f32>, &[f32]),
    offsets: &[i32],
    d_b: Option<&mut [f32]>,
    d_h: Option<ArrayViewMut2<f32>>,
) {
    match pooler {
        Pooler::Tokens => {
            if let Some(mut d_h) = d_h {
                d_h.assign(&d_p);
            }
        }
        Pooler::Mean => {
            if let Some(d_h) = d_h {
                to_all_tokens(d_p, offsets, d_h);
            }
        }
        Pooler::Apart => {
            let Some(d_h) = d_h else { return };
            let pairs =
                ArrayView2::from_shape((offsets.len() - 1, d_h.ncols()), kept).expect("as it was kept");
            to_all_tokens(compare::backward(pairs, d_p).view(), offsets, d_h);
        }
        Pooler::First => {
            if let Some(d_h) = d_h {
                to_first_tokens(d_p, offsets, d_h);
            }
        }
        Pooler::Cls(dense, activation) => {
            let mut d_z = d_p.to_owned();
            match activation {
                Activation::Tanh => d_z.zip_mut_with(&p, |d, p| *d *= 1.0 - p * p),
                Activation::Relu => d_z.zip_mut_with(&p, |d, p| *d *= f32::from(*p > 0.0)),
                Activation::Gelu => d_z.iter_mut().zip(kept).for_each(|(d, s)| *d *= s),
            }
            if let Some(d_b) = d_b {
                d_b.copy_from_slice(d_z.as_slice().expect("row-major tensor"));
            }
            let Some(d_h) = d_h else { return };
            to_first_tokens(dense.backward(num, &d_z).view(), offsets, d_h);
        }
    }
}

/// `p: [batch, hidden]`.
fn means(h: ArrayView2<f32>, offsets: &[i32], mut p: ArrayViewMut2<f32>) {
    for (o, mut p) in offsets.windows(2).zip(p.rows_mut()) {
        let p = p.as_slice_mut().expect("row-major tensor");
        p.fill(0.0);
        for t in o[0] as usize..o[1] as usize {
            p.iter_mut().zip(h.row(t)).for_each(|(p, h)| *p += h);
        }
        let inv = 1.0 / (o[1] - o[0]) as f32;
        p.iter_mut().for_each(|p| *p *= inv);
    }
}

/// `d_p: [batch, hidden]`.
fn to_all_tokens(d_p: ArrayView2<f32>, offsets: &[i32], mut d_h: ArrayViewMut2<f32>) {
    for (o, d_p) in offsets.windows(2).zip(d_p.rows()) {
        let inv = 1.0 / (o[1] - o[0]) as f32;
        for t in o[0] as usize..o[1] as usize {
            d_h.row_mut(t).zip_mut_with(&d_p, |h, p| *h = p * inv);
        }
    }
}

fn first_tokens(h: ArrayView2<f32>, offsets: &[i32]) -> Array2<f32> {
    let mut first = Array2::zeros((offsets.len() - 1, h.ncols()));
    for (o, mut row) in offsets.windows(2).zip(first.rows_mut()) {
        row.assign(&h.row(o[0] as usize));
    }
    first
}

fn to_first_tokens(d: ArrayView2<f32>, offsets: &[i32], mut d_h: ArrayViewMut2<f32>) {
    d_h.fill(0.0);
    for (o, d) in offsets.windows(2).zip(d.rows()) {
        d_h.row_mut(o[0] as usize).assign(&d);
    }
}
