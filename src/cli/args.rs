//! Arguments that several subcommands share, and their translation to the library's settings.

use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use trimtab::config::Pooling;
use trimtab::data::{self, Columns, Example};
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
    pub fn options(&self) -> Options {
        Options { threads: self.threads.map(usize::from), exact: self.exact, ..Options::default() }
    }
}

/// A size in memory, such as `96MiB`, `1.5 GB` or `0`, in bytes.
pub fn size(s: &str) -> std::result::Result<usize, String> {
    const UNITS: [(&str, u32, i32); 7] = [
        ("b", 10, 0),
        ("kb", 10, 3),
        ("mb", 10, 6),
        ("gb", 10, 9),
        ("kib", 2, 10),
        ("mib", 2, 20),
        ("gib", 2, 30),
    ];
    let s = s.trim();
    let split = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (number, unit) = (&s[..split], s[split..].trim().to_ascii_lowercase());
    let fail = || "write a size with its unit (B, KB, MB, GB, KiB, MiB or GiB), such as 96MiB".to_owned();
    let number: f64 = number.parse().map_err(|_| fail())?;
    let unit = match UNITS.iter().find(|u| u.0 == unit) {
        Some((_, base, exponent)) => f64::from(*base).powi(*exponent),
        None if unit.is_empty() && number == 0.0 => 1.0,
        None => return Err(fail()),
    };
    let bytes = number * unit;
    // 2^53: beyond that, f64 counts in steps; and no machine has it
    if bytes < 9_007_199_254_740_992.0 && bytes < usize::MAX as f64 {
        Ok(bytes as usize)
    } else {
        Err(format!("{s} is more than this machine can address"))
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
    pub fn read(&self, path: &Path) -> Result<Vec<Example>> {
        let columns = Columns {
            label: self.label_column.clone(),
            text_a: self.text_column.clone(),
            text_b: self.text_b_column.clone(),
        };
        match self.format {
            None => data::read_examples(path, &columns, true),
            Some(format) => data::read_file(path, format, &columns, true),
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

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("96MiB", 96 << 20),
            ("160MB", 160_000_000),
            ("1.5 GB", 1_500_000_000),
            ("2gib", 2 << 30),
            ("0", 0),
            ("0.0", 0),
            ("512B", 512),
            (" 3 kB", 3_000),
            ("0.5KiB", 512),
        ] {
            if let Ok(bytes) = usize::try_from(bytes as u64) {
                assert_eq!(size(text), Ok(bytes), "{text}");
            }
        }
        for text in [
            "",
            "96",
            "MiB",
            "-1MB",
            "1e3MB",
            "1.2.3MB",
            "5 MX",
            "5TB",
            "96 MiB x",
            "nan",
            "inf",
            "99999999999GB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
