//! Opening a base by map; the file's format is specified in [`format`](super::format).

use super::format::{Digests, FORMAT, SCALE, SCHEME, TOKENIZER, VERSION, stored_shape};
use super::{Attached, Order, QMatrix};
use crate::config::{Config, MlmHead, Module, Pooling};
use crate::container::Header;
use crate::error::{Error, Result};
use crate::import::canonical::{self, Kind};
use crate::sys::map::FileMap;
use safetensors::tensor::{Dtype, TensorInfo};
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The frozen part of a model: int8 weights, config and tokenizer in one mapped file. Clones share it.
#[derive(Clone)]
pub struct Base(Arc<Inner>);

struct Inner {
    path: PathBuf,
    map: Arc<FileMap>,
    header: Header,
    config: Config,
    pooling: Pooling,
    has_pooler: bool,
    mlm_head: MlmHead,
    modules: Vec<Module>,
    max_seq_length: Option<usize>,
    name: String,
    fingerprint: String,
    weights_sha256: String,
    matrices: HashMap<String, QMatrix>,
    attached: Attached,
}

/// A tensor of a base, for listings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the file.
    pub name: String,
    /// `I8`, `F32` or `U8`.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Base {
    /// Maps a base and checks everything but the int8 values themselves; takes a few milliseconds at most.
    ///
    /// Fails with [`Error::Io`] if it cannot be mapped, [`Error::Unsupported`] on a version or scheme this build
    /// cannot read, [`Error::Format`] and [`Error::Tensor`] where the file does not keep to the format.
    pub fn open(path: impl AsRef<Path>) -> Result<Base> {
        let path = path.as_ref();
        if path.is_dir() {
            let what = "a directory, not a base; `trimtab quantize` makes a base of a model's directory";
            return Err(Error::format(path, what));
        }
        Base::of_map(path, FileMap::open(path)?)
    }

    /// A base from the bytes of its file, which are copied: of an archive, say, as an app's assets are. Errors call it
    /// `(bytes)`.
    ///
    /// Fails as [`Base::open`] does.
    pub fn from_bytes(bytes: &[u8]) -> Result<Base> {
        let name = Path::new("(bytes)");
        Base::of_map(name, FileMap::of_bytes(name, bytes)?)
    }

    fn of_map(path: &Path, map: FileMap) -> Result<Base> {
        let map = Arc::new(map);
        let header = Header::of_bytes(path, map.bytes())?;
        let meta = Meta::read(path, &header)?;
        let mut matrices = HashMap::new();
        let mut known = 0;
        let encoder = canonical::tensors(&meta.config, meta.has_pooler, meta.mlm_head == MlmHead::Tied);
        for spec in encoder.into_iter().chain(canonical::modules(&meta.modules)) {
            known += 1;
            if matches!(spec.kind, Kind::Vector | Kind::Dense) {
                finite_floats(path, &header, &map, &spec.name, &spec.shape)?;
                continue;
            }
            known += 1;
            let (rows, cols) = (spec.shape[0], spec.shape[1]);
            let data = place(path, &header, &spec.name, Dtype::I8, &stored_shape(&spec))?;
            let scale_name = spec.name.clone() + SCALE;
            let scales = finite_floats(path, &header, &map, &scale_name, &[rows])?;
            if let Some(i) = scales.iter().position(|s| *s <= 0.0) {
                let what = format!("scale {} at [{i}]; must be above 0", scales[i]);
                return Err(Error::tensor(path, &scale_name, what));
            }
            let scale = place(path, &header, &scale_name, Dtype::F32, &[rows])?;
            let order = if spec.kind == Kind::Linear { Order::Tiles } else { Order::Rows };
            let matrix = QMatrix::from_map(rows, cols, order, &map, data, scale)
                .map_err(|what| Error::tensor(path, &spec.name, what))?;
            matrices.insert(spec.name, matrix);
        }
        match header.tensors.get(TOKENIZER) {
            Some(info) if info.dtype == Dtype::U8 && info.shape.len() == 1 => known += 1,
            Some(info) => {
                let what = format!("expected U8 of one dimension, found {} {:?}", info.dtype, info.shape);
                return Err(Error::tensor(path, TOKENIZER, what));
            }
            None => return Err(Error::tensor(path, TOKENIZER, "missing")),
        }
        if header.tensors.len() != known {
            let what = format!("{} tensors; this encoder has {known}", header.tensors.len());
            return Err(Error::format(path, what));
        }
        let Meta {
            config,
            pooling,
            has_pooler,
            mlm_head,
            modules,
            max_seq_length,
            name,
            fingerprint,
            weights_sha256,
        } = meta;
        let path = path.to_owned();
        Ok(Base(Arc::new(Inner {
            path,
            map,
            header,
            config,
            pooling,
            has_pooler,
            mlm_head,
            modules,
            max_seq_length,
            name,
            fingerprint,
            weights_sha256,
            matrices,
            attached: Attached::default(),
        })))
    }

    /// Reads every byte: recomputes the digests and checks that no int8 value is -128.
    ///
    /// Fails with [`Error::Format`] if the file is not what was written.
    pub fn verify(&self) -> Result<()> {
        let b = &*self.0;
        let mut digests = Digests::default();
        for (name, info) in &b.header.tensors {
            let bytes = &b.map.bytes()[range(&b.header, info)];
            let int8 = info.dtype == Dtype::I8;
            if int8 && bytes.contains(&(i8::MIN as u8)) {
                return Err(Error::tensor(&b.path, name, "holds -128; values must be -127 to 127"));
            }
            digests.tensor(name, info);
            digests.stored(bytes);
            if let Some(matrix) = b.matrices.get(name) {
                (0..matrix.rows()).for_each(|r| digests.weights(&matrix.row(r).collect::<Vec<_>>()));
            }
        }
        let (fingerprint, weights) = digests.finish();
        for (key, stored, computed) in
            [("fingerprint", &b.fingerprint, fingerprint), ("weights_sha256", &b.weights_sha256, weights)]
        {
            if *stored != computed {
                let what = format!("damaged or changed: `{key}` is {computed}, the file says {stored}");
                return Err(Error::format(&b.path, what));
            }
        }
        Ok(())
    }

    /// What its models share: one value of each type, made when it is first asked for. It lives as long as the base.
    pub(crate) fn attached<T: Default + Any + Send + Sync>(&self) -> Arc<T> {
        self.0.attached.get()
    }

    /// Sizes and choices of the encoder.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// How the checkpoint is meant to be pooled.
    pub fn pooling(&self) -> Pooling {
        self.0.pooling
    }

    /// Whether the pooler's weight and bias are there.
    pub fn has_pooler(&self) -> bool {
        self.0.has_pooler
    }

    /// Whether there is a masked-LM head.
    pub fn mlm_head(&self) -> MlmHead {
        self.0.mlm_head
    }

    /// What sentence-transformers does with a pooled vector, in order: what [`Model::embed_all`](crate::Model::embed_all) gives.
    pub fn modules(&self) -> &[Module] {
        &self.0.modules
    }

    /// Width of a text's embedding.
    pub fn embedding_width(&self) -> usize {
        Module::width(&self.0.modules, self.0.config.hidden)
    }

    /// Longest text in tokens for embeddings: what the checkpoint's files ask for, else the encoder's positions.
    pub fn max_seq_length(&self) -> usize {
        self.0.max_seq_length.unwrap_or(self.0.config.seq_max())
    }

    /// Fails with [`Error::Config`], naming the limit, if texts of `max_len` tokens are longer than the encoder's positions.
    pub fn check_max_len(&self, max_len: usize) -> Result<()> {
        let most = self.0.config.seq_max();
        match max_len > most {
            true => Err(Error::Config(format!(
                "max-len {max_len} is more than the {most} positions of {}; use {most} or less",
                self.0.path.display()
            ))),
            false => Ok(()),
        }
    }

    /// SHA-256 over all tensors, hex, as stored; see the file's format. [`Base::verify`] recomputes it.
    pub fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    /// SHA-256 over the int8 values, hex, as stored.
    pub fn weights_sha256(&self) -> &str {
        &self.0.weights_sha256
    }

    /// Name of the model it was made from.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where it was opened; `(bytes)` where it came of bytes.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.0.map.bytes().len() as u64
    }

    /// `tokenizer.json` as the checkpoint gave it ([`Checkpoint::tokenizer_bytes`](crate::import::Checkpoint::tokenizer_bytes)).
    pub fn tokenizer_bytes(&self) -> &[u8] {
        // `open` made sure that it is there.
        self.0.header.tensors.get(TOKENIZER).map_or(&[], |i| &self.0.map.bytes()[range(&self.0.header, i)])
    }

    /// An int8 matrix by its full name, such as `bert.encoder.layer.0.output.dense.weight`.
    ///
    /// Every call gives the same matrix, so its sums are computed once. Fails with [`Error::Tensor`].
    pub fn matrix(&self, name: &str) -> Result<QMatrix> {
        let found = self.0.matrices.get(name).cloned();
        found.ok_or_else(|| Error::tensor(&self.0.path, name, "this base has no such matrix"))
    }

    /// An f32 vector by its full name: a bias, a LayerNorm gain, a matrix's scales. Fails with [`Error::Tensor`].
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        self.floats(name).map(<[f32]>::to_vec)
    }

    /// The values of an f32 tensor, in place. Fails with [`Error::Tensor`].
    pub(crate) fn floats(&self, name: &str) -> Result<&[f32]> {
        let b = &*self.0;
        match b.header.tensors.get(name) {
            Some(info) if info.dtype == Dtype::F32 => {
                Ok(bytemuck::cast_slice(&b.map.bytes()[range(&b.header, info)]))
            }
            _ => Err(Error::tensor(&b.path, name, "this base has no such vector")),
        }
    }

    /// Every tensor, in name order.
    pub fn tensors(&self) -> Vec<TensorEntry> {
        let entry = |(name, info): (&String, &TensorInfo)| TensorEntry {
            name: name.clone(),
            dtype: info.dtype.to_string(),
            shape: info.shape.clone(),
        };
        self.0.header.tensors.iter().map(entry).collect()
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base({})", self.0.path.display())
    }
}

