//! Each op of `ops/` with its weights and its places in `theta`, as a node of the graph.

use super::adapter::{FusedOp, Outlet, matrix, matrix_mut, typed, typed_mut, values};
use crate::config::Pooling;
use crate::kernels::{Block, blocks};
use crate::ops::attention::{self, Heads, Queries};
use crate::ops::dropout::Dropout;
use crate::ops::embed::{self, Embed};
use crate::ops::head;
use crate::ops::linear::{self, Linear};
use crate::ops::pooler::{self, Pooler};
use crate::ops::{Numerics, ValuesMut, add_norm, quantize};
use half::f16;
use std::fmt;
use std::ops::Range;
use tract_core::internal::*;
use tract_core::prelude::tract_ndarray::ArrayView2;

/// What every node of one graph shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub numerics: Numerics,
    pub rows: TDim,
    /// Number of texts.
    pub batch: TDim,
    /// Number of texts, or of long texts in windows: what the pooler makes a vector of.
    pub whole: TDim,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.numerics.describe())
    }
}

impl Shared {
    fn of_rows(&self, dt: DatumType, cols: usize) -> Outlet {
        (dt, tvec![self.rows.clone(), cols.to_dim()])
    }

    /// Rows of `cols` columns as a Linear reads them: quantized in int8 mode.
    fn quantized(&self, cols: usize) -> Outlet {
        match self.numerics {
            Numerics::Int8(_) => self.of_rows(DatumType::I8, blocks(cols) * size_of::<Block>()),
            Numerics::Reference => self.of_rows(DatumType::F32, cols),
        }
    }

    /// Element type of a tensor that int8 mode keeps as `compact`.
    fn kept(&self, compact: DatumType) -> DatumType {
        match self.numerics {
            Numerics::Int8(_) => compact,
            Numerics::Reference => DatumType::F32,
        }
    }
}

/// Inputs: tokens.
#[derive(Debug)]
pub(crate) struct EmbedNode {
    pub shared: Shared,
    pub tables: Embed,
}

impl FusedOp for EmbedNode {
    fn name(&self) -> &'static str {
        "Embed"
    }

    fn outlets(&self, _save: bool) -> Vec<Outlet> {
        vec![self.shared.of_rows(DatumType::F32, self.tables.word.cols())]
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        embed::forward(&self.tables, matrix(&inputs[0])?, matrix_mut(&mut outputs[0])?);
        Ok(())
    }
}

/// Inputs: x in f16. Hands on x in f32, and in int8 mode x quantized: what a norm in front of a layer hands on.
#[derive(Debug)]
pub(crate) struct StartNode {
    pub shared: Shared,
    pub hidden: usize,
    /// Whether a Linear reads the output.
    pub read: bool,
}

impl StartNode {
    fn quantizes(&self) -> bool {
        self.read && matches!(self.shared.numerics, Numerics::Int8(_))
    }
}

impl FusedOp for StartNode {
    fn name(&self) -> &'static str {
        "Start"
    }

    fn activations(&self) -> usize {
        1 + usize::from(self.quantizes())
    }

    fn outlets(&self, _save: bool) -> Vec<Outlet> {
        let x = self.shared.of_rows(DatumType::F32, self.hidden);
        let quantized = self.quantizes().then(|| self.shared.quantized(self.hidden));
        [Some(x), quantized].into_iter().flatten().collect()
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let (y, quantized) = outputs.split_first_mut().context("an output")?;
        let ValuesMut::F32(y) = typed_mut(y)? else { bail!("y is f32") };
        y.iter_mut().zip(values::<f16>(&inputs[0])?).for_each(|(y, x)| *y = x.to_f32());
        if let (Some(to), Numerics::Int8(k)) = (quantized.first_mut(), &self.shared.numerics) {
            let ValuesMut::I8(to) = typed_mut(to)? else { bail!("a quantized outlet is I8") };
            quantize(&**k, y, self.hidden, None, to);
        }
        Ok(())
    }
}

