//! The tensors of an encoder in an ONNX file, read piece by piece as they are asked for.

use super::encoder::{Encoder, Source};
use super::meaning::{Matrix, Scale};
use super::tensor::{Dtype, Files, Stored, floats};
use crate::error::{Error, Result};
use crate::import::canonical::{Kind, Spec};
use crate::import::{Piece, check_finite};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Bytes of f32 handed out at a time, unless one row is longer.
const CHUNK_BYTES: usize = 1 << 20;

/// Where an encoder's tensors lie, checked.
#[derive(Debug)]
pub(in crate::import) struct Weights {
    files: Files,
    stored: BTreeMap<String, Stored>,
    sources: BTreeMap<String, Source>,
}

/// A bias or gain in a file.
pub(crate) struct Vector<'a> {
    pub canonical: &'a str,
    /// Its name in the file.
    pub name: &'a str,
    pub dtype: Dtype,
    /// All 1 but the last.
    pub dims: &'a [usize],
}

/// The scheme of a quantized matrix, with a scale and a zero point for each output, or one for all.
struct Scheme {
    scale: Vec<f32>,
    zero: Vec<i32>,
}

impl Weights {
    /// Checks that every tensor has the shape it must have.
    pub(super) fn new(
        encoder: Encoder,
        stored: BTreeMap<String, Stored>,
        files: Files,
        specs: &[Spec],
    ) -> Result<Weights> {
        let weights = Weights { files, stored, sources: encoder.sources };
        let path = weights.path();
        for spec in specs {
            let (name, mut shape, floats) = match weights.sources.get(&spec.name) {
                Some(Source::Matrix(m)) => {
                    let stored = &weights.stored[&m.name];
                    let mut shape = stored.dims.clone();
                    if m.transposed {
                        shape.reverse();
                    }
                    (&m.name, shape, m.zero.is_none())
                }
                // LayerNorm's may be of several dimensions, all 1 but the last.
                Some(Source::Vector(name)) => (name, vec![weights.stored[name].len()], true),
                None => return Err(Error::Internal(format!("`{}` was not found in the graph", spec.name))),
            };
            if spec.kind == Kind::Vector {
                shape.truncate(1);
            }
            let dtype = weights.stored[name].dtype;
            let fits = match floats {
                true => matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16),
                false => matches!(dtype, Dtype::I8 | Dtype::U8),
            };
            if shape != spec.shape || !fits {
                let what =
                    format!("`{}`: expected shape {:?}, found {dtype:?} {shape:?}", spec.name, spec.shape);
                return Err(Error::tensor(path, name, what));
            }
        }
        Ok(weights)
    }

    /// The model's file.
    pub fn path(&self) -> &Path {
        &self.files.0[0].0
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.files.0[0].1
    }

    /// Biases and gains, as the file has them.
    pub(super) fn vectors(&self) -> impl Iterator<Item = Vector<'_>> {
        self.sources.iter().filter_map(|(canonical, source)| match source {
            Source::Vector(name) => {
                let stored = &self.stored[name];
                Some(Vector { canonical, name, dtype: stored.dtype, dims: &stored.dims })
            }
            Source::Matrix(_) => None,
        })
    }

    /// Bytes of all tensors as they are stored.
    pub fn bytes(&self) -> u64 {
        let bytes = |source: &Source| {
            let name = match source {
                Source::Vector(name) => name,
                Source::Matrix(m) => &m.name,
            };
            let stored = &self.stored[name];
            stored.len() as u64 * stored.dtype.bytes() as u64
        };
        self.sources.values().map(bytes).sum()
    }

    /// Hands a tensor out as [`Checkpoint::read`](crate::import::Checkpoint::read) says.
    pub fn read(&self, canonical: &str, each: &mut dyn FnMut(Piece, u64) -> Result<()>) -> Result<()> {
        match self.sources.get(canonical) {
            None => Err(Error::Internal(format!("`{canonical}` is not a tensor of this encoder"))),
            Some(Source::Vector(name)) => {
                let values = self.vector(name)?;
                let stored = &self.stored[name];
                each(Piece::F32(&values), stored.len() as u64 * stored.dtype.bytes() as u64)
            }
            Some(Source::Matrix(matrix)) => self.matrix(matrix, each),
        }
    }

    fn matrix(&self, matrix: &Matrix, each: &mut dyn FnMut(Piece, u64) -> Result<()>) -> Result<()> {
        let stored = &self.stored[&matrix.name];
        let (mut rows, mut cols) = (stored.dims[0], stored.dims[1]);
        if matrix.transposed {
            (rows, cols) = (cols, rows);
        }
        let scheme = self.scheme(matrix, rows)?;
        let width = stored.dtype.bytes();
        let at_once = (CHUNK_BYTES / 4 / cols).clamp(1, rows);
        // A transposed matrix is read whole: its rows lie strewn over it.
        let mut whole = Vec::new();
        if matrix.transposed {
            whole.resize(rows * cols * width, 0);
            self.fill(matrix, 0, &mut whole)?;
        }
        let mut bytes = vec![0; at_once * cols * width];
        for first in (0..rows).step_by(at_once) {
            let n = at_once.min(rows - first);
            let bytes = &mut bytes[..n * cols * width];
            match matrix.transposed {
                true => transpose(&whole, rows, first, n, width, bytes),
                false => self.fill(matrix, (first * cols * width) as u64, bytes)?,
            }
            let size = bytes.len() as u64;
            match &scheme {
                None => {
                    let values = floats(stored.dtype, bytes);
                    check_finite(self.path(), &matrix.name, &values, first, cols, rows == 1)?;
                    each(Piece::F32(&values), size)?;
                }
                Some(scheme) => {
                    let fits = |r: usize| scheme.fits(stored.dtype, &bytes[r * cols..][..cols], first + r);
                    let mut start = 0;
                    while start < n {
                        let as_it_is = fits(start);
                        let end = (start + 1..n).find(|r| fits(*r) != as_it_is).unwrap_or(n);
                        let (rows, at) = (&bytes[start * cols..end * cols], first + start);
                        let size = rows.len() as u64;
                        if as_it_is {
                            let (q, scale) = scheme.symmetric(stored.dtype, rows, at, cols);
                            each(Piece::Int8 { q: &q, scale: &scale }, size)?;
                        } else {
                            each(Piece::F32(&scheme.floats(stored.dtype, rows, at, cols)), size)?;
                        }
                        start = end;
                    }
                }
            }
        }
        Ok(())
    }

    /// The scheme of a matrix of integers; none of floats.
    fn scheme(&self, matrix: &Matrix, rows: usize) -> Result<Option<Scheme>> {
        let (Some(scale), Some(zero)) = (&matrix.scale, &matrix.zero) else { return Ok(None) };
        let scale = match scale {
            Scale::One(s) => vec![*s as f32],
            Scale::Each(name) => self.vector(name)?,
        };
        let zero = match zero {
            Scale::One(z) => vec![*z as i32],
            Scale::Each(name) => {
                let stored = &self.stored[name];
                if !matches!(stored.dtype, Dtype::I8 | Dtype::U8) {
                    return Err(Error::tensor(self.path(), name, "zero points must be int8 or uint8"));
                }
                let mut bytes = vec![0; stored.len()];
                self.fill_from(name, 0, &mut bytes)?;
                bytes.into_iter().map(|b| integer(stored.dtype, b)).collect()
            }
        };
        let fits = |len: usize| len == 1 || len == rows;
        let positive = scale.iter().all(|s| s.is_finite() && *s > 0.0);
        if !fits(scale.len()) || !fits(zero.len()) || !positive || zero.iter().any(|z| z.abs() > 255) {
            let what = "scales must be above 0, and they and zero points as many as outputs, or one";
            return Err(Error::tensor(self.path(), &matrix.name, what));
        }
        Ok(Some(Scheme { scale, zero }))
    }

    /// A vector of floats, whole.
    fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let stored = &self.stored[name];
        if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16) {
            return Err(Error::tensor(
                self.path(),
                name,
                format!("expected floats, found {:?}", stored.dtype),
            ));
        }
        let mut bytes = vec![0; stored.len() * stored.dtype.bytes()];
        self.fill_from(name, 0, &mut bytes)?;
        let values = floats(stored.dtype, &bytes);
        check_finite(self.path(), name, &values, 0, values.len().max(1), true)?;
        Ok(values)
    }

    fn fill(&self, matrix: &Matrix, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.fill_from(&matrix.name, at, bytes)
    }

    fn fill_from(&self, name: &str, at: u64, bytes: &mut [u8]) -> Result<()> {
        let read = self.stored[name].read(&self.files, at, bytes);
        read.map_err(|what| Error::tensor(self.path(), name, what))
    }
}

