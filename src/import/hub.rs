//! Fetches a model from the Hugging Face hub, into its shared cache or a directory of one's own.
//!
//! Honours `HF_HOME` (where the cache is), `HF_ENDPOINT` (a mirror) and `HF_TOKEN` (private models), as the
//! Python tools do. All files come from one commit.

use super::read_small;
use super::safetensors::{plain_name, read_index};
use crate::container::{MAX_HEADER, folder_of, ordinary};
use crate::error::{Error, Result};
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::collections::BTreeSet;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// How long the hub may take to answer a connection before the network is taken to be absent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Downloads what [`super::Checkpoint::open`] reads of `repo` (`owner/name`), and returns the directory.
///
/// `revision` is a branch, tag or commit, `main` if none. Files already in the hub's cache are not fetched again.
/// With `into`, which must not exist or be empty, the files are copied there. `progress(file, done, total)` in
/// bytes.
///
/// Fails with [`Error::Io`] when the hub cannot be reached (within seconds) or the disk is full,
/// [`Error::Config`] on a name that is none or is not on the hub, [`Error::Unsupported`] if the repository lacks
/// a needed file.
pub fn pull(
    repo: &str,
    revision: Option<&str>,
    into: Option<&Path>,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<PathBuf> {
    let set = |key: &str| std::env::var(key).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
    // hf-hub would panic.
    if set("HF_HOME").is_none() && std::env::home_dir().is_none() {
        return Err(Error::Config("no home directory to keep the download in; set HF_HOME".into()));
    }
    let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
    let hub = Hub { endpoint: endpoint.trim_end_matches('/'), repo, cache: Cache::from_env() };
    hub.pull(set("HF_TOKEN"), revision.unwrap_or("main"), into, progress)
}

/// One repository on one hub.
struct Hub<'a> {
    endpoint: &'a str,
    repo: &'a str,
    cache: Cache,
}

/// One commit of it: what it holds, and how to get at it.
struct Commit<'a> {
    hub: &'a Hub<'a>,
    names: BTreeSet<String>,
    remote: ApiRepo,
    cached: CacheRepo,
}

impl Hub<'_> {
    fn pull(
        &self,
        token: Option<String>,
        revision: &str,
        into: Option<&Path>,
        progress: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<PathBuf> {
        let repo_ok = self.repo.split('/').count() <= 2 && self.repo.split('/').all(is_name);
        if !repo_ok {
            let what = format!("{:?} is not the name of a repository, such as `owner/name`", self.repo);
            return Err(Error::Config(what));
        }
        if !revision.split('/').all(is_name) {
            return Err(Error::Config(format!("{revision:?} is not a branch, tag or commit")));
        }
        if let Some(into) = into {
            check_empty(into)?;
        }
        self.check_reachable()?;
        let commit = self.find(token, revision)?;
        let names = commit.choose(progress)?;
        let mut snapshot = PathBuf::new();
        for name in &names {
            let path = commit.fetch(name, progress)?;
            if name == "config.json" {
                snapshot = path.parent().map(Path::to_owned).unwrap_or_default();
            }
        }
        match into {
            None => Ok(snapshot),
            Some(into) => copy_all(&snapshot, &names, into),
        }
    }

    /// Asks the hub for the commit that `revision` is, so that all files come from it even if a branch moves.
    fn find(&self, token: Option<String>, revision: &str) -> Result<Commit<'_>> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.endpoint.to_owned())
            .with_progress(false)
            .with_retries(2);
        if token.is_some() {
            builder = builder.with_token(token);
        }
        let api = builder.build().map_err(|e| self.failed("", &e))?;
        let at =
            |revision: &str| Repo::with_revision(self.repo.to_owned(), RepoType::Model, revision.to_owned());
        let info = api.repo(at(revision)).info().map_err(|e| self.failed("", &e))?;
        if !is_name(&info.sha) {
            return Err(self.io(format!("answered with a commit named {:?}", info.sha)));
        }
        Ok(Commit {
            hub: self,
            names: info.siblings.into_iter().map(|s| s.rfilename).collect(),
            remote: api.repo(at(&info.sha)),
            cached: self.cache.repo(at(&info.sha)),
        })
    }

    /// Fails within seconds where the operating system would let a connection hang for minutes.
    fn check_reachable(&self) -> Result<()> {
        if proxied() {
            return Ok(()); // the hub itself need not be in reach
        }
        let (port, rest) = match self.endpoint.split_once("://") {
            Some(("http", rest)) => (80, rest),
            Some(("https", rest)) => (443, rest),
            _ => {
                let what = format!("HF_ENDPOINT is {:?}; must be an http or https URL", self.endpoint);
                return Err(Error::Config(what));
            }
        };
        let host = rest.split('/').next().unwrap_or_default().to_owned();
        let address = if host.contains(':') { host.clone() } else { format!("{host}:{port}") };
        // Resolving a name has no timeout of its own.
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let connect = || {
                let mut last = std::io::Error::other("the name has no address");
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(_) => return Ok(()),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            };
            // Nobody listens any more after the timeout.
            let _ = send.send(connect());
        });
        let why = match receive.recv_timeout(CONNECT_TIMEOUT) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        Err(self.io(format!(
            "cannot be reached ({why}); check the network, or fetch the model's files elsewhere and give their \
             directory"
        )))
    }

    fn io(&self, what: String) -> Error {
        Error::Io { path: self.endpoint.into(), source: std::io::Error::other(what) }
    }

    /// Says in our words what hf-hub says in its own.
    fn failed(&self, file: &str, error: &ApiError) -> Error {
        let what = match error {
            ApiError::IoError(e) => return Error::Io { path: self.cache.path().clone(), source: io_copy(e) },
            _ => error.to_string(),
        };
        let name = if file.is_empty() { self.repo.to_owned() } else { format!("{}/{file}", self.repo) };
        if ["401", "403", "404"].iter().any(|code| what.contains(&format!("http status: {code}"))) {
            return Error::Config(format!(
                "{}: no `{name}` there, or it is private or gated: then set HF_TOKEN ({what})",
                self.endpoint
            ));
        }
        self.io(format!("fetching `{name}`: {what}"))
    }
}

