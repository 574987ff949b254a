//! A TensorProto: what it says of itself and where its data lies, without reading the data.

use super::wire::{Bytes, Fields, Value};
use crate::container::refuse_impostor;
use crate::import::safetensors::read_at;
use crate::protobuf::{Dim, Message, value_info};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fs::File;
use std::path::{Component, Path, PathBuf};

/// Longest name, in bytes.
const MAX_NAME: u64 = 4096;
/// Most dimensions.
const MAX_RANK: usize = 8;

/// Most bytes of a tensor that is kept in memory.
const MAX_INLINE: u64 = 1 << 16;

/// Element types of ONNX that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    U8,
    I8,
    I64,
}

impl Dtype {
    pub fn of(code: u64) -> Option<Dtype> {
        match code {
            1 => Some(Dtype::F32),
            2 => Some(Dtype::U8),
            3 => Some(Dtype::I8),
            7 => Some(Dtype::I64),
            10 => Some(Dtype::F16),
            16 => Some(Dtype::Bf16),
            _ => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Dtype::U8 | Dtype::I8 => 1,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
            Dtype::I64 => 8,
        }
    }
}

/// A tensor whose data stays in its file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub dtype: Dtype,
    pub dims: Vec<usize>,
    /// Which file, in the order of [`Files`].
    pub file: usize,
    /// Where its data begins; little-endian values without gaps.
    pub at: u64,
    /// Its data, where it does not lie like that: zero points, as `onnx.helper` writes them.
    inline: Vec<u8>,
}

impl Stored {
    /// Number of elements; does not overflow, as all of them are in the file.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of its data, from `at` on.
    pub fn read(&self, files: &Files, at: u64, into: &mut [u8]) -> Result<(), String> {
        if !self.inline.is_empty() {
            let from = usize::try_from(at).ok().and_then(|at| self.inline.get(at..)?.get(..into.len()));
            into.copy_from_slice(from.ok_or("ends early")?);
            return Ok(());
        }
        let (path, file) = &files.0[self.file];
        read_at(file, self.at + at, into).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// The model's file, and behind it those that hold tensors for it.
#[derive(Debug)]
pub(super) struct Files(pub Vec<(PathBuf, File)>);

impl Files {
    /// The number of the file of this name beside the model, opened on first use.
    fn external(&mut self, location: &str) -> Result<usize, String> {
        let plain = Path::new(location).components().all(|c| matches!(c, Component::Normal(_)));
        if !plain || location.is_empty() || location.contains(['\\', ':', '\0']) {
            return Err(format!("data in {location:?}, which is not a path below the model's folder"));
        }
        let path = self.0[0].0.with_file_name(location);
        if let Some(i) = self.0.iter().position(|(p, _)| *p == path) {
            return Ok(i);
        }
        if self.0.len() > 64 {
            return Err("data in more than 64 files".into());
        }
        refuse_impostor(&path).map_err(|e| format!("data in `{location}`: {e}"))?;
        let file =
            File::open(&path).map_err(|e| format!("data in `{location}`, which cannot be opened: {e}"))?;
        self.0.push((path, file));
        Ok(self.0.len() - 1)
    }
}

/// What a TensorProto says of itself.
#[derive(Default)]
pub(super) struct Head {
    pub name: String,
    pub dims: Vec<usize>,
    pub elements: u64,
    code: u64,
    raw: Option<(u64, u64)>,
    floats: Option<(u64, u64)>,
    ints: Option<(u64, u64)>,
    /// The data is in some other field.
    typed: bool,
    external: Vec<(String, String)>,
    is_external: bool,
}

impl Head {
    /// Reads the TensorProto in `at .. at + len` of the model's file.
    pub fn read(file: &File, at: u64, len: u64) -> Result<Head, String> {
        let bytes = Bytes(file);
        let mut head = Head { elements: 1, ..Head::default() };
        let mut dims = Vec::new();
        let mut fields = Fields::new(bytes, at, len);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Varint(d)) => dims.push(d),
                (1, Value::Len { at, len }) => {
                    let mut packed = Fields::new(bytes, at, len);
                    while !packed.is_done() && dims.len() <= MAX_RANK {
                        dims.push(packed.varint()?);
                    }
                }
                (2, v) => head.code = v.number()?,
                (3, _) => return Err("a tensor in segments, which are not read".into()),
                (4, v @ Value::Len { .. }) if head.floats.is_none() => head.floats = Some(v.place()?),
                (5, v @ Value::Len { .. }) if head.ints.is_none() => head.ints = Some(v.place()?),
                (4 | 5 | 6 | 7 | 10 | 11, _) => head.typed = true,
                (8, v) => head.name = text(bytes, v)?,
                (9, v) => head.raw = Some(v.place()?),
                (13, v) if head.external.len() < 16 => head.external.push(entry(bytes, v)?),
                (14, v) => head.is_external = v.number()? == 1,
                _ => {}
            }
            if dims.len() > MAX_RANK {
                return Err(format!("tensor `{}` has more than {MAX_RANK} dimensions", head.name));
            }
        }
        for d in dims {
            let bad = || format!("tensor `{}` has a dimension of {}", head.name, d as i64);
            head.dims.push(u32::try_from(d).map_err(|_| bad())? as usize);
            head.elements = head.elements.checked_mul(d).filter(|n| *n < 1 << 40).ok_or_else(bad)?;
        }
        Ok(head)
    }

    /// Whether its data is in another file.
    pub fn is_external(&self) -> bool {
        self.is_external
    }

    /// Where its data lies; checked to be as long as type and shape ask for.
    pub fn stored(&self, files: &mut Files) -> Result<Stored, String> {
        let name = &self.name;
        let Some(dtype) = Dtype::of(self.code) else {
            return Err(format!(
                "tensor `{name}` is of type {}; expected float, float16, (u)int8",
                self.code
            ));
        };
        let want = self.elements * dtype.bytes() as u64;
        let (file, at, have, inline) = if self.is_external {
            let get = |key| self.external.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
            let number = |key, default| match get(key) {
                None => Ok(default),
                Some(n) => n.parse::<u64>().map_err(|_| format!("tensor `{name}`: {key} {n:?}")),
            };
            let location = get("location").ok_or_else(|| format!("tensor `{name}` has no location"))?;
            let file = files.external(location).map_err(|e| format!("tensor `{name}`: {e}"))?;
            let (at, have) = (number("offset", 0)?, number("length", want)?);
            let end = files.0[file].1.metadata().map_err(|e| e.to_string())?.len();
            if at.checked_add(have).is_none_or(|last| last > end) {
                return Err(format!("tensor `{name}`: `{location}` ends before its data, at {end}"));
            }
            (file, at, have, Vec::new())
        } else if let Some((at, len)) = self.raw {
            (0, at, len, Vec::new())
        } else if let (Some((at, len)), Dtype::F32, false) = (self.floats, dtype, self.typed) {
            (0, at, len, Vec::new())
        } else if let (Some((at, len)), true, false) = (self.ints, want <= MAX_INLINE, self.typed) {
            let inline = integers(&files.0[0].1, at, len, dtype)?;
            (0, 0, inline.len() as u64, inline)
        } else {
            return Err(format!("tensor `{name}` does not have its data in raw_data or packed float_data"));
        };
        if have != want {
            let dims = &self.dims;
            return Err(format!("tensor `{name}` {dims:?} has {have} bytes of data; expected {want}"));
        }
        Ok(Stored { dtype, dims: self.dims.clone(), file, at, inline })
    }

    /// Number of elements of what has this tensor's numbers for its shape; none if it can be no shape.
    pub fn volume(&self, files: &mut Files) -> Option<u64> {
        let stored = self.stored(files).ok().filter(|s| s.dtype == Dtype::I64)?;
        let mut data = vec![0; stored.len().checked_mul(8).filter(|n| *n as u64 <= MAX_INLINE)?];
        stored.read(files, 0, &mut data).ok()?;
        // Of -1 and 0 too: the size that is meant is that of something else.
        Some(
            data.as_chunks()
                .0
                .iter()
                .fold(1, |n: u64, d| n.saturating_mul(i64::from_le_bytes(*d).max(1) as u64)),
        )
    }

    /// The ValueInfoProto of an input of this type and shape; halves as floats.
    pub fn as_input(&self, name: &str) -> Message {
        let dims: Vec<Dim> = self.dims.iter().map(|d| Dim::Fixed(*d)).collect();
        value_info(name, as_float(self.code) as i64, &dims)
    }

    /// A TensorProto of a small tensor that cannot stay as it is: one of halves, or one whose data is elsewhere.
    pub fn inlined(&self, files: &mut Files) -> Result<Option<Message>, String> {
        let halves = as_float(self.code) != self.code;
        if !self.is_external && !halves {
            return Ok(None);
        }
        let stored = self.stored(files)?;
        let mut data = vec![0; stored.len() * stored.dtype.bytes()];
        stored.read(files, 0, &mut data)?;
        if halves {
            data = floats(stored.dtype, &data).into_iter().flat_map(f32::to_le_bytes).collect();
        }
        let shape = self.dims.iter().fold(Message::new(), |t, d| t.int(1, *d as i64));
        Ok(Some(shape.int(2, as_float(self.code) as i64).text(8, &self.name).bytes(9, &data)))
    }
}

