//! One ONNX file (opset 17, standard operators): encoder, pooling and head, ready for ONNX Runtime and others.
//!
//! Inputs `input_ids`, `attention_mask` and, for BERT and ELECTRA, `token_type_ids`, each `[batch, sequence]` in int64;
//! padding goes behind a text. Outputs: `logits` `[batch, labels]`, for `tag` `[batch, sequence, labels]`; for `qa`
//! `start_logits` and `end_logits` `[batch, sequence]`; for `contrastive` `sentence_embedding` `[batch, hidden]`,
//! of length 1 where the base has a Normalize module.
//!
//! - f32: the base's weights as `q · scale`, so the answers are those of `--exact`.
//! - int8: the base's own int8 weights and scales, not rounded again. A Linear is `QuantizeLinear`, `MatMulInteger`,
//!   `Cast`, `Mul`; a table is looked up in int8 and then scaled. Activations get a scale and a zero for each token, where
//!   trimtab has a scale for each token and 64 columns. (`DynamicQuantizeLinear` has one for a whole batch: faster, but
//!   much further off, and a text's answer would depend on the texts beside it.) A few columns of a BERT are some ten times
//!   as large as the others, the same ones for every text; were they rounded with the rest, its scale would be theirs. So
//!   they are multiplied apart, in f32, as in LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339). Which they are is read
//!   off the weights (`large_columns`, `large_outputs`), for an export sees no texts; where that misses one, its token
//!   is rounded as coarsely as it would be anyway.
//!
//! In the file's metadata: `task`, `labels` (JSON), `pooling`, `max_len`, `base_name`, `base_fingerprint`.

use super::onnx_graph::{Attribute, Element, Form, GraphBuilder};
use super::{Merged, Report, companions};
use crate::config::{Activation, Gelu, Module, Pooling};
use crate::error::{Error, Result};
use crate::import::canonical;
use crate::model::Model;
use crate::output;
use crate::params::Term;
use crate::protobuf::Dim;
use crate::quant::QMatrix;
use crate::task::Kind;
use std::path::Path;

/// How weights are stored and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// f32
    Floats,
    /// int8, activations quantized on the fly.
    Int8,
}

/// Longest file, in bytes: what a protobuf message can hold.
const FILE_BYTES_MAX: u64 = i32::MAX as u64;
/// Added to the scores of padding.
const HIDDEN: f32 = -1e9;
/// Columns that are multiplied apart, of what is as wide as the encoder or wider; fewer in a narrow one.
const LARGE: usize = 16;

/// Writes the file `out`, which is replaced whole if it is there, and beside it `tokenizer.json` and `config.json`
/// (`companions`).
///
/// Errors: `Error::Config` for a model of more than 2 GB; `Error::Io`. What stood at `out` then still does.
pub fn export(model: &Model, weights: Weights, out: &Path) -> Result<Report> {
    let m = Merged::of(model)?;
    let mut g = Wiring { m: &m, g: GraphBuilder::default(), weights, mask: "attention_mask" };
    let outputs = g.model()?;
    let file = g.g.finish("trimtab", &metadata(&m)?);
    check_length(file.bytes)?;
    drop(output::reserve(out, file.bytes)?);
    output::write_file(out, |to| file.write(to).map_err(Error::io(out)))?;
    let beside = companions::write(&m, out)?;
    Ok(Report { what: outputs, bytes: file.bytes, beside })
}

