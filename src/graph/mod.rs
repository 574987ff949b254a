//! The encoder as a tract model of fused ops, wired once from a base.
//!
//! A [`Graph`] holds the op instances; its inference plan and its training plan are made from the same
//! instances and the same mapped weights. All trainable parameters are one input, `theta`, so that biases
//! change between two runs without a new plan.
//!
//! Inputs of a plan: `tokens [3, rows]` (word, position and type ids), `offsets [batch + 1]`, `keys [batch]`
//! (dropout; 0 is off), `theta [params]`. A plan of the upper layers alone ([`Split`]) begins with the hidden state
//! `x [rows, hidden]` in the place of tokens.

mod adapter;
mod batch;
mod build;
mod nodes;
mod split;
mod wiring;

use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::ops::attention::Queries;
use crate::ops::masked_lm::MaskedLm;
use crate::ops::{Numerics, Values};
use crate::params::{Layout, Role};
use crate::quant::Base;
use adapter::{FusedOp, Recycled, Running};
pub use batch::Batch;
pub(crate) use nodes::*;
pub use split::Split;
use std::sync::{Arc, Mutex};
use tract_core::internal::*;
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2};
use wiring::{Purpose, Start, plan};

/// Rates of dropout while training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutRates {
    /// Before the head.
    pub head: f32,
    /// Behind the embeddings and on each branch that joins a residual.
    pub encoder: f32,
}

/// The ops of one encoder layer.
#[derive(Debug)]
pub(crate) struct LayerOps {
    pub qkv: Arc<LinearNode>,
    pub attention: Arc<AttentionNode>,
    pub m1: Arc<LinearNode>,
    pub ln1: Arc<NormNode>,
    pub m2: Arc<LinearNode>,
    pub m3: Arc<LinearNode>,
    pub ln2: Arc<NormNode>,
}

impl LayerOps {
    /// The same layer where nobody reads more of its output than each text's first row: keys and values are of all
    /// tokens, what follows is of `batch` rows.
    fn of_first(&self, shared: &Shared) -> LayerOps {
        let few = Shared { rows: shared.batch.clone(), ..shared.clone() };
        let linear = |op: &LinearNode| Arc::new(LinearNode { shared: few.clone(), ..op.clone() });
        let norm = |op: &NormNode| Arc::new(NormNode { shared: few.clone(), ..op.clone() });
        let heads = self.attention.heads;
        LayerOps {
            qkv: self.qkv.clone(),
            attention: Arc::new(AttentionNode { shared: few.clone(), heads, queries: Queries::First }),
            m1: linear(&self.m1),
            ln1: norm(&self.ln1),
            m2: linear(&self.m2),
            m3: linear(&self.m3),
            ln2: norm(&self.ln2),
        }
    }
}

/// An encoder with pooling and head: op instances, and the plans that run them.
pub struct Graph {
    pub(crate) embed: Arc<EmbedNode>,
    pub(crate) emb_ln: Arc<NormNode>,
    /// From the embeddings' width to the encoder's, where they differ.
    pub(crate) projection: Option<Arc<LinearNode>>,
    pub(crate) layers: Vec<LayerOps>,
    /// The last layer as the poolers of first tokens need it.
    pub(crate) top: Option<LayerOps>,
    first: Arc<FirstNode>,
    pub(crate) pooler: Arc<PoolerNode>,
    pub(crate) head: Arc<HeadNode>,
    /// In the place of a head that is trained. It stands outside of the plans, for it reads but a few rows of the pooler's.
    mlm_head: Option<MaskedLm>,
    layout: Layout,
    numerics: Numerics,
    inference: Arc<TypedSimplePlan>,
    recycled: Arc<Mutex<Recycled>>,
}

type TypedSimplePlan = SimplePlan<TypedFact, Box<dyn TypedOp>>;

/// `saved_from` of a plan that saves nothing.
const NOTHING: usize = usize::MAX;

/// Where the outputs of a training plan stand, and from where on the graph saves.
pub struct TrainingPlan {
    plan: Arc<TypedSimplePlan>,
    /// Lowest layer that saves.
    saved_from: usize,
}

/// What a training forward leaves for the backward. Tensors are released as the backward takes them.
pub(crate) struct SavedLayer {
    pub qkv: TValue,
    pub ln1: (TValue, TValue),
    pub gelu: TValue,
    pub ln2: (TValue, TValue),
}

/// Result of a training forward.
pub(crate) struct Forward {
    pub logits: Array2<f32>,
    pub pooled: Array2<f32>,
    /// Of the pooler, where `pooled` does not tell it.
    pub kept: Option<TValue>,
    /// One entry a layer, `None` below the lowest that saves.
    pub layers: Vec<Option<SavedLayer>>,
    /// Keeps the memory of this size until the backward is done.
    _running: Running,
}

impl Graph {
    /// Takes back a saved tensor that the backward is done with.
    pub(crate) fn recycle(&self, saved: impl IntoIterator<Item = TValue>) {
        let mut recycled = adapter::lock(&self.recycled);
        saved.into_iter().for_each(|value| recycled.put(value));
    }
}

