//! The hub's cache on disk, laid out as Python's `huggingface_hub` does, so that both share it:
//!
//! ```text
//! .locks/models--owner--name/KEY.lock          held by whoever downloads KEY
//! models--owner--name/refs/main                the commit of a branch or tag
//! models--owner--name/blobs/ETAG               a file's content; for files in Git LFS the ETag is their SHA-256
//! models--owner--name/blobs/KEY.incomplete     a download that can be continued, and KEY.incomplete.json about it
//! models--owner--name/snapshots/COMMIT/FILE    a link to a blob (the file itself where links cannot be made)
//! models--owner--name/.no_exist/COMMIT/FILE    the commit has no such file
//! ```

use super::failure::Failure;
use super::http::Limits;
use crate::container::folder_of;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One repository's part of the cache.
pub(super) struct Cache {
    dir: PathBuf,
    locks: PathBuf,
    /// Whether to try links. Windows lets few users make any, and FAT has none.
    pub links: bool,
}

impl Cache {
    /// The part of `repo` (`owner/name`) in the cache at `root`.
    pub fn of(root: &Path, repo: &str) -> Cache {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Cache { locks: root.join(".locks").join(&folder), dir: root.join(folder), links: cfg!(unix) }
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// A file of a commit, if it is there; of `size` bytes where that is known.
    pub fn file(&self, commit: &str, name: &str, size: Option<u64>) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let length = fs::metadata(&path).ok().filter(|m| m.is_file())?.len();
        size.is_none_or(|size| size == length).then_some(path)
    }

    /// A file's content by its name among the blobs.
    pub fn blob(&self, name: &str) -> PathBuf {
        self.dir.join("blobs").join(name)
    }

    /// The commit that `revision` was when it was last pulled.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        let file = File::open(self.dir.join("refs").join(revision)).ok()?;
        let mut text = String::new();
        file.take(256).read_to_string(&mut text).ok()?;
        Some(text.trim().to_owned())
    }

    /// Records the commit of a branch or tag.
    pub fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit_of(revision).is_some_and(|c| c == commit) {
            return Ok(());
        }
        replace(&self.dir.join("refs").join(revision), commit.as_bytes())
    }

    /// Records that a commit has no file of this name.
    pub fn set_absent(&self, commit: &str, name: &str) -> Result<()> {
        match self.is_absent(commit, name) {
            true => Ok(()),
            false => replace(&self.absent(commit, name), b""),
        }
    }

    pub fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.absent(commit, name).exists()
    }

    fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.dir.join(".no_exist").join(commit).join(name)
    }

    /// Shows a blob as a file of a commit, and returns the file's path.
    pub fn link(&self, blob: &Path, commit: &str, name: &str) -> Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        let folder = folder_of(&path);
        fs::create_dir_all(folder).map_err(unwritable(folder))?;
        let up = "../".repeat(name.split('/').count() + 1);
        let target = Path::new(&up).join("blobs").join(blob.file_name().unwrap_or_default());
        let temp = folder.join(format!(".{}.link", std::process::id()));
        let _ = fs::remove_file(&temp);
        if !self.links || symlink(&target, &temp).and_then(|()| fs::rename(&temp, &path)).is_err() {
            // The file itself goes there, as Python does.
            let _ = fs::remove_file(&temp);
            fs::rename(blob, &path).map_err(unwritable(&path))?;
        }
        Ok(path)
    }

    /// Waits until no other process downloads `key`.
    ///
    /// Gives up when another one holds it, and its partial download has not grown for as long as `limits` say.
    pub fn lock(&self, key: &str, limits: &Limits) -> Result<Lock, Failure> {
        let blobs = self.dir.join("blobs");
        for folder in [&self.locks, &blobs] {
            fs::create_dir_all(folder).map_err(unwritable(folder)).map_err(Failure::Local)?;
        }
        let path = self.locks.join(format!("{key}.lock"));
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(unwritable(&path)).map_err(Failure::Local)?;
        let partial = blobs.join(format!("{key}.incomplete"));
        let length = || fs::metadata(&partial).map_or(0, |m| m.len());
        let (mut since, mut before) = (Instant::now(), length());
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { partial, _file: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                // Not every network file system has locks: then nobody else may know the file's name.
                Err(TryLockError::Error(_)) => {
                    let partial = blobs.join(format!("{key}.{}.incomplete", std::process::id()));
                    return Ok(Lock { partial, _file: None });
                }
            }
            if length() != before {
                (since, before) = (Instant::now(), length());
            }
            if since.elapsed() > limits.lock_wait {
                let what = format!(
                    "another process holds {} and has downloaded nothing for {} s; end it, then try again",
                    path.display(),
                    since.elapsed().as_secs()
                );
                return Err(Failure::Refused(what));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The right to download one file. Ends with the process at the latest.
pub(super) struct Lock {
    /// Where the part that is there already is, and where the rest goes.
    pub partial: PathBuf,
    _file: Option<File>,
}

/// Whether `name` can be a blob's: what the hub gives, and nothing that leaves the folder or means something else in it.
pub(super) fn blob_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let taken = name.contains(".incomplete"); // a download in progress
    (1..=128).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.') && !taken
}

/// Whether two files hold the same bytes.
pub(super) fn same_content(a: &Path, b: &Path) -> std::io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(true);
        }
        match b.read_exact(&mut y[..n]) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            done => done?,
        }
        if x[..n] != y[..n] {
            return Ok(false);
        }
    }
}

/// Writes a small file whole, or leaves it as it was.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(folder_of(path)).map_err(unwritable(folder_of(path)))?;
    crate::output::replace_file(path, |file| {
        use std::io::Write;
        file.write_all(bytes).map_err(Error::io(path))
    })
}

/// An error that says how to have the cache elsewhere, where that would help.
pub(super) fn unwritable(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| with_hint(Error::Io { path: path.to_owned(), source })
}

/// The same of an error that has a path.
pub(super) fn with_hint(error: Error) -> Error {
    match error {
        Error::Io { path, source }
            if matches!(
                source.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::StorageFull
                    | ErrorKind::FileTooLarge
                    | ErrorKind::NotADirectory
            ) =>
        {
            let what = format!("{source}; set HF_HUB_CACHE to a directory with room that you may write to");
            Error::Io { path, source: std::io::Error::new(source.kind(), what) }
        }
        other => other,
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}
