//! One file of a commit: fetched, continued after a break, checked, and put into the cache when it is whole.

use super::attempts::{Tries, check_status};
use super::cache::{self, Cache, Lock};
use super::failure::Failure;
use super::http::{Answer, Client};
use super::sum::{Sum, hex};
use crate::error::{Error, Result};
use crate::output;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// An attempt that brought this many bytes made progress: a server that breaks off after each few of them must not keep us
/// for ever.
const PROGRESS: u64 = 1 << 20;

/// What the hub's listing says of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub size: Option<u64>,
    pub sum: Option<Sum>,
}

/// A file to fetch.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub cache: &'a Cache,
    pub repo: &'a str,
    pub commit: &'a str,
    /// Path in the repository.
    pub name: &'a str,
    pub url: String,
    pub known: Known,
    /// No file of its kind is longer, in bytes.
    pub most: u64,
}

/// What is known about a partial download, kept beside it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Notes {
    /// The ETag of the server that sent the bytes, as it wrote it; none if it is a weak one.
    etag: Option<String>,
    /// The whole file's length.
    size: Option<u64>,
    sha256: Option<String>,
    /// The name that the blob shall have: the hub's ETag without quotes.
    blob: Option<String>,
}

/// The part of a file that is on disk.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    notes: Notes,
}

