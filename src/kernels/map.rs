//! A file's bytes in the address space: how a base is read without copying it.

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// A read-only memory map of a whole file.
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
    }
}
