//! Follows a graph from its inputs and says what each value means in an encoder.
//!
//! No name counts, only what flows where: a product of a LayerNorm's output with a stored matrix is a Linear, that of
//! two Linears attention scores, and so on. A node that does something else to such a value ends there; the first
//! of them is kept as the misfit, with what was expected. Whether it matters is known at the end: heads are
//! allowed to be anything.

use super::axes::{self, Axes, Digit, Part, whole};
use super::meaning::*;
use super::tensor::{Dtype, Files, Stored};
use std::collections::BTreeMap;
use tract_core::internal::*;
use tract_core::ops::array::{Gather, Slice};
use tract_core::ops::cast::Cast;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::nn::{Reduce, RmsNorm, Softmax};
use tract_core::ops::quant::DequantizeLinearF32;
use tract_core::ops::source::TypedSource;

/// Primes, as sizes of open dimensions; no real size is a multiple of one.
const OPEN: [i64; 8] = [1000003, 1000033, 1000037, 1000039, 1000081, 1000099, 1000117, 1000121];

/// What was understood of a graph.
pub(super) struct Reader<'a> {
    stored: &'a BTreeMap<String, Stored>,
    files: &'a Files,
    sizes: SymbolValues,
    /// Names of the model's inputs.
    pub inputs: Vec<&'a str>,
    values: Vec<TVec<Value>>,
    pub linears: Vec<Linear>,
    pub norms: Vec<Norm>,
    pub attentions: Vec<Attention>,
    /// Functions seen of each Linear.
    pub functions: Vec<(usize, Function)>,
    /// Products of two values, neither of which is stored: two an attention.
    pub loose_products: Vec<String>,
    /// The first node that does what no encoder does.
    pub misfit: Option<String>,
}

/// What was expected of a node; nothing if nobody cares.
pub(super) type Expected = Option<&'static str>;