impl Commit<'_> {
    /// Names of the files needed. Says what is missing before anything large is fetched.
    fn choose(&self, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Vec<String>> {
        let has = |name: &str| self.names.contains(name);
        let lacks = |what: String| Error::Unsupported { path: self.hub.repo.into(), what };
        for (name, hint) in [
            ("config.json", "it is not a model of the transformers library"),
            ("tokenizer.json", "make one in Python: `AutoTokenizer.from_pretrained(…).save_pretrained(DIR)`"),
        ] {
            if !has(name) {
                return Err(lacks(format!("the repository has no {name}; {hint}")));
            }
        }
        let mut names = vec!["config.json".to_owned(), "tokenizer.json".to_owned()];
        let optional = ["modules.json", "1_Pooling/config.json"];
        names.extend(optional.into_iter().filter(|n| has(n)).map(str::to_owned));
        let (single, index) = ("model.safetensors", "model.safetensors.index.json");
        if has(single) {
            names.push(single.to_owned());
        } else if has(index) {
            let path = self.fetch(index, progress)?;
            let map = read_index(&path, &read_small(&path, MAX_HEADER)?)?;
            let shards: BTreeSet<String> = map.into_values().collect();
            if let Some(bad) = shards.iter().find(|s| !plain_name(s) || !has(s)) {
                return Err(Error::format(&path, format!("shard {bad:?} is not a file of the repository")));
            }
            names.push(index.to_owned());
            names.extend(shards);
        } else {
            let hint =
                "pickled weights are not read, they can run code; look for a revision with safetensors";
            return Err(lacks(format!("the repository has no {single}; {hint}")));
        }
        Ok(names)
    }

    fn fetch(&self, name: &str, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<PathBuf> {
        if let Some(path) = self.cached.get(name) {
            return Ok(path);
        }
        let bar = Bar { name, done: 0, total: 0, progress };
        self.remote.download_with_progress(name, bar).map_err(|e| self.hub.failed(name, &e))
    }
}

struct Bar<'a> {
    name: &'a str,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(&str, u64, u64),
}

impl Progress for Bar<'_> {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
        (self.progress)(self.name, 0, self.total);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.progress)(self.name, self.done, self.total);
    }

    fn finish(&mut self) {}
}

/// Whether connections go through a proxy.
fn proxied() -> bool {
    let set = |key: &str| std::env::var_os(key).is_some() || std::env::var_os(key.to_lowercase()).is_some();
    ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"].into_iter().any(set)
}

/// A part of a repository's or revision's name that can do no harm in a URL or a path.
fn is_name(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !part.is_empty() && part.len() <= 255 && part.chars().all(plain) && !part.chars().all(|c| c == '.')
}

fn io_copy(e: &std::io::Error) -> std::io::Error {
    std::io::Error::new(e.kind(), e.to_string())
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
fn copy_all(snapshot: &Path, names: &[String], into: &Path) -> Result<PathBuf> {
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
