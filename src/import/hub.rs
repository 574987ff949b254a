//! Fetches a model from the Hugging Face hub, into its shared cache or a directory of one's own.
//!
//! Honours the variables of Python's `huggingface_hub`: `HF_HOME` and `HF_HUB_CACHE` (where the cache is), `HF_ENDPOINT`
//! (a mirror), `HF_TOKEN` or the token file (private models), `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT` (seconds
//! without data), and `HTTPS_PROXY`. All files come from one commit. The token is sent to the endpoint's own scheme, host
//! and port only. A download that breaks off continues where it stopped, in the same run or the next one.

mod attempts;
mod cache;
mod choose;
mod download;
mod env;
mod failure;
mod http;
mod sum;

use super::MAX_TOKENIZER;
use crate::container::{folder_of, ordinary};
use crate::error::{Error, Result};
use crate::output::{self, Room};
use attempts::{Tries, check_status};
use cache::Cache;
use choose::{MODULES, choose};
use download::{Download, Known};
use env::Settings;
use failure::Failure;
use http::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use sum::Sum;

/// Longest listing of a repository read, in bytes: some 100 000 files.
const MAX_LISTING: u64 = 64 << 20;
/// Longest file of weights fetched, in bytes.
const MAX_WEIGHTS: u64 = 64 << 30;
/// Ways to a model that need no hub.
const OTHER_WAYS: &str = "check the network and HTTPS_PROXY, or get the model another way: set HF_ENDPOINT to a mirror; \
    copy its Hugging Face directory or an ONNX file from another machine and give the path of that to `quantize`; or \
    `git clone` the repository from elsewhere with Git LFS installed";

/// What to do when a file does not come.
const AGAIN: &str = "run the command again later: complete files are kept, and a partial one is continued if the server \
    allows it";

/// Is told the file's name, the bytes of it that are there, and its length where that is known.
type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) + 'a;

/// Downloads what [`super::Checkpoint::open`] reads of `repo` (`owner/name`), and returns the directory.
///
/// `revision` is a branch, tag or commit, `main` if none. Files already in the hub's cache are not fetched again.
/// With `into`, which must not exist or be empty, the files are copied there. `progress(file, done, total)` in
/// bytes; the total is `None` where the server does not tell it.
///
/// Fails with [`Error::Io`] when the hub cannot be reached (within seconds), sends nothing for longer than the time-outs
/// allow or sends something else than the file, or the disk is full; [`Error::Config`] on a name that is none, is not on
/// the hub or is not for this token; [`Error::Unsupported`] if the repository lacks a needed file.
pub fn pull(
    repo: &str,
    revision: Option<&str>,
    into: Option<&Path>,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<PathBuf> {
    let settings = Settings::read(&|key| std::env::var_os(key))?;
    Hub::new(settings, repo)?.pull(revision.unwrap_or("main"), into, progress)
}

/// One repository on one hub.
struct Hub<'a> {
    endpoint: String,
    repo: &'a str,
    offline: bool,
    cache: Cache,
    client: Client,
}

/// One commit of it, and what the hub says of each of its files.
struct Commit {
    id: String,
    files: BTreeMap<String, Known>,
}

