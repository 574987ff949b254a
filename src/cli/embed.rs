//! `trimtab embed`: the vector of each line.

use super::{args, print, print_beside, stream, terminal};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use trimtab::data::Example;
use trimtab::{Error, Result, embeddings};

/// Turn texts into vectors (sentence embeddings), a line each
///
/// With the base alone as sentence-transformers gives them for its checkpoint: pooled as it asks for (mean of the tokens,
/// or the first token), then through its Dense and Normalize modules. With a bias file of any task but tag, as that model
/// pools; the modules are applied unless it pools through a pooler layer. Lines on stdin are answered as they come; a blank line is a
/// text too, so that the vectors stand where their lines do.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    embedder: args::Embedder,
    #[command(flatten)]
    run: args::Run,
    /// Vectors of length 1: their dot product is the cosine
    #[arg(long)]
    normalize: bool,
    /// Write one matrix [texts, hidden] in f32, the tensor `embeddings` of a safetensors file, rather than a JSON object
    /// a line on stdout; - or /dev/stdout writes it to standard output
    #[arg(long, value_name = "FILE", value_parser = args::out_file())]
    out: Option<PathBuf>,
    #[command(flatten)]
    columns: args::Data,
    /// File with one text per line, or - for stdin. From .tsv, .csv, .jsonl, .json and .store files the text column is read
    file: PathBuf,
}

/// A line of what is printed.
#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    embedding: &'a [f32],
}

pub fn run(args: Args) -> Result<()> {
    if let Some(out) = &args.out {
        args::check_out(out, &args.embedder.files(&args.file))?;
    }
    let model = args.embedder.open(&args.run)?;
    // Lines on a terminal show how far it is by themselves.
    let quiet = args.out.is_none() && std::io::stdout().is_terminal();
    let bar = terminal::bar(0, if quiet { "" } else { "{spinner} {pos} texts, {per_sec}" });
    let (mut all, mut texts_done) = (Vec::new(), 0);
    let result = stream::texts(&args.file, &args.columns, |texts| {
        let mut vectors = args::vectors(&model, texts)?;
        if args.normalize {
            vectors.iter_mut().for_each(|v| embeddings::normalize(v));
        }
        texts_done += texts.len();
        bar.set_position(texts_done as u64);
        if args.out.is_some() {
            all.append(&mut vectors);
            return Ok(());
        }
        let line = |(e, embedding): (&Example, &Vec<f32>)| {
            serde_json::to_string(&Line { text: &e.text_a, embedding }).expect("plain data")
        };
        print(&texts.iter().zip(&vectors).map(line).collect::<Vec<_>>().join("\n"))
    });
    bar.finish_and_clear();
    result?;
    if texts_done == 0 && (args.out.is_some() || args.file != Path::new("-")) {
        return Err(Error::Data { path: args.file, line: None, what: "the file is empty".into() });
    }
    match &args.out {
        None => Ok(()),
        Some(out) => {
            embeddings::save(out, &all)?;
            print_beside(
                out,
                &format!("{}: {} × {}", out.display(), terminal::count(all.len()), all[0].len()),
            )
        }
    }
}
