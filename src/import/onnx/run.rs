//! An ONNX model that is run as it is: its skeleton with the weights put back, through tract.
//!
//! What a few bytes of a hostile file may ask for is bounded twice: operators that make tensors of any size may not make
//! large ones of constants, which tract computes as soon as it sees them; and before anything else is computed, the size of
//! every tensor is worked out for the longest text.

use super::skeleton::{GROWING, Purpose, Skeleton};
use super::tensor::{Dtype, Files, Stored, floats};
use super::{graph, quantize_linear};
use crate::config::Pooling;
use crate::config::{DEFAULT_MAX_LEN, EXPORT_LENGTHS};
use crate::container::refuse_impostor;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// Most elements of a constant that is computed before a text is there.
const MAX_CONSTANT: i64 = 1 << 12;
/// Most elements of a tensor while a text is computed; a BERT-large with 512 tokens has 2^22.
const MAX_ELEMENTS: i64 = 1 << 26;

const NO_OUTPUT: &str = "no output of [batch, labels], and no `logits` of [batch, sequence, labels]: not a classifier of texts \
                         or tokens. A base of it (`quantize`) can be trained to be one";

/// What an input is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Ids,
    Mask,
    Types,
}

/// An input of the graph.
#[derive(Clone, Debug)]
struct Input {
    role: Role,
    dtype: DatumType,
    /// Rows and columns where the file fixes them.
    dims: [Option<usize>; 2],
}

/// An ONNX model of token ids, ready to run.
#[derive(Debug)]
pub(crate) struct Runnable {
    path: PathBuf,
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Input>,
    output: Output,
    /// What the file says of itself.
    pub metadata: Vec<(String, String)>,
    /// Longest text in tokens.
    pub seq_max: usize,
}

/// The output that is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    place: usize,
    /// Numbers it has for a text, or for each token.
    pub labels: usize,
    /// Whether it is called `logits`; a pooler's is of the same shape.
    pub is_logits: bool,
    /// Whether it is `[batch, sequence, labels]`.
    pub of_tokens: bool,
}

impl Runnable {
    /// Opens an ONNX file for texts of up to `seq_max` tokens, or as many as the file fixes. `None` takes the `max_len` of its
    /// metadata, else 128. It is never more than `positions`.
    ///
    /// Its inputs are told by name (`input_ids`, `attention_mask`, `token_type_ids`), the first one by its place where none
    /// is called so. Of its outputs `logits` is read, `[batch, n]` or `[batch, sequence, n]`, or the first of `[batch, n]`.
    ///
    /// Fails with [`Error::Format`] on a file that is broken or not ONNX, with [`Error::Unsupported`] on operators, inputs or
    /// outputs that are not read, and on weights that do not fit in memory.
    pub fn open(path: &Path, seq_max: Option<usize>, positions: usize) -> Result<Runnable> {
        let unsupported = |what| Error::Unsupported { path: path.to_owned(), what };
        refuse_impostor(path)?;
        let file = File::open(path).map_err(Error::io(path))?;
        let skeleton = Skeleton::read(path, file, Purpose::Run).map_err(|e| Error::format(path, e))?;
        let Skeleton { model, stored, files, metadata, .. } = skeleton;
        if metadata.iter().any(|(key, value)| key == "pooling" && value == Pooling::Apart.name()) {
            let what = "it compares two rows of a batch, and is run one text at a time here; use its base and bias file";
            return Err(unsupported(what.into()));
        }
        let task = metadata.iter().find(|(key, _)| key == "task").map(|(_, task)| task.as_str());
        if let Some(task @ ("qa" | "contrastive" | "mlm")) = task {
            let instead = if task == "contrastive" { "embed` or `search" } else { "predict" };
            return Err(unsupported(format!(
                "a {task} model is not run from its export here; use `{instead}` with the base and bias file it was made from"
            )));
        }
        let told = || {
            metadata
                .iter()
                .find(|(key, _)| key == "max_len")?
                .1
                .parse()
                .ok()
                .filter(|n| EXPORT_LENGTHS.contains(n))
        };
        let seq_max = seq_max.or_else(told).unwrap_or(DEFAULT_MAX_LEN).min(positions);
        fits(&stored).map_err(&unsupported)?;
        let stored_max = stored.values().map(Stored::len).max().unwrap_or(0);
        let (plan, inputs) = graph::guarded(move || {
            let weights = read_all(&stored, &files)?;
            build(&model, weights, seq_max, stored_max)
        })
        .map_err(&unsupported)?;
        let seq_max = inputs.iter().filter_map(|i| i.dims[1]).min().unwrap_or(seq_max);
        let output = output(&plan).ok_or_else(|| unsupported(NO_OUTPUT.into()))?;
        Ok(Runnable { path: path.to_owned(), plan, inputs, output, metadata, seq_max })
    }