/// A saved tensor as the ops take it.
pub(crate) fn saved(t: &TValue) -> Values<'_> {
    adapter::typed(t).expect("an op saved it")
}

/// A saved vector of f32.
pub(crate) fn saved_vector(t: &TValue) -> &[f32] {
    adapter::values(t).expect("an op saved it")
}

impl Graph {
    /// The same with the head's two parameters under another name.
    pub fn with_head(self, name: &str) -> Graph {
        Graph { layout: self.layout.with_head(name), ..self }
    }

    /// The frozen head that guesses hidden words, where there is one.
    pub fn mlm_head(&self) -> Option<&MaskedLm> {
        self.mlm_head.as_ref()
    }

    /// The trainable parameters and their places.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The base's own biases and a head of zeros.
    pub fn initial_theta(&self, base: &Base) -> Result<Vec<f32>> {
        let mut theta = vec![0.0; self.layout.len()];
        for p in self.layout.iter().filter(|p| matches!(p.role, Role::Bias(..))) {
            theta[p.range.clone()].copy_from_slice(&base.vector(&p.name)?);
        }
        Ok(theta)
    }

    /// Width of the encoder.
    pub fn hidden(&self) -> usize {
        self.first.hidden
    }

    /// Number of encoder layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Whether the head reads every token, not one vector a text.
    pub fn reads_tokens(&self) -> bool {
        self.head.reads == HeadRows::Tokens
    }

    /// Width of what the head reads.
    pub fn features(&self) -> usize {
        match self.head.reads {
            HeadRows::Pairs => Pooling::Apart.features(self.hidden()),
            HeadRows::Tokens | HeadRows::Texts => self.hidden(),
        }
    }

    /// The dropout keys of a batch's examples, `[examples]`, and where the head's rows of each begin, `[examples + 1]`:
    /// one an example, or each of its tokens.
    pub(crate) fn head_rows(&self, batch: &Batch) -> (Vec<i64>, Vec<i32>) {
        match self.reads_windows() {
            true => self.head.reads.examples(&batch.example_keys, &batch.examples),
            false => self.head.reads.examples(&batch.keys, &batch.offsets),
        }
    }

    /// Whether a text may be several sequences, one behind the other.
    pub(crate) fn reads_windows(&self) -> bool {
        self.embed.shared.whole != self.embed.shared.batch
    }

    /// Number of outputs of the head.
    pub fn labels(&self) -> usize {
        self.head.labels
    }

    /// Whether an encoder layer gives the same for the same input every time: there is no dropout inside.
    pub fn is_fixed(&self) -> bool {
        self.emb_ln.dropout.p == 0.0
    }

    /// Bytes that a layer saves of each token for its backward.
    pub fn saved_bytes(&self) -> usize {
        let of = |outlets: Vec<adapter::Outlet>, from: usize| -> usize {
            let width = |shape: &[TDim]| shape.get(1).map_or(1, |cols| cols.to_usize().unwrap_or(0));
            outlets[from..].iter().map(|(dt, shape)| dt.size_of() * width(shape)).sum()
        };
        self.layers.first().map_or(0, |l| {
            let norms =
                of(l.ln1.outlets(true), l.ln1.activations()) + of(l.ln2.outlets(true), l.ln2.activations());
            of(l.qkv.outlets(true), 0) + norms + of(l.m2.outlets(true), l.m2.activations())
        })
    }

    /// How the arithmetic is done.
    pub fn numerics(&self) -> &Numerics {
        &self.numerics
    }

    /// A plan that saves for the backward from layer `saved_from` up.
    pub fn training_plan(&self, saved_from: usize) -> Result<TrainingPlan> {
        self.training_plan_from(Start::Tokens, saved_from)
    }

    fn training_plan_from(&self, start: Start, saved_from: usize) -> Result<TrainingPlan> {
        let (model, o) = self.wire(&self.scope()?, start, saved_from, Purpose::Pooled)?;
        let mut outputs = o.saved;
        outputs.extend([o.logits, o.pooled]);
        Ok(TrainingPlan { plan: plan(model, &outputs)?, saved_from })
    }

    /// Forward for inference. Returns logits `[examples, labels]` and pooled vectors `[examples, features]`; of tokens one row each.
    pub fn forward(&self, batch: &Batch, theta: &[f32]) -> Result<(Array2<f32>, Array2<f32>)> {
        let (out, _running) = self.run(&self.inference, batch, self.tokens(batch)?, theta)?;
        logits_and_pooled(&mut out.into_iter())
    }

    /// Forward that keeps what the backward needs.
    pub(crate) fn forward_training(
        &self,
        plan: &TrainingPlan,
        batch: &Batch,
        theta: &[f32],
    ) -> Result<Forward> {
        self.training(plan, batch, self.tokens(batch)?, theta)
    }