/// Inputs: x, offsets. Hands on each text's first row of x, and the offsets of a batch of such rows.
#[derive(Debug)]
pub(crate) struct FirstNode {
    pub shared: Shared,
    pub hidden: usize,
}

impl FusedOp for FirstNode {
    fn name(&self) -> &'static str {
        "First"
    }

    fn activations(&self) -> usize {
        2
    }

    fn outlets(&self, _save: bool) -> Vec<Outlet> {
        let texts = &self.shared.batch;
        vec![
            (DatumType::F32, tvec![texts.clone(), self.hidden.to_dim()]),
            (DatumType::I32, tvec![texts.clone() + 1]),
        ]
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let (x, offsets) = (values::<f32>(&inputs[0])?, values::<i32>(&inputs[1])?);
        let [first, ones] = outputs else { bail!("two outputs") };
        for (row, o) in matrix_mut(first)?.rows_mut().into_iter().zip(offsets) {
            let row = row.into_slice().context("row-major tensor")?;
            row.copy_from_slice(&x[*o as usize * self.hidden..][..self.hidden]);
        }
        let ones = ones.to_plain_array_view_mut::<i32>()?;
        ones.into_iter().zip(0..).for_each(|(o, i)| *o = i);
        Ok(())
    }
}

/// Where a norm's dropout stands: on the branch that joins the residual, or behind the norm (embeddings).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum DropAt {
    Branch,
    Output,
}

/// Inputs: x, (residual,) offsets, keys, theta. Hands on y, and in int8 mode y quantized; saves n and rstd.
#[derive(Clone, Debug)]
pub(crate) struct NormNode {
    pub shared: Shared,
    pub gain: Vec<f32>,
    pub bias: Range<usize>,
    pub eps: f32,
    pub drop_at: DropAt,
    pub dropout: Dropout,
    /// Whether a Linear reads the output.
    pub read: bool,
}

impl NormNode {
    fn quantizes(&self) -> bool {
        self.read && matches!(self.shared.numerics, Numerics::Int8(_))
    }
}

impl FusedOp for NormNode {
    fn name(&self) -> &'static str {
        "AddNorm"
    }

    fn activations(&self) -> usize {
        1 + usize::from(self.quantizes())
    }

    fn outlets(&self, save: bool) -> Vec<Outlet> {
        let hidden = self.gain.len();
        let mut outlets = vec![self.shared.of_rows(DatumType::F32, hidden)];
        if self.quantizes() {
            outlets.push(self.shared.quantized(hidden));
        }
        if save {
            outlets.push(self.shared.of_rows(self.shared.kept(DatumType::F16), hidden));
            outlets.push((DatumType::F32, tvec![self.shared.rows.clone()]));
        }
        outlets
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let (activations, shared) = inputs.split_at(inputs.len() - 3);
        let (offsets, keys, theta) = (values(&shared[0])?, values(&shared[1])?, values(&shared[2])?);
        let (y, rest) = outputs.split_first_mut().context("an output")?;
        let (quantized, kept) = rest.split_at_mut(usize::from(self.quantizes()));
        let (x, hidden) = (values::<f32>(&activations[0])?, self.gain.len());
        let drop = self.dropout.p > 0.0;
        let dropped = (drop && self.drop_at == DropAt::Branch).then(|| {
            let mut x = x.to_vec();
            self.dropout.apply_rows(keys, offsets, hidden, &mut x);
            x
        });
        let residual = activations.get(1).map(|r| values(r)).transpose()?;
        let ValuesMut::F32(y) = typed_mut(y)? else { bail!("y is f32") };
        let mut quantized = match quantized.first_mut().map(typed_mut).transpose()? {
            None => None,
            Some(ValuesMut::I8(to)) => Some(to),
            Some(_) => bail!("a quantized outlet is I8"),
        };
        let saved = match kept {
            [n, rstd] => {
                let ValuesMut::F32(rstd) = typed_mut(rstd)? else { bail!("rstd is f32") };
                Some((typed_mut(n)?, rstd))
            }
            _ => None,
        };
        let drop_output = drop && self.drop_at == DropAt::Output;
        add_norm::forward(
            &self.shared.numerics,
            dropped.as_deref().unwrap_or(x),
            residual,
            &self.gain,
            &theta[self.bias.clone()],
            self.eps,
            y,
            quantized.as_deref_mut().filter(|_| !drop_output),
            saved,
        );
        if drop_output {
            self.dropout.apply_rows(keys, offsets, hidden, y);
            if let (Some(to), Numerics::Int8(k)) = (quantized, &self.shared.numerics) {
                quantize(&**k, y, hidden, None, to);
            }
        }
        Ok(())
    }
}

