//! The base file `*.q8.safetensors`: format, and opening one by map.
//!
//! A safetensors container that holds exactly:
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `bert.….weight` of a Linear or a table | I8 | `[out, in]`, row-major, in [-127, 127] |
//! | `bert.….weight.scale` | F32 | `[out]`, finite and above 0 |
//! | `bert.….bias`, `bert.….LayerNorm.weight` | F32 | `[width]`, finite |
//! | `tokenizer.json` | U8 | `[bytes]` |
//!
//! and in `__metadata__`: `format` = `trimtab-base`, `version` = `1`, `scheme` = `int8-symmetric-per-row`,
//! `config` (JSON of [`Config`]), `pooling` (`cls` or `mean`), `pooler` (`true` or `false`: whether
//! `bert.pooler.dense` is there), `name`, `fingerprint` and `weights_sha256`.
//!
//! - F32 tensors come first, then I8, then U8, each kind in name order. The header is padded with spaces so that
//!   the first I8 tensor lies at a multiple of 64 in the file. A reader MUST refuse F32 that is not 4-aligned.
//! - `fingerprint` is the SHA-256, in lower-case hex, over all tensors in bytewise order of their names; of each:
//!   the name, a zero byte, the dtype's name (`I8`, `F32`, `U8`), a zero byte, the number of dimensions and each
//!   dimension as u64 little-endian, then the tensor's bytes as they lie in the file. Metadata is not in it.
//! - `weights_sha256` is the SHA-256, in lower-case hex, over the bytes of the I8 tensors alone, in name order.