    /// What it answers with.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Whether it asks for token types.
    pub fn has_types(&self) -> bool {
        self.inputs.iter().any(|i| i.role == Role::Types)
    }

    /// Whether the file fixes how long texts are, so that shorter ones are padded.
    pub fn pads(&self) -> bool {
        self.inputs.iter().any(|i| i.dims[1].is_some())
    }

    /// Its answer for one text of at most `seq_max` tokens: `[labels]`, or `[tokens, labels]`.
    ///
    /// Fails with [`Error::Unsupported`] where tract does, on ids that the model does not have for one.
    pub fn run(&self, ids: &[i32], types: &[i32], pad: i32) -> Result<Vec<f32>> {
        let Output { place, labels, of_tokens, .. } = self.output;
        let wanted = if of_tokens { ids.len() * labels } else { labels };
        let answer = graph::caught(|| {
            let inputs = self.inputs.iter().map(|i| i.filled(ids, types, pad)).collect::<TractResult<_>>()?;
            let outputs = self.plan.run(inputs)?;
            let row = outputs[place].cast_to::<f32>()?;
            let row = row.to_plain_array_view::<f32>()?;
            // Of several rows the first; what stands for padding is behind the tokens.
            Ok(row.iter().take(wanted).copied().collect())
        });
        let answer: Vec<f32> = answer.map_err(|what| Error::Unsupported {
            path: self.path.clone(),
            what: format!("running it: {what}"),
        })?;
        match answer.len() == wanted {
            true => Ok(answer),
            false => Err(Error::format(&self.path, format!("{} numbers for a text", answer.len()))),
        }
    }
}

impl Input {
    /// Its tensor for a text: `[rows, columns]`, the text in every row, padding behind it.
    fn filled(&self, ids: &[i32], types: &[i32], pad: i32) -> TractResult<TValue> {
        let (rows, columns) = (self.dims[0].unwrap_or(1), self.dims[1].unwrap_or(ids.len()));
        let value = |i: usize| match (self.role, ids.get(i)) {
            (Role::Ids, Some(id)) => i64::from(*id),
            (Role::Ids, None) => i64::from(pad),
            (Role::Mask, token) => i64::from(token.is_some()),
            (Role::Types, _) => types.get(i).map_or(0, |t| i64::from(*t)),
        };
        let values: Vec<i64> = (0..rows * columns).map(|i| value(i % columns)).collect();
        let tensor = Tensor::from_shape(&[rows, columns], &values)?;
        Ok(tensor.cast_to_dt(self.dtype)?.into_owned().into_tvalue())
    }
}

/// Fails if the weights do not fit in memory, where that can be known.
fn fits(stored: &BTreeMap<String, Stored>) -> Result<(), String> {
    let bytes =
        |s: &Stored| s.len() as u64 * s.dtype.bytes().max(if is_half(s.dtype) { 4 } else { 1 }) as u64;
    let weights: u64 = stored.values().map(bytes).sum();
    // Once as read, and once packed for products.
    let wanted = weights.saturating_mul(2);
    match free_memory() {
        Some(free) if wanted > free => {
            let mib = |n: u64| n >> 20;
            Err(format!(
                "running it takes about {} MiB, and {} are free; `quantize` makes a base of it in pieces",
                mib(wanted),
                mib(free)
            ))
        }
        _ => Ok(()),
    }
}

/// Bytes that Linux says can be had; of other systems nothing is known.
fn free_memory() -> Option<u64> {
    let facts = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = facts.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn is_half(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::Bf16)
}

/// The weights by name; halves as floats, as the skeleton says they are.
fn read_all(stored: &BTreeMap<String, Stored>, files: &Files) -> TractResult<HashMap<String, Arc<Tensor>>> {
    let one = |(name, s): (&String, &Stored)| {
        let mut bytes = Vec::new();
        let len = s.len() * s.dtype.bytes();
        bytes.try_reserve_exact(len).with_context(|| format!("tensor `{name}`: {len} bytes"))?;
        bytes.resize(len, 0);
        s.read(files, 0, &mut bytes).map_err(|e| format_err!("tensor `{name}`: {e}"))?;
        let dt = match s.dtype {
            Dtype::F32 => f32::datum_type(),
            Dtype::U8 => u8::datum_type(),
            Dtype::I8 => i8::datum_type(),
            Dtype::I64 => i64::datum_type(),
            Dtype::F16 | Dtype::Bf16 => {
                let tensor = Tensor::from_shape(&s.dims, &floats(s.dtype, &bytes))?;
                return Ok((name.clone(), tensor.into_arc_tensor()));
            }
        };
        let tensor = match dt {
            DatumType::F32 => Tensor::from_shape(&s.dims, &floats(s.dtype, &bytes))?,
            DatumType::U8 => Tensor::from_shape(&s.dims, &bytes)?,
            DatumType::I8 => Tensor::from_shape(&s.dims, bytemuck::cast_slice::<u8, i8>(&bytes))?,
            _ => {
                let values: Vec<i64> = bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
                Tensor::from_shape(&s.dims, &values)?
            }
        };
        Ok((name.clone(), tensor.into_arc_tensor()))
    };
    stored.iter().map(one).collect()
}

