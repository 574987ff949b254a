//! The bias file (`*.bias.safetensors`): what training changed, under Hugging Face names.
//!
//! A safetensors container. Tensors are all F32 or all F16: the trained biases, and always
//! the head, `classifier.weight` `[outputs, hidden]` and `classifier.bias` `[outputs]` (RoBERTa's and ELECTRA's for a
//! text: `classifier.out_proj.weight` and `.bias`; for `qa` `qa_outputs.weight` and `.bias`), but for the tasks
//! `contrastive`, which has none, and `mlm`, whose head is the base's. `__metadata__`:
//!
//! | key | value |
//! |---|---|
//! | `format`, `version` | `trimtab-bias`, `1` |
//! | `task` | `classify`, `multilabel`, `regress`, `tag`, `qa`, `contrastive` or `mlm` |
//! | `labels` | JSON array of strings, in the order of the head's rows; empty for `regress`, whose head has one, `qa`, whose head has two, `contrastive` and `mlm` |
//! | `pooling` | `cls` or `mean`; `tokens` for `tag`, `qa` and `mlm`; `first`, the first token without a pooler, for `contrastive` and for bases without one; `apart` for pairs, `windows` for long texts |
//! | `terms`, `layers` | what was trained: `m2,ln2`, `0..6` |
//! | `max_len` | tokens that texts are cut to |
//! | `stride` | for `qa` only: tokens of a context that two windows share |
//! | `base_fingerprint`, `base_name` | the base this belongs to; refused on another |
//! | `metrics`, `settings` | JSON: scores when saved, how it was trained; `"unanswerable": true` in `settings` if a `qa` model has learned that a question may have no answer |
//!
//! Every bias of `terms` in `layers` MUST be there, so that a file that lost one is not taken for one that never
//! had it. Equal content gives equal bytes.
#![doc = ""]
#![doc = include_str!("../docs/pytorch.md")]

use crate::config::Pooling;
use crate::container::{self, Header, floats};
use crate::error::{Error, Result};
use crate::output;
use crate::params::{Layout, Terms};
use crate::task::{Kind, Task};
use half::f16;
use safetensors::Dtype;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const FORMAT: &str = "trimtab-bias";
const VERSION: &str = "1";
/// Largest file read: all biases of the largest BERT and a head of ten thousand labels fit four times.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Trained biases and head, with what is needed to use them.
#[derive(Clone, Debug, PartialEq)]
pub struct BiasFile {
    /// What the model answers, with the labels in the order of the head's rows.
    pub task: Task,
    /// How a text became one vector.
    pub pooling: Pooling,
    /// Symbols of the bias terms that were trained, as [`Terms`] prints them.
    pub terms: String,
    /// Layers whose biases were trained: from, and to without it.
    pub layers: (usize, usize),
    /// Tokens that texts were cut to.
    pub max_len: usize,
    /// Tokens of a context that two windows share; of [`Task::Qa`] and no other.
    pub stride: Option<usize>,
    /// Fingerprint of the base.
    pub base_fingerprint: String,
    /// Name of the base, for people.
    pub base_name: String,
    /// Scores at the time of saving.
    pub metrics: serde_json::Value,
    /// How it was trained.
    pub settings: serde_json::Value,
    /// Shape and values by Hugging Face name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl BiasFile {
    /// Writes the file, in F16 if `half`, else F32: beside `path`, synced, then renamed over it.
    ///
    /// Errors: `Error::Io`; `Error::Tensor` for a value that is not finite or too large for F16, or a head
    /// that does not fit the labels. What stood at `path` then still stands there.
    pub fn save(&self, path: &Path, half: bool) -> Result<()> {
        self.check(path)?;
        let dtype = if half { Dtype::F16 } else { Dtype::F32 };
        let mut data = Vec::new();
        let mut shapes = Vec::new();
        for (name, (shape, values)) in &self.tensors {
            shapes.push((name.clone(), dtype, shape.clone()));
            if half {
                let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                if let Some(i) = halves.iter().position(|h| !h.is_finite()) {
                    let what = format!("value {} is too large for f16; save as f32", values[i]);
                    return Err(Error::tensor(path, name, what));
                }
                data.extend_from_slice(bytemuck::cast_slice(&halves));
            } else {
                data.extend_from_slice(bytemuck::cast_slice(values));
            }
        }
        let (infos, _) = container::lay_out(&shapes)
            .ok_or_else(|| Error::Internal("the tensors are too large to address".into()))?;
        let header = container::encode_header(&infos, &self.metadata()?, 0)?;
        output::write_file(path, |file| {
            file.write_all(&header).and_then(|()| file.write_all(&data)).map_err(Error::io(path))
        })
    }

