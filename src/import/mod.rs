//! Step 1: a Hugging Face directory or an ONNX file -> [`Checkpoint`]: names made canonical, every tensor's place, type
//! and shape checked, nothing in memory but headers.
//!
//! Files read: `config.json`, `tokenizer.json`, `tokenizer_config.json`, `model.safetensors` or
//! `model.safetensors.index.json` and its shards, and of sentence-transformers `modules.json`, what it names, and
//! `sentence_bert_config.json`. Everything in them is taken for hostile: sizes are bounded, a shard cannot lie outside the directory, no pickle is opened. In an ONNX file
//! (`onnx`, behind the feature of that name) names say nothing, so there it is the graph that tells the tensors apart.

pub mod canonical;
mod hf_config;
#[cfg(feature = "hub")]
pub mod hub;
mod modules;
#[cfg(feature = "onnx")]
pub(crate) mod onnx;
mod safetensors;
mod tokenizer_files;
pub(crate) mod wrapped;

use crate::config::{Config, Family, MlmHead, Module, Pooling};
use crate::container;
use crate::error::{Error, Result};
use crate::params::Term;
use canonical::Spec;
use modules::Directory;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use tokenizer_files::TokenizerFiles;

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
    modules: Vec<Module>,
    module_tensors: BTreeMap<String, Vec<f32>>,
    max_seq_length: Option<usize>,
    warnings: Vec<String>,
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
    /// A directory without safetensors may have its weights in `model.onnx` or `onnx/model.onnx`. Pooling and what follows it
    /// are what `modules.json` says, else `1_Pooling/config.json`; without either, `cls` if there is a pooler, else `mean`.
    /// Keys that `config.json` lacks have the defaults of transformers.
    ///
    /// Fails with [`Error::Unsupported`] on an encoder, activation, module or pooling this version cannot run,
    /// [`Error::Tensor`] on a missing or wrongly shaped tensor, [`Error::Format`] on a broken file, and on a config,
    /// tokenizer and weights that do not belong together.
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
        let root = dir;
        let mut directory = Directory::read(root)?;
        let dir = directory.transformer.clone();
        let has = |name: &str| dir.join(name).exists();
        if !has("model.safetensors")
            && !has("model.safetensors.index.json")
            && let Some(file) = ["model.onnx", "onnx/model.onnx"].into_iter().find(|f| has(f))
        {
            return Checkpoint::open_onnx(&dir.join(file), None, None);
        }
        let path = dir.join("config.json");
        if !path.exists() {
            return Err(Error::format(&dir, "not a Hugging Face model directory: it has no config.json"));
        }
        let text = read_small(&path, MAX_CONFIG)?;
        let found = safetensors::Found::open(&dir);
        // A config that cannot be read is reported before weights that cannot.
        let names = || found.as_ref().ok().and_then(|found| hf_config::family_of_names(found.names()));
        let hf_config::Read { config, defaults } = hf_config::read_config(&path, &text, &names)?;
        let ties_embeddings = hf_config::ties_embeddings(&path, &text)?;
        let [_, _, _, heads, _] = config.family.keys();
        if defaults.contains(&heads) {
            directory.warnings.push(format!(
                "{}: `{heads}` is missing; {}, the default of transformers, is used, and the weights cannot tell whether \
                 that is right",
                path.display(),
                config.heads
            ));
        }
        let tokenizer = TokenizerFiles::read(&dir.join("tokenizer.json"), &config, directory.lower_case);

        let mut found = found?;
        check_sizes(&path, &config, &defaults, &mut found, &mut directory.warnings)?;
        let tokenizer = tokenizer?;
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
        let encoder = Encoder { config, has_pooler, mlm_head, specs, weights };
        Checkpoint::of(root, display_name(root), encoder, tokenizer, directory)
    }

    /// Puts together what was read.
    fn of(
        root: &Path,
        name: String,
        encoder: Encoder,
        tokenizer: TokenizerFiles,
        directory: Directory,
    ) -> Result<Checkpoint> {
        let Encoder { config, has_pooler, mlm_head, mut specs, weights } = encoder;
        let Directory { pooling, modules, tensors, max_seq_length, mut warnings, .. } = directory;
        Module::check(&modules, config.hidden)
            .map_err(|what| Error::format(&root.join("modules.json"), what))?;
        specs.extend(canonical::modules(&modules));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        // sentence-transformers' `cls` is the first token as it is. A head is better trained above the pooler, where there
        // is one: the base remembers both as `cls`.
        let pooling = match (pooling.map(|(pooling, _)| pooling), has_pooler) {
            (Some(Pooling::First) | None, true) => Pooling::Cls,
            (Some(pooling), _) => pooling,
            (None, false) => Pooling::Mean,
        };
        warnings.extend(tokenizer.warnings);
        let length = max_seq_length.or(tokenizer.max_length);
        Ok(Checkpoint {
            dir: root.to_owned(),
            name,
            max_seq_length: length.filter(|n| *n < config.seq_max()),
            config,
            pooling,
            has_pooler,
            mlm_head,
            tokenizer: tokenizer.json,
            specs,
            weights,
            modules,
            module_tensors: tensors,
            warnings,
        })
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
            let above = dir.join("..");
            let beside = |name: &str| [dir, &above].into_iter().map(|d| d.join(name)).find(|p| p.exists());
            // Of sentence-transformers' files the folder that has any; `modules.json` may name a folder below it.
            let holder = |name: &&str| [dir, &above].into_iter().find(|d| d.join(name).exists());
            let root = modules::IN_ROOT.iter().find_map(holder).unwrap_or(dir);
            let directory = Directory::read(root)?;
            let config = config.map(Path::to_owned).or_else(|| beside("config.json"));
            let onnx::Onnx { config, has_pooler, specs, weights, .. } =
                onnx::Onnx::open(file, config.as_deref())?;
            let tokenizer = tokenizer.map(Path::to_owned).or_else(|| beside("tokenizer.json"));
            let tokenizer = tokenizer.unwrap_or_else(|| dir.join("tokenizer.json"));
            let tokenizer = TokenizerFiles::read(&tokenizer, &config, directory.lower_case)?;
            // `model.onnx` says nothing; the folder does, or the one above that is called `onnx`.
            let named = match file.file_stem().is_some_and(|stem| stem != "model") {
                true => file.with_extension(""),
                false if dir.file_name().is_some_and(|name| name == "onnx") => above.clone(),
                false => dir.join("."),
            };
            let weights = Weights::Onnx(weights);
            let encoder = Encoder { config, has_pooler, mlm_head: MlmHead::None, specs, weights };
            Checkpoint::of(dir, display_name(&named), encoder, tokenizer, directory)
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

    /// What sentence-transformers does with a pooled vector, in order.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Longest text in tokens that the checkpoint's files ask for, where that is less than the encoder's positions.
    pub fn max_seq_length(&self) -> Option<usize> {
        self.max_seq_length
    }

    /// What its files disagree about or ask for in vain, to be told to whoever quantizes it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// `tokenizer.json`, byte for byte unless `tokenizer_config.json` or sentence-transformers' settings change it.
    pub fn tokenizer_bytes(&self) -> &[u8] {
        &self.tokenizer
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> &[Spec] {
        &self.specs
    }

    /// Bytes of all tensors as they are stored.
    pub fn weight_bytes(&self) -> u64 {
        let modules = self.module_tensors.values().map(|values| 4 * values.len() as u64).sum::<u64>();
        modules
            + match &self.weights {
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
        if let Some(values) = self.module_tensors.get(name) {
            return each(Piece::F32(values), 4 * values.len() as u64);
        }
        match &self.weights {
            Weights::Safetensors(w) => w.read(name, &mut |rows, bytes| each(Piece::F32(rows), bytes)),
            #[cfg(feature = "onnx")]
            Weights::Onnx(w) => w.read(name, each),
        }
    }
}

/// What the weights give, before the files around them are looked at.
struct Encoder {
    config: Config,
    has_pooler: bool,
    mlm_head: MlmHead,
    specs: Vec<Spec>,
    weights: Weights,
}

/// Compares the sizes of a `config.json` at `path` with the weights; `defaults` are the keys that it lacks.
///
/// Fails with [`Error::Format`], naming the key, the tensor and both sizes. More layers than the config says are left out, as
/// transformers does, with a warning.
fn check_sizes(
    path: &Path,
    config: &Config,
    defaults: &[&'static str],
    found: &mut safetensors::Found,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let family = config.family;
    let said = |key: &'static str, value: usize| match defaults.contains(&key) {
        true => format!("`{key}` is missing, whose default in transformers is {value}"),
        false => format!("`{key}` is {value}"),
    };
    let file = found.path().to_owned();
    let [hidden, intermediate, layers, ..] = family.keys();
    let width = if family == Family::Electra { "embedding_size" } else { hidden };
    let table = |name: &str| canonical::embeddings(family, name);
    let m2 = Term::M2.module(family, 0) + ".weight";
    for (key, value, tensor, dim) in [
        ("vocab_size", config.vocab, table("word"), 0),
        (width, config.embedding_width(), table("word"), 1),
        ("max_position_embeddings", config.max_positions, table("position"), 0),
        ("type_vocab_size", config.types, table("token_type"), 0),
        (intermediate, config.intermediate, m2, 0),
        (hidden, config.hidden, Term::M2.module(family, 0) + ".weight", 1),
    ] {
        let Some((name, shape)) = found.shape(family, &tensor)? else { continue };
        // Of another number of dimensions: refused by its own name, with the rest.
        if shape.len() == 2 && shape[dim] != value && value > 0 {
            let (said, of) = (said(key, value), if dim == 0 { "rows" } else { "columns" });
            let what = format!("{said}, but `{name}` in {} has {} {of}", file.display(), shape[dim]);
            return Err(Error::format(path, what));
        }
    }
    // The module of a layer's query ends in the layer's number and what all layers have.
    let has = |layer: usize| {
        let name = Term::Q.module(family, layer) + ".weight";
        found.stored_name(family, &name).is_some()
    };
    let (some, deeper) = ((0..config.layers).take_while(|l| has(*l)).count(), has(config.layers));
    let said = said(layers, config.layers);
    // Without any layer it is the names that are other ones.
    if (1..config.layers).contains(&some) && (some..config.layers).all(|l| !has(l)) {
        let first = Term::Q.module(family, some);
        let what = format!("{said}, but {} has {some} layers: `{first}.weight` is missing", file.display());
        return Err(Error::format(path, what));
    }
    if deeper {
        let all = (0..).take_while(|l| has(*l)).count();
        if defaults.contains(&layers) {
            return Err(Error::format(path, format!("{said}, but {} has {all} layers", file.display())));
        }
        warnings.push(format!(
            "{}: {said}, but {} has {all} layers; the upper ones are left out",
            path.display(),
            file.display()
        ));
    }
    Ok(())
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
    match container::impostor(&bytes[..bytes.len().min(container::IMPOSTOR_BYTES as usize)]) {
        Some(what) => Err(Error::format(path, what)),
        None => Ok(bytes),
    }
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
