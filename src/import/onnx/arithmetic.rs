//! Sums and products of two values, which make Linears, attentions, residuals, LayerNorms and activations.

use super::axes::{Axes, Digit, Part, Product, merged, whole};
use super::meaning::*;
use super::reader::{Expected, Reader, curve, masking, pre};
use tract_core::internal::*;
use tract_core::ops::einsum::EinSum;

impl Reader<'_> {
    /// A product of matrices.
    pub(super) fn product(
        &mut self,
        node: &TypedNode,
        op: &EinSum,
        inputs: &[Value],
    ) -> Result<Value, Expected> {
        let [left, right, ..] = inputs else { return Err(None) };
        if op.q_params.is_some() {
            return self.int_product(node, op, inputs);
        }
        match (&left.what, &right.what) {
            (_, What::Stored(name)) => self.linear(node, op, left, right, name.clone(), None),
            (What::Stored(name), _) => {
                // The other way round is the same.
                let swapped = swap(&op.axes).ok_or(None)?;
                self.linear(node, &EinSum::new(swapped, op.operating_dt), right, left, name.clone(), None)
            }
            _ => {
                self.loose_products.push(node.name.clone());
                match (&left.what, &right.what) {
                    (What::Probabilities(a), _) => self.context(&op.axes, *a, left, right),
                    (_, What::Probabilities(a)) => {
                        self.context(&swap(&op.axes).ok_or(None)?, *a, right, left)
                    }
                    _ => self.scores(node, &op.axes, left, right),
                }
            }
        }
    }

    fn int_product(&mut self, node: &TypedNode, op: &EinSum, inputs: &[Value]) -> Result<Value, Expected> {
        let [x, w, bias, x_zero, ones @ .., _] = inputs else { return Err(None) };
        let [x_scale, w_zero, w_scale, out_zero] = ones else { return Err(None) };
        let (What::Quantized(from), What::Stored(name)) = (&x.what, &w.what) else {
            return Err(Some("a quantized value times a stored matrix"));
        };
        let is = |v: &Value, n: f64| matches!(v.what, What::Number(m) if m == n);
        let plain = is(bias, 0.0) && is(x_scale, 1.0) && is(w_scale, 1.0) && is(out_zero, 0.0);
        if !plain || x_zero.what != What::QuantizedZero(*from) {
            return Err(Some("MatMulInteger of what DynamicQuantizeLinear gave"));
        }
        let zero = match &w_zero.what {
            What::Number(n) => Scale::One(*n),
            What::Stored(name) => Scale::Each(name.clone()),
            _ => return Err(Some("a stored zero point")),
        };
        let x = Value { what: What::Flow(*from), axes: x.axes.clone() };
        self.linear(node, op, &x, w, name.clone(), Some(zero))
    }

    /// A value times a stored matrix.
    fn linear(
        &mut self,
        node: &TypedNode,
        op: &EinSum,
        x: &Value,
        w: &Value,
        name: String,
        zero: Option<Scale>,
    ) -> Result<Value, Expected> {
        let from = self.from(x)?;
        let p = Product::of(&op.axes, &x.axes, &w.axes).ok_or(Some("a Linear"))?;
        let [in_x, in_w] = p.summed.clone().map(merged);
        let (&[x_in], &[w_in]) = (&in_x[..], &in_w[..]) else {
            return Err(Some("a Linear over the whole width"));
        };
        let width = match from {
            From::Norm(n) | From::First(n) => self.norms[n].width,
            From::Linear(l) | From::Active(l, _) => self.linears[l].outputs,
            From::Context(a) => self.linears[self.attentions[a].query].outputs,
        };
        let all = Digit { part: Part::Width, stride: 1, len: width };
        let kept = merged(sorted(&p.kept[1]));
        let (transposed, other) = match w_in.part {
            Part::Rows => (true, Part::Cols),
            _ => (false, Part::Rows),
        };
        let whole_out = matches!(kept[..], [Digit { part, stride: 1, .. }] if part == other);
        if x_in != all || (w_in.stride, w_in.len) != (1, width) || !whole_out || !p.shared[1].is_empty() {
            return Err(Some("a Linear over the whole width"));
        }
        let outputs = kept[0].len;
        let quantized = zero.is_some();
        let weight = Matrix { name, transposed, scale: None, zero };
        let node = node.name.clone();
        self.linears.push(Linear { node, from, weight, inputs: width, outputs, bias: None });
        let id = self.linears.len() - 1;
        let what = if quantized { What::IntProduct(id, false) } else { What::Product(id) };
        Ok(Value { what, axes: p.axes(Part::Width) })
    }

    fn scores(
        &mut self,
        node: &TypedNode,
        op: &AxesMapping,
        q: &Value,
        k: &Value,
    ) -> Result<Value, Expected> {
        let side = |v: &Value| match curve(&v.what).map(|(l, y)| (l, function(&y))) {
            Some((l, Some(Function::Times(scale)))) => Ok((l, scale)),
            _ => Err(Some("a product of two Linears, queries and keys")),
        };
        let ((left, a), (right, b)) = (side(q)?, side(k)?);
        let expected = Some("queries times keys, head by head");
        let p = Product::of(op, &q.axes, &k.axes).ok_or(expected)?;
        let [l, r] = p.summed.clone().map(merged);
        let width = self.linears[left].outputs;
        let (&[l], &[r]) = (&l[..], &r[..]) else { return Err(expected) };
        if l != r || l.part != Part::Width || l.stride != 1 || !width.is_multiple_of(l.len) {
            return Err(expected);
        }
        let seq = |digits: &[Digit]| matches!(digits, [Digit { part: Part::Seq, .. }]);
        let heads = width / l.len;
        let head = Digit { part: Part::Width, stride: l.len, len: heads };
        let wanted = |d: &Digit| d.part == Part::Batch || *d == head;
        let has_heads = heads == 1 || p.shared[0].contains(&head);
        if p.shared[0] != p.shared[1] || !p.shared[0].iter().all(wanted) || !has_heads {
            return Err(expected);
        }
        if !seq(&p.kept[0]) || !seq(&p.kept[1]) || self.linears[right].outputs != width {
            return Err(expected);
        }
        let scores = Scores { node: node.name.clone(), sides: [left, right], scale: a * b, heads, mask: 0 };
        Ok(Value { what: What::Scores(scores), axes: p.axes(Part::Key) })
    }

    fn context(&mut self, op: &AxesMapping, a: usize, probs: &Value, v: &Value) -> Result<Value, Expected> {
        let expected = Some("probabilities times values, head by head");
        let What::Flow(From::Linear(value)) = v.what else { return Err(expected) };
        let p = Product::of(op, &probs.axes, &v.axes).ok_or(expected)?;
        let [keys, tokens] = [&p.summed[0][..], &p.summed[1][..]];
        let (&[Digit { part: Part::Key, .. }], &[Digit { part: Part::Seq, .. }]) = (&keys, &tokens) else {
            return Err(expected);
        };
        let (width, heads) = (self.linears[value].outputs, self.attentions[a].heads);
        let dim = Digit { part: Part::Width, stride: 1, len: width / heads };
        let same = p.shared[0] == p.shared[1] && self.linears[self.attentions[a].query].outputs == width;
        if !same || merged(p.kept[1].clone()) != [dim] || self.attentions[a].value.is_some() {
            return Err(expected);
        }
        self.attentions[a].value = Some(value);
        Ok(Value { what: What::Flow(From::Context(a)), axes: p.axes(Part::Width) })
    }

    /// Sum, product and the like of two values, element by element.
    pub(super) fn binary(
        &mut self,
        node: &TypedNode,
        name: &str,
        a: &Value,
        b: &Value,
    ) -> Result<Value, Expected> {
        let plain = |what| Ok(Value { what, axes: Vec::new() });
        // Positions of RoBERTa.
        match (name, &a.what, &b.what) {
            ("Eq", What::Input(i), What::Number(pad)) | ("Eq", What::Number(pad), What::Input(i)) => {
                return plain(What::Index(Index::IsPad(*i, *pad as i64)));
            }
            ("Ne", What::Input(i), What::Number(pad)) | ("Ne", What::Number(pad), What::Input(i)) => {
                return plain(What::Index(Index::NotPad(*i, *pad as i64)));
            }
            _ => {}
        }
        if let (Some(x), Some(y)) = (masking(&a.what), masking(&b.what)) {
            return plain(What::Masking(x | y));
        }
        if let Some((linear, y)) = both_curves(name, &a.what, &b.what) {
            let axes = if curve(&a.what).is_some() { &a.axes } else { &b.axes };
            return Ok(Value { what: self.curve(linear, y), axes: axes.clone() });
        }
        match name {
            "Sub" => match (pre(&a.what), &b.what) {
                (Some(of), What::Norm(mean_of, Step::Mean(n))) if of == *mean_of => {
                    let axes = self.tokens(&node.outputs[0].fact)?;
                    if (self.width(&axes) as f64 - n).abs() > 0.5 {
                        return Err(Some("a mean over the hidden width"));
                    }
                    Ok(Value { what: What::Norm(of, Step::Centered), axes })
                }
                _ => Err(None),
            },
            "Add" => match self.add(node, a, b) {
                Err(_) => self.add(node, b, a),
                sum => sum,
            },
            "Mul" => match self.multiply(a, b) {
                Err(None) => self.multiply(b, a),
                product => product,
            },
            "Div" => match (&a.what, &b.what) {
                (What::Scores(_) | What::Norm(_, Step::Sum), What::Number(n)) => {
                    self.multiply(a, &Value { what: What::Number(1.0 / n), axes: Vec::new() })
                }
                _ => Err(None),
            },
            _ => Err(None),
        }
    }

    fn add(&mut self, node: &TypedNode, a: &Value, b: &Value) -> Result<Value, Expected> {
        match (&a.what, &b.what) {
            (What::Rows(x), What::Rows(y)) => {
                Ok(Value { what: What::Rows([&x[..], y].concat()), axes: Vec::new() })
            }
            (What::Product(l), What::Stored(bias)) => {
                let linear = &mut self.linears[*l];
                if !aligned(&a.axes, &b.axes, linear.outputs) || linear.bias.is_some() {
                    return Err(Some("a bias of the Linear's width"));
                }
                linear.bias = Some(bias.clone());
                Ok(Value { what: What::Flow(From::Linear(*l)), axes: a.axes.clone() })
            }
            (What::Flow(From::Linear(l)), What::Flow(flow))
                if matches!(self.linears[*l].from, From::Context(_) | From::Active(..)) =>
            {
                let flat = |axes: &Axes| merged(axes.iter().flatten().copied());
                match flat(&a.axes) == flat(&b.axes) {
                    true => {
                        let axes = self.tokens(&node.outputs[0].fact)?;
                        Ok(Value { what: What::Norm(Pre::Residual(*l, *flow), Step::Input), axes })
                    }
                    false => Err(Some("a residual of the same shape")),
                }
            }
            (What::Scores(_), mask) => match masking(mask) {
                Some(bits) if bits != 0 => self.mask(a, bits).map(|mut v| v.remove(0)),
                _ => Err(Some("scores plus a mask made of attention_mask alone")),
            },
            (What::Norm(pre, Step::Scaled(eps, gain)), What::Stored(bias)) => {
                let width = self.width(&a.axes);
                if !aligned(&a.axes, &b.axes, width) {
                    return Err(Some("a LayerNorm's bias of the hidden width"));
                }
                let (node, gain, bias) = (node.name.clone(), gain.clone(), bias.clone());
                self.norms.push(Norm { node, pre: pre.clone(), eps: *eps, gain, bias, width });
                Ok(Value { what: What::Flow(From::Norm(self.norms.len() - 1)), axes: a.axes.clone() })
            }
            (What::Index(Index::Count(i, pad)), What::Number(n)) if *n == *pad as f64 => {
                Ok(Value { what: What::Index(Index::BehindPad(*i, *pad)), axes: Vec::new() })
            }
            _ => Err(None),
        }
    }

    fn multiply(&mut self, a: &Value, b: &Value) -> Result<Value, Expected> {
        let same = |what| Ok(Value { what, axes: a.axes.clone() });
        match (&a.what, &b.what) {
            (What::Scores(s), What::Number(n)) => {
                same(What::Scores(Scores { scale: s.scale * *n as f32, ..s.clone() }))
            }
            (What::Norm(pre, Step::Sum), What::Number(n)) if *n > 0.0 => {
                same(What::Norm(pre.clone(), Step::Mean(1.0 / n)))
            }
            (What::Norm(pre, Step::Normed(eps)), What::Stored(gain)) => {
                match aligned(&a.axes, &b.axes, self.width(&a.axes)) {
                    true => same(What::Norm(pre.clone(), Step::Scaled(*eps, gain.clone()))),
                    false => Err(Some("a LayerNorm's gain of the hidden width")),
                }
            }
            (What::QuantizedScale(from, None), scale) => match scale_of(scale) {
                Some(scale) => same(What::QuantizedScale(*from, Some(scale))),
                None => Err(None),
            },
            (What::IntProduct(l, false), What::QuantizedScale(from, scale)) => {
                if self.linears[*l].from != *from {
                    return Err(Some("the scale of what was quantized"));
                }
                if scale.is_some() {
                    self.linears[*l].weight.scale = scale.clone();
                }
                self.int_product_done(*l, true, a)
            }
            (What::IntProduct(l, scaled), scale) if self.linears[*l].weight.scale.is_none() => {
                self.linears[*l].weight.scale = Some(scale_of(scale).ok_or(None)?);
                self.int_product_done(*l, *scaled, a)
            }
            (What::Index(Index::Count(i, pad)), What::Index(Index::NotPad(j, other)))
                if (i, pad) == (j, other) =>
            {
                same(What::Index(Index::Count(*i, *pad)))
            }
            _ => Err(None),
        }
    }

    fn int_product_done(&self, linear: usize, scaled: bool, value: &Value) -> Result<Value, Expected> {
        let done = scaled && self.linears[linear].weight.scale.is_some();
        // A scale for each output lies along the last axis.
        let last = value.axes.last().map_or(&[][..], |d| d);
        if last != whole(Part::Width, self.linears[linear].outputs) {
            return Err(Some("scales along the Linear's outputs"));
        }
        let what = if done { What::Product(linear) } else { What::IntProduct(linear, scaled) };
        Ok(Value { what, axes: value.axes.clone() })
    }

    fn width(&self, axes: &Axes) -> usize {
        axes.iter().flatten().filter(|d| d.part == Part::Width).map(|d| d.len).product()
    }
}

