//! Files that are written.
//!
//! - **Replaced whole.** A file is written beside its place, synced and renamed there. A crash leaves the old file or the new
//!   one, never a part of one. So the folder must be writable; a file in a folder that is not is refused, not changed in place.
//! - **Mode and owner** of a file that is replaced are kept, the owner as far as the process may set it. A new file gets the
//!   mode that the umask gives. Access control lists and extended attributes are not kept.
//! - **Links.** A symbolic link stays: the file that it points to is replaced or, if there is none, created. A hard link is
//!   cut: its other names keep the old content, as after every rename.
//! - **Streams.** Standard output (`/dev/stdout`), named pipes and character devices such as `/dev/null` are written to as they
//!   are, where a format can be written from its first byte to its last.
//! - **Room.** [`check`] and [`reserve`] find out before a long computation whether its result can be written.

use crate::container::{folder_of, ordinary, remove_left_overs};
use crate::error::{Error, Result};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Most symbolic links that are followed one behind the other, as on Linux.
const LINKS_MAX: usize = 40;

/// Where `path` leads once symbolic links of its last part are followed, also to a file that is not there yet.
pub(crate) fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => at = folder_of(&at).join(fs::read_link(&at)?),
            _ => return Ok(at),
        }
    }
    Err(io::Error::other(format!("more than {LINKS_MAX} symbolic links, one behind the other")))
}

/// What a path that is written to leads to.
enum Target {
    /// A file, there or not yet; its path without symbolic links.
    File { path: PathBuf, there: Option<Metadata> },
    /// Something that takes bytes one after the other.
    Stream,
}

impl Target {
    /// Errors: [`Error::Config`] for a directory, a block device or a socket; [`Error::Io`], also for a folder that is not there.
    fn of(path: &Path) -> Result<Target> {
        let fail = |what: String| Err(Error::Config(format!("{}: {what}", path.display())));
        if descriptor(path).is_some() {
            return Ok(Target::Stream);
        }
        let real = followed(path).map_err(Error::io(path))?;
        let there = match fs::metadata(&real) {
            Ok(there) => Some(there),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(Error::Io { path: path.to_owned(), source: e }),
        };
        match &there {
            Some(there) if is_stream_type(there) => return Ok(Target::Stream),
            Some(there) if there.is_dir() => return fail("is a directory; name a file".into()),
            Some(there) if !there.is_file() => return fail("is a device or a socket; name a file".into()),
            _ => {}
        }
        let folder = folder_of(&real);
        if !folder.is_dir() {
            let what = format!("there is no directory {}", folder.display());
            return Err(Error::Io {
                path: path.to_owned(),
                source: io::Error::new(ErrorKind::NotFound, what),
            });
        }
        Ok(Target::File { path: real, there })
    }
}

/// A named pipe or a character device.
fn is_stream_type(found: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        found.file_type().is_fifo() || found.file_type().is_char_device()
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        false
    }
}

/// The number of the open file of this process that `path` names, such as 1 of `/dev/stdout`.
fn descriptor(path: &Path) -> Option<u32> {
    if cfg!(not(unix)) {
        return None;
    }
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        other => {
            let number = other.strip_prefix("/dev/fd/").or_else(|| other.strip_prefix("/proc/self/fd/"))?;
            number.parse().ok()
        }
    }
}

/// Whether what is written to `path` goes to standard output.
pub fn is_stdout(path: &Path) -> bool {
    descriptor(path) == Some(1)
}

/// Whether `path` takes bytes one after the other: standard output, a named pipe, a character device. Nothing is read from it
/// and nothing stands beside it.
pub fn is_stream(path: &Path) -> bool {
    matches!(Target::of(path), Ok(Target::Stream))
}

/// Opens a stream to write to it.
fn open_stream(path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        // A file that is opened anew would be written from its start, whatever is in it already.
        match descriptor(path) {
            Some(1) => return io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Some(2) => return io::stderr().as_fd().try_clone_to_owned().map(File::from),
            Some(_) => return File::options().append(true).open(path),
            None => {}
        }
    }
    File::options().write(true).open(path)
}

/// Fails if nothing can be written at `path`.
///
/// Errors: [`Error::Config`] for a directory, a block device or a socket; [`Error::Io`] for a folder that is not there or in which
/// no file can be made, and for a stream that cannot be opened. (A named pipe is not opened: that would wait for its reader.)
pub fn check(path: &Path) -> Result<()> {
    match Target::of(path)? {
        Target::Stream if descriptor(path).is_none() && fs::metadata(path).is_ok_and(|m| is_fifo(&m)) => {
            Ok(())
        }
        Target::Stream => open_stream(path).map(drop).map_err(Error::io(path)),
        Target::File { path: real, .. } => temporary(path, &real).map(drop),
    }
}

