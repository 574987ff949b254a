//! From the tokens' vectors to one vector a text.
//!
//! `mean`: `p = 1/T Σ_t h_t`; backward `d_h_t = d_p / T`.
//! `cls`: `p = tanh(h_0 W_pᵀ + b_p)`, `h_0` the text's first token; backward `d_z = d_p (1 − p²)`,
//! `d_b = Σ d_z`, `d_h_0 = d_z W_p`, zero for the other tokens. Saved: nothing but the output itself.

use super::linear::{self, InputGrad, Linear};
use super::{Numerics, flat, ndarray::*};
use crate::quant::QMatrix;

/// The pooler: none of its own weights for the mean, a Linear for `cls`.
#[derive(Clone, Debug)]
pub enum Pooler {
    /// Mean over a text's tokens.
    Mean,
    /// First token through dense and tanh.
    Cls(Linear),
}

impl Pooler {
    /// The `cls` pooler with weight `[hidden, hidden]`.
    pub fn cls(weight: QMatrix) -> Pooler {
        Pooler::Cls(Linear { parts: vec![weight], gelu: None })
    }
}

/// Shapes: `h: [rows, hidden]`, `offsets: [batch + 1]`, `b: [hidden]` (`cls` only), `p: [batch, hidden]`.
pub fn forward(
    num: &Numerics,
    pooler: &Pooler,
    h: ArrayView2<f32>,
    offsets: &[i32],
    b: &[f32],
    mut p: ArrayViewMut2<f32>,
) {
    match pooler {
        Pooler::Mean => {
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
        Pooler::Cls(l) => {
            let first = first_tokens(h, offsets);
            let mut z = Array2::zeros(p.raw_dim());
            linear::forward(num, l, first.view(), &[b], z.view_mut(), None);
            match num {
                Numerics::Int8(k) => k.tanh(flat(&z.view()), p.as_slice_mut().expect("row-major tensor")),
                Numerics::Reference => {
                    p.zip_mut_with(&z, |p, &z| *p = libm::tanh(f64::from(z)) as f32);
                }
            }
        }
    }
}

/// Shapes as in [`forward`]; `p` is the forward's output; `d_h` is `None` where nothing below is trained.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    num: &Numerics,
    pooler: &Pooler,
    d_p: ArrayView2<f32>,
    p: ArrayView2<f32>,
    offsets: &[i32],
    d_b: Option<&mut [f32]>,
    d_h: Option<ArrayViewMut2<f32>>,
) {
    match pooler {
        Pooler::Mean => {
            let Some(mut d_h) = d_h else { return };
            for (o, d_p) in offsets.windows(2).zip(d_p.rows()) {
                let inv = 1.0 / (o[1] - o[0]) as f32;
                for t in o[0] as usize..o[1] as usize {
                    d_h.row_mut(t).zip_mut_with(&d_p, |h, p| *h = p * inv);
                }
            }
        }
        Pooler::Cls(l) => {
            let mut d_z = d_p.to_owned();
            d_z.zip_mut_with(&p, |d, p| *d *= 1.0 - p * p);
            let Some(mut d_h) = d_h else {
                return linear::backward(num, l, d_z, None, &mut [d_b], InputGrad::None);
            };
            let mut d_first = Array2::zeros(d_z.raw_dim());
            linear::backward(num, l, d_z, None, &mut [d_b], InputGrad::Set(d_first.view_mut()));
            d_h.fill(0.0);
            for (o, d) in offsets.windows(2).zip(d_first.rows()) {
                d_h.row_mut(o[0] as usize).assign(&d);
            }
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