impl<'a> Reader<'a> {
    /// Follows `model`, whose inputs are `inputs` and the tensors in `stored`.
    pub fn read(
        model: &'a TypedModel,
        stored: &'a BTreeMap<String, Stored>,
        files: &'a Files,
        inputs: &'a [String],
    ) -> Result<Reader<'a>, String> {
        let mut symbols: Vec<Symbol> = Vec::new();
        for fact in model.nodes().iter().flat_map(|n| &n.outputs) {
            for symbol in fact.fact.shape.iter().flat_map(|d| d.symbols()) {
                if !symbols.contains(&symbol) {
                    symbols.push(symbol);
                }
            }
        }
        if symbols.len() > OPEN.len() {
            return Err(format!("{} dimensions of open size; expected batch and sequence", symbols.len()));
        }
        let mut sizes = SymbolValues::default();
        symbols.iter().zip(OPEN).for_each(|(s, n)| sizes.set(s, n));
        let mut reader = Reader {
            stored,
            files,
            sizes,
            inputs: inputs.iter().map(String::as_str).collect(),
            values: vec![TVec::new(); model.nodes().len()],
            linears: Vec::new(),
            norms: Vec::new(),
            attentions: Vec::new(),
            functions: Vec::new(),
            loose_products: Vec::new(),
            misfit: None,
        };
        for id in model.eval_order().map_err(|e| e.to_string())? {
            let node = model.node(id);
            let unknown = Value { what: What::Unknown, axes: Vec::new() };
            let mut values = match reader.node(node) {
                Ok(values) => values,
                Err(expected) => {
                    reader.misfit(node, expected);
                    TVec::new()
                }
            };
            values.resize(node.outputs.len(), unknown);
            reader.values[id] = values;
        }
        Ok(reader)
    }

    fn misfit(&mut self, node: &TypedNode, expected: Expected) {
        let concerns = |v: &Value| match v.what {
            What::Unknown | What::Number(_) | What::Stored(_) | What::Input(_) => false,
            What::Masking(_) | What::Index(_) => false,
            // What heads do to the last hidden states is no concern, unless it was said what was expected.
            What::Flow(_) => expected.is_some(),
            _ => true,
        };
        let concerned = node.inputs.iter().any(|i| concerns(&self.values[i.node][i.slot]));
        if self.misfit.is_none() && concerned {
            let expected = expected.unwrap_or("what an encoder does there");
            self.misfit = Some(format!("node `{}` ({}): expected {expected}", node.name, node.op.name()));
        }
    }

    fn node(&mut self, node: &TypedNode) -> Result<TVec<Value>, Expected> {
        let inputs: Vec<Value> = node.inputs.iter().map(|i| self.values[i.node][i.slot].clone()).collect();
        let one = |what| Ok(tvec!(Value { what, axes: Vec::new() }));
        if let Some(constant) = node.outputs.first().and_then(|o| o.fact.konst.as_ref()) {
            return one(match number(constant) {
                Some(n) => What::Number(n),
                // Positions of a text of fixed length.
                None => index(&integers(constant).unwrap_or_default()),
            });
        }
        if node.op_is::<TypedSource>() {
            return self.source(node).map(|v| tvec!(v));
        }
        let name = node.op.name();
        if let Some(op) = node.op_as::<AxisOp>() {
            return self.change(op, &inputs[0]).map(|v| tvec!(v));
        }
        if let Some(op) = node.op_as::<EinSum>() {
            return self.product(node, op, &inputs).map(|v| tvec!(v));
        }
        if let Some(op) = node.op_as::<Gather>() {
            return self.gather(op, node, &inputs).map(|v| tvec!(v));
        }
        let first = inputs.first().cloned().ok_or(None)?;
        if let Some(op) = node.op_as::<Slice>() {
            return self.slice(op, first).map(|v| tvec!(v));
        }
        if node.op_is::<Cast>() || matches!(&*name, "Identity" | "MultiBroadcastTo") {
            return Ok(tvec!(first));
        }
        if let Some(op) = node.op_as::<DequantizeLinearF32>() {
            let What::Rows(mut rows) = first.what else { return Err(None) };
            rows[0].table.scale = Some(Scale::One(op.scale.into()));
            rows[0].table.zero = Some(Scale::One(op.zero_point.into()));
            return one(What::Rows(rows));
        }
        // Private to tract, hence by name.
        if name == "DynamicQuantizeLinearU8" {
            let Value { axes, .. } = first.clone();
            let from = self.from(&first)?;
            return Ok(tvec!(
                Value { what: What::Quantized(from), axes },
                Value { what: What::QuantizedScale(from, None), axes: Vec::new() },
                Value { what: What::QuantizedZero(from), axes: Vec::new() },
            ));
        }
        if let Some(op) = node.op_as::<Reduce>() {
            let rank = node.outputs[0].fact.rank();
            return match (pre(&first.what), op.axes.as_slice()) {
                (Some(pre), [axis]) if axis + 1 == rank && &*name == "Reduce<Sum>" => {
                    Ok(tvec!(Value { what: What::Norm(pre, Step::Sum), axes: Vec::new() }))
                }
                _ => Err(None),
            };
        }
        if let Some(op) = node.op_as::<RmsNorm>() {
            let What::Norm(pre, Step::Centered) = first.what else { return Err(Some("a LayerNorm")) };
            let eps = number(&op.eps).ok_or(None)? as f32;
            if first.axes.get(op.axis).is_none_or(|a| a.iter().any(|d| d.part != Part::Width)) {
                return Err(Some("a LayerNorm over the hidden width"));
            }
            return Ok(tvec!(Value { what: What::Norm(pre, Step::Normed(eps)), axes: first.axes }));
        }
        if let Some(op) = node.op_as::<Softmax>() {
            return self.softmax(op, first).map(|v| tvec!(v));
        }
        if let Some(op) = node.op_as::<ElementWiseOp>() {
            return self.element_wise(op, first).map(|v| tvec!(v));
        }
        if &*name == "CumSum" {
            return match first.what {
                What::Index(Index::NotPad(i, pad)) => one(What::Index(Index::Count(i, pad))),
                _ => Err(None),
            };
        }
        if &*name == "Iff" && inputs.len() == 3 {
            let [condition, yes, no] = [&inputs[0], &inputs[1], &inputs[2]];
            return match (&yes.what, &no.what, masking(&condition.what)) {
                (What::Scores(_), What::Number(_), Some(bits)) => self.mask(yes, bits),
                (What::Number(_), What::Scores(_), Some(bits)) => self.mask(no, bits),
                (a, b, Some(bits)) => match (masking(a), masking(b)) {
                    (Some(a), Some(b)) => one(What::Masking(a | b | bits)),
                    _ => Err(None),
                },
                _ => Err(None),
            };
        }
        if inputs.len() == 2 {
            return self.binary(node, &name, &inputs[0], &inputs[1]).map(|v| tvec!(v));
        }
        Err(None)
    }

    /// Scores with a mask of these inputs.
    pub(super) fn mask(&self, scores: &Value, bits: u64) -> Result<TVec<Value>, Expected> {
        let What::Scores(mut s) = scores.what.clone() else { return Err(None) };
        s.mask |= bits;
        Ok(tvec!(Value { what: What::Scores(s), axes: scores.axes.clone() }))
    }

    fn size(&self, dim: &TDim) -> Option<usize> {
        dim.eval(&self.sizes).to_i64().ok().and_then(|n| usize::try_from(n).ok())
    }

    /// Axes of `[batch, seq, width]`, by their sizes.
    pub(super) fn tokens(&self, fact: &TypedFact) -> Result<Axes, Expected> {
        let sizes: Option<Vec<usize>> = fact.shape.iter().map(|d| self.size(d)).collect();
        match sizes.as_deref() {
            Some(&[batch, seq, width]) => {
                Ok(vec![whole(Part::Batch, batch), whole(Part::Seq, seq), whole(Part::Width, width)])
            }
            _ => Err(Some("[batch, sequence, hidden]")),
        }
    }

    fn source(&mut self, node: &TypedNode) -> Result<Value, Expected> {
        if let Some(i) = self.inputs.iter().position(|n| *n == node.name) {
            // Bits of a mask; nobody has so many inputs.
            let what = if i < 64 { What::Input(i) } else { What::Unknown };
            return Ok(Value { what, axes: Vec::new() });
        }
        let Some(stored) = self.stored.get(&node.name) else { return Err(None) };
        let axes: Axes = match stored.dims.as_slice() {
            [rows, cols] if *rows > 1 => vec![whole(Part::Rows, *rows), whole(Part::Cols, *cols)],
            [ones @ .., n] if ones.iter().all(|d| *d == 1) => {
                let mut axes = vec![Vec::new(); ones.len()];
                axes.push(whole(Part::Rows, *n));
                axes
            }
            _ => return Err(None),
        };
        if stored.dtype != Dtype::I64 {
            return Ok(Value { what: What::Stored(node.name.clone()), axes });
        }
        // Row numbers of a table: 0, 1, 2, … or zeros.
        let mut bytes = vec![0; stored.len().min(1 << 17) * 8];
        stored.read(self.files, 0, &mut bytes).map_err(|_| None)?;
        let ids: Vec<i64> =
            bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
        Ok(Value { what: index(&ids), axes: Vec::new() })
    }

    fn change(&self, op: &AxisOp, value: &Value) -> Result<Value, Expected> {
        match &value.what {
            What::Number(_)
            | What::Input(_)
            | What::Masking(_)
            | What::Index(_)
            | What::QuantizedScale(..) => Ok(value.clone()),
            What::Norm(_, Step::Sum | Step::Mean(_)) | What::QuantizedZero(_) => Ok(value.clone()),
            What::Unknown | What::Rows(_) => Err(None),
            what => {
                let axes = axes::changed(&value.axes, op, &|d| self.size(d)).ok_or(None)?;
                Ok(Value { what: what.clone(), axes })
            }
        }
    }

    fn gather(&self, op: &Gather, node: &TypedNode, inputs: &[Value]) -> Result<Value, Expected> {
        let [table, rows] = inputs else { return Err(None) };
        match (&table.what, &rows.what) {
            (What::Stored(name), what) if op.axis == 0 && table.axes.len() == 2 => {
                let index = match what {
                    What::Input(i) => Index::Input(*i),
                    What::Index(index) => *index,
                    What::Number(0.0) => Index::Zero,
                    _ => return Err(None),
                };
                let table = Matrix { name: name.clone(), transposed: false, scale: None, zero: None };
                Ok(Value { what: What::Rows(vec![Rows { table, index }]), axes: Vec::new() })
            }
            (What::Flow(From::Norm(n)), What::Number(0.0)) if is_seq(&table.axes, op.axis) => {
                let mut axes = table.axes.clone();
                axes[op.axis].clear();
                if node.outputs[0].fact.rank() + 1 == axes.len() {
                    axes.remove(op.axis);
                }
                Ok(Value { what: What::Flow(From::First(*n)), axes })
            }
            _ => Err(None),
        }
    }

    fn slice(&self, op: &Slice, mut value: Value) -> Result<Value, Expected> {
        let (start, end) = (self.size(&op.start), self.size(&op.end));
        match value.what {
            What::Index(Index::Counting(first)) => {
                let start = start.and_then(|s| i64::try_from(s).ok()).ok_or(None)?;
                value.what = What::Index(Index::Counting(first.saturating_add(start)));
                Ok(value)
            }
            What::Index(Index::Zero) | What::Masking(_) => Ok(value),
            What::Flow(From::Norm(n))
                if (start, end) == (Some(0), Some(1)) && is_seq(&value.axes, op.axis) =>
            {
                value.what = What::Flow(From::First(n));
                value.axes[op.axis].clear();
                Ok(value)
            }
            _ => Err(None),
        }
    }

    fn softmax(&mut self, op: &Softmax, value: Value) -> Result<Value, Expected> {
        let What::Scores(s) = value.what else { return Err(None) };
        let [axis] = op.axes.as_slice() else { return Err(Some("a softmax over the keys")) };
        let digits = value.axes.get(*axis).map_or(&[][..], |d| d);
        let [Digit { part, stride: 1, .. }] = digits else { return Err(Some("a softmax over the keys")) };
        let (query, key) = match part {
            Part::Key => (s.sides[0], s.sides[1]),
            // The factors were the other way round.
            Part::Seq => (s.sides[1], s.sides[0]),
            _ => return Err(Some("a softmax over the keys")),
        };
        let swap = |part| match part {
            Part::Key => Part::Seq,
            Part::Seq => Part::Key,
            part => part,
        };
        let mut axes = value.axes.clone();
        if *part == Part::Seq {
            axes.iter_mut().flatten().for_each(|d| d.part = swap(d.part));
        }
        let width = self.linears[query].outputs;
        let wanted = 1.0 / ((width / s.heads) as f32).sqrt();
        if (s.scale - wanted).abs() > 2e-3 * wanted {
            return Err(Some("scores times 1 / √(width of a head)"));
        }
        self.attentions.push(Attention {
            node: s.node,
            query,
            key,
            value: None,
            heads: s.heads,
            mask: s.mask,
        });
        Ok(Value { what: What::Probabilities(self.attentions.len() - 1), axes })
    }

    fn element_wise(&mut self, op: &ElementWiseOp, value: Value) -> Result<Value, Expected> {
        let what = match value.what {
            What::Index(Index::IsPad(i, pad)) if op.0.name() == "Not" => What::Index(Index::NotPad(i, pad)),
            ref what if masking(what).is_some() => What::Masking(masking(what).unwrap_or(0)),
            ref what => {
                let (linear, x) = curve(what).ok_or(None)?;
                let mut y = Tensor::from_shape(&[x.len()], &x).map_err(|_| None)?;
                op.0.eval_in_place(&mut y, None).map_err(|_| None)?;
                let plain = y.try_as_plain_ram().map_err(|_| None)?;
                self.curve(linear, plain.as_slice::<f32>().map_err(|_| None)?.to_vec())
            }
        };
        Ok(Value { what, axes: value.axes })
    }

    /// A curve, remembered if it is a function.
    pub(super) fn curve(&mut self, linear: usize, y: Vec<f32>) -> What {
        if let Some(function) = function(&y) {
            self.functions.push((linear, function));
        }
        What::Curve(linear, y.into())
    }

    /// The flow that a value is, where a Linear takes it in.
    pub(super) fn from(&self, value: &Value) -> Result<From, Expected> {
        match &value.what {
            What::Flow(from) => Ok(*from),
            What::Curve(linear, y) => match function(y) {
                Some(Function::Times(_)) | None => Err(Some("GELU, by erf or by tanh, behind its Linear")),
                Some(function) => Ok(From::Active(*linear, function)),
            },
            _ => Err(None),
        }
    }
}

