//! Step 2: [`Checkpoint`] -> base file: every matrix to int8, biases and gains as they are.
//!
//! For each row `w` of a Linear's weight `[out, in]` or of an embedding table:
//!
//! ```text
//! scale = max|w| / 127          in f32; 1 where that is 0
//! q     = clamp(round_half_even(w / scale), -127, 127)
//! w    ≈ q · scale
//! ```
//!
//! A quotient, not a product with `1 / scale`, and half to even: the same bytes as PyTorch's
//! `round(w / scale)`. Quantized are `query`, `key`, `value`, `attention.output.dense`, `intermediate.dense` and
//! `output.dense` of each layer (whatever their names in a family), the pooler, the projection of narrower embeddings,
//! the dense layer of a masked-LM head, and the word, position and token type tables.

mod attached;
mod base;
pub mod format;
mod matrix;

pub use base::{Base, TensorEntry};
pub use matrix::{Order, QMatrix};

use crate::error::{Error, Result};
use crate::import::canonical::{Kind, Spec};
use crate::import::{Checkpoint, Piece};
use crate::kernels::tiles::{self, PANEL};
use crate::output::{replace_file, reserve};
use attached::Attached;
use format::{Digests, Plan, SCALE, TOKENIZER};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;

/// What [`quantize`] wrote.
#[derive(Clone, Debug, serde::Serialize)]
pub struct QuantizeReport {
    /// Parameters of the encoder.
    pub parameters: u64,
    /// How many of them are int8 now.
    pub quantized: u64,
    /// Bytes of the checkpoint's weights.
    pub checkpoint_bytes: u64,
    /// Bytes of the base file.
    pub base_bytes: u64,
    /// `√(Σ (w − q·scale)² / Σ w²)` over all quantized weights.
    pub relative_error: f64,
    /// See [`Base::fingerprint`].
    pub fingerprint: String,
    /// See [`Base::weights_sha256`].
    pub weights_sha256: String,
    /// See [`Checkpoint::warnings`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Quantizes a checkpoint to a base file at `out`; `progress(done, total)`, in bytes of the checkpoint, may end it.
///
/// Holds about 2 MiB of weights at a time. `out` is replaced whole, or on any error left as it was.
pub fn quantize(
    checkpoint: &Checkpoint,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<QuantizeReport> {
    let plan = Plan::new(checkpoint)?;
    let bytes = plan.header(&Digests::placeholder())?.len() as u64 + plan.data_bytes;
    drop(reserve(out, bytes)?);
    replace_file(out, |file| {
        let mut writer = Writer {
            out,
            file,
            data_start: plan.header(&Digests::placeholder())?.len() as u64,
            plan: &plan,
            digests: Digests::default(),
            error: SquaredError::default(),
        };
        let total = checkpoint.weight_bytes();
        let mut done = 0;
        let (mut parameters, mut quantized) = (0, 0);
        let mut tokenizer = Some(checkpoint.tokenizer_bytes());
        for spec in checkpoint.tensors() {
            // In name order too: DistilBERT's `vocab_…` come behind it.
            if spec.name.as_str() > TOKENIZER
                && let Some(bytes) = tokenizer.take()
            {
                writer.raw(TOKENIZER, bytes)?;
            }
            let n = spec.shape.iter().map(|d| *d as u64).product::<u64>();
            let mut tick = |bytes| {
                done += bytes;
                match progress(done, total) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Error::Interrupted("no base was written".into())),
                }
            };
            match spec.kind {
                Kind::Linear => writer.matrix(checkpoint, spec, Order::Tiles, &mut tick)?,
                Kind::Matrix => writer.matrix(checkpoint, spec, Order::Rows, &mut tick)?,
                Kind::Vector | Kind::Dense => writer.vector(checkpoint, &spec.name, &mut tick)?,
            }
            parameters += n;
            quantized += if matches!(spec.kind, Kind::Vector | Kind::Dense) { 0 } else { n };
        }
        if let Some(bytes) = tokenizer {
            writer.raw(TOKENIZER, bytes)?;
        }

        let Writer { digests, error, .. } = writer;
        let (fingerprint, weights_sha256) = digests.finish();
        let header = plan.header(&(fingerprint.clone(), weights_sha256.clone()))?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io(out))?;
        file.write_all(&header).map_err(Error::io(out))?;
        Ok(QuantizeReport {
            parameters,
            quantized,
            checkpoint_bytes: total,
            base_bytes: header.len() as u64 + plan.data_bytes,
            relative_error: error.relative(),
            fingerprint,
            weights_sha256,
            warnings: checkpoint.warnings().to_vec(),
        })
    })
}