    fn metadata(&self) -> Result<BTreeMap<&'static str, String>> {
        fn json<T: Serialize>(value: &T) -> Result<String> {
            serde_json::to_string(value).map_err(|e| Error::Internal(format!("metadata: {e}")))
        }
        let mut metadata = BTreeMap::from([
            ("format", FORMAT.into()),
            ("version", VERSION.into()),
            ("task", self.task.kind().to_string()),
            ("labels", json(&self.task.labels())?),
            ("pooling", self.pooling.name().into()),
            ("terms", self.terms.clone()),
            ("layers", format!("{}..{}", self.layers.0, self.layers.1)),
            ("max_len", self.max_len.to_string()),
            ("base_fingerprint", self.base_fingerprint.clone()),
            ("base_name", self.base_name.clone()),
            ("metrics", json(&self.metrics)?),
            ("settings", json(&self.settings)?),
        ]);
        metadata.extend(self.stride.map(|stride| ("stride", stride.to_string())));
        Ok(metadata)
    }

    /// Reads and checks a file; nothing in it is trusted.
    ///
    /// Errors: `Error::Io`; `Error::Format` if it is no bias file, of another version, damaged or too large;
    /// `Error::Tensor` for a tensor of another type or shape, or with a value that is not finite.
    pub fn open(path: &Path) -> Result<BiasFile> {
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        if length > FILE_BYTES_MAX {
            return Err(Error::format(path, "larger than 256 MiB: not a bias file"));
        }
        let mut bytes = Vec::new();
        // The length may have been wrong: the file may be growing, or be a pipe.
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(Error::io(path))?;
        let header = Header::of_bytes(path, &bytes)?;
        let found = BiasMetadata { path, header: &header };
        found.check_kind()?;
        let mut tensors = BTreeMap::new();
        for (name, info) in &header.tensors {
            let start = header.data_start as usize;
            let data = &bytes[start + info.data_offsets.0..start + info.data_offsets.1];
            let wanted = matches!(info.dtype, Dtype::F32 | Dtype::F16);
            let values = floats(info.dtype, data).filter(|_| wanted).ok_or_else(|| {
                Error::tensor(path, name, format!("is {}; expected F32 or F16", info.dtype))
            })?;
            tensors.insert(name.clone(), (info.shape.clone(), values));
        }
        let task = found.task()?;
        let file = BiasFile {
            stride: (task.kind() == Kind::Qa).then(|| found.json("stride")).transpose()?,
            task,
            pooling: found.json_of("pooling", &format!("\"{}\"", found.get("pooling")?))?,
            terms: found.get("terms")?.to_owned(),
            layers: found.layers()?,
            max_len: found.json("max_len")?,
            base_fingerprint: found.get("base_fingerprint")?.to_owned(),
            base_name: found.get("base_name")?.to_owned(),
            metrics: found.json("metrics")?,
            settings: found.json("settings")?,
            tensors,
        };
        file.check(path)?;
        Ok(file)
    }

    /// What must hold of every bias file, read or to be written.
    fn check(&self, path: &Path) -> Result<()> {
        let bad = |what: String| Err(Error::format(path, what));
        if let Err(e) = self.task.check() {
            return bad(format!("`labels`: {e}"));
        }
        if self.task.kind().reads_tokens() != (self.pooling == Pooling::Tokens) {
            return bad(format!("`pooling` {} does not go with {}", self.pooling.name(), self.task.kind()));
        }
        if (self.task.kind() == Kind::Qa) != self.stride.is_some() {
            return bad(format!("`stride` {:?} does not go with {}", self.stride, self.task.kind()));
        }
        if self.max_len == 0 {
            return bad("`max_len` is 0".into());
        }
        if self.layers.0 > self.layers.1 {
            return bad(format!("`layers` run backwards: {}..{}", self.layers.0, self.layers.1));
        }
        if let Err(e) = self.terms.parse::<Terms>() {
            return bad(format!("`terms`: {e}"));
        }
        for (name, (shape, values)) in &self.tensors {
            let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            if count != Some(values.len()) {
                let what = format!("shape {shape:?} does not hold {} values", values.len());
                return Err(Error::tensor(path, name, what));
            }
            // Without a branch a value: a file is opened while somebody waits.
            if values.iter().fold(true, |all, v| all & v.is_finite()) {
                continue;
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(Error::tensor(path, name, format!("value {i} is {}", values[i])));
            }
        }
        let inner = self.tensors.keys().any(|name| name.starts_with("classifier.out_proj."));
        let usual = if inner { "classifier.out_proj" } else { "classifier" };
        let head = self.task.kind().head().unwrap_or(usual);
        for (part, rank) in [("weight", 2), ("bias", 1)].into_iter().filter(|_| self.task.outputs() > 0) {
            let name = &format!("{head}.{part}");
            let Some((shape, _)) = self.tensors.get(name) else {
                return Err(Error::tensor(path, name, "is missing"));
            };
            if shape.len() != rank || shape[0] != self.task.outputs() {
                let outputs = self.task.outputs();
                let what =
                    format!("shape {shape:?} does not fit the {outputs} outputs that `labels` call for");
                return Err(Error::tensor(path, name, what));
            }
        }
        Ok(())
    }

    /// Refuses a base other than the one this was trained on. Both paths are for the message.
    pub fn check_base(&self, path: &Path, base_path: &Path, base_fingerprint: &str) -> Result<()> {
        if self.base_fingerprint == base_fingerprint {
            return Ok(());
        }
        Err(Error::WrongBase {
            bias: path.to_owned(),
            base: base_path.to_owned(),
            wants: self.base_fingerprint.clone(),
            has: base_fingerprint.to_owned(),
        })
    }

    /// Puts every tensor in its place in `theta`, whose layout is `layout`; `path` is for messages.
    ///
    /// Errors: `Error::Tensor` for one that the layout does not know or has in another shape, or that is not
    /// finite; `theta` is then as it was.
    pub fn apply(&self, path: &Path, layout: &Layout, theta: &mut [f32]) -> Result<()> {
        if theta.len() != layout.len() {
            let what = format!("{} parameters where the layout has {}", theta.len(), layout.len());
            return Err(Error::Internal(what));
        }
        self.check(path)?;
        let mut places = Vec::with_capacity(self.tensors.len());
        for (name, (shape, values)) in &self.tensors {
            let Some(param) = layout.iter().find(|p| p.name == *name) else {
                return Err(Error::tensor(path, name, "the model has no such parameter"));
            };
            if param.shape != *shape {
                let what = format!("expected shape {:?}, found {shape:?}", param.shape);
                return Err(Error::tensor(path, name, what));
            }
            places.push((param.range.clone(), values));
        }
        for (range, values) in places {
            theta[range].copy_from_slice(values);
        }
        Ok(())
    }
}