impl<'a> Hub<'a> {
    fn new(settings: Settings, repo: &'a str) -> Result<Hub<'a>> {
        let repo_ok = repo.split('/').count() <= 2 && repo.split('/').all(is_name);
        if !repo_ok {
            return Err(Error::Config(format!(
                "{repo:?} is not the name of a repository, such as `owner/name`"
            )));
        }
        let Settings { endpoint, cache, token, offline, limits, proxy } = settings;
        let client = Client::new(&endpoint, token.as_deref(), proxy, limits)?;
        Ok(Hub { cache: Cache::of(&cache, repo), endpoint, repo, offline, client })
    }

    fn pull(&self, revision: &str, into: Option<&Path>, progress: &mut Progress) -> Result<PathBuf> {
        if !is_revision(revision) {
            return Err(Error::Config(format!("{revision:?} is not a branch, tag or commit")));
        }
        let mut room = Room::default();
        if let Some(into) = into {
            check_empty(into)?;
            room = output::reserve_in(into, 0)?;
        }
        // What a commit holds never changes: if all of it is there, the hub has nothing to add.
        let (id, names) = match is_commit(revision).then(|| self.cached(revision)) {
            Some(Ok(found)) => found,
            _ if self.offline => self.cached(revision)?,
            _ => self.fetch_all(revision, into.map(|into| (into, &mut room)), progress)?,
        };
        let snapshot = self.cache.snapshot(&id);
        match into {
            None => Ok(snapshot),
            Some(into) => copy_all(&snapshot, &names, into, room),
        }
    }

    /// The commit and its files as the cache has them.
    fn cached(&self, revision: &str) -> Result<(String, Vec<String>)> {
        let lacks = |what: &str| {
            let repo = self.repo;
            Error::Config(format!(
                "HF_HUB_OFFLINE is set, and the cache has {what} of `{repo}` at {revision}; pull it once with the network"
            ))
        };
        let id = match is_commit(revision) {
            true => revision.to_owned(),
            false => self.cache.commit_of(revision).ok_or_else(|| lacks("nothing"))?,
        };
        if !is_name(&id) {
            return Err(lacks("no commit"));
        }
        let has = |name: &str| self.cache.file(&id, name, None);
        // Without this knowledge a sentence-transformers model would be taken for a plain one.
        if has(MODULES).is_none() && !self.cache.is_absent(&id, MODULES) {
            return Err(lacks("not everything"));
        }
        let names = files_below(&self.cache.snapshot(&id));
        let missing = |name: &str| has(name).ok_or_else(|| lacks(&format!("no {name}")));
        let names = choose(self.repo, &names, &mut |name| missing(name)).map_err(|e| match e {
            Error::Unsupported { .. } | Error::Format { .. } => lacks("not everything"),
            e => e,
        })?;
        Ok((id, names))
    }

    /// Asks the hub for the commit that `revision` is, and fetches what the cache lacks of it.
    ///
    /// Before that it keeps room for a copy of all files, as far as the hub tells their lengths, in the directory of `copy`.
    fn fetch_all(
        &self,
        revision: &str,
        copy: Option<(&Path, &mut Room)>,
        progress: &mut Progress,
    ) -> Result<(String, Vec<String>)> {
        let commit = self.find(revision).map_err(|failure| self.no_list(revision, failure))?;
        let names: BTreeSet<String> = commit.files.keys().cloned().collect();
        let mut fetch = |name: &str| self.fetch(&commit, name, progress);
        let chosen = choose(self.repo, &names, &mut fetch)?;
        if let Some((into, room)) = copy {
            let sizes = chosen.iter().filter_map(|name| commit.files.get(name)?.size);
            *room = output::reserve_in(into, sizes.fold(0, u64::saturating_add))?;
        }
        for name in &chosen {
            fetch(name)?;
        }
        // Only now does the cache hold a commit that can be used without the network.
        if !names.contains(MODULES) {
            let _ = self.cache.set_absent(&commit.id, MODULES); // a cache that is read-only may be complete
        }
        if revision != commit.id {
            let _ = self.cache.set_commit(revision, &commit.id);
        }
        Ok((commit.id, chosen))
    }

    /// The listing of a revision. All files are then fetched by the commit's name, even if a branch moves meanwhile.
    fn find(&self, revision: &str) -> Result<Commit, Failure> {
        let url = format!("{}/api/models/{}/revision/{}", self.endpoint, self.repo, encode(revision, false));
        let what = format!("`{}` at {revision}", self.repo);
        let mut tries = Tries::new(&self.client);
        loop {
            match self.listing(&url, &what) {
                Ok(text) => return self.commit(&text),
                Err(failure) => tries.again(failure, false)?,
            }
        }
    }

    /// One attempt at the text of a listing.
    fn listing(&self, url: &str, what: &str) -> Result<Vec<u8>, Failure> {
        let accept = [("accept", "application/json".to_owned())];
        // `blobs` adds lengths and checksums. Mirrors that do not know it may take it for a part of the name.
        let mut answer = self.client.get(&format!("{url}?blobs=true"), &accept, MAX_LISTING)?;
        if matches!(answer.status(), 400 | 404 | 405 | 422) {
            answer = self.client.get(url, &accept, MAX_LISTING)?;
        }
        check_status(&answer, what, &self.client)?;
        answer.check_plain()?;
        let mut text = Vec::new();
        answer.read(&self.client.limits, MAX_LISTING, |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(text)
    }

    fn commit(&self, text: &[u8]) -> Result<Commit, Failure> {
        #[derive(serde::Deserialize)]
        struct Listing {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(serde::Deserialize)]
        struct Sibling {
            rfilename: String,
            size: Option<u64>,
            /// The API's name of it, and that in listings of a tree.
            #[serde(rename = "blobId")]
            blob_id: Option<serde_json::Value>,
            oid: Option<serde_json::Value>,
            lfs: Option<serde_json::Value>,
        }
        if text.trim_ascii_start().starts_with(b"<") {
            return Err(http::web_page());
        }
        let listing: Listing = serde_json::from_slice(text)
            .map_err(|e| Failure::Refused(format!("the answer is not a listing of a repository: {e}")))?;
        if !is_name(&listing.sha) {
            return Err(Failure::Refused(format!(
                "the server names the commit {:?}, which cannot be one",
                listing.sha
            )));
        }
        let known = |s: Sibling| {
            // Of a file in Git LFS, the blob is the pointer to it.
            let sum = match &s.lfs {
                None | Some(serde_json::Value::Null) => {
                    s.blob_id.as_ref().or(s.oid.as_ref()).and_then(|id| Sum::git(id.as_str()?))
                }
                Some(lfs) => {
                    lfs.get("sha256").or_else(|| lfs.get("oid")).and_then(|sum| Sum::sha256(sum.as_str()?))
                }
            };
            let size = s.lfs.as_ref().and_then(|lfs| lfs.get("size")?.as_u64()).or(s.size);
            (s.rfilename, Known { size, sum })
        };
        Ok(Commit { id: listing.sha, files: listing.siblings.into_iter().map(known).collect() })
    }

    /// Brings one file of a commit into the cache, if it is not there.
    fn fetch(&self, commit: &Commit, name: &str, progress: &mut Progress) -> Result<PathBuf> {
        let download = Download {
            client: &self.client,
            cache: &self.cache,
            repo: self.repo,
            commit: &commit.id,
            name,
            url: format!("{}/{}/resolve/{}/{}", self.endpoint, self.repo, commit.id, encode(name, true)),
            known: commit.files.get(name).cloned().unwrap_or_default(),
            most: if name.ends_with(".safetensors") { MAX_WEIGHTS } else { MAX_TOKENIZER },
        };
        download
            .run(&mut |done, total| progress(name, done, total))
            .map_err(|failure| self.no_file(name, failure))
    }

    /// Says that the list of files of `revision` did not come, and what else can be done.
    fn no_list(&self, revision: &str, failure: Failure) -> Error {
        let kept = match self.cached(revision) {
            Ok(_) => "set HF_HUB_OFFLINE=1 to use what was pulled before; ",
            Err(_) => "",
        };
        let asked = format!("fetching the list of files of `{}`", self.repo);
        self.error(failure, &asked, &format!("{kept}{OTHER_WAYS}"), "; is HF_ENDPOINT the address of a hub?")
    }

    /// Says that a file did not come, and what else can be done.
    fn no_file(&self, name: &str, failure: Failure) -> Error {
        self.error(failure, &format!("fetching `{}/{name}`", self.repo), AGAIN, "")
    }

    /// `remedy` is for what may pass, `doubt` for what will not.
    fn error(&self, failure: Failure, asked: &str, remedy: &str, doubt: &str) -> Error {
        let what = match failure {
            Failure::Local(e) => return e,
            Failure::Denied(what) => {
                return Error::Config(self.client.printable(&format!("{}: {what}", self.endpoint)));
            }
            Failure::Unreachable(what) => format!("cannot be reached ({what}); {remedy}"),
            Failure::Passing(what, _) => format!("{asked}: {what}; {remedy}"),
            Failure::Refused(what) => format!("{asked}: {what}{doubt}"),
        };
        Error::Io {
            path: self.endpoint.clone().into(),
            source: std::io::Error::other(self.client.printable(&what)),
        }
    }
}

/// Paths of all files below a directory, with `/` between their parts.
fn files_below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(dir.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Files are links to blobs; a link to a directory is nothing of the hub's.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push((entry.path(), format!("{prefix}{name}/"))),
                _ if entry.path().is_file() => drop(found.insert(prefix.clone() + &name)),
                _ => {}
            }
        }
    }
    found
}

