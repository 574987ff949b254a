//! Examples from tables: a header, then rows of fields, as in .tsv and .csv files.

use super::columns::{Columns, LabelForm};
use super::csv_file::Records;
use super::encoding::skip_mark;
use super::lines::{LINE_BYTES_MAX, Lines};
use super::problems::{LINE, Problems};
use super::{Example, label};
use crate::error::{Error, Result};
use std::io::{BufRead, Cursor, Read};
use std::path::Path;
use std::str::FromStr;

/// What stands between the fields of a CSV file: one character of ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiter(u8);

/// What is tried where the header does not have its columns between commas.
const TRIED: [u8; 4] = [b',', b';', b'\t', b'|'];

impl FromStr for Delimiter {
    type Err = Error;

    fn from_str(s: &str) -> Result<Delimiter> {
        match (s.to_ascii_lowercase().as_str(), s.as_bytes()) {
            ("tab" | "\\t", _) => Ok(Delimiter(b'\t')),
            (_, &[b]) if b.is_ascii() && !b.is_ascii_alphanumeric() && !b"\"\n\r\0".contains(&b) => {
                Ok(Delimiter(b))
            }
            _ => Err(Error::Config(format!(
                "`{s}` cannot stand between fields; name one such as `,` `;` `|` or tab"
            ))),
        }
    }
}

/// Rows of a .tsv file that are looked through for quotes.
const LOOKED_AT: usize = 1000;

/// Rows with the number of the line that each starts on; `None` at the end.
type Next<'n> = &'n mut dyn FnMut() -> Result<Option<(usize, Vec<String>)>>;

/// A table on its way to examples.
pub(super) struct Table<'a> {
    pub path: &'a Path,
    pub columns: &'a Columns,
    pub want: LabelForm,
    pub skip_bad_lines: bool,
    /// Where remarks go.
    pub remarks: &'a mut Vec<String>,
}

