//! Masked-LM head: which word is hidden behind a row, `logits = n Eᵀ + b`, `n = LN(gelu(h Wᵀ + b_t))`, `E` the word
//! embeddings.
//!
//! The head is frozen whole: its biases would add one value a word to a bias file (30,522 beside some 25,000), and what is
//! learned for another task to begin from is the encoder's. So the backward is `d_h` alone: `d_y = (p − onehot) / total`,
//! `d_n = d_y E`, then as in [`super::add_norm`], GELU and [`super::linear`].
//!
//! A row of logits is as long as the vocabulary (122 KB for BERT's), so rows go forward, through the loss and back
//! 32 at a time, and no more of them are ever there.

use super::linear::{self, InputGrad, Linear, reference_gelu};
use super::{Numerics, Values, ValuesMut, add_norm, loss, pad, quantize};
use crate::config::Gelu;
use crate::kernels::{Block, blocks};
use bytemuck::Zeroable;
use half::f16;
use rayon::prelude::*;

/// Rows whose logits are there at a time: enough to pay for unpacking the embeddings.
pub(crate) const ROWS: usize = 32;

/// A frozen head.
#[derive(Clone, Debug)]
pub struct MaskedLm {
    /// `[embedding, hidden]`, without its GELU, which stands in front of a norm and so is not quantized.
    pub dense: Linear,
    /// `[embedding]`
    pub dense_bias: Vec<f32>,
    /// Behind the dense layer.
    pub gelu: Gelu,
    /// `[embedding]`
    pub gain: Vec<f32>,
    /// `[embedding]`
    pub norm_bias: Vec<f32>,
    /// Added to the norm's variance.
    pub eps: f32,
    /// The word embeddings as a Linear, `[vocab, embedding]`.
    pub decoder: Linear,
    /// `[vocab]`
    pub bias: Vec<f32>,
}

/// What the backward of some rows needs.
struct Kept {
    slope: Vec<f32>,
    n16: Vec<f16>,
    n32: Vec<f32>,
    rstd: Vec<f32>,
}

