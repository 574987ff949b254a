//! The layers in reverse: from the gradient of the logits to the gradient of every wanted bias of the encoder.
//!
//! Each block names the forward line above the line that differentiates it. The walk stops at the lowest
//! trained bias; below it nothing is computed.

use super::exact::ExactSum;
use crate::graph::{Batch, Forward, Graph, NormNode, saved, saved_vector};
use crate::kernels::{Block, blocks};
use crate::ops::linear::{InputGrad, Linear};
use crate::ops::{
    Numerics, Values, ValuesMut, add_norm, attention, head, linear, pooler, quantize, text_sums,
};
use crate::params::{Layout, Role, Term, Terms};
use bytemuck::Zeroable;
use std::ops::Range;
use tract_core::prelude::TValue;
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2, ArrayViewMut2};

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
/// Those below the layers.
const BELOW: usize = 2;

fn depth(term: Term, layer: usize, depth_of_encoder: usize) -> usize {
    let in_layer = |i: usize| BELOW + layer * DEPTHS + i;
    match term {
        Term::EmbLn => 0,
        Term::EmbProj => 1,
        Term::Q | Term::K | Term::V => in_layer(0),
        Term::M1 => in_layer(1),
        Term::Ln1 => in_layer(2),
        Term::M2 => in_layer(3),
        Term::M3 => in_layer(4),
        Term::Ln2 => in_layer(5),
        Term::Pooler => BELOW + depth_of_encoder * DEPTHS,
    }
}

impl Selection {
    /// `terms` in the layers `layers` of an encoder of `depth` layers. What belongs to the embeddings counts
    /// to layer 0 and the pooler to the last.
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

    /// Whether the bias `term` of `layer` is trained. For `emb_ln`, `emb_proj` and `pooler` the layer does not matter.
    pub fn wants(&self, term: Term, layer: usize) -> bool {
        let layer = match term {
            Term::EmbLn | Term::EmbProj => 0,
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

    /// The layer of the lowest trained bias, below which nothing is; the number of layers if it is the pooler's or
    /// there is none.
    pub fn lowest_layer(&self) -> usize {
        (self.lowest.saturating_sub(BELOW) / DEPTHS).min(self.depth)
    }

    fn pooler_depth(&self) -> usize {
        depth(Term::Pooler, 0, self.depth)
    }

    /// Whether any bias is trained, at or below the pooler.
    fn reaches_pooled(&self) -> bool {
        self.lowest <= self.pooler_depth()
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

/// Memory of a backward, kept from one to the next.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Two gradients `[rows, hidden]` that take turns, and one with dropout's mask.
    d: [Vec<f32>; 3],
    /// Gradients on their way into a Linear: of hidden width, of the intermediate one, of q, k and v.
    narrow: Rows,
    wide: Rows,
    qkv: Rows,
    /// Gradients of biases by text.
    sums: Vec<f32>,
}

/// Rows as a Linear takes them: quantized, or f32 in reference mode.
#[derive(Default)]
struct Rows {
    blocks: Vec<Block>,
    plain: Vec<f32>,
}

impl Rows {
    /// Memory for `parts` times `width` columns.
    fn sized(&mut self, num: &Numerics, rows: usize, parts: usize, width: usize) {
        match num {
            Numerics::Int8(_) => grow(&mut self.blocks, rows * parts * blocks(width), Block::zeroed()),
            Numerics::Reference => grow(&mut self.plain, rows * parts * width, 0.0),
        }
    }

    fn values(&self, num: &Numerics) -> Values<'_> {
        match num {
            Numerics::Int8(_) => Values::I8(&self.blocks),
            Numerics::Reference => Values::F32(&self.plain),
        }
    }

    fn values_mut(&mut self, num: &Numerics) -> ValuesMut<'_> {
        match num {
            Numerics::Int8(_) => ValuesMut::I8(&mut self.blocks),
            Numerics::Reference => ValuesMut::F32(&mut self.plain),
        }
    }
}

/// Sets the length; what is there stays, whatever it is.
fn grow<T: Clone>(x: &mut Vec<T>, len: usize, fresh: T) {
    x.truncate(len);
    x.resize(len, fresh);
}

/// What the steps of the walk share.
struct Walk<'a> {
    num: &'a Numerics,
    layout: &'a Layout,
    selection: &'a Selection,
    batch: &'a Batch,
    /// `[texts + 1]`: where the rows of each text begin, in the layer at hand.
    offsets: &'a [i32],
    hidden: usize,
    masked: &'a mut Vec<f32>,
    sums: &'a mut Vec<f32>,
    grad: &'a mut ExactSum,
}