/// What a file says of itself.
pub(super) fn metadata(m: &Merged) -> Result<[(&'static str, String); 6]> {
    let labels =
        serde_json::to_string(m.task.labels()).map_err(|e| Error::Internal(format!("labels: {e}")))?;
    Ok([
        ("task", m.task.kind().to_string()),
        ("labels", labels),
        ("pooling", m.pooling.name().to_owned()),
        ("max_len", m.max_len.to_string()),
        ("base_name", m.base.name().to_owned()),
        ("base_fingerprint", m.base.fingerprint().to_owned()),
    ])
}

/// Fails on more bytes than a protobuf message can hold.
pub(super) fn check_length(bytes: u64) -> Result<()> {
    if bytes <= FILE_BYTES_MAX {
        return Ok(());
    }
    let what = format!("{bytes} bytes: an ONNX file holds 2 GB at most; onnx-int8 takes a quarter");
    Err(Error::Config(what))
}

/// An input of a Linear, quantized or not.
enum Input {
    Floats(String),
    /// In u8, `[batch, sequence, in]`, but for the `large` columns, which are 0 there; of each token the scale `s`,
    /// `[batch, sequence, 1]`; in f32 the large columns and `s z`, which 0 is at: `[batch, sequence, large + 1]`.
    Int8 {
        values: String,
        scale: String,
        rest: String,
        large: Vec<usize>,
    },
}

/// What [`Input::Int8`]'s `rest` is multiplied with: columns of `W`, and `−Σ W` of each output. `[large + 1, out]`
fn rest_weights(matrix: &QMatrix, large: &[usize]) -> Vec<f32> {
    let outputs = matrix.rows();
    let mut to = vec![0.0; (large.len() + 1) * outputs];
    for (r, scale) in matrix.scale().iter().enumerate() {
        let row: Vec<i32> = matrix.row(r).map(i32::from).collect();
        let values = large.iter().map(|c| row[*c]).chain([-row.iter().sum::<i32>()]);
        values.enumerate().for_each(|(i, v)| to[i * outputs + r] = v as f32 * scale);
    }
    to
}

/// Columns of an encoder's hidden states that are large whatever the text: those that one of its LayerNorms scales or shifts
/// most. Where another one scales them little, that is because the residual brings them there large.
fn large_columns(m: &Merged) -> Result<Vec<usize>> {
    let c = m.config();
    let mut most = vec![0.0f32; c.hidden];
    for (layer, term) in (0..c.layers).flat_map(|l| [(l, Term::Ln1), (l, Term::Ln2)]) {
        let module = term.module(c.family, layer);
        let (gain, bias) = (m.vector(&format!("{module}.weight"))?, m.vector(&format!("{module}.bias"))?);
        // Three standard deviations from the mean.
        most.iter_mut().zip(&gain).zip(&bias).for_each(|((m, g), b)| *m = m.max(3.0 * g.abs() + b.abs()));
    }
    Ok(greatest(&most, LARGE.min(c.hidden / 16)))
}

/// Columns of what a layer's m2 gives that are large: those that one of its inputs alone moves most.
fn large_outputs(m: &Merged, layer: usize) -> Result<Vec<usize>> {
    let family = m.config().family;
    let gain = m.vector(&format!("{}.weight", Term::Ln1.module(family, layer)))?;
    let matrix = m.base.matrix(&format!("{}.weight", Term::M2.module(family, layer)))?;
    let most = |r: usize| {
        matrix.row(r).zip(&gain).fold(0.0, |m: f32, (q, g)| m.max((f32::from(q) * g).abs()))
            * matrix.scale()[r]
    };
    let most: Vec<f32> = (0..matrix.rows()).map(most).collect();
    Ok(greatest(&most, LARGE.min(matrix.rows() / 16)))
}

/// Places of the `n` greatest, ascending.
fn greatest(values: &[f32], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    places.truncate(n);
    places.sort_unstable();
    places
}

pub(super) struct Wiring<'a> {
    pub m: &'a Merged<'a>,
    pub g: GraphBuilder,
    pub weights: Weights,
    /// Name of the input that tells tokens from padding.
    pub mask: &'a str,
}