use super::QMatrix;
use crate::config::{Config, Pooling};
use crate::container::{Header, encode_header, lay_out};
use crate::error::{Error, Result};
use crate::import::Checkpoint;
use crate::import::canonical::{self, Kind};
use crate::kernels::map::FileMap;
use safetensors::tensor::{Dtype, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORMAT: &str = "trimtab-base";
const VERSION: &str = "1";
const SCHEME: &str = "int8-symmetric-per-row";
/// Name of the tensor that holds the tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// What is appended to a matrix's name for its scales.
pub(super) const SCALE: &str = ".scale";

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
    name: String,
    fingerprint: String,
    weights_sha256: String,
    matrices: HashMap<String, QMatrix>,
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
        let map = Arc::new(FileMap::open(path)?);
        let header = Header::of_bytes(path, map.bytes())?;
        let meta = Meta::read(path, &header)?;
        let mut matrices = HashMap::new();
        let mut known = 0;
        for spec in canonical::tensors(&meta.config, meta.has_pooler) {
            known += 1;
            if spec.kind == Kind::Vector {
                finite_vector(path, &header, &map, &spec.name, spec.shape[0])?;
                continue;
            }
            known += 1;
            let (rows, cols) = (spec.shape[0], spec.shape[1]);
            let data = place(path, &header, &spec.name, Dtype::I8, &[rows, cols])?;
            let scale_name = spec.name.clone() + SCALE;
            let scales = finite_vector(path, &header, &map, &scale_name, rows)?;
            if let Some(i) = scales.iter().position(|s| *s <= 0.0) {
                let what = format!("scale {} at [{i}]; must be above 0", scales[i]);
                return Err(Error::tensor(path, &scale_name, what));
            }
            let scale = place(path, &header, &scale_name, Dtype::F32, &[rows])?;
            let matrix = QMatrix::from_map(rows, cols, &map, data, scale)
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
        let Meta { config, pooling, has_pooler, name, fingerprint, weights_sha256 } = meta;
        let path = path.to_owned();
        Ok(Base(Arc::new(Inner {
            path,
            map,
            header,
            config,
            pooling,
            has_pooler,
            name,
            fingerprint,
            weights_sha256,
            matrices,
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
            digests.bytes(bytes, int8);
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

    /// Sizes and choices of the encoder.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// How the checkpoint is meant to be pooled.
    pub fn pooling(&self) -> Pooling {
        self.0.pooling
    }

    /// Whether `bert.pooler.dense` is there.
    pub fn has_pooler(&self) -> bool {
        self.0.has_pooler
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

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.0.map.bytes().len() as u64
    }

    /// `tokenizer.json`, byte for byte.
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
        let b = &*self.0;
        match b.header.tensors.get(name) {
            Some(info) if info.dtype == Dtype::F32 => {
                Ok(bytemuck::cast_slice(&b.map.bytes()[range(&b.header, info)]).to_vec())
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
                let what = format!("base of {key} {found:?}; this build reads {value:?}");
                return Err(Error::Unsupported { path: path.to_owned(), what });
            }
        }
        let config: Config = serde_json::from_str(get("config")?)
            .map_err(|e| Error::format(path, format!("metadata `config`: {e}")))?;
        config.validate(path)?;
        let pooling = match get("pooling")? {
            "cls" => Pooling::Cls,
            "mean" => Pooling::Mean,
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

/// An F32 vector in place, aligned and finite.
fn finite_vector<'a>(
    path: &Path,
    header: &Header,
    map: &'a FileMap,
    name: &str,
    len: usize,
) -> Result<&'a [f32]> {
    let bytes = &map.bytes()[place(path, header, name, Dtype::F32, &[len])?];
    let values: &[f32] = bytemuck::try_cast_slice(bytes)
        .map_err(|_| Error::tensor(path, name, "does not lie at a multiple of 4 in the file"))?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Error::tensor(path, name, format!("{} at [{i}]; must be finite", values[i]))),
        None => Ok(values),
    }
}

/// Where each tensor of a base to be written goes, and its metadata but for the digests.
pub(super) struct Plan {
    tensors: Vec<(String, TensorInfo)>,
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<&'static str, String>,
    /// Offset in the data of the first I8 tensor.
    int8_start: u64,
    /// Bytes of all tensors.
    pub data_bytes: u64,
}

impl Plan {
    pub fn new(checkpoint: &Checkpoint) -> Result<Plan> {
        let (mut f32s, mut int8s) = (Vec::new(), Vec::new());
        for spec in checkpoint.tensors() {
            match spec.kind {
                Kind::Vector => f32s.push((spec.name.clone(), Dtype::F32, spec.shape.clone())),
                Kind::Matrix => {
                    f32s.push((spec.name.clone() + SCALE, Dtype::F32, vec![spec.shape[0]]));
                    int8s.push((spec.name.clone(), Dtype::I8, spec.shape.clone()));
                }
            }
        }
        let first_int8 = f32s.len();
        let mut all = f32s;
        all.append(&mut int8s);
        all.push((TOKENIZER.into(), Dtype::U8, vec![checkpoint.tokenizer_bytes().len()]));
        let (tensors, data_bytes) = lay_out(&all)
            .ok_or_else(|| Error::format(checkpoint.dir(), "too large for this machine's addresses"))?;
        let config = serde_json::to_string(checkpoint.config())
            .map_err(|e| Error::Internal(format!("config: {e}")))?;
        let pooling = match checkpoint.pooling() {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
        };
        let metadata = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("scheme", SCHEME.to_owned()),
            ("config", config),
            ("pooling", pooling.to_owned()),
            ("pooler", checkpoint.has_pooler().to_string()),
            ("name", checkpoint.name().to_owned()),
        ]);
        Ok(Plan {
            by_name: tensors.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect(),
            int8_start: tensors[first_int8].1.data_offsets.0 as u64,
            tensors,
            metadata,
            data_bytes,
        })
    }

    pub fn info(&self, name: &str) -> Result<&TensorInfo> {
        let i = self.by_name.get(name);
        i.map(|i| &self.tensors[*i].1).ok_or_else(|| Error::Internal(format!("`{name}` was not planned")))
    }

    /// The file up to its data, with the two digests; as long whatever they are.
    pub fn header(&self, (fingerprint, weights_sha256): &(String, String)) -> Result<Vec<u8>> {
        let mut metadata = self.metadata.clone();
        metadata.insert("fingerprint", fingerprint.clone());
        metadata.insert("weights_sha256", weights_sha256.clone());
        encode_header(&self.tensors, &metadata, self.int8_start)
    }
}

/// The two digests of a base, fed with the tensors in name order.
#[derive(Default)]
pub(super) struct Digests {
    all: Sha256,
    int8: Sha256,
}

impl Digests {
    /// Begins a tensor.
    pub fn tensor(&mut self, name: &str, info: &TensorInfo) {
        self.all.update(name);
        self.all.update([0]);
        self.all.update(info.dtype.to_string());
        self.all.update([0]);
        self.all.update((info.shape.len() as u64).to_le_bytes());
        info.shape.iter().for_each(|d| self.all.update((*d as u64).to_le_bytes()));
    }

    /// Goes on with the bytes of the tensor begun.
    pub fn bytes(&mut self, bytes: &[u8], int8: bool) {
        self.all.update(bytes);
        if int8 {
            self.int8.update(bytes);
        }
    }

    /// Fingerprint and `weights_sha256`, hex.
    pub fn finish(self) -> (String, String) {
        (hex(&self.all.finalize()), hex(&self.int8.finalize()))
    }

    /// Two digests of nothing, as long as any.
    pub fn placeholder() -> (String, String) {
        Digests::default().finish()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