/// tract's plan of the skeleton `model`, and what to feed it.
fn build(
    model: &[u8],
    mut weights: HashMap<String, Arc<Tensor>>,
    seq_max: usize,
    stored_max: usize,
) -> TractResult<(Arc<TypedRunnableModel>, Vec<Input>)> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    for op in GROWING {
        onnx.op_register.insert(op, bounded);
    }
    onnx.op_register.insert("QuantizeLinear", quantize_linear::read);
    let mut model: InferenceModel = onnx.model_for_read(&mut { model })?;
    // Of two sizes that are not known, tract cannot compute the product, which a token's scale in int8 needs. Texts are answered
    // one at a time, so one of them is known.
    let one_row = model.nodes().iter().any(|node| node.op.name() == quantize_linear::NAME);
    let (mut inputs, mut outlets) = (Vec::new(), Vec::new());
    for outlet in model.inputs.clone() {
        let name = model.node(outlet.node).name.clone();
        match weights.remove(&name) {
            Some(tensor) => {
                model.set_outlet_fact(outlet, InferenceFact::from(TypedFact::try_from(tensor.clone())?))?;
                model.node_mut(outlet.node).op = Box::new(Const::new(tensor)?);
            }
            None => {
                let mut found = input(&name, model.outlet_fact(outlet)?, inputs.is_empty())?;
                if one_row && found.dims[0].is_none() {
                    found.dims[0] = Some(1);
                    let mut fact = model.outlet_fact(outlet)?.clone();
                    fact.shape.set_dim(0, 1.to_dim());
                    model.set_outlet_fact(outlet, fact)?;
                }
                inputs.push(found);
                outlets.push(outlet);
            }
        }
    }
    ensure!(inputs.iter().any(|i| i.role == Role::Ids), "no input `input_ids`");
    for role in [Role::Ids, Role::Mask, Role::Types] {
        ensure!(inputs.iter().filter(|i| i.role == role).count() <= 1, "two inputs for {role:?}");
    }
    model.set_input_outlets(&outlets)?;
    let mut model = model.into_typed()?;
    bound_all(&model, seq_max, stored_max)?;
    graph::declutter(&mut model)?;
    // What tract cannot optimise it can still run.
    let optimised = model.clone().into_optimized().and_then(|m| m.into_runnable());
    Ok((optimised.or_else(|_| model.into_runnable())?, inputs))
}

/// What to feed an input.
fn input(name: &str, fact: &InferenceFact, first: bool) -> TractResult<Input> {
    let role = match name.rsplit(['/', '.']).next().unwrap_or(name) {
        "input_ids" => Role::Ids,
        "attention_mask" | "input_mask" => Role::Mask,
        "token_type_ids" | "segment_ids" => Role::Types,
        _ if first => Role::Ids,
        _ => bail!("input `{name}`: expected input_ids, attention_mask and token_type_ids"),
    };
    let dtype = fact.datum_type.concretize().unwrap_or(i64::datum_type());
    let shape = fact.shape.concretize().filter(|s| s.len() == 2);
    let shape = shape.with_context(|| format!("input `{name}`: expected it to be [batch, sequence]"))?;
    let fixed = |d: &TDim| d.to_usize().ok();
    let dims = [fixed(&shape[0]), fixed(&shape[1])];
    ensure!(dims[0].unwrap_or(1) * dims[1].unwrap_or(1) <= 1 << 20, "input `{name}` is too large");
    Ok(Input { role, dtype, dims })
}

