//! An ONNX file without its weights: small enough to parse, and without anything that could blow up in a parser.
//!
//! The file is read in pieces. Every initializer (or Constant) of more than [`SMALL`] elements becomes a graph input of
//! its type and shape, and its place in the file is kept: so whoever reads the skeleton sees a source of that name where
//! the weight was, and nobody multiplies or transposes weights only to learn where they go. Of the rest, only operators
//! of BERT exports pass. Two of them would let a few bytes ask for any amount of memory and are replaced by
//! something that broadcasts alike: `Expand` by its input, `ConstantOfShape` by one of its elements. And what can be
//! computed from constants alone may not grow beyond [`MAX_FOLDED`].
//!
//! A model that is not matched but run ([`Purpose::Run`]) keeps these two, for what broadcasts alike need not sum up alike.
//! What they make of numbers in the file is bounded here, what they make of others by [`run`](super::run).

use super::tensor::{Files, Head, Stored, as_float, entry, text, zero};
use super::wire::{Bytes, Fields, Value};
use crate::protobuf::{Dim, Message, put_bytes, put_number, value_info};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;

/// Tensors of at most so many elements stay in the skeleton.
const SMALL: u64 = 8;
/// Longest node, in bytes, its tensors left out.
const MAX_NODE: u64 = 1 << 16;
/// Most bytes of a skeleton; those of real models have 0.3 MB.
const MAX_BYTES: usize = 16 << 20;
/// Most nodes: a BERT-large in int8 has about 3,000.
const MAX_NODES: usize = 20_000;
/// Most elements of what is computed from constants alone.
const MAX_FOLDED: u64 = 1 << 20;

/// What a skeleton is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be matched against an encoder.
    Match,
    /// To be run, with its weights put back.
    Run,
}

/// Operators that pass where a model is run, beside the others.
const RUN_OPERATORS: [&str; 13] = [
    "Ceil",
    "Elu",
    "Floor",
    "LeakyRelu",
    "QuantizeLinear",
    "Range",
    "ReduceMin",
    "ReduceProd",
    "Round",
    "Sign",
    "Softplus",
    "Sum",
    "Tile",
];
/// Those whose output may be of any size, whatever their inputs' sizes.
pub(super) const GROWING: [&str; 4] = ["ConstantOfShape", "Expand", "Range", "Tile"];

/// Operators that pass.
#[rustfmt::skip]
const OPERATORS: [&str; 58] = [
    "Abs", "Add", "And", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "CumSum", "DequantizeLinear", "Div",
    "Dropout", "DynamicQuantizeLinear", "Equal", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "Greater",
    "GreaterOrEqual", "Identity", "IsNaN", "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul",
    "MatMulInteger", "Max", "Min", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze",
    "Sub", "Tanh", "Transpose", "Unsqueeze", "Where",
];

/// An ONNX model whose weights have become inputs.
pub(super) struct Skeleton {
    /// A ModelProto.
    pub model: Vec<u8>,
    /// The tensors that became inputs.
    pub stored: BTreeMap<String, Stored>,
    /// Names of the model's own inputs.
    pub inputs: Vec<String>,
    pub files: Files,
    /// What the file says of itself.
    pub metadata: Vec<(String, String)>,
}

impl Skeleton {
    /// Reads an ONNX file; fails with what is wrong.
    pub fn read(path: &Path, file: File, purpose: Purpose) -> Result<Skeleton, String> {
        let len = file.metadata().map_err(|e| e.to_string())?.len();
        let file = file.try_clone().map(|again| (file, again)).map_err(|e| e.to_string())?;
        let mut builder = Builder {
            purpose,
            graph: Vec::new(),
            stored: BTreeMap::new(),
            inputs: Vec::new(),
            files: Files(vec![(path.to_owned(), file.1)]),
            folded: HashMap::new(),
            volumes: HashMap::new(),
            nodes: 0,
        };
        let file = &file.0;
        let bytes = Bytes(file);
        let mut model = Vec::new();
        let (mut graphs, mut opsets, mut metadata) = (0, 0, Vec::new());
        let mut fields = Fields::new(bytes, 0, len);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => put_number(&mut model, 1, value.number()?),
                7 => {
                    graphs += 1;
                    let (at, len) = value.place()?;
                    builder.graph(file, at, len)?;
                }
                8 => {
                    opsets += 1;
                    put_bytes(&mut model, 8, &message(bytes, value, 1024)?);
                }
                14 if purpose == Purpose::Run && metadata.len() < 64 => metadata.push(entry(bytes, value)?),
                25 => return Err("functions of its own are not read; export without them".into()),
                _ => {}
            }
        }
        if (graphs, builder.nodes) != (1, builder.nodes.max(1)) || !(1..=64).contains(&opsets) {
            return Err("not an ONNX model: it has no graph".into());
        }
        put_bytes(&mut model, 7, &builder.finish());
        let Builder { stored, inputs, files, .. } = builder;
        let inputs = inputs.into_iter().map(|(name, _)| name).filter(|n| !stored.contains_key(n)).collect();
        Ok(Skeleton { model, stored, inputs, files, metadata })
    }
}

