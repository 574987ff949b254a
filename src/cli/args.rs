//! Arguments that several subcommands share, and their translation to the library's settings.

use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use trimtab::config::Pooling;
use trimtab::data::{self, Columns, Example, Wanted};
use trimtab::{Options, Result};

/// How a model runs.
#[derive(Args)]
pub struct Run {
    /// Threads [default: one for each performance core]; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Compute with f32 activations in plain code: slow, the yardstick for the int8 kernels
    #[arg(long)]
    exact: bool,
}

impl Run {
    pub fn exact(&self) -> bool {
        self.exact
    }

    pub fn options(&self) -> Options {
        Options { threads: self.threads.map(usize::from), exact: self.exact, ..Options::default() }
    }
}

/// Pooling by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum Pool {
    /// What the checkpoint asks for
    Auto,
    /// The first token through the pooler
    Cls,
    /// The mean of the tokens
    Mean,
}

impl Pool {
    pub fn pooling(self) -> Option<Pooling> {
        match self {
            Pool::Auto => None,
            Pool::Cls => Some(Pooling::Cls),
            Pool::Mean => Some(Pooling::Mean),
        }
    }
}

/// Where labelled lines come from: TSV, CSV or JSONL, told by the file's ending.
#[derive(Args)]
pub struct Data {
    /// Column of the label [default: label]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Column of the text [default: text or text_a]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column of the second text of a pair [default: text_b, where there is one]
    #[arg(long, value_name = "NAME")]
    text_b_column: Option<String>,
    /// Format of the data [default: by the file's ending]
    #[arg(long, value_name = "tsv|csv|jsonl")]
    format: Option<data::Format>,
}

impl Data {
    pub fn read(&self, path: &Path, wanted: Wanted) -> Result<Vec<Example>> {
        let columns = Columns {
            label: self.label_column.clone(),
            text_a: self.text_column.clone(),
            text_b: self.text_b_column.clone(),
        };
        match self.format {
            None => data::read_examples(path, &columns, wanted),
            Some(format) => data::read_file(path, format, &columns, wanted),
        }
    }
}

/// A base and a bias file.
#[derive(Args)]
pub struct Model {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Bias file, made by `train`
    #[arg(long, value_name = "FILE")]
    pub bias: PathBuf,
}
