//! `trimtab learn`: examples into a store.

use super::{args, print, terminal};
use std::io::Read;
use std::path::{Path, PathBuf};
use trimtab::data::{Example, Format, LabelForm, Reading, Store};
use trimtab::{Error, Result};

/// Keep labelled texts in a store, to train on whenever there are enough
///
/// They are on disk when the command ends. Each text is kept once: again with another label corrects it. The store is one
/// SQLite file, for its owner alone to read; `train --data me.store` learns from it, `forget` removes from it.
#[derive(clap::Args)]
pub struct Args {
    /// The store, by custom NAME.store; made if it is not there
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Label of the texts; pairs, for contrastive, need none
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Take the examples of a file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["label", "texts"])]
    data: Option<PathBuf>,
    #[command(flatten)]
    columns: args::Data,
    /// Keep at most so many examples from now on; beyond, the oldest of the most frequent label goes [default: 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cap: Option<u64>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Texts, a tab between the two of a pair; with --label and without any, lines are read from stdin
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
}

pub fn run(args: Args) -> Result<()> {
    let examples = match (&args.data, &args.label) {
        (Some(path), _) => of_file(path, &args.columns)?,
        (None, Some(label)) if args.texts.is_empty() => of_stdin(label)?,
        (None, None) if args.texts.is_empty() && args.cap.is_none() => {
            return Err(Error::Config("name the --label of the texts, or a file with --data".into()));
        }
        (None, label) => args.texts.iter().map(|text| example(text, label.as_deref())).collect(),
    };
    let mut store = Store::open(&args.store)?;
    let mut dropped = 0;
    if let Some(cap) = args.cap {
        dropped = store.set_cap(usize::try_from(cap).unwrap_or(usize::MAX))?;
    }
    let mut learned = store.learn(&examples)?;
    learned.dropped += dropped;
    let labels = store.labels()?;
    let total: usize = labels.iter().map(|(_, n)| n).sum();
    let labels = labels.iter().filter(|(label, _)| !label.is_empty()).count();
    if args.json {
        let mut object = serde_json::to_value(learned).expect("plain data");
        object["examples"] = total.into();
        object["labels"] = labels.into();
        return print(&object.to_string());
    }
    let parts = [
        (learned.new, "new"),
        (learned.corrected, "corrected"),
        (learned.known, "known already"),
        (learned.dropped, "dropped (--cap)"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(n, what)| *n > 0 || *what == "new")
        .map(|(n, what)| format!("{} {what}", terminal::count(n)))
        .collect();
    let (total, file) = (terminal::count(total), args.store.display());
    print(&format!("{}; {total} examples of {labels} labels in {file}", parts.join(", ")))
}

/// Examples with labels, or pairs without any.
fn of_file(path: &Path, columns: &args::Data) -> Result<Vec<Example>> {
    let is_bare = |e: &Example| e.label.is_none() && e.text_b.is_some();
    // Quietly, since a file with labels is read again.
    match columns.reading().file(path, LabelForm::Nothing) {
        Ok(found) if path != Path::new("-") && found.examples.iter().all(is_bare) => Ok(found.examples),
        _ => columns.read(path, LabelForm::Name),
    }
}

fn example(text: &str, label: Option<&str>) -> Example {
    let (a, b) = match text.split_once('\t') {
        Some((a, b)) => (a, Some(b.to_owned())),
        None => (text, None),
    };
    Example { text_a: a.to_owned(), text_b: b, label: label.map(str::to_owned), ..Example::default() }
}

/// A text a line.
fn of_stdin(label: &str) -> Result<Vec<Example>> {
    let path = Path::new("standard input");
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut bytes);
    read.map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let reading = Reading { format: Some(Format::Text), ..Reading::default() };
    let texts = reading.reader(&bytes[..], path, LabelForm::Nothing)?.examples;
    Ok(texts.into_iter().map(|e| Example { line: e.line, ..example(&e.text_a, Some(label)) }).collect())
}