/// The metadata of a file that is being read.
struct BiasMetadata<'a> {
    path: &'a Path,
    header: &'a Header,
}

impl BiasMetadata<'_> {
    fn get(&self, key: &str) -> Result<&str> {
        let value = self.header.metadata.get(key);
        value
            .map(String::as_str)
            .ok_or_else(|| Error::format(self.path, format!("no `{key}` in its metadata")))
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        self.json_of(key, self.get(key)?)
    }

    fn json_of<T: DeserializeOwned>(&self, key: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|e| Error::format(self.path, format!("metadata `{key}`: {e}")))
    }

    fn check_kind(&self) -> Result<()> {
        let bad = |what: String| Err(Error::format(self.path, what));
        match self.header.metadata.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => return bad(format!("not a bias file: its format is {other:?}")),
            None => return bad("not a bias file: a safetensors file without trimtab's metadata".into()),
        }
        match self.get("version")? {
            VERSION => Ok(()),
            version => bad(format!("bias file of version {version:?}; this trimtab reads {VERSION:?}")),
        }
    }

    fn task(&self) -> Result<Task> {
        let kind: Kind = self.get("task")?.parse().map_err(|e| Error::format(self.path, format!("{e}")))?;
        let labels: Vec<String> = self.json("labels")?;
        if matches!(kind, Kind::Regress | Kind::Qa | Kind::Contrastive | Kind::Mlm) && !labels.is_empty() {
            return Err(Error::format(self.path, "`labels` of a file whose answer is none of some"));
        }
        Ok(Task::new(kind, labels))
    }

    fn layers(&self) -> Result<(usize, usize)> {
        let text = self.get("layers")?;
        let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        ends.ok_or_else(|| Error::format(self.path, format!("metadata `layers`: {text:?} is not like 0..6")))
    }
}

#[cfg(test)]
#[path = "bias_file_tests.rs"]
mod tests;
