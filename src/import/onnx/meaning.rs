//! What the values of a graph mean, as parts of an encoder.

use super::axes::Axes;
use crate::config::{Activation, Gelu};
use std::rc::Rc;

/// A value: its meaning and its axes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub what: What,
    /// Where the meaning is a part of the network; else empty.
    pub axes: Axes,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// Not understood, and reported if it comes from what is.
    Unknown,
    /// A number, everywhere.
    Number(f64),
    /// A tensor of the file.
    Stored(String),
    /// A model input, as it is.
    Input(usize),
    /// Made of one or more inputs and numbers, element by element; a bit for each input.
    Masking(u64),
    /// Row numbers for a table.
    Index(Index),
    /// Rows of embedding tables, added.
    Rows(Vec<Rows>),
    /// Steps of a LayerNorm over `pre`.
    Norm(Pre, Step),
    /// A vector for each token, or for the first.
    Flow(From),
    /// A Linear without its bias.
    Product(usize),
    /// A function of each element of a Linear, by its values at [`samples`].
    Curve(usize, Rc<[f32]>),
    /// `DynamicQuantizeLinear` of a flow: its values, its scale (perhaps times a weight's), its zero point.
    Quantized(From),
    QuantizedScale(From, Option<Scale>),
    QuantizedZero(From),
    /// Integer product of a quantized flow and a weight: whether it was multiplied by the flow's scale.
    IntProduct(usize, bool),
    /// Scaled products of two Linears, perhaps with a mask, before and after the softmax.
    Scores(Scores),
    Probabilities(usize),
}

/// What gives row numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Index {
    Input(usize),
    /// `first + 0, 1, 2, …`
    Counting(i64),
    Zero,
    /// On the way to RoBERTa's positions: 1 where the token is the padding's id, 0 there, how many before, positions.
    IsPad(usize, i64),
    NotPad(usize, i64),
    Count(usize, i64),
    BehindPad(usize, i64),
}

/// Rows of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub table: Matrix,
    pub index: Index,
}

/// A matrix of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matrix {
    pub name: String,
    /// It lies as `[in, out]`.
    pub transposed: bool,
    /// Of integers: `w = (q − zero) · scale`.
    pub scale: Option<Scale>,
    pub zero: Option<Scale>,
}

/// Scale or zero point of integers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scale {
    /// One for all.
    One(f64),
    /// A stored one for each output.
    Each(String),
}

/// What goes into a LayerNorm.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pre {
    Embeddings(Vec<Rows>),
    /// A Linear and the flow it is added to.
    Residual(usize, From),
    /// Of a head.
    Other(From),
}

/// How far a LayerNorm is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Input,
    Sum,
    /// The sum over so many.
    Mean(f64),
    Centered,
    Normed(f32),
    Scaled(f32, String),
}

/// A vector for each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum From {
    /// What the LayerNorm of this number gives.
    Norm(usize),
    /// The same, of the first token alone.
    First(usize),
    /// What a Linear gives.
    Linear(usize),
    /// A Linear and an activation.
    Active(usize, Function),
    /// What an attention gives.
    Context(usize),
}

/// What a curve is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Function {
    /// Times a number.
    Times(f32),
    Gelu(Gelu),
    Tanh,
    Relu,
}

impl Function {
    /// As the activation of a pooler.
    pub fn activation(self) -> Option<Activation> {
        match self {
            Function::Tanh => Some(Activation::Tanh),
            Function::Relu => Some(Activation::Relu),
            Function::Gelu(Gelu::Erf) => Some(Activation::Gelu),
            _ => None,
        }
    }
}

/// A Linear, and the node it was found at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    pub node: String,
    pub from: From,
    pub weight: Matrix,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: Option<String>,
}

/// A LayerNorm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Norm {
    pub node: String,
    pub pre: Pre,
    pub eps: f32,
    pub gain: String,
    pub bias: String,
    pub width: usize,
}

/// Products of queries and keys.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scores {
    pub node: String,
    /// The Linears; which one is the key is known at the softmax.
    pub sides: [usize; 2],
    pub scale: f32,
    pub heads: usize,
    pub mask: u64,
}

/// An attention.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attention {
    pub node: String,
    pub query: usize,
    pub key: usize,
    pub value: Option<usize>,
    pub heads: usize,
    pub mask: u64,
}

/// Where curves are sampled: −6 to 6.
pub(super) fn samples() -> Vec<f32> {
    (0..96).map(|i| (i as f32 - 47.5) / 8.0).collect()
}

/// Names the function of a curve; none if it is not one of them.
///
/// Erf and tanh GELU differ by at most 4.7e-4, so the nearer one is taken, if it is near.
pub(super) fn function(curve: &[f32]) -> Option<Function> {
    let x: Vec<f64> = samples().into_iter().map(f64::from).collect();
    let distance = |f: &dyn Fn(f64) -> f64| {
        let far = |m: f64, (x, y): (&f64, &f32)| {
            let d = (f(*x) - f64::from(*y)).abs();
            // NaN is far.
            if d <= m {
                m
            } else if d.is_nan() {
                f64::INFINITY
            } else {
                d
            }
        };
        x.iter().zip(curve).fold(0.0, far)
    };
    let times = f64::from(curve[0]) / x[0];
    let erf = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
    let tanh = |x: f64| {
        0.5 * x * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)))
    };
    let candidates = [
        (distance(&|x| x * times) / times.abs().max(1e-3), Function::Times(times as f32)),
        (distance(&erf), Function::Gelu(Gelu::Erf)),
        (distance(&tanh), Function::Gelu(Gelu::Tanh)),
        (distance(&|x| libm::tanh(x)), Function::Tanh),
        (distance(&|x| x.max(0.0)), Function::Relu),
    ];
    let (d, nearest) = candidates.into_iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    (d < 2e-4).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(f: impl Fn(f32) -> f32) -> Option<Function> {
        function(&samples().into_iter().map(f).collect::<Vec<_>>())
    }

    #[test]
    fn functions_are_told_apart() {
        assert_eq!(of(|x| x * 0.25), Some(Function::Times(0.25)));
        assert_eq!(of(|x| x.max(0.0)), Some(Function::Relu));
        assert_eq!(of(f32::tanh), Some(Function::Tanh));
        assert_eq!(
            of(|x| x * libm::erff(x / std::f32::consts::SQRT_2) * 0.5 + 0.5 * x),
            Some(Function::Gelu(Gelu::Erf))
        );
        let tanh = |x: f32| 0.5 * x * (1.0 + (0.7978846 * (x + 0.044715 * x * x * x)).tanh());
        assert_eq!(of(tanh), Some(Function::Gelu(Gelu::Tanh)));
        // Others' approximation.
        assert_eq!(of(|x| x / (1.0 + (-1.702 * x).exp())), None);
        assert_eq!(of(|_| f32::NAN), None);
        assert_eq!(of(|x| x * x), None);
    }
}
