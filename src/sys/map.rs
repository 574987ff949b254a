//! A file's bytes in the address space: how a base is read without copying it. Or bytes of whatever source, copied once.

use crate::error::{Error, Result};
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::path::Path;

/// A read-only memory map of a whole file, or of as many bytes.
pub struct FileMap(Mmap);

impl FileMap {
    /// Maps `path`. `Error::Io` if it cannot be opened or mapped, `Error::Format` if it is empty.
    pub fn open(path: &Path) -> Result<FileMap> {
        let file = File::open(path).map_err(Error::io(path))?;
        if file.metadata().map_err(Error::io(path))?.len() == 0 {
            return Err(Error::format(path, "the file is empty"));
        }
        // SAFETY: a map is undefined behaviour only where the file changes under it. This one is opened
        // read-only, and trimtab never writes a file in place: it writes beside and renames, which leaves the
        // mapped file as it was until the map is gone. Another program that truncates a base while it is in use
        // breaks this as it would break any program that maps its files (dynamic libraries, for one).
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(FileMap(map))
    }

    /// A copy of bytes that are in no file of their own; errors speak of `name`.
    pub fn of_bytes(name: &Path, bytes: &[u8]) -> Result<FileMap> {
        if bytes.is_empty() {
            return Err(Error::format(name, "there are no bytes"));
        }
        let mut map = MmapMut::map_anon(bytes.len()).map_err(Error::io(name))?;
        map.copy_from_slice(bytes);
        map.make_read_only().map(FileMap).map_err(Error::io(name))
    }

    /// The bytes, aligned to a page.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::FileMap;
    use crate::error::Error;

    #[test]
    fn maps_what_is_there_and_refuses_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base");
        assert!(matches!(FileMap::open(&path), Err(Error::Io { .. })));
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(FileMap::open(&path), Err(Error::Format { .. })));
        std::fs::write(&path, b"bytes").unwrap();
        assert_eq!(FileMap::open(&path).unwrap().bytes(), b"bytes");
        assert_eq!(FileMap::of_bytes(&path, b"others").unwrap().bytes(), b"others");
        assert!(matches!(FileMap::of_bytes(&path, b""), Err(Error::Format { .. })));
    }
}
