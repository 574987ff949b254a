//! The layers in reverse: from the gradient of the logits to the gradient of every wanted bias.
//!
//! Each block names the forward line above the line that differentiates it. The walk stops at the lowest
//! trained bias; below it nothing is computed.

use crate::error::Result;
use crate::graph::{Batch, Forward, Graph, NormNode, TrainingPlan, saved, saved_vector};
use crate::ops::linear::InputGrad;
use crate::ops::{add_norm, add_rows, attention, head, linear, pooler};
use crate::params::{Layout, Role, Term, Terms};
use std::ops::Range;
use tract_core::prelude::tract_ndarray::{Array2, Array3};

/// Which biases are trained. The head always is.
#[derive(Clone, Debug)]
pub struct Selection {
    terms: Terms,
    layers: Range<usize>,
    depth: usize,
    lowest: usize,
}

/// Trainable places of a layer from the bottom up; q, k and v stand at one depth.
const DEPTHS: usize = 6;

fn depth(term: Term, layer: usize, depth_of_encoder: usize) -> usize {
    let in_layer = |i: usize| 1 + layer * DEPTHS + i;
    match term {
        Term::EmbLn => 0,
        Term::Q | Term::K | Term::V => in_layer(0),
        Term::M1 => in_layer(1),
        Term::Ln1 => in_layer(2),
        Term::M2 => in_layer(3),
        Term::M3 => in_layer(4),
        Term::Ln2 => in_layer(5),
        Term::Pooler => 1 + depth_of_encoder * DEPTHS,
    }
}

impl Selection {
    /// `terms` in the layers `layers` of an encoder of `depth` layers. The embedding's LayerNorm counts to
    /// layer 0 and the pooler to the last.
    pub fn new(terms: Terms, layers: Range<usize>, depth_of_encoder: usize) -> Selection {
        let mut s = Selection { terms, layers, depth: depth_of_encoder, lowest: usize::MAX };
        for term in s.terms.clone().iter() {
            for layer in 0..depth_of_encoder {
                if s.wants(term, layer) {
                    s.lowest = s.lowest.min(depth(term, layer, depth_of_encoder));
                }
            }
        }
        s
    }

    /// Whether the bias `term` of `layer` is trained. For `emb_ln` and `pooler` the layer does not matter.
    pub fn wants(&self, term: Term, layer: usize) -> bool {
        let layer = match term {
            Term::EmbLn => 0,
            Term::Pooler => self.depth.saturating_sub(1),
            _ => layer,
        };
        self.terms.contains(term) && self.layers.contains(&layer)
    }

    /// Whether a parameter of the layout is trained.
    pub fn wants_role(&self, role: Role) -> bool {
        match role {
            Role::Bias(term, layer) => self.wants(term, layer.unwrap_or(0)),
            Role::HeadWeight | Role::HeadBias => true,
        }
    }

    /// The terms asked for.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The layers asked for.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// The plan that saves what this selection's backward reads, and no more.
    pub fn plan(&self, graph: &Graph) -> Result<TrainingPlan> {
        let layer = self.lowest.saturating_sub(1) / DEPTHS;
        graph.training_plan(layer.min(self.depth))
    }

    /// Number of trained values: biases, head.
    pub fn count(&self, layout: &Layout) -> (usize, usize) {
        let mut n = (0, 0);
        for p in layout.iter().filter(|p| self.wants_role(p.role)) {
            match p.role {
                Role::Bias(..) => n.0 += p.range.len(),
                _ => n.1 += p.range.len(),
            }
        }
        n
    }
}