/// Writes tensors to their places, and hashes them, in name order.
struct Writer<'a> {
    out: &'a Path,
    file: &'a mut File,
    data_start: u64,
    plan: &'a Plan,
    digests: Digests,
    error: SquaredError,
}

impl Writer<'_> {
    fn matrix(
        &mut self,
        checkpoint: &Checkpoint,
        spec: &Spec,
        order: Order,
        tick: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let (name, rows, cols) = (&spec.name, spec.shape[0], spec.shape[1]);
        self.start(name)?;
        let (mut q, mut scales) = (Vec::new(), Vec::new());
        // Rows that do not yet fill a panel.
        let mut waiting = Vec::new();
        checkpoint.read(name, &mut |piece, bytes| {
            match piece {
                Piece::F32(values) => {
                    q.resize(values.len(), 0i8);
                    for (w, q) in values.chunks_exact(cols).zip(q.chunks_exact_mut(cols)) {
                        let scale = quantize_row(w, q);
                        self.error.add(w, q, scale);
                        scales.push(scale);
                    }
                }
                // Quantized as we would: taken over as they are.
                Piece::Int8 { q: rows, scale } => {
                    q.clear();
                    q.extend_from_slice(rows);
                    scales.extend_from_slice(scale);
                    rows.chunks_exact(cols).zip(scale).for_each(|(q, s)| self.error.add_exact(q, *s));
                }
            }
            self.digests.weights(&q);
            match order {
                Order::Rows => self.append(bytemuck::cast_slice(&q))?,
                Order::Tiles => {
                    waiting.extend_from_slice(&q);
                    let whole = waiting.len() / (PANEL * cols) * (PANEL * cols);
                    for panel in waiting[..whole].chunks_exact(PANEL * cols) {
                        self.append(bytemuck::cast_slice(&tiles::panel_of_rows(panel, cols)))?;
                    }
                    waiting.drain(..whole);
                }
            }
            tick(bytes)
        })?;
        if order == Order::Tiles {
            if !waiting.is_empty() {
                self.append(bytemuck::cast_slice(&tiles::panel_of_rows(&waiting, cols)))?;
            }
            let panels = tiles::padded(rows) / PANEL - rows.div_ceil(PANEL);
            self.append(&vec![0; panels * PANEL * tiles::padded(cols)])?;
        }
        // In name order a matrix's scales come right behind it.
        self.raw(&format!("{name}{SCALE}"), bytemuck::cast_slice(&scales))
    }

    fn vector(
        &mut self,
        checkpoint: &Checkpoint,
        name: &str,
        tick: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.start(name)?;
        checkpoint.read(name, &mut |piece, bytes| {
            let Piece::F32(values) = piece else {
                return Err(Error::Internal(format!("`{name}` is a vector of integers")));
            };
            self.append(bytemuck::cast_slice(values))?;
            tick(bytes)
        })
    }

    fn raw(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.start(name)?;
        self.append(bytes)
    }

    /// Moves to the place of a tensor and begins its digest.
    fn start(&mut self, name: &str) -> Result<()> {
        let info = self.plan.info(name)?;
        let at = self.data_start + info.data_offsets.0 as u64;
        self.digests.tensor(name, info);
        self.file.seek(SeekFrom::Start(at)).map_err(Error::io(self.out))?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.digests.stored(bytes);
        self.file.write_all(bytes).map_err(Error::io(self.out))
    }
}

