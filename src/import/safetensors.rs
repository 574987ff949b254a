//! Weights of a checkpoint: `model.safetensors`, or an index and its shards, read piece by piece.

use super::canonical::{Kind, Spec};
use super::{check_finite, read_small, wrapped};
use crate::config::Family;
use crate::container::{Header, MAX_HEADER, refuse_impostor};
use crate::error::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// Bytes of f32 handed out at a time, unless one row is longer.
const CHUNK_BYTES: usize = 1 << 20;

/// Weight files, open, with their headers parsed and the place of every wanted tensor known.
#[derive(Debug)]
pub(super) struct Weights {
    shards: Vec<Shard>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    header: Header,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    shard: usize,
    /// Its name in the file.
    name: String,
    dtype: Dtype,
    /// From the start of the file.
    offset: u64,
    rows: usize,
    cols: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// What a directory offers, before anything is looked up in it.
pub(super) struct Found {
    dir: PathBuf,
    /// The file that lists the tensors: the one weight file or the index.
    path: PathBuf,
    /// Stored names by the names that they have without wrappers.
    names: BTreeMap<String, String>,
    /// Shard of each tensor, where there is an index.
    map: Option<HashMap<String, String>>,
    shards: Vec<Shard>,
    /// Places in `shards` of the files that are open.
    opened: HashMap<String, usize>,
}

impl Found {
    /// Finds the weights of a directory and reads the header or the index.
    pub fn open(dir: &Path) -> Result<Found> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        let (path, map, shards) = if single.exists() {
            let shards = vec![Shard::open(single.clone())?];
            (single, None, shards)
        } else if index.exists() {
            let map = read_index(&index, &read_small(&index, MAX_HEADER)?)?;
            (index, Some(map), Vec::new())
        } else {
            return Err(no_weights(dir));
        };
        let names = match (&map, shards.first()) {
            (Some(map), _) => wrapped::names(&path, map.keys())?,
            (None, Some(shard)) => wrapped::names(&path, shard.header.tensors.keys())?,
            (None, None) => BTreeMap::new(),
        };
        Ok(Found { dir: dir.to_owned(), path, names, map, shards, opened: HashMap::new() })
    }

    /// The file that lists the tensors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor's name without wrappers, in name order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.keys().map(String::as_str)
    }

    /// The name under which the weights hold a tensor, if they do.
    pub fn stored_name(&self, family: Family, canonical: &str) -> Option<String> {
        stored_names(family, canonical).iter().find_map(|name| self.names.get(name).cloned())
    }

    /// Stored name and shape of a tensor, if the weights hold it.
    pub fn shape(&mut self, family: Family, canonical: &str) -> Result<Option<(String, Vec<usize>)>> {
        let Some(name) = self.stored_name(family, canonical) else { return Ok(None) };
        let shard = self.shard(&name)?;
        let info = self.shards[shard].header.tensors.get(&name);
        Ok(info.map(|info| (name, info.shape.clone())))
    }

    /// Opens the file that holds a tensor; its place in `shards`.
    fn shard(&mut self, stored: &str) -> Result<usize> {
        let Some(file) = self.map.as_ref().and_then(|map| map.get(stored)).cloned() else { return Ok(0) };
        if let Some(shard) = self.opened.get(&file) {
            return Ok(*shard);
        }
        self.shards.push(Shard::open(shard_path(&self.dir, &self.path, &file)?)?);
        self.opened.insert(file, self.shards.len() - 1);
        Ok(self.shards.len() - 1)
    }

    /// Looks every tensor up and checks its type and shape.
    pub fn resolve(mut self, family: Family, specs: &[Spec]) -> Result<Weights> {
        let mut places = BTreeMap::new();
        for spec in specs {
            let Some(name) = self.stored_name(family, &spec.name) else {
                let present = match wrapped::most_like(&spec.name, self.names.values()) {
                    Some(name) => format!("; `{name}` is there, for example"),
                    None => "; the file holds no tensor at all".into(),
                };
                let what = format!(
                    "missing (also without the prefix `{}.`){present}; expected shape {:?}",
                    family.name(),
                    spec.shape
                );
                return Err(Error::tensor(&self.path, &spec.name, what));
            };
            let shard = self.shard(&name)?;
            places.insert(spec.name.clone(), self.shards[shard].place(shard, name, spec)?);
        }
        Ok(Weights { shards: self.shards, places })
    }
}