impl Walk<'_> {
    /// Memory `[texts, width]` for the gradient of a bias by text.
    fn by_text(&mut self, width: usize) -> &mut [f32] {
        grow(self.sums, self.batch.len() * width, 0.0);
        self.sums
    }

    /// Adds what lies in that memory, from column `first` of `width` on, to the gradient of a bias.
    fn add(&mut self, range: Range<usize>, first: usize, width: usize) {
        for text in self.sums.chunks_exact(width) {
            self.grad.add(range.clone(), &text[first..][..range.len()]);
        }
    }

    /// `d_b = Σ_rows d`, where the bias is wanted.
    fn bias(&mut self, term: Term, layer: usize, d: &[f32]) {
        if self.selection.wants(term, layer) {
            let (num, offsets, hidden) = (self.num, self.offsets, self.hidden);
            text_sums(num, d, hidden, offsets, self.by_text(hidden));
            self.add(self.layout.bias(term, layer), 0, hidden);
        }
    }

    /// `y = norm(drop(branch) + residual)`: from `d_y` to `d_s`, the gradient of the sum, which is the residual's. The
    /// branch's, which dropout masks, goes to the bias `term` and to `to`, ready for the branch's Linear.
    #[allow(clippy::too_many_arguments)]
    fn norm(
        &mut self,
        node: &NormNode,
        (n, rstd): &(TValue, TValue),
        d_y: &[f32],
        d_s: &mut [f32],
        (branch, term, layer): (&Linear, Term, usize),
        to: &mut Rows,
    ) {
        let (hidden, drops) = (self.hidden, node.dropout.p > 0.0);
        to.sized(self.num, d_s.len() / hidden, 1, hidden);
        let fold = branch.parts[0].scale();
        let at_once = (!drops && matches!(self.num, Numerics::Int8(_))).then_some((fold, &mut to.blocks[..]));
        add_norm::backward(self.num, d_y, (saved(n), saved_vector(rstd)), &node.gain, d_s, at_once);
        let mut masked = std::mem::take(self.masked);
        let mut d = &*d_s;
        if drops {
            masked.clear();
            masked.extend_from_slice(d_s);
            node.dropout.apply_rows(self.batch.keys(), self.offsets, hidden, &mut masked);
            d = &masked;
        }
        self.bias(term, layer, d);
        match self.num {
            Numerics::Int8(k) if drops => quantize(&**k, d, hidden, Some(fold), &mut to.blocks),
            Numerics::Int8(_) => {}
            Numerics::Reference => to.plain.copy_from_slice(d),
        }
        *self.masked = masked;
    }
}

/// Adds the gradients of one batch's biases to `grad`, which has the layout of theta. Those of the head are left to
/// [`head::parameters`].
///
/// `d_logits: [batch, labels]`. Uses up `f`: saved tensors are released as the walk passes them.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward(
    graph: &Graph,
    selection: &Selection,
    f: Forward,
    batch: &Batch,
    theta: &[f32],
    d_logits: &Array2<f32>,
    work: &mut Workspace,
    grad: &mut ExactSum,
) {
    let h = &graph.head;
    if !selection.reaches_pooled() {
        return;
    }
    // logits = drop(pooled) Wᵀ + b
    let mut d_pooled = Array2::zeros(f.pooled.raw_dim());
    let (keys, rows) = graph.head_rows(batch);
    let (num, d_y) = (graph.numerics(), d_logits.view());
    head::backward(num, d_y, h.dropout, (&keys, &rows), h.weight_of(theta), d_pooled.view_mut());
    backward_pooled(graph, selection, f, batch, d_pooled.view(), work, grad);
}