    fn training(&self, plan: &TrainingPlan, batch: &Batch, first: Tensor, theta: &[f32]) -> Result<Forward> {
        let (out, _running) = self.run(&plan.plan, batch, first, theta)?;
        let mut out = out.into_iter();
        let mut next =
            || out.next().ok_or_else(|| Error::Internal("the training plan lacks an output".into()));
        let mut layers = Vec::new();
        for layer in 0..self.layers.len() {
            layers.push(if layer >= plan.saved_from {
                Some(SavedLayer {
                    qkv: next()?,
                    ln1: (next()?, next()?),
                    gelu: next()?,
                    ln2: (next()?, next()?),
                })
            } else {
                None
            });
        }
        let kept = self.pooler.pooler.saves().then(next).transpose()?;
        let (logits, pooled) = logits_and_pooled(&mut out)?;
        Ok(Forward { logits, pooled, kept, layers, _running })
    }

    /// Hidden states `[rows, hidden]`: behind the embeddings and behind each layer.
    pub fn hidden_states(&self, batch: &Batch, theta: &[f32]) -> Result<Vec<Array2<f32>>> {
        let (model, o) = self.wire(&self.scope()?, Start::Tokens, NOTHING, Purpose::Hidden)?;
        let plan = plan(model, &o.hidden)?;
        let (out, _running) = self.run(&plan, batch, self.tokens(batch)?, theta)?;
        let mut out = out.into_iter();
        o.hidden.iter().map(|_| take(&mut out)).collect()
    }

    fn scope(&self) -> Result<SymbolScope> {
        match &self.embed.shared.rows {
            TDim::Sym(rows) => rows.scope().ok_or_else(|| Error::Internal("the symbols are gone".into())),
            other => Err(Error::Internal(format!("rows is {other}, not a symbol"))),
        }
    }

    /// What a plan from the tokens on begins with.
    fn tokens(&self, batch: &Batch) -> Result<Tensor> {
        Tensor::from_shape(&[3, batch.rows()], &batch.tokens).map_err(internal)
    }

    /// Runs a plan whose first input is `first`. The memory of the run's size is kept while [`Running`] is held.
    fn run(
        &self,
        plan: &Arc<TypedSimplePlan>,
        batch: &Batch,
        first: Tensor,
        theta: &[f32],
    ) -> Result<(TVec<TValue>, Running)> {
        self.check(batch, theta)?;
        let running = Running::start(&self.recycled, batch.rows());
        let inputs = (|| {
            let mut all = tvec![
                first.into_tvalue(),
                Tensor::from_shape(&[batch.offsets.len()], &batch.offsets)?.into_tvalue(),
                Tensor::from_shape(&[batch.keys.len()], &batch.keys)?.into_tvalue(),
                Tensor::from_shape(&[theta.len()], theta)?.into_tvalue(),
            ];
            if self.reads_windows() {
                all.push(Tensor::from_shape(&[batch.examples.len()], &batch.examples)?.into_tvalue());
                all.push(Tensor::from_shape(&[batch.example_keys.len()], &batch.example_keys)?.into_tvalue());
            }
            TractResult::Ok(all)
        })()
        .map_err(internal)?;
        Ok((plan.run(inputs).map_err(internal)?, running))
    }

    /// The kernels index tables by these ids, so they are checked here, once for every caller.
    fn check(&self, batch: &Batch, theta: &[f32]) -> Result<()> {
        let t = &self.embed.tables;
        let rows = batch.rows();
        let inside = |which: usize, n: usize| {
            batch.tokens[which * rows..][..rows].iter().all(|&i| i >= 0 && (i as usize) < n)
        };
        if batch.is_empty() || batch.offsets.windows(2).any(|o| o[0] >= o[1]) {
            return Err(Error::Config("a batch needs at least one text of at least one token".into()));
        }
        let each = if self.head.reads == HeadRows::Pairs { 2 } else { 1 };
        if batch.len() != each * batch.example_keys.len() && !self.reads_windows() {
            return Err(Error::Config(
                "examples of several sequences belong to a graph that compares or joins them".into(),
            ));
        }
        if !inside(0, t.word.rows()) || !t.types.as_ref().is_none_or(|types| inside(2, types.rows())) {
            return Err(Error::Config("a token id lies outside the base's embedding table".into()));
        }
        let longest = t.position.rows() - t.first;
        if !inside(1, longest) {
            return Err(Error::Config(format!("a text is longer than the base's {longest} positions")));
        }
        if theta.len() != self.layout.len() {
            let (has, wants) = (theta.len(), self.layout.len());
            return Err(Error::Config(format!("theta has {has} values, the model wants {wants}")));
        }
        Ok(())
    }
}

fn logits_and_pooled(out: &mut impl Iterator<Item = TValue>) -> Result<(Array2<f32>, Array2<f32>)> {
    Ok((take(out)?, take(out)?))
}

fn take(out: &mut impl Iterator<Item = TValue>) -> Result<Array2<f32>> {
    let value = out.next().ok_or_else(|| Error::Internal("the plan lacks an output".into()))?;
    let view: ArrayView2<f32> = adapter::matrix(&value).map_err(internal)?;
    Ok(view.to_owned())
}

/// An error of tract's is a bug of ours: what users can get wrong is checked before.
fn internal(e: TractError) -> Error {
    Error::Internal(format!("{e:#}"))
}