/// Fails if a tensor may become too large for texts of `seq_max` tokens.
fn bound_all(model: &TypedModel, seq_max: usize, stored_max: usize) -> TractResult<()> {
    let most = MAX_ELEMENTS.max(stored_max as i64);
    let mut sizes = SymbolValues::default();
    for input in model.input_outlets()? {
        for (symbol, size) in model.outlet_fact(*input)?.shape.iter().zip([1, seq_max as i64]) {
            if let TDim::Sym(symbol) = symbol {
                sizes.set(symbol, size);
            }
        }
    }
    for node in model.nodes() {
        for output in &node.outputs {
            let mut elements = 1i64;
            for dim in output.fact.shape.iter() {
                let size = dim.eval_to_i64(&sizes).with_context(|| {
                    format!("node `{}`: its size depends on more than a text's length", node.name)
                })?;
                elements = elements.checked_mul(size.max(0)).unwrap_or(i64::MAX);
            }
            ensure!(
                elements <= most,
                "node `{}` would have {elements} elements; at most {most} may be",
                node.name
            );
        }
    }
    Ok(())
}

/// The output to read.
fn output(plan: &TypedRunnableModel) -> Option<Output> {
    let model = plan.model();
    let of = |(place, outlet): (usize, &OutletId)| {
        let is_logits = model.outlet_label(*outlet) == Some("logits");
        let dims = model.outlet_fact(*outlet).ok()?.shape.dims();
        let (labels, of_tokens) = match dims {
            [_, labels] => (labels, false),
            // Of an encoder without a head, its hidden states are of this shape too.
            [_, _, labels] if is_logits => (labels, true),
            _ => return None,
        };
        let labels = labels.to_usize().ok().filter(|n| (1..=1 << 16).contains(n))?;
        Some(Output { place, labels, is_logits, of_tokens })
    };
    let all: Vec<Output> = model.output_outlets().ok()?.iter().enumerate().filter_map(of).collect();
    all.iter().find(|output| output.is_logits).or(all.first()).copied()
}

/// An operator of [`GROWING`], with a bound.
fn bounded(ctx: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    static PLAIN: LazyLock<Onnx> = LazyLock::new(tract_onnx::onnx);
    let build = PLAIN.op_register.0.get(&node.op_type).context("an operator without a reader")?;
    let (op, closures) = build(ctx, node)?;
    let inner = op.as_op().downcast_ref::<Box<dyn Expansion>>().context("an operator of another kind")?;
    Ok((expand(Bounded { op: node.op_type.clone(), inner: inner.clone() }), closures))
}

/// Refuses to make a large constant: before it is wired, for tract computes what it wires of constants.
#[derive(Clone, Debug)]
struct Bounded {
    op: String,
    inner: Box<dyn Expansion>,
}

impl Bounded {
    fn check(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<()> {
        let mut values = Vec::new();
        for input in inputs {
            let fact = model.outlet_fact(*input)?;
            let whole = !fact.datum_type.is_float() || self.op != "Range";
            ensure!(whole, "Range of floats is not read");
            let Some(konst) = &fact.konst else { return Ok(()) };
            // One with a text's length in it is for `bound_all`.
            let Ok(numbers) = konst.cast_to::<i64>() else { return Ok(()) };
            let numbers: Vec<i64> = numbers.to_plain_array_view::<i64>()?.iter().copied().collect();
            values.push((konst.len() as i64, numbers));
        }
        let product = |n: &[i64]| n.iter().fold(1, |all: i64, n| all.saturating_mul((*n).max(1)));
        let elements = match (self.op.as_str(), &values[..]) {
            ("Range", [(_, start), (_, end), (_, step)]) => match (&start[..], &end[..], &step[..]) {
                ([start], [end], [step]) => {
                    end.saturating_sub(*start).saturating_abs() / step.saturating_abs().max(1)
                }
                _ => i64::MAX,
            },
            ("ConstantOfShape", [(_, shape)]) => product(shape),
            (_, [(len, _), (_, shape)]) => product(shape).saturating_mul(*len),
            _ => i64::MAX,
        };
        ensure!(elements <= MAX_CONSTANT, "{} makes {elements} elements of constants", self.op);
        Ok(())
    }
}

impl Expansion for Bounded {
    fn name(&self) -> StaticName {
        self.inner.as_ref().name()
    }

    fn validation(&self) -> Validation {
        self.inner.as_ref().validation()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.inner.as_ref().info()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.as_ref().nboutputs()
    }

    fn runs_out_of_plan(&self) -> bool {
        self.inner.as_ref().runs_out_of_plan()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.inner.as_ref().rules(s, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        self.check(model, inputs)?;
        self.inner.as_ref().wire(prefix, model, inputs)
    }

    fn wire_with_inference_model_and_node(
        &self,
        prefix: &str,
        source: &InferenceModel,
        node: &InferenceNode,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.check(model, inputs)?;
        self.inner.as_ref().wire_with_inference_model_and_node(prefix, source, node, model, inputs)
    }
}