/// A part of a repository's name, or a commit's, that can do no harm in a URL or a path.
fn is_name(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 255 && part.chars().all(plain) && !part.chars().all(|c| c == '.')
}

/// Whether git can have a branch or tag of this name (`git check-ref-format`). None of these leaves a directory.
fn is_revision(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let part = |part: &str| {
        !part.is_empty() && part.len() <= 255 && !part.starts_with('.') && !part.ends_with(".lock")
    };
    name.split('/').all(part)
        && !name.contains(forbidden)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
}

/// Whether `revision` is the full name of a commit.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Percent-encodes what is not plain in a URL's path, and `/` too unless `slashes` stay.
fn encode(text: &str, slashes: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b'/' if slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn check_empty(into: &Path) -> Result<()> {
    match std::fs::read_dir(into) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::Io { path: into.to_owned(), source: e }),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::Config(format!("{} is not empty; give a new directory", into.display()))),
        },
    }
}

/// Copies files out of the cache beside `into`, then moves the whole directory there.
fn copy_all(snapshot: &Path, names: &[String], into: &Path, room: Room) -> Result<PathBuf> {
    room.release();
    let beside = folder_of(into);
    std::fs::create_dir_all(beside).map_err(Error::io(beside))?;
    let temp = ordinary(0o777).prefix(".trimtab-pull-").tempdir_in(beside).map_err(Error::io(beside))?;
    for name in names {
        let target = temp.path().join(name);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::copy(snapshot.join(name), &target).map_err(Error::io(&into.join(name)))?;
    }
    if into.exists() {
        std::fs::remove_dir(into).map_err(Error::io(into))?; // empty, or this fails
    }
    std::fs::rename(temp.path(), into).map_err(Error::io(into))?;
    let _ = temp.keep(); // it is no longer there to be removed
    Ok(into.to_owned())
}

#[cfg(test)]
mod tests;