impl Scheme {
    /// Scale and zero point of row `r`.
    fn row(&self, r: usize) -> (f32, i32) {
        let get = |len: usize| if len == 1 { 0 } else { r };
        (self.scale[get(self.scale.len())], self.zero[get(self.zero.len())])
    }

    /// Whether row `r` is symmetric around its zero point, as ours are, or as good as that: no value is too far from it.
    fn fits(&self, dtype: Dtype, row: &[u8], r: usize) -> bool {
        let (_, zero) = self.row(r);
        row.iter().all(|b| (integer(dtype, *b) - zero).abs() <= 127)
    }

    /// Rows that fit, as they are.
    fn symmetric(&self, dtype: Dtype, bytes: &[u8], first: usize, cols: usize) -> (Vec<i8>, Vec<f32>) {
        let (mut q, mut scales) = (Vec::with_capacity(bytes.len()), Vec::new());
        for (r, row) in bytes.chunks_exact(cols).enumerate() {
            let (scale, zero) = self.row(first + r);
            q.extend(row.iter().map(|b| (integer(dtype, *b) - zero) as i8));
            scales.push(scale);
        }
        (q, scales)
    }

    fn floats(&self, dtype: Dtype, bytes: &[u8], first: usize, cols: usize) -> Vec<f32> {
        let rows = bytes.chunks_exact(cols).enumerate();
        rows.flat_map(|(r, row)| {
            let (scale, zero) = self.row(first + r);
            row.iter().map(move |b| (integer(dtype, *b) - zero) as f32 * scale)
        })
        .collect()
    }
}

fn integer(dtype: Dtype, byte: u8) -> i32 {
    if dtype == Dtype::I8 { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Columns `first .. first + n` of a matrix whose rows have `width`-byte elements and length `len`, as rows.
fn transpose(whole: &[u8], len: usize, first: usize, n: usize, width: usize, out: &mut [u8]) {
    let cols = out.len() / n / width;
    for (c, row) in whole.chunks_exact(len * width).enumerate() {
        let part = row[first * width..][..n * width].chunks_exact(width);
        for (r, element) in part.enumerate() {
            out[(r * cols + c) * width..][..width].copy_from_slice(element);
        }
    }
}
