//! An ONNX file that is to be written again with other biases: where its parts lie, and which of its tensors are the
//! encoder's.

use super::tensor::{Head, entry, text};
use super::wire::{Bytes, Fields, Value};
use super::{Onnx, Vector, Weights};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::import::Piece;
use crate::import::canonical::Spec;
use std::fs::File;
use std::path::Path;

/// Most fields of a model or its graph that are told apart.
const MAX_PARTS: usize = 1 << 17;

/// A field of the model or of its graph.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Its number in `onnx.proto3`.
    pub field: u64,
    /// Where its bytes lie in the file.
    pub at: u64,
    pub len: u64,
    pub kind: Kind,
}

/// What a field of the graph is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Node {
        op: String,
        inputs: Vec<String>,
        outputs: Vec<String>,
    },
    Tensor {
        name: String,
        /// Its data is in another file.
        is_external: bool,
    },
    Input(String),
    Output,
    /// What is known of a value in between.
    Between(String),
    /// What the model says of itself: a key, and something.
    Metadata(String),
    Other,
}

/// An ONNX file whose encoder is known.
pub(crate) struct Origin {
    pub config: Config,
    pub has_pooler: bool,
    /// Name of the input that tells tokens from padding.
    pub mask: String,
    pub specs: Vec<Spec>,
    /// Numbers among the model's fields: the field's, and it.
    pub numbers: Vec<(u64, u64)>,
    /// The model's other fields, but for the graph.
    pub model: Vec<Part>,
    pub graph: Vec<Part>,
    /// Version of the standard operators.
    pub opset: u64,
    weights: Weights,
}

impl Origin {
    /// Finds the encoder in a file, and the file's parts. Errors: as [`Onnx::open`].
    pub fn open(path: &Path) -> Result<Origin> {
        let Onnx { config, has_pooler, mask, specs, weights } = Onnx::open(path, None)?;
        let mut origin = Origin {
            config,
            has_pooler,
            mask,
            specs,
            numbers: Vec::new(),
            model: Vec::new(),
            graph: Vec::new(),
            opset: 0,
            weights,
        };
        origin.parts().map_err(|e| Error::format(path, e))?;
        Ok(origin)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.weights.path()
    }

    /// Hands a tensor of the encoder out as [`Checkpoint::read`](crate::import::Checkpoint::read) does.
    pub fn read(&self, canonical: &str, each: &mut dyn FnMut(Piece, u64) -> Result<()>) -> Result<()> {
        self.weights.read(canonical, each)
    }

    /// Biases and gains.
    pub fn vectors(&self) -> impl Iterator<Item = Vector<'_>> {
        self.weights.vectors()
    }

    /// Fills `into` with the file's bytes from `at` on.
    pub fn bytes(&self, at: u64, into: &mut [u8]) -> Result<()> {
        Bytes(self.weights.file()).read(at, into).map_err(|e| Error::format(self.path(), e))
    }

    fn parts(&mut self) -> Result<(), String> {
        let file = self.weights.file();
        let bytes = Bytes(file);
        let (mut numbers, mut model, mut graph, mut opset) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut fields = Fields::new(bytes, 0, file.metadata().map_err(|e| e.to_string())?.len());
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (7, value) => {
                    let (at, len) = value.place()?;
                    let mut fields = Fields::new(bytes, at, len);
                    while let Some((field, value)) = fields.next()? {
                        let (at, len) = value.place()?;
                        graph.push(Part { field, at, len, kind: Kind::read(file, field, at, len)? });
                        if graph.len() > MAX_PARTS {
                            return Err(format!("a graph of more than {MAX_PARTS} fields"));
                        }
                    }
                }
                (_, Value::Len { at, len }) => {
                    if field == 8 {
                        opset = opset.max(standard_opset(bytes, at, len)?);
                    }
                    let kind = if field == 14 { Kind::Metadata(entry(bytes, value)?.0) } else { Kind::Other };
                    model.push(Part { field, at, len, kind });
                }
                (_, Value::Varint(n)) => numbers.push((field, n)),
                (_, Value::Fixed32(_) | Value::Fixed64(_)) => {}
            }
            if model.len() + numbers.len() > MAX_PARTS {
                return Err(format!("a model of more than {MAX_PARTS} fields"));
            }
        }
        (self.numbers, self.model, self.graph, self.opset) = (numbers, model, graph, opset);
        Ok(())
    }
}

impl Kind {
    fn read(file: &File, field: u64, at: u64, len: u64) -> Result<Kind, String> {
        let bytes = Bytes(file);
        let mut fields = Fields::new(bytes, at, len);
        Ok(match field {
            1 => {
                let (mut op, mut inputs, mut outputs) = (String::new(), Vec::new(), Vec::new());
                while let Some((field, value)) = fields.next()? {
                    match field {
                        1 => inputs.push(text(bytes, value)?),
                        2 => outputs.push(text(bytes, value)?),
                        4 => op = text(bytes, value)?,
                        _ => {}
                    }
                }
                Kind::Node { op, inputs, outputs }
            }
            5 => {
                let head = Head::read(file, at, len)?;
                Kind::Tensor { is_external: head.is_external(), name: head.name }
            }
            11 | 13 => {
                let mut name = String::new();
                while let Some((field, value)) = fields.next()? {
                    if field == 1 {
                        name = text(bytes, value)?;
                    }
                }
                if field == 11 { Kind::Input(name) } else { Kind::Between(name) }
            }
            12 => Kind::Output,
            _ => Kind::Other,
        })
    }
}

/// The version that an OperatorSetIdProto tells, if it is that of the standard operators; else 0.
fn standard_opset(bytes: Bytes, at: u64, len: u64) -> Result<u64, String> {
    let (mut domain, mut version) = (String::new(), 0);
    let mut fields = Fields::new(bytes, at, len);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => domain = text(bytes, value)?,
            2 => version = value.number()?,
            _ => {}
        }
    }
    Ok(if matches!(domain.as_str(), "" | "ai.onnx") { version } else { 0 })
}