/// The same from the gradient of the pooled vectors on, `d_pooled: [examples, features]`.
pub(crate) fn backward_pooled(
    graph: &Graph,
    selection: &Selection,
    f: Forward,
    batch: &Batch,
    d_pooled: ArrayView2<f32>,
    work: &mut Workspace,
    grad: &mut ExactSum,
) {
    let (num, layout, all) = (graph.numerics(), graph.layout(), batch.offsets());
    let (hidden, texts) = (graph.hidden(), batch.len());
    // Where the last layer is of first tokens, so are its gradients, down to its attention.
    let first: Vec<i32> = (0..).take(texts + 1).collect();
    let offsets = if graph.top.is_some() { &first[..] } else { all };
    let mut rows = if graph.top.is_some() { texts } else { batch.rows() };
    let lowest = selection.lowest;
    let Workspace { d: [d_x, d_s, masked], narrow, wide, qkv, sums } = work;
    let mut walk = Walk { num, layout, selection, batch, offsets, hidden, masked, sums, grad };

    if !selection.reaches_pooled() {
        return;
    }
    // pooled = pool(x)
    grow(d_x, rows * hidden, 0.0);
    grow(d_s, rows * hidden, 0.0);
    {
        let p = &graph.pooler;
        let wanted = selection.wants(Term::Pooler, 0) && !p.bias.is_empty();
        let d_b = walk.by_text(hidden);
        let view = ArrayViewMut2::from_shape((rows, hidden), d_x).expect("its shape");
        let below = (lowest < selection.pooler_depth()).then_some(view);
        let kept = (f.pooled.view(), f.kept.as_ref().map_or(&[][..], saved_vector));
        let offsets = if graph.reads_windows() { batch.examples() } else { offsets };
        pooler::backward(num, &p.pooler, d_pooled, kept, offsets, Some(d_b), below);
        if wanted {
            walk.add(p.bias.clone(), 0, hidden);
        }
    }

    for (l, (mut ops, saved_layer)) in graph.layers.iter().zip(f.layers).enumerate().rev() {
        let top = graph.top.as_ref().filter(|_| l + 1 == selection.depth);
        ops = top.unwrap_or(ops);
        let offsets = walk.offsets;
        let at = |term: Term| depth(term, l, selection.depth);
        if lowest > at(Term::Ln2) {
            return;
        }
        let kept = saved_layer.expect("the plan saves from the lowest trained layer up");

        // x' = ln2(drop(o) + h), o = f W_m3ᵀ + b_m3
        walk.bias(Term::Ln2, l, d_x);
        if lowest == at(Term::Ln2) {
            return;
        }
        walk.norm(&ops.ln2, &kept.ln2, d_x, d_s, (&ops.m3.linear, Term::M3, l), narrow);
        graph.recycle([kept.ln2.0, kept.ln2.1]);
        if lowest == at(Term::M3) {
            return;
        }

        // f = gelu(h W_m2ᵀ + b_m2)
        let width = ops.m2.linear.out();
        wide.sized(num, rows, 1, width);
        let wanted = selection.wants(Term::M2, l);
        let d_z = InputGrad::Gelu {
            derivative: saved(&kept.gelu),
            offsets,
            d_b: wanted.then(|| walk.by_text(width)),
            below: &ops.m2.linear,
            d_z: wide.values_mut(num),
        };
        linear::backward(num, &ops.m3.linear, narrow.values(num), d_z);
        graph.recycle([kept.gelu]);
        if wanted {
            walk.add(layout.bias(Term::M2, l), 0, width);
        }
        if lowest == at(Term::M2) {
            return;
        }

        // The residual of ln2 joins: d_h = d_s + d_z W_m2
        linear::backward(num, &ops.m2.linear, wide.values(num), InputGrad::Add(d_s));
        let d_h = d_s.as_mut_slice();

        // h = ln1(drop(a) + x), a = ctx W_m1ᵀ + b_m1
        walk.bias(Term::Ln1, l, d_h);
        if lowest == at(Term::Ln1) {
            return;
        }
        walk.norm(&ops.ln1, &kept.ln1, d_h, d_x, (&ops.m1.linear, Term::M1, l), narrow);
        graph.recycle([kept.ln1.0, kept.ln1.1]);
        if lowest == at(Term::M1) {
            return;
        }

        // ctx = attention(qkv); the values of d_h are used up, its memory is not
        let d_ctx = d_h;
        linear::backward(num, &ops.m1.linear, narrow.values(num), InputGrad::Set(d_ctx));
        qkv.sized(num, batch.rows(), 3, hidden);
        let (heads, queries, below) = (ops.attention.heads, ops.attention.queries, &ops.qkv.linear);
        let (d_qkv, d_b) = (qkv.values_mut(num), walk.by_text(3 * hidden));
        attention::backward(num, heads, queries, d_ctx, saved(&kept.qkv), all, below, d_qkv, d_b);
        graph.recycle([kept.qkv]);
        for (part, term) in [Term::Q, Term::K, Term::V].into_iter().enumerate() {
            if selection.wants(term, l) {
                walk.add(layout.bias(term, l), part * hidden, 3 * hidden);
            }
        }
        if lowest >= at(Term::Q) {
            return;
        }

        // The residual of ln1 reaches as few rows as there were, keys and values those of all tokens.
        if top.is_some() {
            (walk.offsets, rows) = (all, batch.rows());
            d_s.clear();
            d_s.resize(rows * hidden, 0.0);
            for (d, at) in d_x.chunks_exact(hidden).zip(all) {
                d_s[*at as usize * hidden..][..hidden].copy_from_slice(d);
            }
            std::mem::swap(d_x, d_s);
            grow(d_s, rows * hidden, 0.0);
        }

        // qkv = x W_qkvᵀ + b_qkv; the residual of ln1 joins: d_x = d_s + d_qkv W_qkv
        linear::backward(num, &ops.qkv.linear, qkv.values(num), InputGrad::Add(d_x));
    }

    // x = drop(emb_ln(e)) W_projᵀ + b_proj, where there is a projection
    if let Some(projection) = &graph.projection {
        walk.bias(Term::EmbProj, 0, d_x);
        if lowest == depth(Term::EmbProj, 0, selection.depth) {
            return;
        }
        let projection = &projection.linear;
        narrow.sized(num, rows, 1, hidden);
        match num {
            Numerics::Int8(k) => {
                quantize(&**k, d_x, hidden, Some(projection.parts[0].scale()), &mut narrow.blocks)
            }
            Numerics::Reference => narrow.plain.copy_from_slice(d_x),
        }
        walk.hidden = projection.input();
        grow(d_s, rows * walk.hidden, 0.0);
        linear::backward(num, projection, narrow.values(num), InputGrad::Set(d_s));
        std::mem::swap(d_x, d_s);
    }

    // x = drop(emb_ln(e)): the lowest bias of all, and nothing below to carry a gradient to
    graph.emb_ln.dropout.apply_rows(batch.keys(), all, walk.hidden, d_x);
    walk.bias(Term::EmbLn, 0, d_x);
}
