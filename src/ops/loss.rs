//! The losses, each a mean over the texts of a batch, in nats or in squares.
//!
//! - [`Target::Class`]: softmax cross-entropy, `Σ_b c_b (−log softmax(y_b)[label_b]) / Σ_b c_b`, `c_b` the label's class
//!   weight; `d_y = c_b (softmax(y_b) − onehot) / Σ c`.
//! - [`Target::Labels`]: binary cross-entropy of each label by itself, mean over the labels too;
//!   `d_y = (σ(y) − t) / (batch · labels)`.
//! - [`Target::Tags`]: the cross-entropy of each token that has a label, mean over these.
//! - [`Target::Span`]: of two outputs a token, the mean of the cross-entropies over the text's tokens: of the first
//!   output for the start, of the second for the end; `d_y = (softmax(y) − onehot) / (2 · batch)`.
//! - [`Target::Cloze`]: the cross-entropy of each hidden word over the vocabulary, mean over these ([`super::masked_lm`]).
//! - [`Target::Value`]: squared error `(y − t)²`; `d_y = 2 (y − t) / batch`.
//!
//! The same as PyTorch's `CrossEntropyLoss`, `BCEWithLogitsLoss` and `MSELoss`, which `transformers` takes for these
//! tasks. In f64 by the `libm` crate, which is the same on every platform.

use super::masking::Words;
use super::ndarray::*;
use std::sync::Arc;

/// What the logits of a text should say, one row of them, or for tags and spans one a token.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// This output is the largest.
    Class(usize),
    /// These outputs are positive and the others negative.
    Labels(Vec<bool>),
    /// The one output is this.
    Value(f32),
    /// In each of these rows this output is the largest.
    Tags(Vec<(usize, usize)>),
    /// No logit: the text's vector is near its partner's. The loss is one of all vectors of a batch,
    /// [`super::similarity::loss`].
    Partner,
    /// The first output is largest in the first of these rows, the second in the second.
    Span(usize, usize),
    /// No logit: the words of the text itself, of which some are hidden by its key ([`Words::hide`]). Words that are
    /// hidden already are [`Target::Tags`].
    Cloze(Arc<Words>),
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

/// What the targets of a whole batch weigh together: `Σ c_b`, the number of texts without class weights, or of tags.
/// Never 0.
pub fn total_weight<'a>(targets: impl IntoIterator<Item = &'a Target>, class_weights: Option<&[f32]>) -> f64 {
    let total = targets.into_iter().map(|t| weight(t, class_weights)).sum();
    if total > 0.0 { total } else { 1.0 }
}

/// What the target of a text weighs.
pub fn weight(target: &Target, class_weights: Option<&[f32]>) -> f64 {
    match (target, class_weights) {
        (Target::Class(label), Some(c)) => f64::from(c[*label]),
        (Target::Tags(tags), _) => tags.len() as f64,
        _ => 1.0,
    }
}

/// What a target weighs where it is scored: as [`weight`] without class weights, but labels beyond the `outputs`, which the
/// model does not know, weigh nothing. Their loss would be infinite.
pub fn scored_weight(target: &Target, outputs: usize) -> f64 {
    match target {
        Target::Class(label) => f64::from(u8::from(*label < outputs)),
        Target::Tags(tags) => tags.iter().filter(|(_, label)| *label < outputs).count() as f64,
        _ => 1.0,
    }
}

/// The mean loss of texts' logits that are scored, over what [`scored_weight`] counts; 0 if that is nothing.
pub fn scored<'a>(answers: impl Iterator<Item = (&'a [f32], &'a Target)> + Clone, outputs: usize) -> f64 {
    let total: f64 = answers.clone().map(|(_, t)| scored_weight(t, outputs)).sum();
    let total = if total > 0.0 { total } else { 1.0 };
    answers.map(|(y, t)| scored_weight(t, outputs) * of_text(y, outputs, t)).sum::<f64>() / total
}