/// Whether a vector of `n`, broadcast, goes along the hidden width of `axes`.
fn aligned(axes: &Axes, vector: &Axes, n: usize) -> bool {
    let digits = |axes: &Axes, part| -> Vec<Vec<(usize, usize)>> {
        let of =
            |axis: &Vec<Digit>| axis.iter().filter(|d| d.part == part).map(|d| (d.stride, d.len)).collect();
        axes.iter().rev().map(of).collect()
    };
    let (mut x, mut v) = (digits(axes, Part::Width), digits(vector, Part::Rows));
    let rank = x.len().max(v.len());
    x.resize(rank, Vec::new());
    v.resize(rank, Vec::new());
    x == v && merged(sorted(&vector.concat())) == whole(Part::Rows, n)
}

/// The most significant first.
fn sorted(digits: &[Digit]) -> Vec<Digit> {
    let mut digits = digits.to_vec();
    digits.sort_by_key(|d| std::cmp::Reverse(d.stride));
    digits
}

fn scale_of(what: &What) -> Option<Scale> {
    match what {
        What::Number(n) => Some(Scale::One(*n)),
        What::Stored(name) => Some(Scale::Each(name.clone())),
        _ => None,
    }
}

/// Two functions of one Linear, or one and a number.
fn both_curves(name: &str, a: &What, b: &What) -> Option<(usize, Vec<f32>)> {
    let number = |what: &What| match what {
        What::Number(n) => Some(vec![*n as f32; samples().len()]),
        _ => None,
    };
    let (linear, x, y) = match (curve(a), curve(b)) {
        (Some((l, x)), Some((m, y))) if l == m => (l, x, y),
        (Some((l, x)), None) => (l, x, number(b)?),
        (None, Some((l, y))) => (l, number(a)?, y),
        _ => return None,
    };
    let f: fn(f32, f32) -> f32 = match name {
        "Add" => |x, y| x + y,
        "Sub" => |x, y| x - y,
        "Mul" => |x, y| x * y,
        "Div" => |x, y| x / y,
        "Pow" => f32::powf,
        "Max" => f32::max,
        "Min" => f32::min,
        _ => return None,
    };
    Some((linear, x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect()))
}

/// The axes of a product with its factors the other way round.
fn swap(axes: &AxesMapping) -> Option<AxesMapping> {
    let (inputs, outputs) = axes.to_strs();
    let [left, right] = &inputs[..] else { return None };
    AxesMapping::from_strs(&[right, left], &outputs).ok()
}
