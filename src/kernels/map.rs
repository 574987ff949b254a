//! A file mapped read-only into memory.

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// The bytes of a file, mapped read-only: pages come in when they are touched and cost no heap.
pub struct FileMap(Mmap);

impl FileMap {
    /// Maps the whole file. Fails with [`Error::Io`] when it cannot be opened or mapped.
    #[allow(unsafe_code)]
    pub fn open(path: &Path) -> Result<FileMap> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read-only and private to this process. The one obligation left is that
        // nobody shortens or rewrites the file while it is mapped; every writer in this crate replaces
        // files by rename, which leaves a mapped inode alone.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(FileMap(map))
    }

    /// The file's bytes; they start on a page boundary.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
