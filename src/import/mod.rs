//! Step 1: a Hugging Face directory or an ONNX file -> [`Checkpoint`]: names made canonical, every tensor's place, type
//! and shape checked, nothing in memory but headers.
//!
//! Files read: `config.json`, `tokenizer.json`, `model.safetensors` or `model.safetensors.index.json` and its
//! shards, and `1_Pooling/config.json` where there is one (sentence-transformers). Everything in them is taken
//! for hostile: sizes are bounded, a shard cannot lie outside the directory, no pickle is opened. In an ONNX file
//! (`onnx`, behind the feature of that name) names say nothing, so there it is the graph that tells the tensors apart.

pub mod canonical;
mod hf_config;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
mod safetensors;

use crate::config::{Config, MlmHead, Pooling};
use crate::error::{Error, Result};
use crate::params::Term;
use canonical::Spec;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest `config.json` read, in bytes.
pub(crate) const MAX_CONFIG: u64 = 1 << 20;
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
    weights: Weights,
}

/// Where the weights are.
#[derive(Debug)]
enum Weights {
    Safetensors(safetensors::Weights),
    #[cfg(feature = "onnx")]
    Onnx(onnx::Weights),
}

/// Rows of a tensor, as the checkpoint has them.
pub enum Piece<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Integers in [-127, 127] of rows that were quantized as ours are: `w[r, c] = q[r, c] · scale[r]`.
    Int8 {
        /// Row after row.
        q: &'a [i8],
        /// One for each row; finite and above 0.
        scale: &'a [f32],
    },
}

impl Checkpoint {
    /// Opens a Hugging Face model directory, or an ONNX file as [`Checkpoint::open_onnx`] does without other paths.
    ///
    /// A directory without safetensors may have its weights in `model.onnx` or `onnx/model.onnx`. Pooling is what `1_Pooling/config.json` says; without that file, `cls` if there is a pooler, else `mean`.
    ///
    /// Fails with [`Error::Unsupported`] on an encoder, activation or pooling this version cannot run,
    /// [`Error::Tensor`] on a missing or wrongly shaped tensor, [`Error::Format`] on a broken file.
    pub fn open(dir: &Path) -> Result<Checkpoint> {
        if !dir.is_dir() {
            // Gives the operating system's word for a path that is not there.
            std::fs::metadata(dir).map_err(Error::io(dir))?;
            if dir.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx")) {
                return Checkpoint::open_onnx(dir, None, None);
            }
            return Err(Error::format(
                dir,
                "not a directory; expected a Hugging Face model directory, or a file that ends in .onnx",
            ));
        }
        let has = |name: &str| dir.join(name).exists();
        if !has("model.safetensors")
            && !has("model.safetensors.index.json")
            && let Some(file) = ["model.onnx", "onnx/model.onnx"].into_iter().find(|f| has(f))
        {
            return Checkpoint::open_onnx(&dir.join(file), None, None);
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(Error::format(dir, "not a Hugging Face model directory: it has no config.json"));
        }
        let text = read_small(&path, MAX_CONFIG)?;
        let config = hf_config::read_config(&path, &text)?;
        let ties_embeddings = hf_config::ties_embeddings(&path, &text)?;
        let tokenizer = read_tokenizer(&dir.join("tokenizer.json"))?;

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
        let weights = Weights::Safetensors(found.resolve(config.family, &specs)?);
        let pooling = pooling(&dir.join(POOLING), has_pooler)?;
        let name = display_name(dir);
        let dir = dir.to_owned();
        Ok(Checkpoint { dir, name, config, pooling, has_pooler, mlm_head, tokenizer, specs, weights })
    }

    /// Opens an ONNX file: an encoder as PyTorch or Optimum export it, in f32, f16 or the int8 of ONNX Runtime's
    /// `quantize_dynamic`.
    ///
    /// `tokenizer.json` and, if there is one, `config.json` are looked for beside the file and one folder up where they
    /// are not given. The config is what the graph says; a `config.json` must agree. A masked-LM head is left out.
    ///
    /// Fails as [`Checkpoint::open`] does; with [`Error::Unsupported`] on a graph that is no such encoder, naming the
    /// first node that did not fit.
    pub fn open_onnx(file: &Path, tokenizer: Option<&Path>, config: Option<&Path>) -> Result<Checkpoint> {
        #[cfg(not(feature = "onnx"))]
        {
            let _ = (tokenizer, config);
            let what = "ONNX files are not read by this build; build it with the feature `onnx`".into();
            Err(Error::Unsupported { path: file.to_owned(), what })
        }
        #[cfg(feature = "onnx")]
        {
            let dir = file.parent().unwrap_or(Path::new(""));
            let beside =
                |name: &str| [dir.join(name), dir.join("..").join(name)].into_iter().find(|p| p.exists());
            let tokenizer = tokenizer.map(Path::to_owned).or_else(|| beside("tokenizer.json"));
            let tokenizer = read_tokenizer(&tokenizer.unwrap_or_else(|| dir.join("tokenizer.json")))?;
            let config = config.map(Path::to_owned).or_else(|| beside("config.json"));
            let onnx::Onnx { config, has_pooler, specs, weights, .. } =
                onnx::Onnx::open(file, config.as_deref())?;
            let pooling = pooling(&beside(POOLING).unwrap_or_else(|| dir.join(POOLING)), has_pooler)?;
            // `model.onnx` says nothing; the folder does, or the one above that is called `onnx`.
            let named = match file.file_stem().is_some_and(|stem| stem != "model") {
                true => file.with_extension(""),
                false if dir.file_name().is_some_and(|name| name == "onnx") => dir.join(".."),
                false => dir.join("."),
            };
            let name = display_name(&named);
            Ok(Checkpoint {
                dir: dir.to_owned(),
                name,
                config,
                pooling,
                has_pooler,
                mlm_head: MlmHead::None,
                tokenizer,
                specs,
                weights: Weights::Onnx(weights),
            })
        }
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
        match &self.weights {
            Weights::Safetensors(w) => w.bytes(),
            #[cfg(feature = "onnx")]
            Weights::Onnx(w) => w.bytes(),
        }
    }

    /// Reads a tensor in pieces of whole rows, about 1 MiB each, in order: `each(rows, stored_bytes)`.
    ///
    /// A vector is one row. Fails with [`Error::Tensor`] on a value that is not finite, [`Error::Io`] if the file
    /// cannot be read, and with what `each` returns.
    pub fn read(&self, name: &str, each: &mut dyn FnMut(Piece, u64) -> Result<()>) -> Result<()> {
        match &self.weights {
            Weights::Safetensors(w) => w.read(name, &mut |rows, bytes| each(Piece::F32(rows), bytes)),
            #[cfg(feature = "onnx")]
            Weights::Onnx(w) => w.read(name, each),
        }
    }
}