struct Builder {
    purpose: Purpose,
    /// Fields of the GraphProto so far.
    graph: Vec<u8>,
    stored: BTreeMap<String, Stored>,
    /// The file's inputs, with their ValueInfoProto.
    inputs: Vec<(String, Message)>,
    files: Files,
    /// What can be computed without inputs, with a bound of its elements.
    folded: HashMap<String, u64>,
    /// Tensors that may be shapes, with the number of elements of what has that shape.
    volumes: HashMap<String, u64>,
    nodes: usize,
}

impl Builder {
    fn graph(&mut self, file: &File, at: u64, len: u64) -> Result<(), String> {
        let bytes = Bytes(file);
        // Initializers come behind the nodes in files, but say which values are constant: hence first.
        let mut fields = Fields::new(bytes, at, len);
        while let Some((field, value)) = fields.next()? {
            match field {
                5 => {
                    let (at, len) = value.place()?;
                    let head = Head::read(file, at, len)?;
                    let name = head.name.clone();
                    if let Some(small) = self.tensor(&head, &name, file, at, len)? {
                        put_bytes(&mut self.graph, 5, &small);
                    }
                }
                15 => return Err("sparse tensors are not read".into()),
                _ => {}
            }
        }
        let mut fields = Fields::new(bytes, at, len);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => {
                    let (at, len) = value.place()?;
                    self.node(file, at, len)?;
                }
                2 => put_bytes(&mut self.graph, 2, text(bytes, value)?.as_bytes()),
                11 if self.inputs.len() < MAX_NODES => self.inputs.push(input(bytes, value)?),
                12 => put_bytes(&mut self.graph, 12, &message(bytes, value, MAX_NODE)?),
                _ => {}
            }
            if self.graph.len() > MAX_BYTES || self.nodes > MAX_NODES || self.inputs.len() >= MAX_NODES {
                return Err(format!("a graph of more than {MAX_BYTES} bytes or {MAX_NODES} nodes"));
            }
        }
        Ok(())
    }

    /// Takes a tensor named `name` in: a TensorProto if it is small, else a place in the file and none.
    fn tensor(
        &mut self,
        head: &Head,
        name: &str,
        file: &File,
        at: u64,
        len: u64,
    ) -> Result<Option<Vec<u8>>, String> {
        if name.is_empty() || self.stored.contains_key(name) || self.folded.contains_key(name) {
            return Err(format!("two tensors are called `{name}`"));
        }
        if head.elements > SMALL {
            let stored = head.stored(&mut self.files)?;
            self.stored.insert(name.into(), stored);
            put_bytes(&mut self.graph, 11, head.as_input(name).as_bytes());
            return Ok(None);
        }
        self.folded.insert(name.into(), head.elements.max(1));
        if self.purpose == Purpose::Run
            && let Some(volume) = head.volume(&mut self.files)
        {
            self.volumes.insert(name.into(), volume);
        }
        match head.inlined(&mut self.files)? {
            Some(inlined) => Ok(Some(inlined.as_bytes().to_vec())),
            None => message(Bytes(file), Value::Len { at, len }, MAX_NODE).map(Some),
        }
    }

    fn node(&mut self, file: &File, at: u64, len: u64) -> Result<(), String> {
        self.nodes += 1;
        let bytes = Bytes(file);
        let (mut inputs, mut outputs, mut attributes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut name, mut op, mut domain) = (String::new(), String::new(), String::new());
        let mut fields = Fields::new(bytes, at, len);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => inputs.push(text(bytes, value)?),
                2 => outputs.push(text(bytes, value)?),
                3 => name = text(bytes, value)?,
                4 => op = text(bytes, value)?,
                5 => attributes.push(value.place()?),
                7 => domain = text(bytes, value)?,
                _ => {}
            }
            if inputs.len() + outputs.len() + attributes.len() > 256 {
                return Err(format!("node `{name}` has more than 256 inputs, outputs and attributes"));
            }
        }
        let shown = if name.is_empty() { outputs.first().cloned().unwrap_or_default() } else { name.clone() };
        let runs = self.purpose == Purpose::Run;
        let passes =
            OPERATORS.binary_search(&op.as_str()).is_ok() || runs && RUN_OPERATORS.contains(&&op[..]);
        if !matches!(domain.as_str(), "" | "ai.onnx") || !passes {
            let of = if domain.is_empty() { "ONNX" } else { &domain };
            return Err(format!(
                "node `{shown}`: operator {op} of {of} is not read; expected an encoder as PyTorch or Optimum export \
                 it, not optimised by ONNX Runtime, or quantized by its quantize_dynamic"
            ));
        }
        let mut out = Vec::new();
        match op.as_str() {
            // tract's own default is no f32.
            "ConstantOfShape" if runs && attributes.is_empty() => {
                put_bytes(&mut out, 5, value_attribute(zero().as_bytes()).as_bytes());
            }
            _ if runs => {}
            "Expand" => {
                op = "Identity".into();
                inputs.truncate(1);
            }
            "ConstantOfShape" => {
                op = "Constant".into();
                inputs.clear();
                if attributes.is_empty() {
                    put_bytes(&mut out, 5, value_attribute(zero().as_bytes()).as_bytes());
                }
            }
            _ => {}
        }
        for (at, len) in attributes {
            let tensor = check_attribute(bytes, at, len).map_err(|e| format!("node `{shown}`: {e}"))?;
            match (tensor, op.as_str(), outputs.first()) {
                (Some((at, len)), "Constant", Some(output)) => {
                    let head = Head::read(file, at, len)?;
                    match self.tensor(&head, output, file, at, len)? {
                        // It is an input now, of the same name.
                        None => return Ok(()),
                        Some(small) => put_bytes(&mut out, 5, value_attribute(&small).as_bytes()),
                    }
                }
                // In f32, as all of the skeleton is.
                (None, "Cast", _) => match cast_to(bytes, at, len)? {
                    Some(to) => put_bytes(&mut out, 5, to_attribute(as_float(to)).as_bytes()),
                    None => put_bytes(&mut out, 5, &message(bytes, Value::Len { at, len }, MAX_NODE)?),
                },
                (Some(_), "ConstantOfShape", _) if runs => {
                    put_bytes(&mut out, 5, &message(bytes, Value::Len { at, len }, MAX_NODE)?);
                }
                (Some(_), ..) => return Err(format!("node `{shown}`: a tensor inside {op}")),
                _ => put_bytes(&mut out, 5, &message(bytes, Value::Len { at, len }, MAX_NODE)?),
            }
        }
        self.fold(&shown, &op, &inputs, &outputs)?;
        inputs.iter().for_each(|i| put_bytes(&mut out, 1, i.as_bytes()));
        outputs.iter().for_each(|o| put_bytes(&mut out, 2, o.as_bytes()));
        put_bytes(&mut out, 3, shown.as_bytes());
        put_bytes(&mut out, 4, op.as_bytes());
        put_bytes(&mut self.graph, 1, &out);
        Ok(())
    }

    /// Bounds what the node gives, if it can be computed without inputs.
    fn fold(&mut self, name: &str, op: &str, inputs: &[String], outputs: &[String]) -> Result<(), String> {
        let bound = |name: &String| if name.is_empty() { Some(1) } else { self.folded.get(name).copied() };
        let runs = self.purpose == Purpose::Run;
        let elements = match op {
            // Of the inputs, whose lengths are not known before a text is. `run` looks after what comes of it.
            "Shape" if runs => None,
            "ConstantOfShape" if runs => inputs.first().and_then(|shape| self.volumes.get(shape).copied()),
            "Expand" if runs => {
                // Sizes of both may be in the result.
                let volume = inputs.get(1).and_then(|shape| self.volumes.get(shape).copied());
                inputs.first().and_then(bound).zip(volume).map(|(n, volume)| n.saturating_mul(volume))
            }
            "Range" | "Tile" if runs => None,
            "Shape" => Some(8),
            "Concat" => inputs.iter().map(bound).try_fold(0u64, |sum, n| n.and_then(|n| sum.checked_add(n))),
            "Cast" | "Identity" | "Reshape" | "Slice" | "Squeeze" | "Transpose" | "Unsqueeze" => {
                inputs.first().and_then(bound)
            }
            // Whatever broadcasts or multiplies gives at most the product.
            _ => inputs.iter().map(bound).try_fold(1u64, |product, n| n.map(|n| product.saturating_mul(n))),
        };
        let Some(elements) = elements else { return Ok(()) };
        if elements > MAX_FOLDED {
            return Err(format!("node `{name}` ({op}) is computed from constants and may be huge"));
        }
        self.folded.extend(outputs.iter().map(|o| (o.clone(), elements.max(1))));
        Ok(())
    }

    /// The whole GraphProto.
    fn finish(&mut self) -> Vec<u8> {
        let mut seen = HashSet::new();
        for (name, info) in &self.inputs {
            // Old files list their initializers as inputs too.
            if !self.stored.contains_key(name) && !self.folded.contains_key(name) && seen.insert(name) {
                put_bytes(&mut self.graph, 11, info.as_bytes());
            }
        }
        std::mem::take(&mut self.graph)
    }
}