fn is_fifo(found: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type());
    #[cfg(not(unix))]
    {
        let _ = found;
        false
    }
}

/// A file without a name in the folder of `real`, which is what the user calls `path`.
fn temporary(path: &Path, real: &Path) -> Result<File> {
    tempfile::tempfile_in(folder_of(real)).map_err(|e| cannot_make(path, real, e))
}

/// Why no file can be made beside `real`.
fn cannot_make(path: &Path, real: &Path, e: io::Error) -> Error {
    let source = match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            // tempfile names its file, which nobody has heard of.
            let why =
                e.raw_os_error().map_or(e.to_string(), |code| io::Error::from_raw_os_error(code).to_string());
            let replaced = if real.exists() { "; the file is replaced by a new one beside it" } else { "" };
            let folder = folder_of(real).display();
            io::Error::new(e.kind(), format!("no file can be made in the folder {folder} ({why}){replaced}"))
        }
        _ => e,
    };
    Error::Io { path: path.to_owned(), source }
}

/// Room on the disk that is kept until it is released or dropped.
#[derive(Debug, Default)]
pub struct Room(Option<File>);

impl Room {
    /// Gives the room back: right before what it was kept for is written.
    pub fn release(&self) {
        if let Some(file) = &self.0 {
            // Whatever fails here fails again, with a message, when the file is written.
            let _ = file.set_len(0);
        }
    }
}

/// Keeps room for `bytes` bytes at `path`.
///
/// Errors: what [`check`] says; [`Error::Io`] if there is not so much room, with what is needed and what is free. Where the file
/// system cannot keep room, the free space is only looked at. A stream needs none.
pub fn reserve(path: &Path, bytes: u64) -> Result<Room> {
    check(path)?;
    let Target::File { path: real, .. } = Target::of(path)? else { return Ok(Room(None)) };
    let file = temporary(path, &real)?;
    match keep(&file, bytes) {
        Ok(()) => Ok(Room(Some(file))),
        Err(e) => {
            let free = free(&file).map_or(String::new(), |free| format!(" and {} are free", size(free)));
            let what = format!("{} are needed{free}: {e}", size(bytes));
            Err(Error::Io { path: path.to_owned(), source: io::Error::new(e.kind(), what) })
        }
    }
}

/// Keeps room for a file of `bytes` bytes in a folder that may not be there yet: then in the nearest one above it.
///
/// Errors: as those of [`reserve`], under the name of `folder`.
pub fn reserve_in(folder: &Path, bytes: u64) -> Result<Room> {
    let there = folder.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        let source = io::Error::new(ErrorKind::NotADirectory, format!("{} is no directory", there.display()));
        return Err(Error::Io { path: folder.to_owned(), source });
    }
    reserve(&there.join("file"), bytes).map_err(|e| match e {
        Error::Io { source, .. } => Error::Io { path: folder.to_owned(), source },
        other => other,
    })
}

