//! Softmax cross-entropy: `loss = Σ_b c_b (−log softmax(y_b)[label_b]) / Σ_b c_b`, `c_b` the label's class weight.
//!
//! Backward: `d_y = c_b (softmax(y_b) − onehot) / Σ c`. In f64 by the `libm` crate, which is the same on every
//! platform.

use super::ndarray::*;

/// Probabilities of one row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|&v| libm::exp(f64::from(v) - f64::from(max))).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|v| v / sum).collect()
}

/// `−log softmax(logits)[label]`.
pub fn negative_log_likelihood(logits: &[f32], label: usize) -> f64 {
    surprise(softmax(logits)[label])
}

/// `Σ_b c_b` of a batch; the number of texts without class weights.
pub fn total_weight(labels: &[usize], class_weights: Option<&[f32]>) -> f64 {
    labels.iter().map(|&l| class_weights.map_or(1.0, |c| f64::from(c[l]))).sum()
}

/// Each text's share of the loss, `[batch]`, and the loss's gradient, of a batch or of a part of one.
///
/// Shapes: `logits: [batch, labels]`, `labels: [batch]`, `class_weights: [labels]` (all 1 where `None`);
/// `total` is the whole batch's [`total_weight`].
pub fn cross_entropy(
    logits: ArrayView2<f32>,
    labels: &[usize],
    class_weights: Option<&[f32]>,
    total: f64,
) -> (Vec<f64>, Array2<f32>) {
    let mut d = Array2::zeros(logits.raw_dim());
    let mut loss = Vec::with_capacity(labels.len());
    for ((y, &label), mut d) in logits.rows().into_iter().zip(labels).zip(d.rows_mut()) {
        let p = softmax(y.to_slice().expect("row-major tensor"));
        let c = class_weights.map_or(1.0, |c| f64::from(c[label])) / total;
        loss.push(c * surprise(p[label]));
        for (o, (d, p)) in d.iter_mut().zip(&p).enumerate() {
            *d = (c * (p - f64::from(u8::from(o == label)))) as f32;
        }
    }
    (loss, d)
}

/// `−log p`, finite for `p = 0`, NaN for NaN (`f64::max` would hide it).
fn surprise(p: f64) -> f64 {
    -libm::log(if p < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { p })
}