/// What `__metadata__` says, checked.
struct Meta {
    config: Config,
    pooling: Pooling,
    has_pooler: bool,
    mlm_head: MlmHead,
    modules: Vec<Module>,
    max_seq_length: Option<usize>,
    name: String,
    fingerprint: String,
    weights_sha256: String,
}

impl Meta {
    fn read(path: &Path, header: &Header) -> Result<Meta> {
        let get = |key: &str| {
            let found = header.metadata.get(key).map(String::as_str);
            found.ok_or_else(|| Error::format(path, format!("metadata `{key}` is missing")))
        };
        let bad = |key: &str, value: &str| Error::format(path, format!("metadata `{key}` is {value:?}"));
        match header.metadata.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) if other.starts_with("trimtab-") => {
                return Err(Error::format(path, format!("a {other} file, not a base ({FORMAT})")));
            }
            _ => {
                let what =
                    "not a trimtab base; make one from a Hugging Face directory with `trimtab quantize`";
                return Err(Error::format(path, what));
            }
        }
        for (key, value) in [("version", VERSION), ("scheme", SCHEME)] {
            let found = get(key)?;
            if found != value {
                let what = format!(
                    "base of {key} {found:?}; this build reads {value:?}: make it again with `trimtab quantize`"
                );
                return Err(Error::Unsupported { path: path.to_owned(), what });
            }
        }
        let config: Config = serde_json::from_str(get("config")?)
            .map_err(|e| Error::format(path, format!("metadata `config`: {e}")))?;
        config.validate(path)?;
        let pooling = match get("pooling")? {
            "cls" => Pooling::Cls,
            "mean" => Pooling::Mean,
            "first" => Pooling::First,
            other => return Err(bad("pooling", other)),
        };
        let has_pooler = match get("pooler")? {
            "true" => true,
            "false" => false,
            other => return Err(bad("pooler", other)),
        };
        if pooling == Pooling::Cls && !has_pooler {
            return Err(Error::format(path, "metadata: `pooling` is cls, but `pooler` is false"));
        }
        let mlm_head = match header.metadata.get("mlm_head") {
            None => MlmHead::None,
            Some(name) => {
                let known = MlmHead::ALL.into_iter().find(|head| head.name() == name);
                known.ok_or_else(|| bad("mlm_head", name))?
            }
        };
        let modules: Vec<Module> = match header.metadata.get("modules") {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|e| Error::format(path, format!("metadata `modules`: {e}")))?,
        };
        Module::check(&modules, config.hidden)
            .map_err(|what| Error::format(path, format!("metadata `modules`: {what}")))?;
        let max_seq_length = match header.metadata.get("max_seq_length") {
            None => None,
            Some(text) => {
                let length = text.parse().ok().filter(|n| (1..=config.seq_max()).contains(n));
                Some(length.ok_or_else(|| bad("max_seq_length", text))?)
            }
        };
        let name = get("name")?;
        if name.chars().count() > 100 || name.chars().any(char::is_control) {
            return Err(bad("name", name));
        }
        let digest = |key: &str| {
            let hex = get(key)?;
            match hex.len() == 64 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
                true => Ok(hex.to_owned()),
                false => Err(bad(key, hex)),
            }
        };
        Ok(Meta {
            config,
            pooling,
            has_pooler,
            mlm_head,
            modules,
            max_seq_length,
            name: name.to_owned(),
            fingerprint: digest("fingerprint")?,
            weights_sha256: digest("weights_sha256")?,
        })
    }
}

