//! A directory made beside its place and renamed there, so that no half of one is ever seen.

use crate::container::{folder_of, ordinary};
use crate::error::{Error, Result};
use crate::output;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory that is not yet at its place.
pub(super) struct Directory<'a> {
    /// Where it will be, for messages and for the rename.
    target: &'a Path,
    /// The same without a symbolic link.
    real: PathBuf,
    temp: TempDir,
    bytes: u64,
}

impl<'a> Directory<'a> {
    /// Begins one. What stands at `target` must be nothing or an empty directory; or, with `force`, a directory of none
    /// but the files in `known`, an earlier export.
    pub fn begin(target: &'a Path, force: bool, known: &[&str]) -> Result<Directory<'a>> {
        let refuse = |what: &str| Err(Error::Config(format!("{} {what}", target.display())));
        if output::is_stream(target) {
            return refuse("is no directory; name one that is not there yet");
        }
        let real = output::followed(target).map_err(Error::io(target))?;
        if fs::symlink_metadata(&real).is_ok() {
            if !target.is_dir() {
                return refuse("is no directory; name one that is not there yet");
            }
            for entry in fs::read_dir(target).map_err(Error::io(target))? {
                let name = entry.map_err(Error::io(target))?.file_name();
                if !force {
                    return refuse("is not empty; name another directory, or use --force to replace it");
                }
                if !known.iter().any(|k| **k == *name) {
                    let what =
                        format!("holds `{}`, which is no export's; name another directory", name.display());
                    return refuse(&what);
                }
            }
        }
        let temp = ordinary(0o777).tempdir_in(folder_of(&real)).map_err(Error::io(target))?;
        Ok(Directory { target, real, temp, bytes: 0 })
    }

    /// Fails if there is no room for a file of it of `bytes` bytes.
    pub fn reserve(&self, name: &str, bytes: u64) -> Result<()> {
        let room = output::reserve(&self.temp.path().join(name), bytes);
        room.map(drop).map_err(|e| match e {
            Error::Io { source, .. } => Error::Io { path: self.target.join(name), source },
            other => other,
        })
    }

    /// Writes a file of it; `name` may lie in a directory, which is made.
    pub fn file(&mut self, name: &str, fill: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let (shown, path) = (self.target.join(name), self.temp.path().join(name));
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = File::create_new(&path)?;
            fill(&mut file)?;
            file.sync_all()?;
            Ok(file.metadata()?.len())
        };
        self.bytes += write().map_err(Error::io(&shown))?;
        Ok(())
    }

    /// Writes a small file of it.
    pub fn small(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, |file| file.write_all(bytes))
    }

    /// Moves it to its place and tells the bytes of its files.
    pub fn finish(self) -> Result<u64> {
        let (target, bytes) = (self.real.as_path(), self.bytes);
        let io = || Error::io(target);
        let new = self.temp.path();
        if !target.exists() {
            fs::rename(new, target).map_err(io())?;
        } else {
            // Two renames: at no time is a part of the old and a part of the new there.
            let old = new.with_extension("old.tmp");
            let there = fs::metadata(target).map_err(io())?;
            File::open(new).and_then(|new| output::keep_owner_and_mode(&new, &there)).map_err(io())?;
            fs::rename(target, &old).map_err(io())?;
            if let Err(e) = fs::rename(new, target) {
                let _ = fs::rename(&old, target);
                return Err(Error::Io { path: target.to_owned(), source: e });
            }
            fs::remove_dir_all(&old).map_err(io())?;
        }
        // It is no longer where it would be removed.
        let _ = self.temp.keep();
        Ok(bytes)
    }
}
