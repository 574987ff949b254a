//! The losses, each a mean over the texts of a batch, in nats or in squares.
//!
//! - [`Target::Class`]: softmax cross-entropy, `Σ_b c_b (−log softmax(y_b)[label_b]) / Σ_b c_b`, `c_b` the label's class
//!   weight; `d_y = c_b (softmax(y_b) − onehot) / Σ c`.
//! - [`Target::Labels`]: binary cross-entropy of each label by itself, mean over the labels too;
//!   `d_y = (σ(y) − t) / (batch · labels)`.
//! - [`Target::Value`]: squared error `(y − t)²`; `d_y = 2 (y − t) / batch`.
//!
//! The same as PyTorch's `CrossEntropyLoss`, `BCEWithLogitsLoss` and `MSELoss`, which `transformers` takes for these
//! tasks. In f64 by the `libm` crate, which is the same on every platform.

use super::ndarray::*;

/// What the logits of a text should say.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// This output is the largest.
    Class(usize),
    /// These outputs are positive and the others negative.
    Labels(Vec<bool>),
    /// The one output is this.
    Value(f32),
}

/// Probabilities of one row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|&v| libm::exp(f64::from(v) - f64::from(max))).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// `1 / (1 + e^−y)`.
pub fn sigmoid(y: f32) -> f64 {
    1.0 / (1.0 + libm::exp(-f64::from(y)))
}

/// What the targets of a whole batch weigh together: `Σ c_b`, the number of texts without class weights.
pub fn total_weight<'a>(targets: impl IntoIterator<Item = &'a Target>, class_weights: Option<&[f32]>) -> f64 {
    targets.into_iter().map(|t| weight(t, class_weights)).sum()
}

fn weight(target: &Target, class_weights: Option<&[f32]>) -> f64 {
    match (target, class_weights) {
        (Target::Class(label), Some(c)) => f64::from(c[*label]),
        _ => 1.0,
    }
}

/// Each text's share of the loss, `[batch]`, and the loss's gradient, of a batch or of a part of one.
///
/// Shapes: `logits: [batch, outputs]`, `targets: [batch]`, `class_weights: [outputs]` (all 1 where `None`);
/// `total` is the whole batch's [`total_weight`].
pub fn loss<'a>(
    logits: ArrayView2<f32>,
    targets: impl IntoIterator<Item = &'a Target>,
    class_weights: Option<&[f32]>,
    total: f64,
) -> (Vec<f64>, Array2<f32>) {
    let mut d = Array2::zeros(logits.raw_dim());
    let mut shares = Vec::with_capacity(logits.nrows());
    for ((y, target), mut d) in logits.rows().into_iter().zip(targets).zip(d.rows_mut()) {
        let (y, d) = (y.to_slice().expect("row-major tensor"), d.as_slice_mut().expect("row-major tensor"));
        let c = weight(target, class_weights) / total;
        shares.push(c * of_text(y, target));
        match target {
            Target::Class(label) => {
                for (o, (d, p)) in d.iter_mut().zip(softmax(y)).enumerate() {
                    *d = (c * (p - f64::from(u8::from(o == *label)))) as f32;
                }
            }
            Target::Labels(wanted) => {
                let c = c / y.len() as f64;
                for ((d, y), t) in d.iter_mut().zip(y).zip(wanted) {
                    *d = (c * (sigmoid(*y) - f64::from(u8::from(*t)))) as f32;
                }
            }
            Target::Value(t) => d[0] = (c * 2.0 * (f64::from(y[0]) - f64::from(*t))) as f32,
        }
    }
    (shares, d)
}

/// The loss of one text's logits, of weight 1.
pub fn of_text(y: &[f32], target: &Target) -> f64 {
    match target {
        Target::Class(label) => surprise(softmax(y)[*label]),
        Target::Labels(wanted) => {
            // −log σ(y) = log(1 + e^−y), without a probability that is rounded to 0 or 1
            let one = |(y, t): (&f32, &bool)| {
                let y = if *t { -f64::from(*y) } else { f64::from(*y) };
                y.max(0.0) + libm::log1p(libm::exp(-y.abs())) + 0.0 * y
            };
            y.iter().zip(wanted).map(one).sum::<f64>() / y.len() as f64
        }
        Target::Value(t) => (f64::from(y[0]) - f64::from(*t)).powi(2),
    }
}

/// `−log p`, finite for `p = 0`, NaN for NaN (`f64::max` would hide it).
fn surprise(p: f64) -> f64 {
    -libm::log(if p < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { p })
}