/// Has the file system set blocks aside.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn keep(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => match free(file) {
            Some(free) if free < bytes => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        },
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn keep(file: &File, bytes: u64) -> io::Result<()> {
    match free(file) {
        Some(free) if free < bytes => Err(ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write to the file's disk, where the system tells.
fn free(file: &File) -> Option<u64> {
    #[cfg(unix)]
    return rustix::fs::fstatvfs(file).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    #[cfg(not(unix))]
    {
        let _ = file;
        None
    }
}

/// `1.2 MB`, powers of ten.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Writes to `path` what `fill` writes, from its first byte to its last: a stream as it is, a file as [`replace_file`] does.
pub(crate) fn write_file<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    match Target::of(path)? {
        Target::File { path: real, there } => replace(path, &real, there, fill),
        Target::Stream => {
            let _ = io::stdout().flush();
            let mut stream = open_stream(path).map_err(Error::io(path))?;
            fill(&mut stream).map_err(|e| match e {
                // A closed pipe ends a listing in order. Of a file, the reader has only a part.
                Error::Io { path, source } if source.kind() == ErrorKind::BrokenPipe => {
                    let source =
                        io::Error::other("the reader closed the pipe before the whole file was written");
                    Error::Io { path, source }
                }
                other => other,
            })
        }
    }
}

/// Replaces the file at `path` whole, or leaves it as it was. `fill` writes beside it, in any order. A stream is refused.
pub(crate) fn replace_file<T>(path: &Path, fill: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
    match Target::of(path)? {
        Target::File { path: real, there } => replace(path, &real, there, fill),
        Target::Stream => {
            let what = "is a pipe or a device; this file is not written from its first byte to its last, so name a file";
            Err(Error::Config(format!("{}: {what}", path.display())))
        }
    }
}

fn replace<T>(
    path: &Path,
    real: &Path,
    there: Option<Metadata>,
    fill: impl FnOnce(&mut File) -> Result<T>,
) -> Result<T> {
    let folder = folder_of(real);
    remove_left_overs(folder);
    let mut temp = ordinary(there.as_ref().map_or(0o666, mode))
        .tempfile_in(folder)
        .map_err(|e| cannot_make(path, real, e))?;
    let _ = temp.as_file().lock(); // for `remove_left_overs` of others; not every file system can
    let value = fill(temp.as_file_mut())?; // on any error the drop of `temp` removes it
    if let Some(there) = there {
        keep_owner_and_mode(temp.as_file(), &there).map_err(Error::io(path))?;
    }
    temp.as_file().sync_all().map_err(Error::io(path))?;
    temp.persist(real).map_err(|e| Error::Io { path: path.to_owned(), source: e.error })?;
    // So that the rename itself survives a power cut. Not every file system can sync a folder.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|f| f.sync_all());
    Ok(value)
}

/// The mode with which the new file is made, so that it is at no time more open than the old one.
fn mode(there: &Metadata) -> u32 {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&there.permissions()) & 0o777;
    #[cfg(not(unix))]
    {
        let _ = there;
        0o666
    }
}

/// Gives a new file the owner, where the process may, and the mode of the one that it replaces.
pub(crate) fn keep_owner_and_mode(new: &File, there: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let is = new.metadata()?;
        let [owner, group] =
            [(is.uid(), there.uid()), (is.gid(), there.gid())].map(|(is, was)| (is != was).then_some(was));
        if owner.is_some() || group.is_some() {
            // Only root may give files away; a group, whoever belongs to it.
            let _ = fchown(new, owner, group).or_else(|_| fchown(new, None, group));
        }
        // Behind the owner: a change of that clears some bits. As it was made, the umask may have cleared others.
        new.set_permissions(there.permissions())
    }
    #[cfg(not(unix))]
    {
        let _ = (new, there);
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn write(path: &Path, text: &str) -> Result<()> {
        write_file(path, |file| file.write_all(text.as_bytes()).map_err(Error::io(path)))
    }

    #[test]
    fn links_are_followed_and_modes_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("far")).unwrap();
        symlink("far/there", at("one")).unwrap();
        symlink(at("one"), at("two")).unwrap();
        // Nothing is there yet: the link's target is made.
        write(&at("two"), "first").unwrap();
        assert_eq!(fs::read(at("far/there")).unwrap(), b"first");
        for mode in [0o600, 0o640, 0o755, 0o444] {
            fs::set_permissions(at("far/there"), fs::Permissions::from_mode(mode)).unwrap();
            write(&at("two"), "second").unwrap();
            assert_eq!(fs::metadata(at("two")).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_link(at("two")).unwrap(), at("one"));
        assert_eq!(fs::read_link(at("one")).unwrap(), Path::new("far/there"));
        assert_eq!(fs::read_dir(at("far")).unwrap().count(), 1);

        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(write(&at("a"), "x").unwrap_err().to_string().contains("symbolic link"));
        symlink("none/x", at("c")).unwrap();
        assert!(write(&at("c"), "x").unwrap_err().to_string().contains("no directory"));
    }

    #[test]
    fn more_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(reserve(&path, 1 << 16).unwrap());
        let error = reserve(&path, 1 << 60).unwrap_err().to_string();
        assert!(error.contains("out") && error.contains("1152921504606.8 MB are needed"), "{error}");
        assert!(error.contains("are free"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "what was reserved is gone");
    }

    #[test]
    fn what_can_be_written_to() {
        let dir = tempfile::tempdir().unwrap();
        check(Path::new("/dev/null")).unwrap();
        write(Path::new("/dev/null"), "x").unwrap();
        assert!(is_stream(Path::new("/dev/null")) && is_stdout(Path::new("/dev/stdout")));
        assert!(is_stdout(Path::new("/proc/self/fd/1")) && !is_stream(&dir.path().join("new")));
        let seeks = replace_file(Path::new("/dev/null"), |_| Ok(())).unwrap_err().to_string();
        assert!(seeks.contains("pipe or a device"), "{seeks}");
        for (path, what) in [(dir.path().to_owned(), "a directory"), (dir.path().join("a/b"), "no directory")]
        {
            assert!(check(&path).unwrap_err().to_string().contains(what));
        }
    }
}
