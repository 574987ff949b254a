//! What `trimtab predict --onnx` and others want beside an ONNX file: `tokenizer.json`, and `config.json` with the labels.
//!
//! A file of that name that says something else is another model's: it stays, and this one gets the ONNX file's name in front,
//! `me.config.json` of `me.onnx`. [`crate::onnx_model`] looks for that one first.

use super::{Merged, hf, json, tokenizer};
use crate::container::folder_of;
use crate::error::{Error, Result};
use crate::output;
use crate::task::Kind;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The name that a companion has where another model's stands in its place.
pub(crate) fn own_name(onnx: &Path, name: &str) -> PathBuf {
    let mut own = onnx.file_stem().unwrap_or_default().to_owned();
    own.push(".");
    own.push(name);
    folder_of(onnx).join(own)
}

/// Writes them beside the ONNX file at `onnx`, and tells where they are. Nothing stands beside a stream.
pub(super) fn write(m: &Merged, onnx: &Path) -> Result<Vec<PathBuf>> {
    if output::is_stream(onnx) {
        return Ok(Vec::new());
    }
    let words = m.task.kind() == Kind::Tag;
    let (_, pad) = tokenizer::config(m.base.tokenizer_bytes(), m.config(), m.max_len, words);
    let config = json(&hf::config(m, &hf::nearest_class(m), pad, false))?;
    [("tokenizer.json", m.base.tokenizer_bytes()), ("config.json", &config)]
        .into_iter()
        .map(|(name, bytes)| one(onnx, name, bytes))
        .collect()
}

fn one(onnx: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let (usual, own) = (folder_of(onnx).join(name), own_name(onnx, name));
    let holds_other = |path: &Path| match fs::metadata(path) {
        // Compared only where it may be the same.
        Ok(found) => found.len() != bytes.len() as u64 || fs::read(path).map_or(true, |found| found != bytes),
        Err(_) => fs::symlink_metadata(path).is_ok(),
    };
    // One with the file's own name is looked for first, so it must not be of an earlier export.
    let place = if own.exists() || holds_other(&usual) { own } else { usual };
    if holds_other(&place) || !place.exists() {
        output::write_file(&place, |file| file.write_all(bytes).map_err(Error::io(&place)))?;
    }
    Ok(place)
}
