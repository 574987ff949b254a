//! A personal model for other runtimes: base, biases and head merged into what they read.
//!
//! - [`hf`]: a directory for Hugging Face's `transformers`, weights in f32;
//! - [`onnx`]: one ONNX file, weights in f32 or int8;
//! - `onnx_patch`: the ONNX file that the base was made from, with other biases (behind the feature `onnx`);
//! - [`peft`]: an adapter for Hugging Face's `peft`, the biases alone, over the checkpoint that the base was made from.

mod companions;
mod directory;
pub mod hf;
pub mod onnx;
mod onnx_graph;
#[cfg(feature = "onnx")]
pub mod onnx_patch;
pub mod peft;
mod tokenizer;
mod weights;

#[cfg(feature = "onnx")]
pub(crate) use companions::own_name;

use crate::config::{Config, Module, Pooling};
use crate::error::{Error, Result};
use crate::import::canonical::{self, Spec};
use crate::model::Model;
use crate::params::{Layout, head_module};
use crate::quant::Base;
use crate::task::{Kind, Task};
use std::path::PathBuf;

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Class of `transformers` that reads it, inputs and outputs of a graph, or the adapter's type.
    pub what: String,
    /// Bytes of the file or of all files of the directory.
    pub bytes: u64,
    /// Of an ONNX file: its tokenizer and its config, in other files.
    pub beside: Vec<PathBuf>,
}

/// A model whose biases and head are one with its base.
struct Merged<'a> {
    base: &'a Base,
    task: &'a Task,
    pooling: Pooling,
    layout: &'a Layout,
    theta: &'a [f32],
    max_len: usize,
}

impl<'a> Merged<'a> {
    /// Errors: `Error::Config` for a masked-LM's, which is a start for other tasks and answers nothing itself, and for
    /// embeddings that come out of a Dense module, which no export has.
    fn of(model: &'a Model) -> Result<Merged<'a>> {
        if model.task().kind() == Kind::Mlm {
            let what = "an mlm model is a start for others: train a task with --start, and export that";
            return Err(Error::Config(what.into()));
        }
        let is_dense = |module: &Module| matches!(module, Module::Dense { .. });
        if model.task().kind() == Kind::Contrastive && model.base().modules().iter().any(is_dense) {
            let what = "the embeddings of this base come out of a Dense module, which exports do not have; use `embed`";
            return Err(Error::Config(what.into()));
        }
        Ok(Merged {
            base: model.base(),
            task: model.task(),
            // What is exported reads one window.
            pooling: match model.pooling() {
                Pooling::Windows => Pooling::Mean,
                pooling => pooling,
            },
            layout: model.graph().layout(),
            theta: model.theta(),
            max_len: model.max_len(),
        })
    }

    fn config(&self) -> &Config {
        self.base.config()
    }

    /// A vector of the encoder: the model's own where it can be trained, else the base's.
    fn vector(&self, name: &str) -> Result<Vec<f32>> {
        match self.layout.iter().find(|p| p.name == name) {
            Some(p) => Ok(self.theta[p.range.clone()].to_vec()),
            None => self.base.vector(name),
        }
    }

    /// The encoder's tensors, and with `pooler` the pooler's.
    fn specs(&self, pooler: bool) -> Vec<Spec> {
        canonical::tensors(self.config(), pooler, false)
    }

    /// Width of what the head reads.
    fn features(&self) -> usize {
        self.pooling.features(self.config().hidden)
    }

    /// Weight `[outputs, features]` and bias `[outputs]` of the head.
    fn head(&self) -> [&[f32]; 2] {
        [self.layout.head_weight(), self.layout.head_bias()].map(|range| &self.theta[range])
    }

    /// Whether a head reads the mean of the tokens, the first one without a pooler, or compares two means, for which
    /// `transformers` has no class.
    fn has_own_class(&self) -> bool {
        matches!(self.pooling, Pooling::Mean | Pooling::First | Pooling::Apart) && self.task.outputs() > 0
    }

    /// The head's module in `transformers`.
    fn head_module(&self) -> &'static str {
        self.task.kind().head().unwrap_or(head_module(self.config().family, self.pooling))
    }
}

fn json(value: &serde_json::Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(format!("JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