/// Quantizes one row and returns its scale; `w` is finite, `q` as long.
pub(crate) fn quantize_row(w: &[f32], q: &mut [i8]) -> f32 {
    let max = w.iter().fold(0f32, |m, x| m.max(x.abs()));
    let scale = match max / 127.0 {
        // All zero, or so small that the quotient underflows: then every w / 1 rounds to 0.
        0.0 => 1.0,
        scale => scale,
    };
    // Adding 1.5 · 2^23 leaves no bits for a fraction, so the sum is rounded half to even by the CPU; exact for
    // |x| < 2^22, and here |x| <= 191. Unlike `round_ties_even`, it is not a call where SSE4.1 is not assumed.
    const ROUND: f32 = 12_582_912.0;
    for (q, w) in q.iter_mut().zip(w) {
        let rounded = (w / scale + ROUND) - ROUND;
        *q = rounded.clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// Sums of squares of the weights and of their errors.
#[derive(Default)]
struct SquaredError {
    weight: f64,
    error: f64,
}

impl SquaredError {
    fn add(&mut self, w: &[f32], q: &[i8], scale: f32) {
        // Eight partial sums, so that the compiler can use vectors. Weights near f32's limits would overflow
        // a square, hence units of the scale.
        let (mut weight, mut error) = ([0f32; 8], [0f32; 8]);
        for (w, q) in w.chunks(8).zip(q.chunks(8)) {
            for (i, (w, q)) in w.iter().zip(q).enumerate() {
                let x = w / scale;
                let d = x - f32::from(*q);
                weight[i] += x * x;
                error[i] += d * d;
            }
        }
        let unit = f64::from(scale) * f64::from(scale);
        self.weight += unit * weight.iter().map(|x| f64::from(*x)).sum::<f64>();
        self.error += unit * error.iter().map(|x| f64::from(*x)).sum::<f64>();
    }

    /// A row that is not rounded.
    fn add_exact(&mut self, q: &[i8], scale: f32) {
        let squares: i64 = q.iter().map(|q| i64::from(*q) * i64::from(*q)).sum();
        self.weight += f64::from(scale) * f64::from(scale) * squares as f64;
    }

    fn relative(&self) -> f64 {
        if self.weight > 0.0 { (self.error / self.weight).sqrt() } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(w: &[f32]) -> (Vec<i8>, f32) {
        let mut q = vec![99; w.len()];
        let scale = quantize_row(w, &mut q);
        (q, scale)
    }

    #[test]
    fn rounds_half_to_even() {
        // max 127, so scale 1 and the quotients are the values themselves.
        let (q, scale) = row(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, 0.49999997]);
        assert_eq!(scale, 1.0);
        assert_eq!(q, [127, 0, 2, 2, 0, -2, -2, 126, -126, 0]);
    }

    #[test]
    fn rows_of_zeros_and_of_dust_have_scale_one() {
        assert_eq!(row(&[0.0, -0.0]), (vec![0, 0], 1.0));
        assert_eq!(row(&[f32::from_bits(1), -f32::from_bits(40)]), (vec![0, 0], 1.0));
    }

    #[test]
    fn equals_the_definition_on_every_magnitude() {
        for exponent in -148..127 {
            let w: Vec<f32> = (0..64).map(|i| (i as f32 * 0.731).sin() * 2f32.powi(exponent)).collect();
            let max = w.iter().fold(0f32, |m, x| m.max(x.abs()));
            let scale = if max / 127.0 > 0.0 { max / 127.0 } else { 1.0 };
            let q: Vec<i8> =
                w.iter().map(|x| (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8).collect();
            assert_eq!(row(&w), (q, scale), "2^{exponent}");
        }
    }

    #[test]
    fn error_of_an_exact_row_is_zero() {
        let mut e = SquaredError::default();
        e.add(&[254.0, -2.0, 4.0], &[127, -1, 2], 2.0);
        assert_eq!(e.relative(), 0.0);
        e.add(&[2.5], &[2], 1.0);
        assert!((e.relative() - (0.25f64 / (254.0 * 254.0 + 20.0 + 6.25)).sqrt()).abs() < 1e-12);
    }
}
