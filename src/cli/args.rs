//! Arguments that several subcommands share, and their translation to the library's settings.

use super::terminal;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use trimtab::config::Pooling;
use trimtab::data::{self, Columns, Example, LabelForm, Reading};
use trimtab::output::Room;
use trimtab::quant::Base;
use trimtab::{Error, Model, Options, Result, Task, output};

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

/// Pooling by name.
#[derive(Clone, Copy, ValueEnum)]
pub enum Pool {
    /// What the checkpoint asks for
    Auto,
    /// The first token through the pooler, where the checkpoint has one
    Cls,
    /// The mean of the tokens
    Mean,
    /// For pairs: each text by itself, the mean of its tokens, and one vector that compares the two
    Apart,
    /// For long texts: the mean of the tokens of all windows, up to 16 of --max-len tokens
    Windows,
}

impl Pool {
    pub fn pooling(self) -> Option<Pooling> {
        match self {
            Pool::Auto => None,
            Pool::Cls => Some(Pooling::Cls),
            Pool::Mean => Some(Pooling::Mean),
            Pool::Apart => Some(Pooling::Apart),
            Pool::Windows => Some(Pooling::Windows),
        }
    }
}

/// How files of examples are read.
#[derive(Args)]
pub struct Data {
    /// Column of the label; case does not matter [default: label]. Of a .conll file the column of the tag, from 1 [default: the
    /// last; UPOS in CoNLL-U, where names do as well]
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Column of the text [default: text_a, text or sentence]. Several between commas, such as Subject,Body, are joined.
    /// Of a .conll file the column of the token, from 1 [default: the first; FORM in CoNLL-U]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column of the second text of a pair [default: text_b, where there is one]
    #[arg(long, value_name = "NAME")]
    text_b_column: Option<String>,
    /// Format of the data [default: by the file's ending]. A .tsv has no quoting: a `"` is a character like any other. A .csv
    /// follows RFC 4180
    #[arg(long, value_name = "tsv|csv|jsonl|json|conll|squad|text|store")]
    format: Option<data::Format>,
    /// What stands between the fields of a .csv, such as `;` or tab [default: found out from the header]
    #[arg(long, value_name = "CHAR")]
    delimiter: Option<data::Delimiter>,
    /// Character encoding, such as windows-1252 [default: UTF-8 or UTF-16, found out; Windows-1252 where the file looks like it]
    #[arg(long, value_name = "NAME")]
    encoding: Option<data::Encoding>,
    /// Leave lines out that cannot be used, and count them, instead of refusing the file
    #[arg(long)]
    skip_bad_lines: bool,
}

impl Data {
    /// How a file is read.
    pub fn reading(&self) -> Reading {
        let columns = Columns {
            label: self.label_column.clone(),
            text_a: self.text_column.clone(),
            text_b: self.text_b_column.clone(),
        };
        Reading {
            format: self.format,
            columns,
            encoding: self.encoding,
            delimiter: self.delimiter,
            skip_bad_lines: self.skip_bad_lines,
        }
    }

    /// All examples of a file, or of stdin where the path is `-`; what is remarkable about it goes to stderr.
    pub fn read(&self, path: &Path, wanted: LabelForm) -> Result<Vec<Example>> {
        let found = match path == Path::new("-") {
            true if self.format.is_none() => {
                return Err(Error::Config(
                    "say with --format how the examples on standard input are written".into(),
                ));
            }
            true => {
                let stdin = std::io::BufReader::new(std::io::stdin());
                self.reading().reader(stdin, Path::new("standard input"), wanted)?
            }
            false => self.reading().file(path, wanted)?,
        };
        note(&found.remarks);
        Ok(found.examples)
    }

    /// Whether a file is plain text, with one text per line.
    pub fn is_text(&self, path: &Path) -> bool {
        self.format.or_else(|| data::Format::of(path).ok()) == Some(data::Format::Text)
    }

    /// Whether a file is read line by line, each of them a text: neither its name nor a flag says otherwise.
    pub fn is_lines(&self, path: &Path) -> bool {
        let has_columns =
            [&self.label_column, &self.text_column, &self.text_b_column].iter().any(|c| c.is_some());
        match self.format {
            Some(format) => format == data::Format::Text,
            None => {
                !has_columns && data::Format::of(path).map_or(true, |format| format == data::Format::Text)
            }
        }
    }

    /// The lines of a text file as UTF-8.
    pub fn open_text(&self, path: &Path) -> Result<Box<dyn std::io::BufRead + Send>> {
        let mut remarks = Vec::new();
        let text = data::open_text(path, self.encoding, &mut remarks)?;
        note(&remarks);
        Ok(text)
    }
}

/// What is remarkable about a file, on stderr.
fn note(remarks: &[String]) {
    for remark in remarks {
        let lines: Vec<String> = remark.lines().map(terminal::one_line).collect();
        terminal::say(format_args!("note: {}", lines.join("\n")));
    }
}

