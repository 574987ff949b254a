//! The safetensors container: a header read with suspicion, a header written; and files that are not whole yet.
//!
//! A file is `u64` little-endian length of the header, the header (JSON), then the tensors' bytes. Every
//! file here MUST have tensors that cover the data from first to last byte, without a hole or an overlap, each
//! as long as its dtype and shape say; the header MUST NOT be longer than [`MAX_HEADER`].

use crate::error::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

#[cfg(target_endian = "big")]
compile_error!("safetensors data is little-endian and is read in place");

/// Longest header read, in bytes. A BERT of 1000 layers needs about 2 MB.
pub(crate) const MAX_HEADER: u64 = 16 << 20;

/// Bytes before the header: its length.
const PREFIX: u64 = 8;

/// A parsed and checked header.
#[derive(Debug)]
pub(crate) struct Header {
    /// Tensors by name; `data_offsets` count from [`Header::data_start`] and lie within the file.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Free text by key.
    pub metadata: HashMap<String, String>,
    /// Bytes before the first tensor.
    pub data_start: u64,
}

#[derive(Deserialize)]
struct RawHeader {
    // Some writers store `null` where there is no metadata; the safetensors crate reads it too.
    #[serde(rename = "__metadata__", default)]
    metadata: Option<HashMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads and checks the header of a file of `file_bytes` bytes; `read` gives bytes `[offset, offset + len)`.
    ///
    /// (The safetensors crate's own reader wants the whole file in one slice, does not name the tensor at
    /// fault, and adds up hostile offsets unchecked.)
    pub fn read(
        path: &Path,
        file_bytes: u64,
        mut read: impl FnMut(u64, usize) -> Result<Vec<u8>>,
    ) -> Result<Header> {
        let bad = |what: String| Error::format(path, what);
        if file_bytes < PREFIX {
            return Err(bad(format!("{file_bytes} bytes is too short for a safetensors file")));
        }
        let mut length = [0; PREFIX as usize];
        length.copy_from_slice(&read(0, PREFIX as usize)?);
        if let Some(what) = impostor(&read(0, file_bytes.min(IMPOSTOR_BYTES) as usize)?) {
            return Err(bad(what));
        }
        let length = u64::from_le_bytes(length);
        if length > file_bytes - PREFIX {
            return Err(bad(format!(
                "truncated, or not a safetensors file: a header of {length} bytes does not fit in the \
                 file's {file_bytes}"
            )));
        }
        if length > MAX_HEADER {
            return Err(bad(format!("header of {length} bytes; at most {MAX_HEADER} are read")));
        }
        let text = read(PREFIX, length as usize)?;
        let text = std::str::from_utf8(&text).map_err(|e| bad(format!("header is not UTF-8: {e}")))?;
        let raw: RawHeader = serde_json::from_str(text)
            .map_err(|e| bad(format!("header is not valid safetensors JSON: {e}")))?;
        let data_start = PREFIX + length;
        check_cover(path, &raw.tensors, file_bytes - data_start)?;
        Ok(Header { tensors: raw.tensors, metadata: raw.metadata.unwrap_or_default(), data_start })
    }

    /// Reads and checks the header of a file that lies in memory.
    pub fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Header> {
        // In range: `read` checks against the length first.
        Header::read(path, bytes.len() as u64, |at, len| Ok(bytes[at as usize..at as usize + len].to_vec()))
    }
}

/// Bytes from the start of a file in which [`impostor`] looks.
pub(crate) const IMPOSTOR_BYTES: u64 = 1024;

/// What stands in a file's place, by its first [`IMPOSTOR_BYTES`] bytes: a Git LFS pointer or a web page. `None` for
/// anything else.
pub(crate) fn impostor(start: &[u8]) -> Option<String> {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let is_page = |tag: &[u8]| start.len() >= tag.len() && start[..tag.len()].eq_ignore_ascii_case(tag);
    if is_page(b"<!doctype html") || is_page(b"<html") {
        return Some("a web page, not the file itself: the download failed; download it again".into());
    }
    // The address differs between versions of the format; the first line has always begun so.
    if !start.starts_with(b"version http") {
        return None;
    }
    let text = String::from_utf8_lossy(start);
    if !text.lines().any(|line| line.starts_with("oid ")) {
        return None;
    }
    let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
    let size = size.map_or(String::new(), |bytes| format!(" of {bytes} bytes"));
    Some(format!(
        "a Git LFS pointer, not the file{size} itself; fetch it with `git lfs install` and `git lfs pull` in the clone, \
         or download it from the model's page"
    ))
}

/// Errors: [`Error::Format`] if the file at `path` is a Git LFS pointer or a web page ([`impostor`]).
///
/// A file that cannot be read is left to whoever opens it.
pub(crate) fn refuse_impostor(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(IMPOSTOR_BYTES).read_to_end(&mut start));
    match read.ok().and_then(|_| impostor(&start)) {
        Some(what) => Err(Error::format(path, what)),
        None => Ok(()),
    }
}