/// Bytes of a tensor in the file; within it, as [`Header::read`] made sure.
fn range(header: &Header, info: &TensorInfo) -> Range<usize> {
    let start = header.data_start as usize;
    start + info.data_offsets.0..start + info.data_offsets.1
}

/// Place of a tensor that must have this type and shape.
fn place(path: &Path, header: &Header, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Range<usize>> {
    let bad = |found: String| {
        let what = format!("expected {dtype} {shape:?}, found {found}");
        Err(Error::tensor(path, name, what))
    };
    match header.tensors.get(name) {
        None => bad("none: it is missing".into()),
        Some(info) if info.dtype != dtype || info.shape != shape => {
            bad(format!("{} {:?}", info.dtype, info.shape))
        }
        Some(info) => Ok(range(header, info)),
    }
}

/// An F32 tensor in place, aligned and finite.
fn finite_floats<'a>(
    path: &Path,
    header: &Header,
    map: &'a FileMap,
    name: &str,
    shape: &[usize],
) -> Result<&'a [f32]> {
    let bytes = &map.bytes()[place(path, header, name, Dtype::F32, shape)?];
    let values: &[f32] = bytemuck::try_cast_slice(bytes)
        .map_err(|_| Error::tensor(path, name, "does not lie at a multiple of 4 in the file"))?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Error::tensor(path, name, format!("{} at [{i}]; must be finite", values[i]))),
        None => Ok(values),
    }
}
