//! `trimtab search`: the lines of a file that are nearest to a query.

use super::{args, print, stream, terminal};
use serde::Serialize;
use std::path::PathBuf;
use trimtab::ops::similarity::Units;
use trimtab::{Error, Result};

/// Find the lines of a file that are nearest to a query in meaning
///
/// By the cosine between their vectors, see `embed`. Prints `cosine<TAB>line` for each, the nearest first.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    embedder: args::Embedder,
    #[command(flatten)]
    run: args::Run,
    /// File with a text a line, or - for stdin; blank lines are left out
    #[arg(long = "in", value_name = "FILE")]
    file: PathBuf,
    /// How many lines to print
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Print one JSON object a line: `score`, `line` (its number, from 1) and `text`
    #[arg(long)]
    json: bool,
    /// What to look for
    query: String,
}

/// A line that was found.
#[derive(Serialize)]
struct Found {
    score: f64,
    line: usize,
    text: String,
}

pub fn run(args: Args) -> Result<()> {
    let model = args.embedder.open(&args.run)?;
    let units = |texts: &[String]| -> Result<Units> {
        let vectors = args::vectors(&model, texts)?;
        Ok(Units::of(vectors.iter().map(Vec::as_slice), model.embedding_width()))
    };
    let query = units(std::slice::from_ref(&args.query))?;
    let bar = terminal::bar(0, "{spinner} {pos} texts, {per_sec}");
    // The nearest so far; of equals the one that came first stands first.
    let (mut nearest, mut lines_done): (Vec<Found>, usize) = (Vec::new(), 0);
    let result = stream::lines(&args.file, |texts| {
        let vectors = units(texts)?;
        for (i, text) in texts.iter().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
            let score = query.cosine(0, &vectors, i);
            let place = nearest.partition_point(|found| found.score >= score);
            if place < args.top as usize {
                nearest.insert(place, Found { score, line: lines_done + i + 1, text: text.clone() });
                nearest.truncate(args.top as usize);
            }
        }
        lines_done += texts.len();
        bar.set_position(lines_done as u64);
        Ok(())
    });
    bar.finish_and_clear();
    result?;
    if nearest.is_empty() {
        return Err(Error::Data { path: args.file, line: None, what: "there is no line to search".into() });
    }
    let line = |found: &Found| match args.json {
        true => serde_json::to_string(found).expect("plain data"),
        false => terminal::one_line(&format!("{:.3}\t{}", found.score, found.text)),
    };
    print(&nearest.iter().map(line).collect::<Vec<_>>().join("\n"))
}