/// The element type that a skeleton has for one of the file: float for halves, which tract does not take everywhere.
pub(super) fn as_float(code: u64) -> u64 {
    if matches!(code, 10 | 16) { 1 } else { code }
}

/// Little-endian floats.
pub(super) fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    match dtype {
        Dtype::F16 => {
            let halves: Vec<f16> = halves().map(f16::from_bits).collect();
            let mut out = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut out);
            out
        }
        Dtype::Bf16 => halves().map(|b| bf16::from_bits(b).to_f32()).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

/// Bytes of an int8 or uint8 tensor that is packed varints.
fn integers(file: &File, at: u64, len: u64, dtype: Dtype) -> Result<Vec<u8>, String> {
    if dtype.bytes() != 1 {
        return Err("data in int32_data; expected raw_data".into());
    }
    let mut fields = Fields::new(Bytes(file), at, len);
    let mut out = Vec::new();
    while !fields.is_done() && out.len() as u64 <= MAX_INLINE {
        // Negative ones are sign-extended; the low byte is the value.
        out.push(fields.varint()? as u8);
    }
    Ok(out)
}

/// A TensorProto of one number 0.
pub(super) fn zero() -> Message {
    Message::new().int(1, 1).int(2, 1).bytes(9, &[0; 4])
}

/// A short text.
pub(super) fn text(bytes: Bytes, value: Value) -> Result<String, String> {
    let (at, len) = value.place()?;
    if len > MAX_NAME {
        return Err(format!("a name of {len} bytes at {at}"));
    }
    let mut text = vec![0; len as usize];
    bytes.read(at, &mut text)?;
    String::from_utf8(text).map_err(|_| format!("a name at {at} is not text"))
}

/// Key and value of a StringStringEntryProto.
pub(super) fn entry(bytes: Bytes, value: Value) -> Result<(String, String), String> {
    let (at, len) = value.place()?;
    let mut fields = Fields::new(bytes, at, len);
    let (mut key, mut text_of) = (String::new(), String::new());
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => key = text(bytes, value)?,
            2 => text_of = text(bytes, value)?,
            _ => {}
        }
    }
    Ok((key, text_of))
}
