//! `trimtab search`: the lines of a file that are nearest to a query.

use super::{args, print, stream, terminal};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use trimtab::data::{self, Example, Lines};
use trimtab::ops::similarity::Units;
use trimtab::{Error, Result, embeddings};

/// Find the lines of a file that are nearest to a query in meaning
///
/// By the cosine between their vectors, see `embed`. Prints `cosine<TAB>line` for each, the nearest first.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    embedder: args::Embedder,
    #[command(flatten)]
    run: args::Run,
    #[command(flatten)]
    columns: args::Data,
    /// File with one text per line, or - for stdin. From .tsv, .csv, .jsonl, .json and .store files the text column is read.
    /// Blank texts are left out
    #[arg(long = "in", value_name = "FILE", required_unless_present = "vectors")]
    file: Option<PathBuf>,
    /// Vectors that `embed` has written, so that only the query runs: its JSON lines, or its --out with the texts in --in
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
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

/// The nearest texts so far; of equals the one that came first stands first.
struct Nearest<'q> {
    query: &'q Units,
    top: usize,
    found: Vec<Found>,
}

impl Nearest<'_> {
    fn see(&mut self, examples: &[Example], vectors: &Units) {
        for (i, e) in examples.iter().enumerate().filter(|(_, e)| !e.text_a.trim().is_empty()) {
            let score = self.query.cosine(0, vectors, i);
            let place = self.found.partition_point(|found| found.score >= score);
            if place < self.top {
                self.found.insert(place, Found { score, line: e.line, text: e.text_a.clone() });
                self.found.truncate(self.top);
            }
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    let model = args.embedder.open(&args.run)?;
    let hidden = model.embedding_width();
    let units = |examples: &[Example]| -> Result<Units> {
        let vectors = args::vectors(&model, examples)?;
        Ok(Units::of(vectors.iter().map(Vec::as_slice), hidden))
    };
    let query = units(&[Example { text_a: args.query.clone(), ..Example::default() }])?;
    let mut nearest = Nearest { query: &query, top: args.top as usize, found: Vec::new() };
    if let Some(file) = &args.vectors {
        let stored = Stored::open(file, &args)?;
        let vectors = Units::of(stored.vectors.iter().map(Vec::as_slice), hidden);
        stored.check(file, hidden, |first| Ok(units(first)?.cosine(0, &vectors, 0)))?;
        nearest.see(&stored.examples, &vectors);
    } else if let Some(file) = &args.file {
        let bar = terminal::bar(0, "{spinner} {pos} texts, {per_sec}");
        let result = stream::texts(file, &args.columns, |texts| {
            nearest.see(texts, &units(texts)?);
            bar.inc(texts.len() as u64);
            Ok(())
        });
        bar.finish_and_clear();
        result?;
    }
    if nearest.found.is_empty() {
        let path = args.file.or(args.vectors).unwrap_or_default();
        return Err(Error::Data { path, line: None, what: "there is no line to search".into() });
    }
    let line = |found: &Found| match args.json {
        true => serde_json::to_string(found).expect("plain data"),
        false => terminal::one_line(&format!("{:.3}\t{}", found.score, found.text)),
    };
    print(&nearest.found.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Texts with the vectors that `embed` wrote of them.
struct Stored {
    examples: Vec<Example>,
    vectors: Vec<Vec<f32>>,
}

/// Cosine of a stored vector and the model's own of the same text, at least.
const SAME: f64 = 0.999;

impl Stored {
    /// Errors: a file that `embed` did not write; as many vectors as texts there must be.
    fn open(vectors: &Path, args: &Args) -> Result<Stored> {
        if vectors.extension().is_some_and(|e| e == "safetensors") {
            let Some(file) = &args.file else {
                let what = format!("{} holds no texts; name their file with --in", vectors.display());
                return Err(Error::Config(what));
            };
            let mut examples = Vec::new();
            stream::texts(file, &args.columns, |texts| {
                examples.extend_from_slice(texts);
                Ok(())
            })?;
            return Ok(Stored { examples, vectors: embeddings::open(vectors)? });
        }
        if args.file.is_some() {
            let what = format!("{} holds its texts; leave --in out", vectors.display());
            return Err(Error::Config(what));
        }
        let mut stored = Stored { examples: Vec::new(), vectors: Vec::new() };
        let text = data::open_text(vectors, None, &mut Vec::new())?;
        let mut lines = Lines::new(text, vectors);
        while let Some((line, text)) = lines.next_line()? {
            let embedded: Embedded = serde_json::from_str(text).map_err(|e| {
                let what = format!("not what `embed` prints: {e}");
                Error::Data { path: vectors.to_owned(), line: Some(line), what }
            })?;
            stored.examples.push(Example { text_a: embedded.text, line, ..Example::default() });
            stored.vectors.push(embedded.embedding);
        }
        Ok(stored)
    }

    /// Refuses vectors of other texts or of another model. `cosine` is that of the first text's vector with the first stored.
    fn check(
        &self,
        file: &Path,
        hidden: usize,
        cosine: impl FnOnce(&[Example]) -> Result<f64>,
    ) -> Result<()> {
        let fail = |what: String| Err(Error::Data { path: file.to_owned(), line: None, what });
        let (n, texts) = (self.vectors.len(), self.examples.len());
        if n != texts {
            return fail(format!("there are {n} vectors for {texts} texts; `embed` them again"));
        }
        if let Some(v) = self.vectors.iter().find(|v| v.len() != hidden) {
            return fail(format!("its vectors have {} values, this model's {hidden}", v.len()));
        }
        if let Some(first) = self.examples.first() {
            let cosine = cosine(std::slice::from_ref(first))?;
            // A text without a vector of any length has no angle.
            if cosine < SAME && self.vectors[0].iter().any(|v| *v != 0.0) {
                return fail(format!(
                    "its vectors are of other texts, of another model or of another --max-len (cosine {cosine:.3} where it \
                     should be 1)"
                ));
            }
        }
        Ok(())
    }
}

/// A line that `embed` printed.
#[derive(Deserialize)]
struct Embedded {
    text: String,
    embedding: Vec<f32>,
}