/// Why a directory has no weights to read.
fn no_weights(dir: &Path) -> Error {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let torch = dir.join(name);
        if !torch.exists() {
            continue;
        }
        if let Err(e) = refuse_impostor(&torch) {
            return e;
        }
        return Error::Unsupported {
            path: torch,
            what: "pickled weights are not read, they can run code; convert them to safetensors: in \
                   Python, `AutoModel.from_pretrained(DIR).save_pretrained(DIR)`"
                .into(),
        };
    }
    Error::format(dir, "holds no weights: neither model.safetensors nor model.safetensors.index.json")
}

/// All values of some tensors of one small file, by their names there.
///
/// Fails as [`Found::resolve`] and [`Weights::read`] do.
pub(super) fn read_all(path: &Path, specs: &[Spec]) -> Result<BTreeMap<String, Vec<f32>>> {
    let shard = Shard::open(path.to_owned())?;
    let places = specs.iter().map(|spec| {
        if !shard.header.tensors.contains_key(&spec.name) {
            let present = wrapped::most_like(&spec.name, shard.header.tensors.keys());
            let present = present.map_or(String::new(), |name| format!("; `{name}` is there, for example"));
            return Err(Error::tensor(path, &spec.name, format!("missing{present}")));
        }
        Ok((spec.name.clone(), shard.place(0, spec.name.clone(), spec)?))
    });
    let places = places.collect::<Result<_>>()?;
    let weights = Weights { shards: vec![shard], places };
    let mut all = BTreeMap::new();
    for spec in specs {
        let mut values = Vec::new();
        weights.read(&spec.name, &mut |rows, _| {
            values.extend_from_slice(rows);
            Ok(())
        })?;
        all.insert(spec.name.clone(), values);
    }
    Ok(all)
}

/// Names a tensor may have: with and without the prefix, LayerNorm's names in TensorFlow's time, the pooler that a
/// RoBERTa has while it has no classifier, and the two of a masked-LM head's bias.
fn stored_names(family: Family, canonical: &str) -> Vec<String> {
    let mut names = vec![canonical.to_owned()];
    if let Some(module) = canonical.strip_suffix(".LayerNorm.weight") {
        names.push(format!("{module}.LayerNorm.gamma"));
    } else if let Some(module) = canonical.strip_suffix(".LayerNorm.bias") {
        names.push(format!("{module}.LayerNorm.beta"));
    }
    if let (Family::Roberta, Some(part)) = (family, canonical.strip_prefix("classifier.dense.")) {
        names.push(format!("roberta.pooler.dense.{part}"));
    }
    match canonical {
        "cls.predictions.bias" => names.push("cls.predictions.decoder.bias".into()),
        "lm_head.bias" => names.push("lm_head.decoder.bias".into()),
        _ => {}
    }
    let prefix = format!("{}.", family.name());
    let bare: Vec<_> = names.iter().filter_map(|n| n.strip_prefix(&prefix)).map(str::to_owned).collect();
    names.extend(bare);
    names
}

/// The shard of each tensor, from the text of an index.
pub(super) fn read_index(path: &Path, text: &[u8]) -> Result<HashMap<String, String>> {
    let parsed: Index = serde_json::from_slice(text)
        .map_err(|e| Error::format(path, format!("not a safetensors index: {e}")))?;
    Ok(parsed.weight_map)
}

/// Whether a shard's name stays in the directory of its index, on every system.
pub(super) fn plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    plain && !file.contains(['/', '\\', ':', '\0'])
}