impl Table<'_> {
    /// Fields between tabs, no quoting.
    pub fn read_tsv(&mut self, reader: impl BufRead) -> Result<Vec<Example>> {
        let mut lines = Lines::new(reader, self.path);
        let (mut quoted, mut rows) = (0, 0);
        let examples = self.read(false, &mut || {
            let line = lines.next_line()?;
            Ok(line.map(|(n, text)| {
                let is_quoted =
                    |field: &str| field.len() > 1 && field.starts_with('"') && field.ends_with('"');
                if rows < LOOKED_AT {
                    rows += 1;
                    quoted += usize::from(text.split('\t').any(is_quoted));
                }
                (n, text.split('\t').map(str::to_owned).collect())
            }))
        })?;
        if rows > 3 && 2 * quoted > rows {
            self.remarks.push(format!(
                "{}: most rows have fields between quotes, which a .tsv file keeps as they are; if they are no part of the \
                 texts, read it with --format csv --delimiter tab",
                self.path.display()
            ));
        }
        Ok(examples)
    }

    /// Records by RFC 4180; the delimiter is found out unless it is given.
    pub fn read_csv(
        &mut self,
        mut reader: impl BufRead,
        delimiter: Option<Delimiter>,
    ) -> Result<Vec<Example>> {
        let path = self.path;
        let mut first = Vec::new();
        let mut line = 1;
        skip_mark(&mut reader, path)?;
        loop {
            first.clear();
            let n = (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut first);
            if n.map_err(Error::io(path))? == 0 || !first.iter().all(u8::is_ascii_whitespace) {
                break;
            }
            line += 1;
        }
        // Excel writes and reads it.
        let declared = match first.trim_ascii_end() {
            [s, e, p, b'=', delimiter] if [s, e, p].map(u8::to_ascii_lowercase) == *b"sep" => {
                Some(*delimiter)
            }
            b"sep=" if first.starts_with(b"sep=\t") => Some(b'\t'),
            _ => None,
        };
        if declared.is_some() {
            first.clear();
            line += 1;
            (&mut reader)
                .take(LINE_BYTES_MAX as u64)
                .read_until(b'\n', &mut first)
                .map_err(Error::io(path))?;
        }
        let given = delimiter.map(|Delimiter(b)| b).or(declared);
        let delimiter = given.unwrap_or_else(|| self.delimiter_of(&first));
        if given.is_none() && delimiter != b',' {
            let shown = if delimiter == b'\t' { "a tab".into() } else { format!("`{}`", delimiter as char) };
            self.remarks.push(format!("{}: {shown} stands between the fields", path.display()));
        }
        let mut records = Records::new(Cursor::new(first).chain(reader), path, line, delimiter);
        self.read(delimiter == b';', &mut || records.next_record())
    }

    /// What stands between the fields of a header: with it the columns are found, else it makes the most fields.
    fn delimiter_of(&self, header: &[u8]) -> u8 {
        let fields = |delimiter: u8| {
            let mut records = Records::new(header, self.path, 1, delimiter);
            records.next_record().ok().flatten().map_or(Vec::new(), |(_, fields)| fields)
        };
        let found = |delimiter: &&u8| {
            let header = fields(**delimiter);
            let has = |places: Result<Vec<usize>, String>| places.is_ok_and(|places| !places.is_empty());
            has(self.columns.text_a(self.want).places(&header))
                && (self.want == LabelForm::Nothing || has(self.columns.label(self.want).places(&header)))
        };
        if let Some(delimiter) = TRIED.iter().find(found) {
            return *delimiter;
        }
        // Of equals the first.
        *TRIED.iter().rev().max_by_key(|delimiter| fields(**delimiter).len()).expect("some are tried")
    }

    /// Examples from rows, the first of which is the header. With `decimal_comma`, a number may have one.
    fn read(&mut self, decimal_comma: bool, next: Next) -> Result<Vec<Example>> {
        let (path, want) = (self.path, self.want);
        let Some((header_line, header)) = next()? else { return Ok(Vec::new()) };
        let fail = |what: String| Error::data(path, Some(header_line), what);
        let [label, text_a, text_b] =
            [self.columns.label(want), self.columns.text_a(want), self.columns.text_b()];
        let label_at = label.place(&header).map_err(fail)?;
        if label_at.is_none() && want != LabelForm::Nothing {
            return Err(fail(label.missing("no column for the", "header", &header) + hint(&header)));
        }
        let text_a_at = text_a.places(&header).map_err(fail)?;
        if text_a_at.is_empty() {
            return Err(fail(text_a.missing("no column for the", "header", &header) + hint(&header)));
        }
        let text_b_at = text_b.places(&header).map_err(fail)?;
        if text_b_at.is_empty() && text_b.is_named() {
            return Err(fail(text_b.missing("no column for the", "header", &header)));
        }

        let label_is_text = label_at.is_some_and(|i| text_a_at.contains(&i) || text_b_at.contains(&i));
        let mut problems = Problems::new(path, LINE);
        let (mut examples, mut rows) = (Vec::new(), 0);
        loop {
            let row = match next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                read => {
                    rows += 1;
                    problems.take(read)?;
                    continue;
                }
            };
            rows += 1;
            let (line, mut row) = row;
            if row.len() != header.len() {
                let fields = |n: usize| if n == 1 { "1 field".into() } else { format!("{n} fields") };
                problems.add(
                    line,
                    format!("{} where the header has {}", fields(row.len()), fields(header.len())),
                );
                continue;
            }
            // A column may serve twice (`--label-column text`).
            let label = label_at.map(|i| match decimal_comma && want == LabelForm::Number {
                true => row[i].replace(',', "."),
                false if label_is_text => row[i].clone(),
                false => std::mem::take(&mut row[i]),
            });
            let text_b = (!text_b_at.is_empty()).then(|| joined(&text_b_at, &row));
            let text_a = match text_a_at.as_slice() {
                [i] => std::mem::take(&mut row[*i]),
                several => joined(several, &row),
            };
            if let Some(label) = problems.take(checked(label, path, line, want))? {
                examples.push(Example { text_a, text_b, label, line, ..Example::default() });
            }
        }
        if rows == 0 {
            return Err(Error::data(path, None, "there is a header but no example"));
        }
        self.remarks.extend(problems.end(self.skip_bad_lines)?);
        if examples.is_empty() {
            return Err(Error::data(path, None, "no line can be used"));
        }
        Ok(examples)
    }
}

/// The fields at `places`, between spaces; blank ones are left out.
fn joined(places: &[usize], row: &[String]) -> String {
    match places {
        [i] => row[*i].clone(),
        _ => {
            let parts: Vec<&str> =
                places.iter().map(|&i| row[i].trim()).filter(|part| !part.is_empty()).collect();
            parts.join(" ")
        }
    }
}

/// What a header without the wanted columns may be.
fn hint<S: AsRef<str>>(header: &[S]) -> &'static str {
    match header {
        [one] if one.as_ref().contains('\t') => "; there are tabs in it: is the file --format tsv?",
        [one] if one.as_ref().contains([',', ';']) => "; is the file --format csv?",
        _ => "",
    }
}

/// A label that says something; an empty one is an error where labels are wanted, else none.
pub(super) fn checked(
    label: Option<String>,
    path: &Path,
    line: usize,
    want: LabelForm,
) -> Result<Option<String>> {
    match label {
        Some(l) if want == LabelForm::Several && l.trim().is_empty() => Ok(Some(String::new())),
        Some(l) if label::is_blank(&l) || l.contains('\0') => match want {
            LabelForm::Nothing => Ok(None),
            _ => Err(Error::data(path, Some(line), "the label is empty")),
        },
        label => Ok(label),
    }
}
