//! Reads examples from files: TSV, CSV, JSON, tagged tokens, questions, plain text, stores.

use super::columns::{Columns, LabelForm};
use super::encoding::{Encoding, decoded, guesses, open_text};
use super::format::Format;
use super::json::Json;
use super::lines::Lines;
use super::problems::{LINE, Problems};
use super::table::{Delimiter, Table};
use super::{Example, conll, label, squad};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

const NO_STORE: &str = "a store is a file, and read where trimtab is built with the feature `store`";

/// How to read a file of examples; the default finds out what it can.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// By the file's name if none.
    pub format: Option<Format>,
    /// Which columns to read.
    pub columns: Columns,
    /// Found out if none, see [`open_text`].
    pub encoding: Option<Encoding>,
    /// What stands between the fields of a CSV file; found out from the header if none.
    pub delimiter: Option<Delimiter>,
    /// Leave lines out that cannot be used, and say so, instead of refusing the file.
    pub skip_bad_lines: bool,
}

/// Examples, and what their user should know of how they were read.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In the order of the file.
    pub examples: Vec<Example>,
    /// A sentence or more each.
    pub remarks: Vec<String>,
}

/// All examples of a file, in its format by name.
///
/// `want` says which labels there must be.
/// Errors: `Error::Io`; `Error::Data` naming the line and what to do.
pub fn read_examples(path: &Path, columns: &Columns, want: LabelForm) -> Result<Vec<Example>> {
    let reading = Reading { columns: columns.clone(), ..Reading::default() };
    Ok(reading.file(path, want)?.examples)
}

impl Reading {
    /// All examples of a file.
    ///
    /// `want` says which labels there must be.
    /// Errors: `Error::Io`; `Error::Data` naming the lines and what to do.
    pub fn file(&self, path: &Path, want: LabelForm) -> Result<Found> {
        let format = self.format_of(path)?;
        #[cfg(feature = "store")]
        if format == Format::Store {
            let mut examples = super::store::read(path, want)?;
            let remarks = label::clean_all(&mut examples, want).into_iter().collect();
            return Ok(Found { examples, remarks });
        }
        // Looking for the encoding takes a reading of its own, and nearly all files are UTF-8.
        if self.encoding.is_none() && !self.skip_bad_lines {
            let file = BufReader::with_capacity(1 << 16, File::open(path).map_err(Error::io(path))?);
            let read = self.examples(decoded(file, path, None)?, path, format, want, Vec::new());
            if read.is_ok() || !guesses(path) {
                return read;
            }
        }
        let mut remarks = Vec::new();
        let reader = open_text(path, self.encoding, &mut remarks)?;
        self.examples(reader, path, format, want, remarks)
    }

    /// As [`Reading::file`], from any reader; `path` is for messages.
    pub fn reader(&self, reader: impl BufRead + Send, path: &Path, want: LabelForm) -> Result<Found> {
        let format = self.format_of(path)?;
        self.examples(decoded(reader, path, self.encoding)?, path, format, want, Vec::new())
    }

    fn format_of(&self, path: &Path) -> Result<Format> {
        self.format.map_or_else(|| Format::of(path), Ok)
    }

    fn examples(
        &self,
        mut reader: impl BufRead,
        path: &Path,
        format: Format,
        want: LabelForm,
        mut remarks: Vec<String>,
    ) -> Result<Found> {
        let fail = |what: &str| Err(Error::data(path, None, what));
        // `datasets` writes questions as JSON lines.
        let is_squad = match (format, want) {
            (Format::Squad, _) | (Format::Json | Format::Jsonl, LabelForm::Answers) => true,
            (Format::Jsonl, LabelForm::Nothing) if self.columns.text_a.is_none() => {
                squad::is_lines(reader.fill_buf().map_err(Error::io(path))?)
            }
            _ => false,
        };
        if want == LabelForm::Answers && !is_squad {
            return fail("--task qa reads SQuAD's .json files (or .jsonl, as `datasets` writes them)");
        }
        let (columns, skip_bad_lines) = (&self.columns, self.skip_bad_lines);
        let names = Default::default();
        let mut json = Json { path, columns, want, skip_bad_lines, remarks: &mut remarks, names };
        let mut examples = match format {
            Format::Store => return fail(NO_STORE),
            _ if is_squad => json.read_questions(reader)?,
            Format::Jsonl => json.read_lines(reader)?,
            Format::Json | Format::Squad => json.read_file(reader)?,
            Format::Tsv | Format::Csv => {
                let mut table = Table { path, columns, want, skip_bad_lines, remarks: &mut remarks };
                match format {
                    Format::Tsv => table.read_tsv(reader)?,
                    _ => table.read_csv(reader, self.delimiter)?,
                }
            }
            Format::Text if want == LabelForm::Nothing => {
                read_text(reader, path, skip_bad_lines, &mut remarks)?
            }
            Format::Text => {
                return fail(
                    "plain text has no labels; it is for --task mlm. If the file is a table, say --format tsv or csv",
                );
            }
            Format::Conll if matches!(want, LabelForm::Tags | LabelForm::Nothing) => {
                let mut problems = Problems::new(path, LINE);
                let examples = conll::read(reader, path, want, columns, &mut problems)?;
                remarks.extend(problems.end(skip_bad_lines)?);
                examples
            }
            Format::Conll => return fail("a file of tagged tokens is for --task tag"),
        };
        if examples.is_empty() {
            return fail("the file is empty");
        }
        remarks.extend(label::clean_all(&mut examples, want));
        Ok(Found { examples, remarks })
    }
}

/// A text a line.
fn read_text(
    reader: impl BufRead,
    path: &Path,
    skip: bool,
    remarks: &mut Vec<String>,
) -> Result<Vec<Example>> {
    let mut lines = Lines::new(reader, path);
    let mut problems = Problems::new(path, LINE);
    let (mut examples, mut any) = (Vec::new(), false);
    loop {
        match problems
            .take(lines.next_line().map(|line| line.map(|(n, text)| (n, text.trim().to_owned()))))?
        {
            Some(None) => break,
            Some(Some((line, text_a))) if !text_a.is_empty() => {
                examples.push(Example { text_a, line, ..Example::default() });
            }
            _ => {}
        }
        any = true;
    }
    remarks.extend(problems.end(skip)?);
    if any && examples.is_empty() {
        return Err(Error::data(path, None, "every line is blank"));
    }
    Ok(examples)
}