/// Where sentence-transformers says how to pool, from a model's directory.
const POOLING: &str = "1_Pooling/config.json";

/// How to pool: as the file at `path` says, if it is there, else through the pooler, if there is one.
fn pooling(path: &Path, has_pooler: bool) -> Result<Pooling> {
    let pooling = match (path.exists(), has_pooler) {
        (true, _) => hf_config::read_pooling(path, &read_small(path, MAX_CONFIG)?)?,
        (false, true) => Pooling::Cls,
        (false, false) => Pooling::Mean,
    };
    if pooling == Pooling::Cls && !has_pooler {
        let what = "cls pooling goes through the pooler, but the weights have none".into();
        return Err(Error::Unsupported { path: path.to_owned(), what });
    }
    Ok(pooling)
}

/// Fails with [`Error::Tensor`] on a value that is not finite, in rows of `cols` from row `first` on.
fn check_finite(
    path: &Path,
    tensor: &str,
    values: &[f32],
    first: usize,
    cols: usize,
    vector: bool,
) -> Result<()> {
    let Some(i) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (r, c) = (first + i / cols, i % cols);
    let at = if vector { format!("[{c}]") } else { format!("[{r}, {c}]") };
    Err(Error::tensor(path, tensor, format!("{} at {at}; weights must be finite", values[i])))
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

pub(crate) fn read_tokenizer(path: &Path) -> Result<Vec<u8>> {
    if !path.exists() {
        return Err(Error::format(
            path,
            "missing; download it from the model's page, or make it from vocab.txt: in Python, \
             `AutoTokenizer.from_pretrained(DIR, use_fast=True).save_pretrained(DIR)`",
        ));
    }
    let bytes = read_small(path, MAX_TOKENIZER)?;
    // Whether it is a tokenizer is for the tokenizer to say; whether it is JSON at all is cheap to know now.
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
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
