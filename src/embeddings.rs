//! Texts as vectors, beyond what [`Personal::embed_all`](crate::Personal::embed_all) gives: length 1, and a file.

use crate::container;
use crate::error::{Error, Result};
use crate::output;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The one tensor of a file of vectors.
const NAME: &str = "embeddings";

/// Makes a vector one of length 1, as sentence-transformers' `Normalize` does; zeros stay.
pub fn normalize(v: &mut [f32]) {
    let length = v.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}

/// Writes vectors to a safetensors file as the one F32 tensor `embeddings` `[texts, hidden]`: beside `path`, synced, then
/// renamed over it.
///
/// Errors: `Error::Config` for vectors of different widths, or none; `Error::Io`.
pub fn save(path: &Path, vectors: &[Vec<f32>]) -> Result<()> {
    let hidden = vectors.first().map_or(0, Vec::len);
    if hidden == 0 || vectors.iter().any(|v| v.len() != hidden) {
        return Err(Error::Config("a file of vectors needs one or more, all of one width".into()));
    }
    let (infos, _) = container::lay_out(&[(NAME.into(), Dtype::F32, vec![vectors.len(), hidden])])
        .ok_or_else(|| Error::Internal("the vectors are too many to address".into()))?;
    let header = container::encode_header(&infos, &BTreeMap::new(), 0)?;
    output::write_file(path, |file| {
        let mut file = std::io::BufWriter::new(file);
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
        write(&header)?;
        vectors.iter().try_for_each(|v| write(bytemuck::cast_slice(v)))?;
        file.flush().map_err(Error::io(path))
    })
}

/// Reads what [`save`] wrote.
///
/// Errors: `Error::Io`; `Error::Format` for a file that is none of vectors.
pub fn open(path: &Path) -> Result<Vec<Vec<f32>>> {
    let fail = |what: String| Error::format(path, what);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let all = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|e| fail(format!("no safetensors file: {e}")))?;
    let tensor = all
        .tensor(NAME)
        .map_err(|_| fail(format!("there is no tensor `{NAME}`; `embed --out` writes it")))?;
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::F32, &[_, hidden]) if hidden > 0 => {
            let value = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
            let rows = tensor.data().chunks_exact(4 * hidden);
            Ok(rows.map(|row| row.chunks_exact(4).map(value).collect()).collect())
        }
        (dtype, shape) => {
            Err(fail(format!("`{NAME}` should be F32 [texts, hidden] but is {dtype:?} {shape:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_vectors_and_none_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        for bad in [vec![], vec![vec![]], vec![vec![1.0], vec![1.0, 2.0]]] {
            assert!(matches!(save(&path, &bad), Err(Error::Config(_))) && !path.exists());
        }
        save(&path, &[vec![1.0, -2.0], vec![3.0, 0.5], vec![0.0, 1e-9]]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let t = all.tensor(NAME).unwrap();
        assert_eq!((t.shape(), t.dtype(), all.len()), (&[3, 2][..], Dtype::F32, 1));
        assert_eq!(t.data()[4..8], (-2f32).to_le_bytes());
        assert_eq!(open(&path).unwrap(), [vec![1.0, -2.0], vec![3.0, 0.5], vec![0.0, 1e-9]]);
        std::fs::write(&path, b"nothing").unwrap();
        assert!(matches!(open(&path), Err(Error::Format { .. })));
    }

    #[test]
    fn length_one() {
        let (mut v, mut zero) = ([3.0, -4.0], [0.0, 0.0]);
        normalize(&mut v);
        normalize(&mut zero);
        assert_eq!((v, zero), ([0.6, -0.8], [0.0, 0.0]));
    }
}