impl Download<'_> {
    /// The file's path in the cache. `progress(done, total)` in bytes; the total where it is known.
    pub fn run(&self, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<PathBuf, Failure> {
        if let Some(path) = self.cached()? {
            return Ok(path);
        }
        let lock = self.cache.lock(&self.key(), &self.client.limits)?;
        // Another process may have fetched it meanwhile.
        if let Some(path) = self.cached()? {
            return Ok(path);
        }
        let mut partial = Partial::open(&lock).map_err(Failure::Local)?;
        let mut tries = Tries::new(self.client);
        let mut furthest = partial.length;
        loop {
            let done = self.attempt(&mut partial, progress).and_then(|()| self.check(&mut partial));
            match done {
                Ok(()) => break,
                Err(failure) => {
                    let progressed = partial.length >= furthest + PROGRESS;
                    furthest = furthest.max(partial.length);
                    tries.again(failure, progressed)?;
                }
            }
        }
        progress(partial.length, Some(partial.length));
        self.keep(partial).map_err(Failure::Local)
    }

    /// The file, if its snapshot or a blob with its checksum is there.
    fn cached(&self) -> Result<Option<PathBuf>, Failure> {
        if let Some(path) = self.cache.file(self.commit, self.name, self.known.size) {
            return Ok(Some(path));
        }
        let Some(sum) = &self.known.sum else { return Ok(None) };
        let blob = self.cache.blob(sum.digits());
        let there = fs::metadata(&blob).is_ok_and(|m| self.known.size.is_none_or(|size| size == m.len()));
        match there {
            true => self.cache.link(&blob, self.commit, self.name).map(Some).map_err(Failure::Local),
            false => Ok(None),
        }
    }

    /// Names the lock and the partial download: by content where that is known, as Python does.
    fn key(&self) -> String {
        match &self.known.sum {
            Some(sum) => sum.digits().to_owned(),
            None => hex(&Sha256::digest(format!("{}\0{}", self.commit, self.name)))[..40].to_owned(),
        }
    }

    /// Asks once for what is missing, and adds what comes to `partial`.
    fn attempt(
        &self,
        partial: &mut Partial,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> Result<(), Failure> {
        let size = self.known.size.or(partial.notes.size);
        let continuable = partial.notes.etag.is_some() || self.sum(&partial.notes).is_some();
        if partial.length > 0 && (!continuable || size.is_some_and(|size| partial.length > size)) {
            partial.restart(Notes::default()).map_err(Failure::Local)?;
        }
        if partial.length > 0 && size == Some(partial.length) {
            return Ok(()); // whole, but a run before this one did not live to say so
        }
        let mut headers = Vec::new();
        if partial.length > 0 {
            headers.push(("range", format!("bytes={}-", partial.length)));
            // With a checksum there is no need of it; the host behind a redirect may have another ETag each time.
            if let (None, Some(etag)) = (self.sum(&partial.notes), &partial.notes.etag) {
                headers.push(("if-range", etag.clone()));
            }
        }
        let answer = self.client.get(&self.url, &headers, self.most)?;
        match answer.status() {
            416 if partial.length > 0 => {
                partial.restart(Notes::default()).map_err(Failure::Local)?;
                return Err(Failure::Passing(
                    "the server has no such part of the file (status 416)".into(),
                    None,
                ));
            }
            206 => {
                answer.check_plain()?;
                self.check_range(&answer, partial)?;
            }
            _ => {
                check_status(&answer, &format!("`{}/{}`", self.repo, self.name), self.client)?;
                answer.check_plain()?;
                partial.restart(self.notes(&answer)).map_err(Failure::Local)?;
            }
        }
        let size = self.known.size.or(partial.notes.size);
        let most = size.unwrap_or(self.most);
        if most > self.most {
            return Err(Failure::Refused(format!("it has {most} bytes; at most {} are read", self.most)));
        }
        progress(partial.length, size);
        let left = most - partial.length.min(most);
        if size.is_some() {
            // Nothing is kept, so that others may finish what they have begun.
            let room = output::reserve(&partial.path, left);
            room.map(drop).map_err(|e| Failure::Local(cache::with_hint(e)))?;
        }
        answer.read(&self.client.limits, left, |bytes| {
            partial.append(bytes)?;
            progress(partial.length, size);
            Ok(())
        })
    }

    /// What the head of an answer with the whole file says of it.
    fn notes(&self, answer: &Answer) -> Notes {
        let etag = answer.header("etag");
        let plain = |etag: &str| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let named = answer.linked_etag.as_deref().or(etag.as_deref()).map(plain);
        let linked = answer.linked_etag.as_deref().and_then(|etag| Sum::sha256(&plain(etag)));
        Notes {
            size: answer.linked_size.or_else(|| answer.number("content-length")),
            sha256: linked.map(|sum| sum.digits().to_owned()),
            blob: named.filter(|name| cache::blob_name(name)),
            etag: etag.filter(|e| !e.starts_with("W/")),
        }
    }

    /// Makes sure that an answer with a part of the file continues `partial`. If it does not, the next attempt starts at zero.
    fn check_range(&self, answer: &Answer, partial: &mut Partial) -> Result<(), Failure> {
        let range = answer.header("content-range").and_then(|text| ContentRange::parse(&text));
        let fits = range.as_ref().is_some_and(|range| {
            let size = self.known.size.or(partial.notes.size);
            range.from == partial.length && size.zip(range.size).is_none_or(|(a, b)| a == b)
        });
        let now = self.notes(answer);
        let other = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        let changed = other(&now.sha256, &partial.notes.sha256)
            || (self.sum(&partial.notes).is_none() && other(&now.etag, &partial.notes.etag));
        if fits && !changed {
            let size = range.and_then(|r| r.size);
            if partial.length == 0 {
                // A part that nobody asked for, but it is the first one.
                return partial.restart(Notes { size, ..now }).map_err(Failure::Local);
            }
            partial.notes.size = partial.notes.size.or(size);
            return Ok(());
        }
        partial.restart(Notes::default()).map_err(Failure::Local)?;
        let what = if changed {
            "the file changed on the server"
        } else {
            "the server sent another part than asked for"
        };
        Err(Failure::Passing(what.into(), None))
    }

    /// Whether the file is whole and what the hub says it is. If its content is wrong, the next attempt starts at zero.
    fn check(&self, partial: &mut Partial) -> Result<(), Failure> {
        let size = self.known.size.or(partial.notes.size);
        if let Some(size) = size.filter(|size| *size != partial.length) {
            let what = format!("{} of {size} bytes came", partial.length);
            return Err(Failure::Passing(what, None));
        }
        let Some(wanted) = self.sum(&partial.notes) else { return Ok(()) };
        let has = partial.sum(&wanted).map_err(Failure::Local)?;
        if has == wanted {
            return Ok(());
        }
        partial.restart(Notes::default()).map_err(Failure::Local)?;
        let (kind, has, wanted) = (wanted.kind(), has.digits(), wanted.digits());
        Err(Failure::Passing(format!("its {kind} is {has}, but the hub says {wanted}"), None))
    }

    fn sum(&self, notes: &Notes) -> Option<Sum> {
        self.known.sum.clone().or_else(|| Sum::sha256(notes.sha256.as_deref()?))
    }

    /// Turns the partial download into a blob, and shows it as a file of the commit.
    fn keep(&self, partial: Partial) -> Result<PathBuf> {
        partial.file.sync_all().map_err(cache::unwritable(&partial.path))?;
        let by_content = || Ok(self.cache.blob(partial.sum(&Sum::Sha256(String::new()))?.digits()));
        let named = self.sum(&partial.notes).map(|sum| sum.digits().to_owned());
        let mut blob = match named.or_else(|| partial.notes.blob.clone()) {
            Some(name) => self.cache.blob(&name),
            None => by_content()?,
        };
        // Two files with one ETag: a server that does not give each content its own.
        if blob.exists() && !cache::same_content(&blob, &partial.path).map_err(Error::io(&blob))? {
            blob = by_content()?;
        }
        fs::rename(&partial.path, &blob).map_err(cache::unwritable(&blob))?;
        let _ = fs::remove_file(notes_path(&partial.path));
        self.cache.link(&blob, self.commit, self.name)
    }
}

impl Partial {
    fn open(lock: &Lock) -> Result<Partial> {
        let path = lock.partial.clone();
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(cache::unwritable(&path))?;
        let length = file.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        let notes = fs::read(notes_path(&path)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut partial = Partial { path, file, length, notes: Notes::default() };
        match notes {
            Some(notes) => partial.notes = notes,
            // Bytes that nothing is known of.
            None => partial.restart(Notes::default())?,
        }
        Ok(partial)
    }

    /// Throws away what is there, for a download that `notes` describe.
    fn restart(&mut self, notes: Notes) -> Result<()> {
        self.file.set_len(0).map_err(Error::io(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(Error::io(&self.path))?;
        self.length = 0;
        self.notes = notes;
        let text = serde_json::to_vec(&self.notes).map_err(|e| Error::Internal(e.to_string()))?;
        cache::replace(&notes_path(&self.path), &text)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(cache::unwritable(&self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The checksum of what is on disk, of the kind of `wanted`.
    fn sum(&self, wanted: &Sum) -> Result<Sum> {
        File::open(&self.path).and_then(|mut file| wanted.of(&mut file)).map_err(Error::io(&self.path))
    }
}

/// The header `Content-Range: bytes FROM-TO/SIZE`.
struct ContentRange {
    from: u64,
    size: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<ContentRange> {
        let (range, size) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (from, to) = range.split_once('-')?;
        let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        let size = match size.trim() {
            "*" => None,
            size => Some(size.parse().ok()?),
        };
        (from <= to && size.is_none_or(|size| to < size)).then_some(ContentRange { from, size })
    }
}

fn notes_path(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(".json");
    name.into()
}
