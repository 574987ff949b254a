//! Step 1: a Hugging Face directory -> [`Checkpoint`]: names made canonical, every tensor's place, type and
//! shape checked, nothing in memory but headers.
//!
//! Files read: `config.json`, `tokenizer.json`, `model.safetensors` or `model.safetensors.index.json` and its
//! shards, and `1_Pooling/config.json` where there is one (sentence-transformers). Everything in them is taken
//! for hostile: sizes are bounded, a shard cannot lie outside the directory, no pickle is opened.

pub mod canonical;
mod hf_config;
#[cfg(feature = "hub")]
pub mod hub;
mod safetensors;

use crate::config::{Config, MlmHead, Pooling};
use crate::error::{Error, Result};
use crate::params::Term;
use canonical::Spec;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest `config.json` read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Longest `tokenizer.json` read, in bytes; the multilingual ones have about 17 MB.
const MAX_TOKENIZER: u64 = 64 << 20;

/// A checkpoint on disk, checked and open: file handles and parsed headers, no weights.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    name: String,
    config: Config,
    pooling: Pooling,
    has_pooler: bool,
    mlm_head: MlmHead,
    tokenizer: Vec<u8>,
    specs: Vec<Spec>,
    weights: safetensors::Weights,
}

impl Checkpoint {
    /// Opens a Hugging Face model directory.
    ///
    /// Pooling is what `1_Pooling/config.json` says; without that file, `cls` if there is a pooler, else `mean`.
    ///
    /// Fails with [`Error::Unsupported`] on an encoder, activation or pooling this version cannot run,
    /// [`Error::Tensor`] on a missing or wrongly shaped tensor, [`Error::Format`] on a broken file.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        if !dir.is_dir() {
            // Gives the operating system's word for a path that is not there.
            std::fs::metadata(dir).map_err(Error::io(dir))?;
            return Err(Error::format(dir, "not a directory; expected a Hugging Face model directory"));
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(Error::format(dir, "not a Hugging Face model directory: it has no config.json"));
        }
        let text = read_small(&path, MAX_CONFIG)?;
        let config = hf_config::read_config(&path, &text)?;
        let ties_embeddings = hf_config::ties_embeddings(&path, &text)?;
        let tokenizer = read_tokenizer(dir)?;

        let found = safetensors::Found::open(dir)?;
        let pooler = Term::Pooler.module(config.family, 0);
        let has_pooler = ["weight", "bias"]
            .iter()
            .any(|part| found.stored_name(config.family, &format!("{pooler}.{part}")).is_some());
        // All of it or nothing: a head that lacks a part is no head.
        let holds = |spec: &Spec| found.stored_name(config.family, &spec.name).is_some();
        let mlm_head = match canonical::mlm_head(&config).iter().all(holds) {
            false => MlmHead::None,
            true if ties_embeddings => MlmHead::Tied,
            true => MlmHead::Untied,
        };
        let specs = canonical::tensors(&config, has_pooler, mlm_head == MlmHead::Tied);
        let weights = found.resolve(config.family, &specs)?;

        let path = dir.join("1_Pooling").join("config.json");
        let pooling = match (path.exists(), has_pooler) {
            (true, _) => hf_config::read_pooling(&path, &read_small(&path, MAX_CONFIG)?)?,
            (false, true) => Pooling::Cls,
            (false, false) => Pooling::Mean,
        };
        if pooling == Pooling::Cls && !has_pooler {
            let what = format!("cls pooling goes through the pooler, but the weights have no `{pooler}`");
            return Err(Error::Unsupported { path, what });
        }
        let name = display_name(dir);
        let dir = dir.to_owned();
        Ok(Checkpoint { dir, name, config, pooling, has_pooler, mlm_head, tokenizer, specs, weights })
    }

    /// The directory it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The model's name: the directory's, or the repository's in a Hugging Face cache.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sizes and choices.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How the checkpoint is meant to be pooled.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Whether it has a pooler (a dense layer and an activation over the first token).
    pub fn has_pooler(&self) -> bool {
        self.has_pooler
    }

    /// Whether it has a masked-LM head.
    pub fn mlm_head(&self) -> MlmHead {
        self.mlm_head
    }

    /// `tokenizer.json`, byte for byte.
    pub fn tokenizer_bytes(&self) -> &[u8] {
        &self.tokenizer
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> &[Spec] {
        &self.specs
    }

    /// Bytes of all tensors as they are stored.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// Reads a tensor as f32 in pieces of whole rows, about 1 MiB each, in order: `each(rows, stored_bytes)`.
    ///
    /// A vector is one row. Fails with [`Error::Tensor`] on a value that is not finite, [`Error::Io`] if the file
    /// cannot be read, and with what `each` returns.
    pub fn read(&self, name: &str, each: &mut dyn FnMut(&[f32], u64) -> Result<()>) -> Result<()> {
        self.weights.read(name, each)
    }
}

/// Reads a whole file that has no business being longer than `most` bytes.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > most {
        return Err(Error::format(path, format!("longer than {most} bytes")));
    }
    Ok(bytes)
}

fn read_tokenizer(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("tokenizer.json");
    if !path.exists() {
        return Err(Error::format(
            &path,
            "missing; download it from the model's page, or make it from vocab.txt: in Python, \
             `AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)`",
        ));
    }
    let bytes = read_small(&path, MAX_TOKENIZER)?;
    // Whether it is a tokenizer is for the tokenizer to say; whether it is JSON at all is cheap to know now.
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|e| Error::format(&path, format!("not JSON: {e}")))?;
    Ok(bytes)
}

/// A name for people: no control characters, at most 100 characters.
fn display_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mut parts = full.iter().rev().map(OsStr::to_string_lossy);
    let last = parts.next().unwrap_or_default();
    let (above, repo) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // .../models--owner--name/snapshots/<commit>: the cache of the Hugging Face hub.
    let name = match repo.strip_prefix("models--") {
        Some(repo) if above == "snapshots" => repo.rsplit("--").next().unwrap_or(repo).to_owned(),
        _ => last.into_owned(),
    };
    name.chars().map(|c| if c.is_control() { '_' } else { c }).take(100).collect()
}