/// Adds the gradients of one batch to `grad`, which has the layout of theta.
///
/// `d_logits: [batch, labels]`. Uses up `f`: saved tensors are released as the walk passes them.
pub(crate) fn backward(
    graph: &Graph,
    selection: &Selection,
    f: Forward,
    batch: &Batch,
    theta: &[f32],
    d_logits: &Array2<f32>,
    grad: &mut [f32],
) {
    let num = graph.numerics();
    let layout = graph.layout();
    let offsets = batch.offsets();
    let hidden = f.pooled.ncols();
    let lowest = selection.lowest;
    let zeros = |rows: usize, cols: usize| Array2::<f32>::zeros((rows, cols));
    // What dropout lets through of a gradient; the gradient itself where nothing drops.
    let masked = |node: &NormNode, d: &Array2<f32>| -> Option<Array2<f32>> {
        (node.dropout.p > 0.0).then(|| {
            let mut d = d.clone();
            let rows = d.as_slice_mut().expect("row-major tensor");
            node.dropout.apply_rows(batch.keys(), offsets, hidden, rows);
            d
        })
    };

    // logits = drop(pooled) Wᵀ + b
    let h = &graph.head;
    let pooler_depth = 1 + selection.depth * DEPTHS;
    let mut d_pooled = zeros(batch.len(), hidden);
    {
        let (d_w, d_b) = grad[h.weight.start..h.bias.end].split_at_mut(h.weight.len());
        let below = (lowest <= pooler_depth).then(|| d_pooled.view_mut());
        let (p, w) = (f.pooled.view(), h.weight_of(theta));
        head::backward(d_logits.view(), p, h.dropout, batch.keys(), w, d_w, d_b, below);
    }
    if lowest > pooler_depth {
        return;
    }

    // pooled = pool(x)
    let mut d_x = zeros(batch.rows(), hidden);
    {
        let p = &graph.pooler;
        let d_b = selection.wants(Term::Pooler, 0).then(|| &mut grad[p.bias.clone()]);
        let below = (lowest < pooler_depth).then(|| d_x.view_mut());
        pooler::backward(num, &p.pooler, d_pooled.view(), f.pooled.view(), offsets, d_b, below);
    }

    for (l, (ops, saved_layer)) in graph.layers.iter().zip(f.layers).enumerate().rev() {
        let at = |term: Term| depth(term, l, selection.depth);
        if lowest > at(Term::Ln2) {
            return;
        }
        let kept = saved_layer.expect("the plan saves from the lowest trained layer up");
        let place = |term: Term| selection.wants(term, l).then(|| layout.bias(term, l));

        // x' = ln2(drop(o) + h)
        let mut d_s = zeros(batch.rows(), hidden);
        let n = (saved(&kept.ln2.0), saved_vector(&kept.ln2.1));
        let d_b = place(Term::Ln2).map(|r| &mut grad[r]);
        add_norm::backward(num, d_x.view(), n, &ops.ln2.gain, d_b, d_s.view_mut());
        graph.recycle([kept.ln2.0, kept.ln2.1]);
        if lowest == at(Term::Ln2) {
            return;
        }

        // o = f W_m3ᵀ + b_m3
        let dropped = masked(&ops.ln2, &d_s);
        let d_o = dropped.as_ref().unwrap_or(&d_s).view();
        let mut d_f = zeros(batch.rows(), ops.m2.linear.out());
        let below = if lowest < at(Term::M3) { InputGrad::Set(d_f.view_mut()) } else { InputGrad::None };
        let d_b = place(Term::M3).map(|r| &mut grad[r]);
        linear::backward(num, &ops.m3.linear, &[d_o], &mut [d_b], below);
        if lowest == at(Term::M3) {
            return;
        }

        // f = gelu(h W_m2ᵀ + b_m2); the residual of ln2 joins: d_h = d_s + d_f W_m2
        linear::gelu_backward(num, d_f.view_mut(), saved(&kept.gelu));
        graph.recycle([kept.gelu]);
        let mut d_h = d_s;
        let below = if lowest < at(Term::M2) { InputGrad::Add(d_h.view_mut()) } else { InputGrad::None };
        let d_b = place(Term::M2).map(|r| &mut grad[r]);
        linear::backward(num, &ops.m2.linear, &[d_f.view()], &mut [d_b], below);
        if lowest == at(Term::M2) {
            return;
        }

        // h = ln1(drop(a) + x)
        let mut d_s = zeros(batch.rows(), hidden);
        let n = (saved(&kept.ln1.0), saved_vector(&kept.ln1.1));
        let d_b = place(Term::Ln1).map(|r| &mut grad[r]);
        add_norm::backward(num, d_h.view(), n, &ops.ln1.gain, d_b, d_s.view_mut());
        graph.recycle([kept.ln1.0, kept.ln1.1]);
        if lowest == at(Term::Ln1) {
            return;
        }

        // a = ctx W_m1ᵀ + b_m1
        let dropped = masked(&ops.ln1, &d_s);
        let d_a = dropped.as_ref().unwrap_or(&d_s).view();
        let mut d_ctx = d_h; // its values are used up; its memory is not
        let below = if lowest < at(Term::M1) { InputGrad::Set(d_ctx.view_mut()) } else { InputGrad::None };
        let d_b = place(Term::M1).map(|r| &mut grad[r]);
        linear::backward(num, &ops.m1.linear, &[d_a], &mut [d_b], below);
        if lowest == at(Term::M1) {
            return;
        }

        // ctx = attention(qkv)
        let mut d_qkv = Array3::<f32>::zeros((3, batch.rows(), hidden));
        let heads = ops.attention.heads;
        attention::backward(num, heads, d_ctx.view(), saved(&kept.qkv), offsets, d_qkv.view_mut());
        graph.recycle([kept.qkv]);

        // qkv = x W_qkvᵀ + b_qkv; the residual of ln1 joins: d_x = d_s + d_qkv W_qkv
        d_x = d_s;
        let below = if lowest < at(Term::Q) { InputGrad::Add(d_x.view_mut()) } else { InputGrad::None };
        let three = layout.bias(Term::Q, l).start..layout.bias(Term::V, l).end;
        let mut d_b: Vec<_> = grad[three]
            .chunks_exact_mut(hidden)
            .zip([Term::Q, Term::K, Term::V])
            .map(|(d_b, term)| selection.wants(term, l).then_some(d_b))
            .collect();
        let parts: Vec<_> = d_qkv.outer_iter().collect();
        linear::backward(num, &ops.qkv.linear, &parts, &mut d_b, below);
        if lowest >= at(Term::Q) {
            return;
        }
    }

    // x = drop(emb_ln(e)): the lowest bias of all, and nothing below to carry a gradient to
    let dropped = masked(&graph.emb_ln, &d_x);
    let d_x = dropped.as_ref().unwrap_or(&d_x);
    let d_b = &mut grad[layout.bias(Term::EmbLn, 0)];
    add_rows(num, d_x.as_slice().expect("row-major tensor"), d_b);
}