/// Whether an axis is that of the tokens.
fn is_seq(axes: &Axes, axis: usize) -> bool {
    matches!(axes.get(axis).map(Vec::as_slice), Some([Digit { part: Part::Seq, .. }]))
}

/// The number that a constant is everywhere.
pub(super) fn number(tensor: &Tensor) -> Option<f64> {
    let values = tensor.cast_to::<f64>().ok()?;
    let values = values.try_as_plain_ram().ok()?;
    let values = values.as_slice::<f64>().ok()?;
    let first = *values.first()?;
    values.iter().all(|v| *v == first).then_some(first)
}

/// The values of a constant of integers.
fn integers(tensor: &Tensor) -> Option<Vec<i64>> {
    if tensor.datum_type() != i64::datum_type() {
        return None;
    }
    Some(tensor.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec())
}

/// What a table is indexed with: 0, 1, 2, … or zeros.
fn index(ids: &[i64]) -> What {
    match ids.first() {
        Some(0) if ids.iter().all(|i| *i == 0) => What::Index(Index::Zero),
        Some(&first) if ids.iter().zip(0..).all(|(i, n)| i.checked_sub(first) == Some(n)) => {
            What::Index(Index::Counting(first))
        }
        _ => What::Unknown,
    }
}

/// The inputs that something is made of, element by element, as bits.
pub(super) fn masking(what: &What) -> Option<u64> {
    match what {
        What::Number(_) => Some(0),
        What::Input(i) | What::Index(Index::IsPad(i, _) | Index::NotPad(i, _)) => Some(1 << i),
        What::Masking(bits) => Some(*bits),
        _ => None,
    }
}

/// What a LayerNorm of this would be of.
pub(super) fn pre(what: &What) -> Option<Pre> {
    match what {
        What::Rows(rows) => Some(Pre::Embeddings(rows.clone())),
        What::Norm(pre, Step::Input) => Some(pre.clone()),
        What::Flow(from) => Some(Pre::Other(*from)),
        _ => None,
    }
}

/// A Linear and the function of it that a value is.
pub(super) fn curve(what: &What) -> Option<(usize, Vec<f32>)> {
    match what {
        What::Flow(From::Linear(l)) => Some((*l, samples())),
        What::Curve(l, y) => Some((*l, y.to_vec())),
        _ => None,
    }
}