/// Each text's share of the loss, `[batch]`, and the loss's gradient, of a batch or of a part of one.
///
/// Shapes: `logits: [rows, outputs]`, `offsets: [batch + 1]` where the rows of each text begin, `targets: [batch]`,
/// `class_weights: [outputs]` (all 1 where `None`); `total` is the whole batch's [`total_weight`].
pub fn loss<'a>(
    logits: ArrayView2<f32>,
    offsets: &[i32],
    targets: impl IntoIterator<Item = &'a Target>,
    class_weights: Option<&[f32]>,
    total: f64,
) -> (Vec<f64>, Array2<f32>) {
    let (mut d, outputs) = (Array2::zeros(logits.raw_dim()), logits.ncols());
    let all_d = d.as_slice_mut().expect("row-major tensor");
    let logits = logits.to_slice().expect("row-major tensor");
    let mut shares = Vec::with_capacity(offsets.len());
    for (o, target) in offsets.windows(2).zip(targets) {
        let text = o[0] as usize * outputs..o[1] as usize * outputs;
        let (y, d) = (&logits[text.clone()], &mut all_d[text]);
        let c = weight(target, class_weights) / total;
        shares.push(c * of_text(y, outputs, target));
        match target {
            Target::Class(label) => class(y, *label, c, d),
            Target::Tags(tags) => {
                for (row, label) in tags {
                    let row = row * outputs..(row + 1) * outputs;
                    class(&y[row.clone()], *label, 1.0 / total, &mut d[row]);
                }
            }
            Target::Span(start, end) => {
                for (output, row) in [*start, *end].into_iter().enumerate() {
                    let y = column(y, outputs, output);
                    let mut d_y = vec![0.0; y.len()];
                    class(&y, row, c / 2.0, &mut d_y);
                    d.chunks_exact_mut(outputs).zip(d_y).for_each(|(d, v)| d[output] = v);
                }
            }
            Target::Labels(wanted) => {
                let c = c / y.len() as f64;
                for ((d, y), t) in d.iter_mut().zip(y).zip(wanted) {
                    *d = (c * (sigmoid(*y) - f64::from(u8::from(*t)))) as f32;
                }
            }
            Target::Value(t) => d[0] = (c * 2.0 * (f64::from(y[0]) - f64::from(*t))) as f32,
            Target::Partner | Target::Cloze(_) => {}
        }
    }
    (shares, d)
}

/// The gradient of a softmax's cross-entropy times `c`.
fn class(y: &[f32], label: usize, c: f64, d: &mut [f32]) {
    for (o, (d, p)) in d.iter_mut().zip(softmax(y)).enumerate() {
        *d = (c * (p - f64::from(u8::from(o == label)))) as f32;
    }
}

/// One output of every row.
pub(crate) fn column(y: &[f32], outputs: usize, output: usize) -> Vec<f32> {
    y.chunks_exact(outputs).map(|row| row[output]).collect()
}

/// The mean loss of one text's logits, `y: [rows, outputs]`, over the labels that have an output.
pub fn of_text(y: &[f32], outputs: usize, target: &Target) -> f64 {
    match target {
        Target::Class(label) => softmax(y).get(*label).map_or(0.0, |p| surprise(*p)),
        Target::Tags(tags) => {
            let known = || tags.iter().filter(|(_, label)| *label < outputs);
            let one =
                |(row, label): &(usize, usize)| surprise(softmax(&y[row * outputs..][..outputs])[*label]);
            known().map(one).sum::<f64>() / known().count().max(1) as f64
        }
        Target::Span(start, end) => {
            let one = |(output, row)| surprise(softmax(&column(y, outputs, output))[row]);
            [*start, *end].into_iter().enumerate().map(one).sum::<f64>() / 2.0
        }
        Target::Labels(wanted) => {
            // −log σ(y) = log(1 + e^−y), without a probability that is rounded to 0 or 1
            let one = |(y, t): (&f32, &bool)| {
                let y = if *t { -f64::from(*y) } else { f64::from(*y) };
                y.max(0.0) + libm::log1p(libm::exp(-y.abs())) + 0.0 * y
            };
            y.iter().zip(wanted).map(one).sum::<f64>() / y.len() as f64
        }
        Target::Value(t) => (f64::from(y[0]) - f64::from(*t)).powi(2),
        Target::Partner | Target::Cloze(_) => 0.0,
    }
}

/// `−log p`, finite for `p = 0`, NaN for NaN (`f64::max` would hide it).
pub(crate) fn surprise(p: f64) -> f64 {
    -libm::log(if p < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { p })
}