/// Name and ValueInfoProto of an input. Dimensions that are not fixed are named by their place, so that those of
/// different inputs are the same.
fn input(bytes: Bytes, value: Value) -> Result<(String, Message), String> {
    let (mut name, mut code, mut dims) = (String::new(), 7, Vec::new());
    walk(bytes, value, &mut |field, value| {
        match field {
            1 => name = text(bytes, value)?,
            2 => walk(bytes, value, &mut |field, value| match field {
                1 => walk(bytes, value, &mut |field, value| match field {
                    1 => value.number().map(|n| code = n),
                    2 => walk(bytes, value, &mut |_, value| {
                        let mut size = None;
                        walk(bytes, value, &mut |field, value| {
                            if field == 1 {
                                size = Some(value.number()?);
                            }
                            Ok(())
                        })?;
                        dims.push(match size {
                            Some(n) if (1..=1 << 16).contains(&n) => Dim::Fixed(n as usize),
                            _ => Dim::Named(["batch", "sequence"].get(dims.len()).unwrap_or(&"other")),
                        });
                        if dims.len() > 8 { Err("an input of more than 8 dimensions".into()) } else { Ok(()) }
                    }),
                    _ => Ok(()),
                }),
                _ => Ok(()),
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name.clone(), value_info(&name, code as i64, &dims)))
}

/// Calls `each` with every field of a message.
fn walk(
    bytes: Bytes,
    message: Value,
    each: &mut dyn FnMut(u64, Value) -> Result<(), String>,
) -> Result<(), String> {
    let (at, len) = message.place()?;
    let mut fields = Fields::new(bytes, at, len);
    while let Some((field, value)) = fields.next()? {
        each(field, value)?;
    }
    Ok(())
}

/// Where the tensor of an AttributeProto lies, if it has one; fails on a graph, on a number that is no axis or size, and on an
/// order of axes that has one of them twice: tract counts up to the former, and follows the latter in a circle for ever.
fn check_attribute(bytes: Bytes, at: u64, len: u64) -> Result<Option<(u64, u64)>, String> {
    let (mut tensor, mut name) = (None, String::new());
    // A bit for each number that is there.
    let (mut largest, mut count, mut there) = (0, 0u64, 0u64);
    let mut number = |n: u64| {
        largest = (n as i64).unsigned_abs().max(largest);
        count += 1;
        there |= 1 << n.min(63);
    };
    walk(bytes, Value::Len { at, len }, &mut |field, value| {
        match (field, value) {
            (1, value) => name = text(bytes, value)?,
            (3 | 8, Value::Varint(n)) => number(n),
            (8, Value::Len { at, len }) => {
                let mut packed = Fields::new(bytes, at, len);
                while !packed.is_done() {
                    number(packed.varint()?);
                }
            }
            (5, value) => tensor = Some(value.place()?),
            (6 | 10 | 11 | 22 | 23, _) => return Err("a graph or a list of tensors inside a node".into()),
            _ => {}
        }
        Ok(())
    })?;
    let most = match name.as_str() {
        "axis" | "axes" | "perm" => 8,
        // Constants may be any number.
        "value_int" | "value_ints" => u64::MAX,
        _ => 1 << 16,
    };
    if largest > most {
        return Err(format!("attribute `{name}` is {largest}; at most {most} is read"));
    }
    if name == "perm" && (count > most || there != (1 << count) - 1) {
        return Err("attribute `perm` does not have each axis once".into());
    }
    Ok(tensor)
}

/// The AttributeProto `value` of a Constant.
fn value_attribute(tensor: &[u8]) -> Message {
    Message::new().text(1, "value").bytes(5, tensor).int(20, 4)
}

/// The element type of a Cast's attribute `to`.
fn cast_to(bytes: Bytes, at: u64, len: u64) -> Result<Option<u64>, String> {
    let (mut name, mut to) = (String::new(), None);
    walk(bytes, Value::Len { at, len }, &mut |field, value| {
        match field {
            1 => name = text(bytes, value)?,
            3 => to = Some(value.number()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(to.filter(|_| name == "to"))
}

/// The AttributeProto `to` of a Cast.
fn to_attribute(code: u64) -> Message {
    Message::new().text(1, "to").int(3, code as i64).int(20, 2)
}

/// The bytes of a message that has no business being longer than `most`.
fn message(bytes: Bytes, value: Value, most: u64) -> Result<Vec<u8>, String> {
    let (at, len) = value.place()?;
    if len > most {
        return Err(format!("a message of {len} bytes at {at}; expected at most {most}"));
    }
    let mut message = vec![0; len as usize];
    bytes.read(at, &mut message)?;
    Ok(message)
}
