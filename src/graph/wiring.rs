//! The ops wired into models: from the tokens up, or from the hidden state in front of a layer.

use super::adapter::{FusedOp, Keep, Recycled, Shim};
use super::nodes::StartNode;
use super::{Graph, NOTHING, TypedSimplePlan, internal};
use crate::error::Result;
use std::sync::{Arc, Mutex};
use tract_core::internal::*;

/// Where a model begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// At the embeddings.
    Tokens,
    /// In front of this layer; behind the last one where it is the number of layers.
    Layer(usize),
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Purpose {
    /// Pooled vectors and logits: rows of the last layer that the pooler does not read are left out.
    Pooled,
    /// Hidden states of all tokens.
    Hidden,
}

/// What a plan may have as outputs.
pub(super) struct Outlets {
    pub logits: OutletId,
    pub pooled: OutletId,
    /// The hidden state where the model begins, and behind each of its layers; of the last one what the [`Purpose`] needs.
    pub hidden: Vec<OutletId>,
    pub saved: Vec<OutletId>,
}

impl Graph {
    /// Wires the ops into a fresh model that saves from layer `saved_from` on.
    pub(super) fn wire(
        &self,
        scope: &SymbolScope,
        start: Start,
        saved_from: usize,
        wanted: Purpose,
    ) -> Result<(TypedModel, Outlets)> {
        let s = &self.embed.shared;
        let width = self.hidden();
        let mut model = TypedModel { symbols: scope.clone(), ..TypedModel::default() };
        let mut source =
            |name: &str, dt: DatumType, shape: TVec<TDim>| model.add_source(name, dt.fact(shape));
        let sources = (|| {
            TractResult::Ok((
                match start {
                    Start::Tokens => source("tokens", DatumType::I32, tvec![3.to_dim(), s.rows.clone()])?,
                    Start::Layer(_) => source("x", DatumType::F16, tvec![s.rows.clone(), width.to_dim()])?,
                },
                source("offsets", DatumType::I32, tvec![s.batch.clone() + 1])?,
                source("keys", DatumType::I64, tvec![s.batch.clone()])?,
                source("theta", DatumType::F32, tvec![self.layout.len().to_dim()])?,
                match self.reads_windows() {
                    false => None,
                    true => Some((
                        source("whole_offsets", DatumType::I32, tvec![s.whole.clone() + 1])?,
                        source("whole_keys", DatumType::I64, tvec![s.whole.clone()])?,
                    )),
                },
            ))
        })();
        let (first, mut offsets, keys, theta, whole) = sources.map_err(internal)?;
        let mut w = Wiring { model, recycled: self.recycled.clone(), saved: Vec::new() };
        // x is an activation as residuals take it, x_q as a Linear reads it: in reference mode the same.
        let (begin, (mut x, mut x_q)) = match start {
            Start::Tokens => {
                let e = w.one("embed", &self.embed, false, &[first])?;
                let mut x = w.twice("emb_ln", &self.emb_ln, false, &[e, offsets, keys, theta])?;
                if let Some(projection) = &self.projection {
                    x = w.twice("emb_proj", projection, false, &[x.1, theta])?;
                }
                (0, x)
            }
            Start::Layer(layer) => {
                let read = layer < self.layers.len();
                let node = Arc::new(StartNode { shared: s.clone(), hidden: width, read });
                let outlets = w.add("start".into(), &node, false, &[first])?;
                (layer, (outlets[0], outlets[outlets.len() - 1]))
            }
        };
        let mut hidden = vec![x];
        let top = self.top.as_ref().filter(|_| wanted == Purpose::Pooled);
        for (l, mut ops) in self.layers.iter().enumerate().skip(begin) {
            let save = l >= saved_from;
            let top = top.filter(|_| l + 1 == self.layers.len());
            ops = top.unwrap_or(ops);
            let name = |op: &str| format!("layer.{l}.{op}");
            let qkv = w.one(name("qkv"), &ops.qkv, save, &[x_q, theta])?;
            if save {
                w.saved.push(qkv);
            }
            let ctx = w.one(name("attention"), &ops.attention, save, &[qkv, offsets])?;
            if top.is_some() {
                let first = w.add(name("first"), &self.first, false, &[x, offsets])?;
                (x, offsets) = (first[0], first[1]);
            }
            let a = w.one(name("m1"), &ops.m1, save, &[ctx, theta])?;
            let (h, h_q) = w.twice(name("ln1"), &ops.ln1, save, &[a, x, offsets, keys, theta])?;
            let f = w.one(name("m2"), &ops.m2, save, &[h_q, theta])?;
            let o = w.one(name("m3"), &ops.m3, save, &[f, theta])?;
            (x, x_q) = w.twice(name("ln2"), &ops.ln2, save, &[o, h, offsets, keys, theta])?;
            hidden.push(x);
        }
        let (offsets, keys) = whole.unwrap_or((offsets, keys));
        let pooled = w.one("pooler", &self.pooler, saved_from != NOTHING, &[x, offsets, theta])?;
        let logits = w.one("head", &self.head, false, &[pooled, offsets, keys, theta])?;
        Ok((w.model, Outlets { logits, pooled, hidden, saved: w.saved }))
    }
}

struct Wiring {
    model: TypedModel,
    recycled: Arc<Mutex<Recycled>>,
    saved: Vec<OutletId>,
}

impl Wiring {
    /// Wires an op; returns what it hands on.
    fn add<T: FusedOp + 'static>(
        &mut self,
        name: String,
        op: &Arc<T>,
        save: bool,
        inputs: &[OutletId],
    ) -> Result<TVec<OutletId>> {
        let shim = Shim { op: op.clone(), save, recycled: self.recycled.clone() };
        let keep = format!("{name}.keep");
        let mut outlets = self.model.wire_node(name, shim, inputs).map_err(internal)?;
        let saved: TVec<OutletId> = outlets.drain(op.activations()..).collect();
        if !saved.is_empty() {
            self.saved.extend(self.model.wire_node(keep, Keep, &saved).map_err(internal)?);
        }
        Ok(outlets)
    }

    /// Wires an op that hands on one activation.
    fn one<T: FusedOp + 'static>(
        &mut self,
        name: impl Into<String>,
        op: &Arc<T>,
        save: bool,
        inputs: &[OutletId],
    ) -> Result<OutletId> {
        Ok(self.add(name.into(), op, save, inputs)?[0])
    }

    /// Wires an op in front of a Linear; returns its output and the same as the Linear reads it.
    fn twice<T: FusedOp + 'static>(
        &mut self,
        name: impl Into<String>,
        op: &Arc<T>,
        save: bool,
        inputs: &[OutletId],
    ) -> Result<(OutletId, OutletId)> {
        let outlets = self.add(name.into(), op, save, inputs)?;
        Ok((outlets[0], outlets[outlets.len() - 1]))
    }
}

/// The plan that computes these outputs, in their order, and nothing that they do not need. Saved tensors come first, in
/// network order, so that each leaves its node as soon as it is there.
pub(super) fn plan(model: TypedModel, outputs: &[OutletId]) -> Result<Arc<TypedSimplePlan>> {
    let options = RunOptions { skip_order_opt_ram: true, ..RunOptions::default() };
    let model = model.with_output_outlets(outputs).map_err(internal)?;
    SimplePlan::new_with_options(model, &options).map_err(internal)
}
