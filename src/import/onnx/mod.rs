//! An ONNX file -> an encoder's sizes, choices and tensors.
//!
//! ```text
//! file ── skeleton ──► a small ModelProto, weights as inputs ── tract ──► graph ── reader ──► meanings ── encoder
//! ```
//!
//! Matching is done on tract's decluttered graph, where PyTorch's two exporters, with eager and with SDPA attention,
//! opsets 13 to 20 and ONNX Runtime's dynamic quantization all look nearly alike: on the nodes of the file itself there
//! would be several forms of each. Weights are left in the file until they are asked for, so memory does not grow
//! with the model. Everything in the file is taken for hostile.

mod arithmetic;
mod axes;
mod encoder;
mod graph;
mod meaning;
mod origin;
mod quantize_linear;
mod reader;
mod run;
mod skeleton;
mod tensor;
mod weights;
mod wire;

use crate::config::Config;
use crate::container::refuse_impostor;
use crate::error::{Error, Result};
use crate::import::canonical::{self, Spec};
use crate::import::hf_config::read_config;
use crate::import::{MAX_CONFIG, read_small};
pub(crate) use origin::{Kind, Origin, Part};
pub(crate) use run::Runnable;
use std::fs::File;
use std::path::Path;
pub(crate) use tensor::Dtype;
pub(crate) use weights::Vector;
pub(super) use weights::Weights;

/// An encoder in an ONNX file.
pub(super) struct Onnx {
    pub config: Config,
    pub has_pooler: bool,
    /// Name of the input that tells tokens from padding.
    pub mask: String,
    pub specs: Vec<Spec>,
    pub weights: Weights,
}

impl Onnx {
    /// Finds the encoder in a file; a `config.json` at `config` must agree with it.
    ///
    /// Fails with [`Error::Format`] on a file that is broken or not ONNX, with [`Error::Unsupported`] on another
    /// network, naming the first node that does not fit, and with [`Error::Tensor`] on a tensor of another shape.
    pub fn open(path: &Path, config: Option<&Path>) -> Result<Onnx> {
        let unsupported = |what| Error::Unsupported { path: path.to_owned(), what };
        refuse_impostor(path)?;
        let file = File::open(path).map_err(Error::io(path))?;
        let skeleton = skeleton::Skeleton::read(path, file, skeleton::Purpose::Match)
            .map_err(|e| Error::format(path, e))?;
        let skeleton::Skeleton { model, stored, inputs, files, .. } = skeleton;
        let graph = graph::read(model).map_err(&unsupported)?;
        let reader = reader::Reader::read(&graph, &stored, &files, &inputs).map_err(&unsupported)?;
        let encoder = encoder::find(&reader, &stored).map_err(&unsupported)?;
        drop(reader);
        let (found, has_pooler, mask) = (encoder.config.clone(), encoder.has_pooler, encoder.mask.clone());
        found.validate(path)?;
        if let Some(path) = config {
            let read = read_config(path, &read_small(path, MAX_CONFIG)?, &|| Some(found.family))?;
            agree(path, &read.config, &found)?;
        }
        let config = found;
        let specs = canonical::tensors(&config, has_pooler, false);
        let weights = Weights::new(encoder, stored, files, &specs)?;
        Ok(Onnx { config, has_pooler, mask, specs, weights })
    }
}

/// Fails on the first size or choice in which a `config.json` differs from the graph.
fn agree(path: &Path, config: &Config, graph: &Config) -> Result<()> {
    let [config, graph] = [config, graph].map(|c| {
        let json = serde_json::to_value(c).map_err(|e| Error::Internal(e.to_string()))?;
        Ok::<_, Error>(json.as_object().cloned().unwrap_or_default())
    });
    let (config, graph) = (config?, graph?);
    for key in config.keys().chain(graph.keys()) {
        let (said, found) = (config.get(key), graph.get(key));
        if said != found {
            let text = |v: Option<&serde_json::Value>| v.map_or("none".into(), |v| v.to_string());
            let what = format!("`{key}` is {}, but {} in the ONNX graph", text(said), text(found));
            return Err(Error::format(path, what));
        }
    }
    Ok(())
}
