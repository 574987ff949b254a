//! The base file `*.q8.safetensors`: its format, its layout to be written, its digests.
//!
//! A safetensors container that holds exactly:
//!
//! | tensor | dtype | shape |
//! |---|---|---|
//! | `….weight` of a Linear of the encoder | I8 | `[out/16, in/4, 16, 4]`, in [-127, 127], out and in padded with zeros to multiples of 64 |
//! | `….weight` of a table or the pooler | I8 | `[out, in]`, row-major, in [-127, 127] |
//! | `….weight.scale` | F32 | `[out]`, finite and above 0 |
//! | `….bias`, weight of a LayerNorm | F32 | `[width]`, finite; bias of a masked-LM head's words `[vocab]` |
//! | `modules.{i}.linear.weight`, `.bias` of a Dense module behind the pooling | F32 | `[out, in]`, `[out]`, finite |
//! | `tokenizer.json` | U8 | `[bytes]` |
//!
//! and in `__metadata__`: `format` = `trimtab-base`, `version` = `2`, `scheme` = `int8-symmetric-per-row`,
//! `config` (JSON of [`Config`](crate::config::Config)), `pooling` (`cls`, `mean`, or `first`: the first token, of a checkpoint without a pooler), `pooler` (`true` or `false`: whether
//! the pooler's weight and bias are there), `name`, `fingerprint` and `weights_sha256`; where the checkpoint had a masked-LM
//! head, `mlm_head`: `tied`, and its dense layer, its LayerNorm and the bias of each word are there ([`canonical`](crate::import::canonical)),
//! its last weight being the word embeddings, or `untied`, and nothing of it is.
//!
//! Two more are there where the checkpoint's files ask for them: `modules`, what sentence-transformers does with a pooled
//! vector (JSON array of [`Module`](crate::config::Module)), and `max_seq_length`, the longest text in tokens for `embed` and
//! `search`; without it the encoder's positions are the bound.
//!
//! Tensors have the names of the family's classes in transformers, with its prefix: `bert.`, `roberta.`, `distilbert.` or
//! `electra.` ([`canonical`](crate::import::canonical)). A `config` that names no family is BERT's.
//!
//! - F32 tensors come first, then I8, then U8, each kind in name order. The header is padded with spaces so that
//!   the first I8 tensor lies at a multiple of 64 in the file. A reader MUST refuse F32 that is not 4-aligned.
//! - `fingerprint` is the SHA-256, in lower-case hex, over all tensors in bytewise order of their names; of each:
//!   the name, a zero byte, the dtype's name (`I8`, `F32`, `U8`), a zero byte, the number of dimensions and each
//!   dimension as u64 little-endian, then the tensor's bytes as they lie in the file. Metadata is not in it.
//! - `weights_sha256` is the SHA-256, in lower-case hex, over the int8 weights alone, in name order, each row-major
//!   `[out, in]` without padding: the same for the same weights whatever their layout.
//! - The tiles of a Linear are what the kernels read in place, see [`kernels::tiles`](crate::kernels::tiles).

use crate::config::MlmHead;
use crate::container::{encode_header, lay_out};
use crate::error::{Error, Result};
use crate::import::Checkpoint;
use crate::import::canonical::{Kind, Spec};
use crate::kernels::tiles;
use safetensors::tensor::{Dtype, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

pub(super) const FORMAT: &str = "trimtab-base";
pub(super) const VERSION: &str = "2";
pub(super) const SCHEME: &str = "int8-symmetric-per-row";
/// Name of the tensor that holds the tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// What is appended to a matrix's name for its scales.
pub(super) const SCALE: &str = ".scale";

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
                Kind::Vector | Kind::Dense => f32s.push((spec.name.clone(), Dtype::F32, spec.shape.clone())),
                Kind::Linear | Kind::Matrix => {
                    f32s.push((spec.name.clone() + SCALE, Dtype::F32, vec![spec.shape[0]]));
                    int8s.push((spec.name.clone(), Dtype::I8, stored_shape(spec)));
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
        let mut metadata = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("scheme", SCHEME.to_owned()),
            ("config", config),
            ("pooling", checkpoint.pooling().name().to_owned()),
            ("pooler", checkpoint.has_pooler().to_string()),
            ("name", checkpoint.name().to_owned()),
        ]);
        if checkpoint.mlm_head() != MlmHead::None {
            metadata.insert("mlm_head", checkpoint.mlm_head().name().to_owned());
        }
        if !checkpoint.modules().is_empty() {
            let modules = serde_json::to_string(checkpoint.modules())
                .map_err(|e| Error::Internal(format!("modules: {e}")))?;
            metadata.insert("modules", modules);
        }
        if let Some(length) = checkpoint.max_seq_length() {
            metadata.insert("max_seq_length", length.to_string());
        }
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

/// The shape of an int8 tensor in the file.
pub(super) fn stored_shape(spec: &Spec) -> Vec<usize> {
    match spec.kind {
        Kind::Linear => tiles::shape(spec.shape[0], spec.shape[1]).to_vec(),
        Kind::Matrix | Kind::Vector | Kind::Dense => spec.shape.clone(),
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

    /// Goes on with the bytes of the tensor begun, as they lie in the file.
    pub fn stored(&mut self, bytes: &[u8]) {
        self.all.update(bytes);
    }

    /// Goes on with int8 weights, row-major.
    pub fn weights(&mut self, rows: &[i8]) {
        self.int8.update(bytemuck::cast_slice::<i8, u8>(rows));
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