impl MaskedLm {
    /// Length of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.decoder.out()
    }

    /// Has `read` see the number of each row and the probability of each word, `p: [vocab]`. `h: [rows, hidden]`.
    pub fn guess<T: Send>(
        &self,
        num: &Numerics,
        h: &[f32],
        read: impl Fn(usize, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        let mut read_all = Vec::with_capacity(h.len() / self.dense.input());
        for h in h.chunks(ROWS * self.dense.input()) {
            let first = read_all.len();
            let (logits, _) = self.forward(num, h);
            let rows = logits.par_chunks_exact(self.vocab()).enumerate();
            let some = rows.map(|(i, y)| read(first + i, &softmax(num, y)[..y.len()]));
            read_all.par_extend(some);
        }
        read_all
    }

    /// The loss of each row, `c · −log p(word)`, and its gradient.
    ///
    /// Shapes: `h d_h: [rows, hidden]`, `words: [rows]`, each below [`MaskedLm::vocab`].
    pub fn loss(&self, num: &Numerics, h: &[f32], words: &[usize], c: f64, d_h: &mut [f32]) -> Vec<f64> {
        let (width, mut losses) = (ROWS * self.dense.input(), Vec::with_capacity(words.len()));
        for ((h, words), d_h) in h.chunks(width).zip(words.chunks(ROWS)).zip(d_h.chunks_mut(width)) {
            let (mut logits, kept) = self.forward(num, h);
            let rows = logits.par_chunks_exact_mut(self.vocab()).zip(words);
            let some = rows.map(|(y, word)| {
                let p = softmax(num, y);
                y.iter_mut().zip(&p).for_each(|(y, p)| *y = (c * f64::from(*p)) as f32);
                y[*word] = 0.0;
                let p = f64::from(p[*word]);
                (c * loss::surprise(p), (*word, (c * (p - 1.0)) as f32))
            });
            let (some, own): (Vec<f64>, Vec<(usize, f32)>) = some.unzip();
            losses.extend(some);
            self.backward(num, &logits, &own, kept, d_h);
        }
        losses
    }

    /// `h: [rows, hidden]` to logits `[rows, vocab]`.
    fn forward(&self, num: &Numerics, h: &[f32]) -> (Vec<f32>, Kept) {
        let mut z = product(num, &self.dense, h, &self.dense_bias);
        // Few rows: f64 in plain code costs nothing beside the product with the embeddings.
        let slope = z.iter_mut().map(|z| {
            let (value, slope) = reference_gelu(self.gelu, f64::from(*z));
            *z = value as f32;
            slope as f32
        });
        let slope = slope.collect();
        let width = self.gain.len();
        let int8 = matches!(num, Numerics::Int8(_));
        let n = |wanted: bool| if wanted { z.len() } else { 0 };
        let mut kept = Kept {
            slope,
            n16: vec![f16::ZERO; n(int8)],
            n32: vec![0.0; n(!int8)],
            rstd: vec![0.0; z.len() / width],
        };
        let saved = if int8 { ValuesMut::F16(&mut kept.n16) } else { ValuesMut::F32(&mut kept.n32) };
        let mut y = vec![0.0; z.len()];
        let saved = Some((saved, &mut kept.rstd[..]));
        add_norm::forward(num, &z, None, &self.gain, &self.norm_bias, self.eps, &mut y, None, saved);
        (product(num, &self.decoder, &y, &self.bias), kept)
    }

    /// `d_logits: [rows, vocab]` to `d_h: [rows, hidden]`; `own: [rows]` has the hidden words' own gradients, which are 0
    /// there: by far the largest, they would take the scale of a whole block from the others.
    fn backward(&self, num: &Numerics, d_logits: &[f32], own: &[(usize, f32)], kept: Kept, d_h: &mut [f32]) {
        let width = self.gain.len();
        let mut d_y = vec![0.0; kept.slope.len()];
        product_backward(num, &self.decoder, d_logits, &mut d_y);
        let mut embedding = vec![0.0; width];
        for (d_y, (word, d)) in d_y.chunks_exact_mut(width).zip(own) {
            self.decoder.parts[0].dequantize_row(*word, &mut embedding);
            d_y.iter_mut().zip(&embedding).for_each(|(d_y, e)| *d_y += d * e);
        }
        let n = if kept.n32.is_empty() { Values::F16(&kept.n16) } else { Values::F32(&kept.n32) };
        let mut d_z = vec![0.0; d_y.len()];
        add_norm::backward(num, &d_y, (n, &kept.rstd), &self.gain, &mut d_z, None);
        d_z.iter_mut().zip(&kept.slope).for_each(|(d, slope)| *d *= slope);
        product_backward(num, &self.dense, &d_z, d_h);
    }
}

/// Probabilities of one row of logits, behind which zeros may follow.
fn softmax(num: &Numerics, logits: &[f32]) -> Vec<f32> {
    match num {
        Numerics::Int8(k) => {
            let mut p = vec![0.0; pad(logits.len())];
            p[..logits.len()].copy_from_slice(logits);
            let wide = p.len();
            k.softmax_rows(&mut p, logits.len(), wide, 1.0);
            p
        }
        Numerics::Reference => loss::softmax(logits).into_iter().map(|p| p as f32).collect(),
    }
}

/// `x Wᵀ + b` of a Linear of one part, from f32 to f32. `x: [rows, in]`.
fn product(num: &Numerics, l: &Linear, x: &[f32], bias: &[f32]) -> Vec<f32> {
    let rows = x.len() / l.input();
    let mut y = vec![0.0; rows * l.out()];
    let to = ValuesMut::F32(&mut y);
    match num {
        Numerics::Int8(k) => {
            let mut q = vec![Block::zeroed(); rows * blocks(l.input())];
            quantize(&**k, x, l.input(), None, &mut q);
            linear::forward(num, l, Values::I8(&q), &[bias], to, None);
        }
        Numerics::Reference => linear::forward(num, l, Values::F32(x), &[bias], to, None),
    }
    y
}

/// `d_x = d_y W` of a Linear of one part. `d_y: [rows, out]`, `d_x: [rows, in]`.
fn product_backward(num: &Numerics, l: &Linear, d_y: &[f32], d_x: &mut [f32]) {
    match num {
        Numerics::Int8(k) => {
            let mut q = vec![Block::zeroed(); d_y.len() / l.out() * blocks(l.out())];
            quantize(&**k, d_y, l.out(), Some(l.parts[0].scale()), &mut q);
            linear::backward(num, l, Values::I8(&q), InputGrad::Set(d_x));
        }
        Numerics::Reference => linear::backward(num, l, Values::F32(d_y), InputGrad::Set(d_x)),
    }
}