/// What a Linear's output is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reader {
    /// A residual sum: f32.
    Norm,
    /// The first layer, its Linear and its residual: f32, and in int8 mode also quantized.
    Layer,
    /// Attention, and its backward: f16 in int8 mode.
    Attention,
    /// Another Linear, behind GELU: quantized in int8 mode.
    Linear,
}

/// Inputs: x, theta. Saves gelu' where there is a GELU.
#[derive(Clone, Debug)]
pub(crate) struct LinearNode {
    pub shared: Shared,
    pub linear: Linear,
    pub biases: Vec<Range<usize>>,
    pub reader: Reader,
}

impl LinearNode {
    /// Whether it hands on its output a second time, quantized.
    fn quantizes(&self) -> bool {
        self.reader == Reader::Layer && matches!(self.shared.numerics, Numerics::Int8(_))
    }
}

impl FusedOp for LinearNode {
    fn name(&self) -> &'static str {
        if self.linear.gelu.is_some() { "LinearGelu" } else { "Linear" }
    }

    fn activations(&self) -> usize {
        1 + usize::from(self.quantizes())
    }

    fn outlets(&self, save: bool) -> Vec<Outlet> {
        let out = self.linear.out();
        let mut outlets = vec![match self.reader {
            Reader::Norm | Reader::Layer => self.shared.of_rows(DatumType::F32, out),
            Reader::Attention => self.shared.of_rows(self.shared.kept(DatumType::F16), out),
            Reader::Linear => self.shared.quantized(out),
        }];
        if self.quantizes() {
            outlets.push(self.shared.quantized(out));
        }
        if save && self.linear.gelu.is_some() {
            outlets.push(self.shared.of_rows(self.shared.kept(DatumType::U8), out));
        }
        outlets
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let theta: &[f32] = values(&inputs[1])?;
        let biases: Vec<&[f32]> = self.biases.iter().map(|r| &theta[r.clone()]).collect();
        let (y, rest) = outputs.split_first_mut().context("an output")?;
        let (quantized, kept) = rest.split_at_mut(usize::from(self.quantizes()));
        let derivative = kept.first_mut().map(typed_mut).transpose()?;
        let x = typed(&inputs[0])?;
        linear::forward(&self.shared.numerics, &self.linear, x, &biases, typed_mut(y)?, derivative);
        if let ([to], Numerics::Int8(k)) = (quantized, &self.shared.numerics) {
            let ValuesMut::I8(to) = typed_mut(to)? else { bail!("a quantized outlet is I8") };
            quantize(&**k, values(y)?, self.linear.out(), None, to);
        }
        Ok(())
    }
}

/// Inputs: qkv, offsets. What its backward needs is its input.
#[derive(Debug)]
pub(crate) struct AttentionNode {
    pub shared: Shared,
    pub heads: Heads,
    pub queries: Queries,
}

impl FusedOp for AttentionNode {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn outlets(&self, _save: bool) -> Vec<Outlet> {
        vec![self.shared.quantized(self.heads.heads * self.heads.dim)]
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let ctx = outputs.first_mut().context("an output")?;
        let (qkv, offsets) = (typed(&inputs[0])?, values(&inputs[1])?);
        attention::forward(&self.shared.numerics, self.heads, self.queries, qkv, offsets, typed_mut(ctx)?);
        Ok(())
    }
}

/// Inputs: h, offsets (of whole texts, where they are read in windows), theta. Saves what its backward needs where its own
/// output does not tell it.
#[derive(Debug)]
pub(crate) struct PoolerNode {
    pub shared: Shared,
    pub pooler: Pooler,
    pub hidden: usize,
    /// Empty for the mean.
    pub bias: Range<usize>,
}