impl Wiring<'_> {
    /// The whole graph; returns the names of its outputs.
    fn model(&mut self) -> Result<String> {
        let (c, tokens) = (self.m.config(), [Dim::Named("batch"), Dim::Named("sequence")]);
        for name in ["input_ids", "attention_mask"] {
            self.g.input(name, Element::I64, &tokens);
        }
        if c.types_told() > 0 {
            self.g.input("token_type_ids", Element::I64, &tokens);
        }
        let mut x = self.embeddings()?;
        let (mask, large) = (self.mask(), large_columns(self.m)?);
        for layer in 0..c.layers {
            x = self.layer(layer, &x, &mask, &large)?;
        }
        self.g.scope("pooler");
        let pooled = self.pooled(&x)?;
        self.outputs(&pooled)
    }

    /// `[batch, sequence, hidden]`
    fn embeddings(&mut self) -> Result<String> {
        let c = self.m.config();
        self.g.scope("embeddings");
        let words = self.rows("word", "input_ids")?;
        let shape = self.g.op("Shape", &["input_ids"], &[]);
        let one = self.g.index(1);
        let length = self.g.op("Gather", &[&shape, &one], &[]);
        let first = self.g.index(c.first_position as i64);
        let end = self.g.op("Add", &[&first, &length], &[]);
        let places = self.g.op("Range", &[&first, &end, &one], &[]);
        let positions = self.rows("position", &places)?;
        // In the order of trimtab's sum.
        let mut x = words;
        if c.types_told() > 0 {
            let types = self.rows("token_type", "token_type_ids")?;
            x = self.g.op("Add", &[&x, &types], &[]);
        } else if c.types > 0 {
            let name = canonical::embeddings(c.family, "token_type");
            let table = self.m.base.matrix(&name)?;
            let mut row = vec![0.0; table.cols()];
            table.dequantize_row(0, &mut row);
            let row = self.g.floats(&name, &[table.cols()], &row);
            x = self.g.op("Add", &[&x, &row], &[]);
        }
        x = self.g.op("Add", &[&x, &positions], &[]);
        x = self.norm(Term::EmbLn, 0, &x)?;
        if c.embedding.is_some() {
            let input = self.input(x, c.embedding_width(), &[]);
            x = self.linear(Term::EmbProj, 0, &input)?;
        }
        Ok(x)
    }

    /// Rows of a table, in f32.
    fn rows(&mut self, table: &str, ids: &str) -> Result<String> {
        let name = canonical::embeddings(self.m.config().family, table);
        let matrix = self.m.base.matrix(&name)?;
        if self.weights == Weights::Floats {
            let table = self.g.matrix(&name, &matrix, Form::Floats, false);
            return Ok(self.g.op("Gather", &[&table, ids], &[]));
        }
        let table = self.g.matrix(&name, &matrix, Form::Int8, false);
        let scales = self.g.floats(&format!("{name}.scale"), &[matrix.rows(), 1], matrix.scale());
        let values = self.g.op("Gather", &[&table, ids], &[]);
        let scale = self.g.op("Gather", &[&scales, ids], &[]);
        let values = self.floats_of(&values);
        Ok(self.g.op("Mul", &[&values, &scale], &[]))
    }

    pub(super) fn floats_of(&mut self, values: &str) -> String {
        self.g.op("Cast", &[values], &[("to", Attribute::Int(Element::F32 as i64))])
    }

    /// What is added to the scores, `[batch, 1, 1, sequence]`: 0 for tokens, much less for padding.
    fn mask(&mut self) -> String {
        let mask = self.floats_of(self.mask);
        let (one, hidden) = (self.g.scalar(1.0), self.g.scalar(HIDDEN));
        let padding = self.g.op("Sub", &[&one, &mask], &[]);
        let added = self.g.op("Mul", &[&padding, &hidden], &[]);
        let axes = self.g.indices(&[1, 2]);
        self.g.op("Unsqueeze", &[&added, &axes], &[])
    }

    /// `large`: columns of `x`, and of what the LayerNorms here make of it, that are multiplied apart.
    fn layer(&mut self, layer: usize, x: &str, mask: &str, large: &[usize]) -> Result<String> {
        self.g.scope(format!("layer.{layer}/attention"));
        let hidden = self.m.config().hidden;
        let input = self.input(x.to_owned(), hidden, large);
        let q = self.heads(Term::Q, layer, &input, &[0, 2, 1, 3])?;
        let k = self.heads(Term::K, layer, &input, &[0, 2, 3, 1])?;
        let v = self.heads(Term::V, layer, &input, &[0, 2, 1, 3])?;
        let scores = self.g.op("MatMul", &[&q, &k], &[]);
        let root = self.g.scalar((self.m.config().head_dim() as f32).sqrt());
        let scores = self.g.op("Div", &[&scores, &root], &[]);
        let scores = self.g.op("Add", &[&scores, mask], &[]);
        let probabilities = self.g.op("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        let context = self.g.op("MatMul", &[&probabilities, &v], &[]);
        let context = self.g.op("Transpose", &[&context], &[("perm", Attribute::Ints(&[0, 2, 1, 3]))]);
        let shape = self.g.indices(&[0, 0, hidden as i64]);
        let context = self.g.op("Reshape", &[&context, &shape], &[]);
        let context = self.input(context, hidden, &[]);
        let y = self.linear(Term::M1, layer, &context)?;
        let x = self.add_norm(Term::Ln1, layer, &y, x)?;

        self.g.scope(format!("layer.{layer}/ffn"));
        let input = self.input(x.clone(), hidden, large);
        let z = self.linear(Term::M2, layer, &input)?;
        let y = self.gelu(&z, self.m.config().gelu);
        let large = large_outputs(self.m, layer)?;
        let y = self.input(y, self.m.config().intermediate, &large);
        let y = self.linear(Term::M3, layer, &y)?;
        self.add_norm(Term::Ln2, layer, &y, &x)
    }

    /// A Linear's output by heads, its axes `[batch, sequence, heads, head_dim]` in another order.
    fn heads(&mut self, term: Term, layer: usize, input: &Input, perm: &[i64]) -> Result<String> {
        let y = self.linear(term, layer, input)?;
        let c = self.m.config();
        let shape = self.g.indices(&[0, 0, c.heads as i64, c.head_dim() as i64]);
        let y = self.g.op("Reshape", &[&y, &shape], &[]);
        Ok(self.g.op("Transpose", &[&y], &[("perm", Attribute::Ints(perm))]))
    }

    /// Quantizes what a Linear reads, where weights are int8, to u8: of each token `q = round(x / s) + z`, with `s` and `z`
    /// so that the token's least value, its greatest and 0 are in reach. The `large` ones of the `cols` columns stay in f32.
    fn input(&mut self, mut x: String, cols: usize, large: &[usize]) -> Input {
        if self.weights == Weights::Floats {
            return Input::Floats(x);
        }
        let mut rest = Vec::new();
        if !large.is_empty() {
            let places = self.g.indices(&large.iter().map(|c| *c as i64).collect::<Vec<_>>());
            rest.push(self.g.op("Gather", &[&x, &places], &[("axis", Attribute::Int(-1))]));
            let mut kept = vec![1.0; cols];
            large.iter().for_each(|c| kept[*c] = 0.0);
            let kept = self.g.floats(&format!("{places} of {cols}"), &[cols], &kept);
            x = self.g.op("Mul", &[&x, &kept], &[]);
        }
        let zero = self.g.scalar(0.0);
        let rows = [("axes", Attribute::Ints(&[-1]))];
        let least = self.g.op("ReduceMin", &[&x], &rows);
        let least = self.g.op("Min", &[&least, &zero], &[]);
        let most = self.g.op("ReduceMax", &[&x], &rows);
        let most = self.g.op("Max", &[&most, &zero], &[]);
        let range = self.g.op("Sub", &[&most, &least], &[]);
        let (levels, tiny) = (self.g.scalar(255.0), self.g.scalar(1e-30));
        let scale = self.g.op("Div", &[&range, &levels], &[]);
        let scale = self.g.op("Max", &[&scale, &tiny], &[]);
        let below = self.g.op("Neg", &[&least], &[]);
        let zero = self.g.op("Div", &[&below, &scale], &[]);
        let zero = self.g.op("Round", &[&zero], &[]);
        rest.push(self.g.op("Mul", &[&zero, &scale], &[]));
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let rest = self.g.op("Concat", &rest, &[("axis", Attribute::Int(-1))]);
        // A scale for each row is a scale for each index of the first axis.
        let all = self.g.indices(&[-1]);
        let scales = self.g.op("Reshape", &[&scale, &all], &[]);
        let zeros = self.g.op("Reshape", &[&zero, &all], &[]);
        let zeros = self.g.op("Cast", &[&zeros], &[("to", Attribute::Int(Element::U8 as i64))]);
        let flat = self.g.op("Flatten", &[&x], &[("axis", Attribute::Int(2))]);
        let values = self.g.op("QuantizeLinear", &[&flat, &scales, &zeros], &[("axis", Attribute::Int(0))]);
        let shape = self.g.op("Shape", &[&x], &[]);
        let values = self.g.op("Reshape", &[&values, &shape], &[]);
        Input::Int8 { values, scale, rest, large: large.to_vec() }
    }

    /// `x Wᵀ + b`; int8: `s s_w (q W_qᵀ) − s z (s_w Σ W_q) + x Wᵀ of the large columns + b`.
    fn linear(&mut self, term: Term, layer: usize, input: &Input) -> Result<String> {
        let module = term.module(self.m.config().family, layer);
        let name = format!("{module}.weight");
        let matrix = self.m.base.matrix(&name)?;
        let product = match input {
            Input::Floats(x) => {
                let w = self.g.matrix(&name, &matrix, Form::Floats, true);
                self.g.op("MatMul", &[x, &w], &[])
            }
            Input::Int8 { values, scale, rest, large } => {
                // u8 × u8, not u8 × i8: of the latter, x86 without VNNI adds pairs in 16 bits, which overflow.
                let w = self.g.matrix(&name, &matrix, Form::Uint8, true);
                let none = self.g.initializer("u8 0", Element::U8, &[], &[0]);
                let middle = self.g.initializer("u8 128", Element::U8, &[], &[128]);
                let sums = self.g.op("MatMulInteger", &[values, &w, &none, &middle], &[]);
                let sums = self.floats_of(&sums);
                let w_scale = self.g.floats(&format!("{name}.scale"), &[matrix.rows()], matrix.scale());
                // One after the other: ONNX Runtime takes `sums · (scale · w_scale)` for its fused operator, which has
                // but one `scale` for all tokens.
                let product = self.g.op("Mul", &[&sums, &w_scale], &[]);
                let product = self.g.op("Mul", &[&product, scale], &[]);
                let dims = [large.len() + 1, matrix.rows()];
                let w = self.g.floats(&format!("{name}.rest"), &dims, &rest_weights(&matrix, large));
                let rest = self.g.op("MatMul", &[rest, &w], &[]);
                self.g.op("Add", &[&product, &rest], &[])
            }
        };
        let bias = self.vector(&format!("{module}.bias"))?;
        Ok(self.g.op("Add", &[&product, &bias], &[]))
    }

    fn vector(&mut self, name: &str) -> Result<String> {
        let values = self.m.vector(name)?;
        Ok(self.g.floats(name, &[values.len()], &values))
    }

    fn norm(&mut self, term: Term, layer: usize, x: &str) -> Result<String> {
        let module = term.module(self.m.config().family, layer);
        let gain = self.vector(&format!("{module}.weight"))?;
        let bias = self.vector(&format!("{module}.bias"))?;
        let eps = Attribute::Float(self.m.config().layer_norm_eps);
        Ok(self.g.op(
            "LayerNormalization",
            &[x, &gain, &bias],
            &[("axis", Attribute::Int(-1)), ("epsilon", eps)],
        ))
    }

    fn add_norm(&mut self, term: Term, layer: usize, y: &str, x: &str) -> Result<String> {
        let sum = self.g.op("Add", &[y, x], &[]);
        self.norm(term, layer, &sum)
    }

    /// See [`Gelu`]; in the order of operations that ONNX Runtime knows and makes one.
    fn gelu(&mut self, z: &str, kind: Gelu) -> String {
        let (half, one) = (self.g.scalar(0.5), self.g.scalar(1.0));
        let inner = match kind {
            Gelu::Erf => {
                let root = self.g.scalar(std::f32::consts::SQRT_2);
                let x = self.g.op("Div", &[z, &root], &[]);
                self.g.op("Erf", &[&x], &[])
            }
            Gelu::Tanh => {
                let (three, c) = (self.g.scalar(3.0), self.g.scalar(0.044715));
                let root = self.g.scalar((2.0 / std::f64::consts::PI).sqrt() as f32);
                let cube = self.g.op("Pow", &[z, &three], &[]);
                let cube = self.g.op("Mul", &[&cube, &c], &[]);
                let sum = self.g.op("Add", &[z, &cube], &[]);
                let x = self.g.op("Mul", &[&sum, &root], &[]);
                self.g.op("Tanh", &[&x], &[])
            }
        };
        let sum = self.g.op("Add", &[&inner, &one], &[]);
        let product = self.g.op("Mul", &[z, &sum], &[]);
        self.g.op("Mul", &[&product, &half], &[])
    }

    /// What the head reads: `[batch, hidden]`, or each token's, or `[batch / 2, 2 hidden]` of pairs.
    pub(super) fn pooled(&mut self, x: &str) -> Result<String> {
        self.pooled_as(self.m.pooling, x)
    }

    fn pooled_as(&mut self, pooling: Pooling, x: &str) -> Result<String> {
        match pooling {
            Pooling::Tokens => Ok(x.to_owned()),
            Pooling::First => Ok(self.first(x)),
            Pooling::Mean | Pooling::Windows => {
                let mask = self.floats_of(self.mask);
                let (last, one) = (self.g.indices(&[-1]), self.g.indices(&[1]));
                let mask = self.g.op("Unsqueeze", &[&mask, &last], &[]);
                let rows = self.g.op("Mul", &[x, &mask], &[]);
                let keep = [("keepdims", Attribute::Int(0))];
                let sum = self.g.op("ReduceSum", &[&rows, &one], &keep);
                let count = self.g.op("ReduceSum", &[&mask, &one], &keep);
                Ok(self.g.op("Div", &[&sum, &count], &[]))
            }
            Pooling::Apart => {
                let means = self.pooled_as(Pooling::Mean, x)?;
                Ok(self.compared(&means))
            }
            Pooling::Cls => {
                let x = self.first(x);
                let module = Term::Pooler.module(self.m.config().family, 0);
                let name = format!("{module}.weight");
                let matrix = self.m.base.matrix(&name)?;
                // In f32 as in trimtab: one row a text costs nothing.
                let w = match self.weights {
                    Weights::Floats => self.g.matrix(&name, &matrix, Form::Floats, true),
                    Weights::Int8 => {
                        let w = self.g.matrix(&name, &matrix, Form::Int8, true);
                        let scale = self.g.floats(&format!("{name}.scale"), &[matrix.rows()], matrix.scale());
                        self.g.op("DequantizeLinear", &[&w, &scale], &[("axis", Attribute::Int(1))])
                    }
                };
                let bias = self.vector(&format!("{module}.bias"))?;
                let y = self.g.op("MatMul", &[&x, &w], &[]);
                let y = self.g.op("Add", &[&y, &bias], &[]);
                Ok(self.pooler_activation(&y))
            }
        }
    }

    /// Each row divided by its length.
    fn normalized(&mut self, rows: &str) -> String {
        let (last, shortest) = (self.g.indices(&[-1]), self.g.scalar(1e-24));
        let squares = self.g.op("Mul", &[rows, rows], &[]);
        let square = self.g.op("ReduceSum", &[&squares, &last], &[("keepdims", Attribute::Int(1))]);
        let square = self.g.op("Max", &[&square, &shortest], &[]);
        let length = self.g.op("Sqrt", &[&square], &[]);
        self.g.op("Div", &[rows, &length], &[])
    }

    /// [`crate::ops::compare`] of two rows that follow one another.
    fn compared(&mut self, means: &str) -> String {
        let hidden = self.m.config().hidden as i64;
        let (last, pairs) = (self.g.indices(&[-1]), self.g.indices(&[-1, 2, hidden]));
        let squares = self.g.op("Mul", &[means, means], &[]);
        let square = self.g.op("ReduceSum", &[&squares, &last], &[("keepdims", Attribute::Int(1))]);
        let (shortest, root) = (self.g.scalar(1e-24), self.g.scalar((hidden as f32).sqrt()));
        let one = self.g.scalar(1.0);
        let square = self.g.op("Max", &[&square, &shortest], &[]);
        let length = self.g.op("Sqrt", &[&square], &[]);
        let units = self.g.op("Div", &[means, &length], &[]);
        let scaled = self.g.op("Mul", &[&units, &root], &[]);
        let scaled = self.g.op("Reshape", &[&scaled, &pairs], &[]);
        let [a, b] = [0, 1].map(|i| {
            let i = self.g.index(i);
            self.g.op("Gather", &[&scaled, &i], &[("axis", Attribute::Int(1))])
        });
        let apart = self.g.op("Sub", &[&a, &b], &[]);
        let apart = self.g.op("Mul", &[&apart, &apart], &[]);
        let apart = self.g.op("Add", &[&apart, &one], &[]);
        let apart = self.g.op("Sqrt", &[&apart], &[]);
        let apart = self.g.op("Sub", &[&apart, &one], &[]);
        let alike = self.g.op("Mul", &[&a, &b], &[]);
        self.g.op("Concat", &[&apart, &alike], &[("axis", Attribute::Int(1))])
    }

    pub(super) fn pooler_activation(&mut self, y: &str) -> String {
        match self.m.config().family.activation() {
            Activation::Tanh => self.g.op("Tanh", &[y], &[]),
            Activation::Relu => self.g.op("Relu", &[y], &[]),
            Activation::Gelu => self.gelu(y, Gelu::Erf),
        }
    }

    fn first(&mut self, x: &str) -> String {
        let zero = self.g.index(0);
        self.g.op("Gather", &[x, &zero], &[("axis", Attribute::Int(1))])
    }

    /// The head and the outputs, whose names it returns.
    pub(super) fn outputs(&mut self, pooled: &str) -> Result<String> {
        let (outputs, features) = (self.m.task.outputs(), self.m.features());
        let [batch, sequence, pairs] = ["batch", "sequence", "pairs"].map(Dim::Named);
        if outputs == 0 {
            // As `embed`; `Merged::of` has refused Dense.
            let unit = match self.m.base.modules().contains(&Module::Normalize) {
                true => self.normalized(pooled),
                false => pooled.to_owned(),
            };
            self.g.node("Identity", &[&unit], &["sentence_embedding"], &[]);
            self.g.output("sentence_embedding", Element::F32, &[batch, Dim::Fixed(features)]);
            return Ok("sentence_embedding".into());
        }
        self.g.scope("head");
        let module = self.m.head_module();
        let [weight, bias] = self.m.head();
        let turned: Vec<f32> =
            (0..features).flat_map(|f| (0..outputs).map(move |o| weight[o * features + f])).collect();
        let w = self.g.floats(&format!("{module}.weight"), &[features, outputs], &turned);
        let b = self.g.floats(&format!("{module}.bias"), &[outputs], bias);
        let y = self.g.op("MatMul", &[pooled, &w], &[]);
        if self.m.task.kind() == Kind::Qa {
            let y = self.g.op("Add", &[&y, &b], &[]);
            for (i, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
                let i = self.g.index(i as i64);
                self.g.node("Gather", &[&y, &i], &[name], &[("axis", Attribute::Int(2))]);
                self.g.output(name, Element::F32, &[batch, sequence]);
            }
            return Ok("start_logits, end_logits".into());
        }
        self.g.node("Add", &[&y, &b], &["logits"], &[]);
        let outputs = Dim::Fixed(outputs);
        let dims = match self.m.pooling {
            Pooling::Tokens => vec![batch, sequence, outputs],
            Pooling::Apart => vec![pairs, outputs],
            Pooling::Cls | Pooling::Mean | Pooling::First | Pooling::Windows => vec![batch, outputs],
        };
        self.g.output("logits", Element::F32, &dims);
        Ok("logits".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_longer_than_a_protobuf_message() {
        check_length((1 << 31) - 1).unwrap();
        let error = check_length(1 << 31).unwrap_err().to_string();
        assert!(error.contains("2 GB at most") && error.contains("onnx-int8"), "{error}");
    }
}