/// Says so where a model that learned from pairs is asked about single texts.
pub fn warn_of_single_texts(model: &Model, examples: &[Example]) {
    let single = examples.iter().filter(|e| e.text_b.is_none()).count();
    if single > 0 && model.learned_from_pairs() {
        terminal::say(format_args!(
            "warning: this model learned from pairs of texts, and {single} of {} have no second text; --text-b-column names \
             its column",
            examples.len()
        ));
    }
}

/// A base and a bias file.
#[derive(Args)]
pub struct ModelFiles {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Bias file, made by `train`
    #[arg(long, value_name = "FILE")]
    pub bias: PathBuf,
}

/// A base, and a bias file where there is one, to get vectors from.
#[derive(Args)]
pub struct Embedder {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// Bias file, made by `train`; without one, the base as it is
    #[arg(long, value_name = "FILE")]
    bias: Option<PathBuf>,
    /// Longest text in tokens; longer ones are cut [default: what the bias file was trained with; without one, the
    /// model's own max_seq_length, or as many as it has positions]
    #[arg(long, value_name = "N", conflicts_with = "bias")]
    max_len: Option<usize>,
}

impl Embedder {
    /// Errors: what opening says; a tagger, which has no vector of a text.
    pub fn open(&self, run: &Run) -> Result<Model> {
        let base = Base::open(&self.base)?;
        let mut options = run.options();
        options.max_len = max_len(&base, self.max_len)?.unwrap_or(base.max_seq_length());
        let model = match &self.bias {
            Some(bias) => Model::open(&base, bias, &options)?,
            None => Model::new(&base, Task::Contrastive, &options)?,
        };
        if model.graph().reads_tokens() {
            let what = format!("a {} model has vectors of tokens, not of texts", model.task().kind());
            return Err(Error::Config(what));
        }
        Ok(model)
    }

    /// What is read: the model, and `file`.
    pub fn files<'a>(&'a self, file: &'a Path) -> Vec<&'a Path> {
        [Some(&self.base), self.bias.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .chain([file])
            .collect()
    }
}

/// A `--max-len` that was given. Errors: the base has fewer positions.
pub fn max_len(base: &Base, given: Option<usize>) -> Result<Option<usize>> {
    given.map_or(Ok(()), |n| base.check_max_len(n)).map(|()| given)
}

/// The vectors of texts, of pairs the first. Errors: one is not of numbers, which a broken bias file gives.
pub fn vectors(model: &Model, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
    let single = |e: &Example| Example { text_a: e.text_a.clone(), ..Example::default() };
    let vectors = model.embed_all(&examples.iter().map(single).collect::<Vec<_>>())?;
    if vectors.iter().flatten().any(|v| !v.is_finite()) {
        return Err(Error::Diverged("a vector is not of numbers: the bias file is broken".into()));
    }
    Ok(vectors)
}

/// What `--out` and `--output` take for a file: a path, or `-` for standard output.
pub fn out_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| if path == Path::new("-") { "/dev/stdout".into() } else { path })
}

/// Refuses an output that could not be written, or would replace what it is made from, before the work rather than after.
pub fn check_out(out: &Path, inputs: &[&Path]) -> Result<()> {
    output::check(out).map_err(|e| match e {
        // A path that was typed wrong; what the system itself says has a number.
        Error::Io { path, source }
            if source.kind() == std::io::ErrorKind::NotFound && source.raw_os_error().is_none() =>
        {
            Error::Config(format!("{}: {source}", path.display()))
        }
        other => other,
    })?;
    if output::is_stdout(out) && std::io::stdout().is_terminal() {
        let what = format!("{} is a terminal; name a file, or send it to another program", out.display());
        return Err(Error::Config(what));
    }
    for input in inputs {
        // Two paths to one file are the same once links and dots are resolved; a missing file is another's error.
        if let (Ok(a), Ok(b)) = (out.canonicalize(), input.canonicalize())
            && a == b
        {
            return Err(Error::Config(format!("--out {} would replace a file that is read", out.display())));
        }
    }
    Ok(())
}

/// Refuses to write a result and a file to standard output.
pub fn check_json(out: &Path, json: bool) -> Result<()> {
    match json && output::is_stdout(out) {
        true => Err(Error::Config("--json prints to standard output, so the file must go elsewhere".into())),
        false => Ok(()),
    }
}

/// Refuses a directory to write to that is something else, or that has no room for `bytes` bytes, which are kept.
pub fn check_dir(flag: &str, dir: &Path, bytes: u64) -> Result<Room> {
    match dir.exists() && !dir.is_dir() {
        true => Err(Error::Config(format!("{flag} {}: not a directory", dir.display()))),
        false => output::reserve_in(dir, bytes),
    }
}

/// Makes a directory and those above it, where they are not there.
pub fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.to_owned(), source })
}