/// Checks that the tensors cover `data_bytes` from first to last and are as long as their shapes say.
fn check_cover(path: &Path, tensors: &BTreeMap<String, TensorInfo>, data_bytes: u64) -> Result<()> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| info.data_offsets);
    let mut at = 0u64;
    for (name, info) in order {
        let bad = |what: String| Err(Error::tensor(path, name, what));
        let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if start < at {
            return bad(format!("overlaps the tensor before it: starts at {start}, which ends at {at}"));
        }
        if start > at {
            return bad(format!("starts at {start}, leaving a hole of {} bytes before it", start - at));
        }
        if end < start || end > data_bytes {
            return bad(format!(
                "truncated: bytes {start} to {end}, but the file holds {data_bytes} bytes of data"
            ));
        }
        let wanted = byte_len(info.dtype, &info.shape);
        if wanted != Some(end - start) {
            let wanted = wanted.map_or("more than can be addressed".into(), |n| n.to_string());
            return bad(format!(
                "{} {:?} takes {wanted} bytes, but its place holds {}",
                info.dtype,
                info.shape,
                end - start
            ));
        }
        at = end;
    }
    if at != data_bytes {
        return Err(Error::format(path, format!("{} bytes after the last tensor", data_bytes - at)));
    }
    Ok(())
}

/// Bytes of a tensor; `None` if they overflow or are not whole.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape.iter().try_fold(dtype.bitsize() as u64, |n, d| n.checked_mul(*d as u64))?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Lays `tensors` out in the given order, back to back, and returns their header infos and the data's length.
pub(crate) fn lay_out(tensors: &[(String, Dtype, Vec<usize>)]) -> Option<(Vec<(String, TensorInfo)>, u64)> {
    let mut at = 0usize;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, dtype, shape) in tensors {
        let end = at.checked_add(usize::try_from(byte_len(*dtype, shape)?).ok()?)?;
        infos.push((
            name.clone(),
            TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (at, end) },
        ));
        at = end;
    }
    Some((infos, at as u64))
}

/// The bytes before the data: length and JSON (keys in order, so that equal content gives equal bytes), padded
/// with spaces so that data offset `aligned` falls on a multiple of 64 in the file.
pub(crate) fn encode_header(
    tensors: &[(String, TensorInfo)],
    metadata: &BTreeMap<&str, String>,
    aligned: u64,
) -> Result<Vec<u8>> {
    let internal = |e: serde_json::Error| Error::Internal(format!("header: {e}"));
    let mut map = serde_json::Map::new();
    map.insert("__metadata__".into(), serde_json::to_value(metadata).map_err(internal)?);
    for (name, info) in tensors {
        map.insert(name.clone(), serde_json::to_value(info).map_err(internal)?);
    }
    let mut text = serde_json::to_vec(&map).map_err(internal)?;
    while !(PREFIX + text.len() as u64 + aligned).is_multiple_of(64) {
        text.push(b' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    Ok(bytes)
}

/// Values of a tensor of floats; `None` of another type. By chunks and not by a cast: nothing says that bytes are aligned.
pub(crate) fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

/// How the name of a file begins and ends that is not whole yet.
const LEFT_OVER: (&str, &str) = (".trimtab-", ".tmp");

/// Whether a file of this name is what somebody who was killed left half written.
pub(crate) fn is_left_over(name: &str) -> bool {
    name.starts_with(LEFT_OVER.0) && name.ends_with(LEFT_OVER.1)
}

/// How long a file of such a name is left alone: its writer locks it a moment after making it.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60);

/// Removes the files that somebody who was killed left half written in `folder`. Who still writes holds a lock, which
/// ends with him; where files cannot be locked, all stay.
pub(crate) fn remove_left_overs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_left_over);
        if !ours || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(file) = File::options().read(true).write(true).open(entry.path()) else { continue };
        let age = file.metadata().and_then(|m| m.modified()).map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age > LEFT_OVER_AFTER) && file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The folder that `path` is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes what stands beside its place until it is whole. What is temporary is private by default; this becomes an ordinary
/// file or directory, of this mode where the umask lets it.
pub(crate) fn ordinary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(LEFT_OVER.0).suffix(LEFT_OVER.1);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::replace_file;
    use std::time::SystemTime;

    #[test]
    fn what_a_killed_writer_left_goes_with_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let old = |name: &str, age: Duration| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            file
        };
        drop(old(".trimtab-killed.tmp", 2 * LEFT_OVER_AFTER));
        drop(old(".trimtab-new.tmp", Duration::ZERO));
        drop(old("other.tmp", 2 * LEFT_OVER_AFTER));
        let writes = old(".trimtab-writes.tmp", 2 * LEFT_OVER_AFTER);
        writes.lock().unwrap();
        fs::create_dir(folder.path().join(".trimtab-folder.tmp")).unwrap();

        let out = folder.path().join("out");
        replace_file(&out, |file| std::io::Write::write_all(file, b"whole").map_err(Error::io(&out)))
            .unwrap();

        let mut there: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let stay = [".trimtab-folder.tmp", ".trimtab-new.tmp", ".trimtab-writes.tmp", "other.tmp", "out"];
        assert_eq!(there, stay);
    }
}