/// The path of a shard, which must be a plain file name in the checkpoint's directory.
fn shard_path(dir: &Path, index: &Path, file: &str) -> Result<PathBuf> {
    if !plain_name(file) {
        let what = format!("shard {file:?} is not a plain file name in the checkpoint's directory");
        return Err(Error::format(index, what));
    }
    let path = dir.join(file);
    if !path.exists() {
        return Err(Error::format(index, format!("shard `{file}` is not there; download it too")));
    }
    Ok(path)
}

impl Shard {
    fn open(path: PathBuf) -> Result<Shard> {
        let file = File::open(&path).map_err(Error::io(&path))?;
        let bytes = file.metadata().map_err(Error::io(&path))?.len();
        let header = Header::read(&path, bytes, |at, len| {
            let mut part = vec![0; len];
            read_at(&file, at, &mut part).map_err(Error::io(&path))?;
            Ok(part)
        })?;
        Ok(Shard { path, file, header })
    }

    fn place(&self, shard: usize, name: String, spec: &Spec) -> Result<Place> {
        let Some(info) = self.header.tensors.get(&name) else {
            return Err(Error::tensor(&self.path, &name, "missing, though the index places it in this file"));
        };
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            let what = format!("expected F32, F16 or BF16, found {}", info.dtype);
            return Err(Error::tensor(&self.path, &name, what));
        }
        if info.shape != spec.shape {
            let what = format!("expected shape {:?}, found {:?}", spec.shape, info.shape);
            return Err(Error::tensor(&self.path, &name, what));
        }
        let (rows, cols) = match spec.kind {
            Kind::Linear | Kind::Matrix | Kind::Dense => (spec.shape[0], spec.shape[1]),
            Kind::Vector => (1, spec.shape[0]),
        };
        let offset = self.header.data_start + info.data_offsets.0 as u64;
        Ok(Place { shard, name, dtype: info.dtype, offset, rows, cols })
    }
}

impl Weights {
    /// Bytes of all wanted tensors as they are stored.
    pub fn bytes(&self) -> u64 {
        self.places.values().map(|p| p.rows as u64 * p.cols as u64 * p.dtype.bitsize() as u64 / 8).sum()
    }

    /// Hands the tensor out as f32, whole rows at a time, in order; `each` gets the rows and their stored bytes.
    ///
    /// Fails with [`Error::Tensor`] on a value that is not finite.
    pub fn read(&self, canonical: &str, each: &mut dyn FnMut(&[f32], u64) -> Result<()>) -> Result<()> {
        let Some(place) = self.places.get(canonical) else {
            return Err(Error::Internal(format!("`{canonical}` is not a tensor of this encoder")));
        };
        let shard = &self.shards[place.shard];
        let width = place.dtype.bitsize() / 8;
        let rows_at_once = (CHUNK_BYTES / 4 / place.cols).clamp(1, place.rows);
        let mut values = vec![0f32; rows_at_once * place.cols];
        let mut halves = vec![0u16; if width == 2 { values.len() } else { 0 }];
        let mut row = 0;
        while row < place.rows {
            let n = rows_at_once.min(place.rows - row) * place.cols;
            let at = place.offset + row as u64 * (place.cols * width) as u64;
            let values = &mut values[..n];
            let read = match place.dtype {
                Dtype::F32 => read_at(&shard.file, at, bytemuck::cast_slice_mut(values)),
                _ => read_at(&shard.file, at, bytemuck::cast_slice_mut(&mut halves[..n])),
            };
            read.map_err(Error::io(&shard.path))?;
            match place.dtype {
                Dtype::F16 => bytemuck::cast_slice::<_, f16>(&halves[..n]).convert_to_f32_slice(values),
                Dtype::BF16 => bytemuck::cast_slice::<_, bf16>(&halves[..n]).convert_to_f32_slice(values),
                _ => {}
            }
            check_finite(&shard.path, &place.name, values, row, place.cols, place.rows == 1)?;
            each(values, (n * width) as u64)?;
            row += rows_at_once;
        }
        Ok(())
    }
}

/// Fills `buffer` from `offset`, without moving a cursor that others share.
#[cfg(unix)]
pub(super) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from `offset`, without moving a cursor that others share.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}