impl FusedOp for PoolerNode {
    fn name(&self) -> &'static str {
        "Pooler"
    }

    fn outlets(&self, save: bool) -> Vec<Outlet> {
        let (texts, hidden) = (&self.shared.whole, self.hidden);
        let (rows, width) = match self.pooler {
            Pooler::Tokens => (self.shared.rows.clone(), hidden),
            Pooler::Apart => (texts.clone() / 2, Pooling::Apart.features(hidden)),
            _ => (texts.clone(), hidden),
        };
        let kept = (save && self.pooler.saves()).then(|| tvec![texts.clone(), hidden.to_dim()]);
        let shapes = [Some(tvec![rows, width.to_dim()]), kept].into_iter().flatten();
        shapes.map(|shape| (DatumType::F32, shape)).collect()
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let (offsets, theta) = (values(&inputs[1])?, values::<f32>(&inputs[2])?);
        let bias = &theta[self.bias.clone()];
        let h = matrix(&inputs[0])?;
        let (p, kept) = outputs.split_first_mut().context("an output")?;
        let kept = match kept.first_mut().map(typed_mut).transpose()? {
            None => None,
            Some(ValuesMut::F32(kept)) => Some(kept),
            Some(_) => bail!("what a pooler keeps is f32"),
        };
        pooler::forward(&self.shared.numerics, &self.pooler, h, offsets, bias, matrix_mut(p)?, kept);
        Ok(())
    }
}

/// What a row that the head reads is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum HeadRows {
    /// A token.
    Tokens,
    /// A text.
    Texts,
    /// Two texts that follow one another.
    Pairs,
}

impl HeadRows {
    /// Dropout keys of the examples, `[examples]`, and where their rows begin, `[examples + 1]`; `keys` and `offsets` are
    /// those of the texts.
    pub fn examples(self, keys: &[i64], offsets: &[i32]) -> (Vec<i64>, Vec<i32>) {
        let ones = |n: usize| (0..).take(n + 1).collect();
        match self {
            HeadRows::Tokens => (keys.to_vec(), offsets.to_vec()),
            HeadRows::Texts => (keys.to_vec(), ones(keys.len())),
            HeadRows::Pairs => (keys.iter().copied().step_by(2).collect(), ones(keys.len() / 2)),
        }
    }
}

/// Inputs: pooled, offsets and keys (of whole texts, where they are read in windows), theta.
#[derive(Debug)]
pub(crate) struct HeadNode {
    pub shared: Shared,
    pub labels: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub dropout: Dropout,
    pub reads: HeadRows,
}

impl HeadNode {
    /// The head's weight `[labels, features]` in theta.
    pub fn weight_of<'a>(&self, theta: &'a [f32]) -> ArrayView2<'a, f32> {
        let w = &theta[self.weight.clone()];
        ArrayView2::from_shape((self.labels, w.len() / self.labels.max(1)), w).expect("its shape")
    }
}

impl FusedOp for HeadNode {
    fn name(&self) -> &'static str {
        "Head"
    }

    fn outlets(&self, _save: bool) -> Vec<Outlet> {
        let rows = match self.reads {
            HeadRows::Tokens => self.shared.rows.clone(),
            HeadRows::Texts => self.shared.whole.clone(),
            HeadRows::Pairs => self.shared.whole.clone() / 2,
        };
        vec![(DatumType::F32, tvec![rows, self.labels.to_dim()])]
    }

    fn run(&self, inputs: &[TValue], outputs: &mut [Tensor]) -> TractResult<()> {
        let (offsets, keys, theta) = (values(&inputs[1])?, values(&inputs[2])?, values(&inputs[3])?);
        let (p, w, b) = (matrix(&inputs[0])?, self.weight_of(theta), &theta[self.bias.clone()]);
        let (keys, rows) = self.reads.examples(keys, offsets);
        head::forward(p, self.dropout, (&keys, &rows), w, b, matrix_mut(&mut outputs[0])?);
        Ok(())
    }
}
