//! Reads examples from TSV, CSV, JSON Lines and plain text files.

use super::csv_file::Records;
use super::lines::Lines;
use super::problems::{Problems, Unit};
use super::words::strings;
use super::{Example, conll, list, squad};
use crate::error::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;

/// How a file of examples is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then one row a line; fields between tabs, no quoting: a `"` is a plain character.
    Tsv,
    /// A header, then records, by RFC 4180.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// A token and its tag a line, a blank line behind each sentence.
    Conll,
    /// One JSON object of questions about texts.
    Squad,
    /// A text a line, and no labels; blank lines are none.
    Text,
    /// A [`Store`](super::Store) of examples; its columns are what they are.
    Store,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(s: &str) -> Result<Format> {
        match s.to_ascii_lowercase().as_str() {
            "tsv" => Ok(Format::Tsv),
            "csv" => Ok(Format::Csv),
            "jsonl" | "ndjson" | "json-lines" => Ok(Format::Jsonl),
            "conll" | "bio" | "iob" => Ok(Format::Conll),
            "squad" | "json" => Ok(Format::Squad),
            "text" | "txt" => Ok(Format::Text),
            "store" => Ok(Format::Store),
            _ => Err(Error::Config(format!(
                "unknown format `{s}`; known: tsv, csv, jsonl, conll, squad, text, store"
            ))),
        }
    }
}

impl Format {
    /// The format that the name of `path` tells. Errors: `Error::Data` for any other extension.
    pub fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        extension.parse().map_err(|_| {
            let what = format!(
                "cannot tell the format from the extension `{extension}`; known: .tsv, .csv, .jsonl, .ndjson, \
                 .json-lines, .conll, .json, .txt, .store; say which it is with --format"
            );
            Error::data(path, None, what)
        })
    }
}

/// Which labels a file of examples must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: they are taken where they are found.
    Nothing,
    /// A name for each example.
    Name,
    /// Any number of names for each example: between commas, or in JSON an array.
    Several,
    /// A number for each example.
    Number,
    /// A tag for each token of the text, between spaces as the tokens are, or in JSON an array.
    Tags,
    /// The answers to each question, parts of its context.
    Answers,
}

/// Which columns (or JSON keys) to read; `None` means the usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Usually `label`; of tags also `tags` or `ner_tags`. In a file of tagged tokens the number of the column, from 1, or
    /// its name in CoNLL-U.
    pub label: Option<String>,
    /// Usually `text_a`, `text` or `sentence`, in JSON also `tokens`. In a file of tagged tokens as `label`.
    pub text_a: Option<String>,
    /// Usually `text_b`; a file without it has single texts.
    pub text_b: Option<String>,
    /// Whether lines with problems are left out, rather than refusing the file. A sentence with a bad line is left out whole.
    pub skip_bad_lines: bool,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// All of it, in its order.
    pub examples: Vec<Example>,
    /// What [`Columns::skip_bad_lines`] left out: lines (of questions their numbers), and why.
    pub skipped: Vec<(usize, String)>,
}

const NO_STORE: &str = "a store is a file, and read where trimtab is built with the feature `store`";

const LABEL: &[&str] = &["label"];
const TEXT_A: &[&str] = &["text_a", "text", "sentence"];
const TEXT_B: &[&str] = &["text_b"];
/// The keys of sentences in JSON, as `datasets` has them.
const WORDS: &[&str] = &["tokens", "words"];
const TAGS: &[&str] = &["tags", "ner_tags"];

/// All examples of a file, in its format by name.
///
/// `want` says which labels there must be.
/// Errors: `Error::Io`; `Error::Data` naming the line and what to do.
pub fn read_examples(path: &Path, columns: &Columns, want: Wanted) -> Result<Vec<Example>> {
    read_file(path, Format::of(path)?, columns, want)
}

/// As [`read_examples`], in a given format.
pub fn read_file(path: &Path, format: Format, columns: &Columns, want: Wanted) -> Result<Vec<Example>> {
    find_file(path, format, columns, want).map(|found| found.examples)
}

/// As [`read_file`], with what was left out.
pub fn find_file(path: &Path, format: Format, columns: &Columns, want: Wanted) -> Result<Found> {
    #[cfg(feature = "store")]
    if format == Format::Store {
        return super::store::read(path, want).map(|examples| Found { examples, ..Found::default() });
    }
    let file = File::open(path).map_err(Error::io(path))?;
    find_in(BufReader::with_capacity(1 << 16, file), path, format, columns, want)
}

/// As [`read_file`], from any reader; `path` is for messages.
pub fn read_from(
    reader: impl BufRead,
    path: &Path,
    format: Format,
    columns: &Columns,
    want: Wanted,
) -> Result<Vec<Example>> {
    find_in(reader, path, format, columns, want).map(|found| found.examples)
}

fn find_in(
    mut reader: impl BufRead,
    path: &Path,
    format: Format,
    columns: &Columns,
    want: Wanted,
) -> Result<Found> {
    // `datasets` writes questions as JSON lines.
    let is_squad = match (format, want) {
        (Format::Squad, _) | (Format::Jsonl, Wanted::Answers) => true,
        (Format::Jsonl, Wanted::Nothing) if columns.text_a.is_none() => {
            asks_questions(reader.fill_buf().map_err(Error::io(path))?)
        }
        _ => false,
    };
    if (want == Wanted::Answers && !is_squad)
        || (format == Format::Squad && !matches!(want, Wanted::Answers | Wanted::Nothing))
    {
        let what = "--task qa reads SQuAD's .json files (or .jsonl, as `datasets` writes them), and no other task does";
        return Err(Error::data(path, None, what));
    }
    let mut problems = Problems::default();
    let unit = if is_squad { Unit::Question } else { Unit::Line };
    let examples = match format {
        Format::Store => return Err(Error::data(path, None, NO_STORE)),
        _ if is_squad => squad::read(reader, path, want, &mut problems)?,
        Format::Squad => unreachable!("a file of questions"),
        Format::Tsv => {
            let mut lines = Lines::new(reader, path);
            read_table(path, columns, want, || {
                let line = lines.next_line()?;
                Ok(line.map(|(n, text)| (n, text.split('\t').map(str::to_owned).collect())))
            })?
        }
        Format::Csv => {
            let mut records = Records::new(reader, path);
            read_table(path, columns, want, || records.next_record())?
        }
        Format::Jsonl => read_jsonl(reader, path, columns, want)?,
        Format::Text if want == Wanted::Nothing => read_text(reader, path)?,
        Format::Text => {
            return Err(Error::data(path, None, "plain text has no labels; it is for --task mlm"));
        }
        Format::Conll if matches!(want, Wanted::Tags | Wanted::Nothing) => {
            conll::read(reader, path, want, columns, &mut problems)?
        }
        Format::Conll => {
            return Err(Error::data(path, None, "a file of tagged tokens is for --task tag"));
        }
    };
    let skipped = problems.resolve(path, unit, columns.skip_bad_lines)?;
    if examples.is_empty() {
        let what = match skipped.is_empty() {
            true => "the file is empty".to_owned(),
            false => format!("nothing can be used: each of {} lines has a problem", skipped.len()),
        };
        return Err(Error::data(path, None, what));
    }
    Ok(Found { examples, skipped })
}

/// Whether the first JSON object of these bytes, which may end within it, is a question with its context.
fn asks_questions(start: &[u8]) -> bool {
    let has = |key: &str| start.windows(key.len() + 2).any(|w| w == format!("\"{key}\"").as_bytes());
    match serde_json::Deserializer::from_slice(start).into_iter::<Value>().next() {
        Some(Ok(Value::Object(first))) => {
            let is_there = |key: &&str| first.contains_key(*key);
            ["question", "context"].iter().all(is_there) && !TEXT_A.iter().chain(WORDS).any(is_there)
        }
        Some(Err(e)) if e.is_eof() => has("question") && has("context"),
        _ => false,
    }
}

/// A text a line.
fn read_text(reader: impl BufRead, path: &Path) -> Result<Vec<Example>> {
    let mut lines = Lines::new(reader, path);
    let (mut examples, mut any) = (Vec::new(), false);
    while let Some((line, text)) = lines.next_line()? {
        any = true;
        let text_a = text.trim().to_owned();
        if !text_a.is_empty() {
            examples.push(Example { text_a, line, ..Example::default() });
        }
    }
    if any && examples.is_empty() {
        return Err(Error::data(path, None, "every line is blank"));
    }
    Ok(examples)
}

/// Examples from rows of fields, the first of which is the header.
fn read_table(
    path: &Path,
    columns: &Columns,
    want: Wanted,
    mut next: impl FnMut() -> Result<Option<(usize, Vec<String>)>>,
) -> Result<Vec<Example>> {
    let Some((header_line, header)) = next()? else { return Ok(Vec::new()) };
    let find = |wanted: &Option<String>, usual: &[&str]| -> Result<Option<usize>> {
        let named: Vec<&str> = wanted.as_deref().map_or(usual.to_vec(), |name| vec![name]);
        for name in named {
            let mut at = (0..header.len()).filter(|&i| header[i] == name);
            if let Some(i) = at.next() {
                if at.next().is_some() {
                    let what = format!("the header has two columns `{name}`");
                    return Err(Error::data(path, Some(header_line), what));
                }
                return Ok(Some(i));
            }
        }
        Ok(None)
    };
    let missing = |what: &str, wanted: &Option<String>, usual: &[&str], flag: &str| {
        let names = wanted.as_deref().map_or(list(usual, 9), |name| list(&[name], 1));
        let what = format!(
            "no column for the {what} (looked for {names}); the header has {}; name one with {flag}",
            list(&header, 20)
        );
        Error::data(path, Some(header_line), what)
    };
    let label = find(&columns.label, LABEL)?;
    if label.is_none() && want != Wanted::Nothing {
        return Err(missing("label", &columns.label, LABEL, "--label-column"));
    }
    let text_a = find(&columns.text_a, TEXT_A)?
        .ok_or_else(|| missing("text", &columns.text_a, TEXT_A, "--text-column"))?;
    let text_b = find(&columns.text_b, TEXT_B)?;
    if text_b.is_none() && columns.text_b.is_some() {
        return Err(missing("second text", &columns.text_b, TEXT_B, "--text-b-column"));
    }

    let mut examples = Vec::new();
    while let Some((line, mut row)) = next()? {
        if row.len() != header.len() {
            let fields = |n: usize| if n == 1 { "1 field".into() } else { format!("{n} fields") };
            let what = format!("{} where the header has {}", fields(row.len()), fields(header.len()));
            return Err(Error::data(path, Some(line), what));
        }
        // A column may serve twice (`--label-column text`), so only the texts move out, and last.
        let label = label.map(|i| row[i].clone());
        let text_b = text_b.map(|i| row[i].clone());
        let text_a = std::mem::take(&mut row[text_a]);
        let label = checked(label, path, line, want)?;
        examples.push(Example { text_a, text_b, label, line, ..Example::default() });
    }
    if examples.is_empty() {
        return Err(Error::data(path, None, "there is a header but no example"));
    }
    Ok(examples)
}

fn read_jsonl(reader: impl BufRead, path: &Path, columns: &Columns, want: Wanted) -> Result<Vec<Example>> {
    let mut lines = Lines::new(reader, path);
    let mut examples = Vec::new();
    while let Some((line, text)) = lines.next_line()? {
        let fail = |what: String| Error::data(path, Some(line), what);
        let object = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(object)) => object,
            Ok(other) => return Err(fail(format!("expected a JSON object, found {}", kind(&other)))),
            Err(e) => return Err(fail(format!("bad JSON at column {}: {}", e.column(), json_error(&e)))),
        };
        let find = |wanted: &Option<String>, usual: &[&str]| {
            let named: Vec<&str> = wanted.as_deref().map_or(usual.to_vec(), |name| vec![name]);
            named.into_iter().find_map(|n| object.get_key_value(n)).filter(|(_, v)| !v.is_null())
        };
        let missing = |what: &str, wanted: &Option<String>, usual: &[&str], flag: &str| {
            let names = wanted.as_deref().map_or(list(usual, 9), |name| list(&[name], 1));
            let keys: Vec<&String> = object.keys().collect();
            let keys = if keys.is_empty() { "no key".into() } else { list(&keys, 20) };
            fail(format!("no {what} (looked for {names}); the object has {keys}; name one with {flag}"))
        };
        let string = |(key, value): (&String, &Value)| match value {
            Value::String(s) if s.contains('\0') => Err(fail(format!("there is a NUL in `{key}`"))),
            Value::String(s) => Ok(s.clone()),
            other => Err(fail(format!("`{key}` should be a string but is {}", kind(other)))),
        };
        let takes_words = matches!(want, Wanted::Tags | Wanted::Nothing);
        let usual_texts = match want {
            Wanted::Tags => [WORDS, TEXT_A].concat(),
            Wanted::Nothing => [TEXT_A, WORDS].concat(),
            _ => TEXT_A.to_vec(),
        };
        let text_a = find(&columns.text_a, &usual_texts)
            .ok_or_else(|| missing("text", &columns.text_a, &usual_texts, "--text-column"))?;
        let sentence = match text_a.1 {
            Value::Array(words) if takes_words => match strings(words) {
                Some(words) if words.iter().all(|w| !w.is_empty() && !w.contains('\0')) => {
                    Example::of_words(words)
                }
                _ => return Err(fail(format!("`{}` should hold strings that are not empty", text_a.0))),
            },
            _ => Example { text_a: string(text_a)?, ..Example::default() },
        };
        let text_b = find(&columns.text_b, TEXT_B).map(string).transpose()?;
        if text_b.is_none() && columns.text_b.is_some() {
            return Err(missing("second text", &columns.text_b, TEXT_B, "--text-b-column"));
        }
        let usual_labels = [LABEL, if want == Wanted::Tags { TAGS } else { &[] }].concat();
        let label = match find(&columns.label, &usual_labels) {
            Some((_, Value::String(s))) => Some(s.clone()),
            Some((_, Value::Bool(b))) => Some(b.to_string()),
            Some((_, Value::Number(n))) if !n.is_f64() || want == Wanted::Number => Some(n.to_string()),
            Some((key, Value::Array(labels))) if matches!(want, Wanted::Several | Wanted::Tags) => {
                let names: Option<Vec<&str>> = labels.iter().map(Value::as_str).collect();
                // They are joined as they stand in a table.
                let (by, what) = if want == Wanted::Tags { (" ", "spaces") } else { (",", "commas") };
                match names.filter(|names| names.iter().all(|n| !n.contains(by))) {
                    Some(names) => Some(names.join(by)),
                    None if want == Wanted::Tags && labels.iter().any(Value::is_number) => {
                        let what = format!(
                            "`{key}` holds numbers; write the tags by their names, which `datasets` has in \
                             features[\"{key}\"].feature.names"
                        );
                        return Err(fail(what));
                    }
                    None => return Err(fail(format!("`{key}` should hold strings without {what}"))),
                }
            }
            Some((key, other)) if want != Wanted::Nothing => {
                let known = match want {
                    Wanted::Number => "a number",
                    Wanted::Several | Wanted::Tags => "an array of strings or a string",
                    _ => "a string, an integer or a boolean",
                };
                return Err(fail(format!("`{key}` should be {known} but is {}", kind(other))));
            }
            None if want != Wanted::Nothing => {
                return Err(missing("label", &columns.label, &usual_labels, "--label-column"));
            }
            _ => None,
        };
        let label = checked(label, path, line, want)?;
        examples.push(Example { text_b, label, line, ..sentence });
    }
    Ok(examples)
}

/// A label that says something; an empty one is an error where labels are wanted, else none.
fn checked(label: Option<String>, path: &Path, line: usize, want: Wanted) -> Result<Option<String>> {
    match label {
        Some(l) if want == Wanted::Several && l.trim().is_empty() => Ok(Some(String::new())),
        Some(l) if l.trim().is_empty() || l.contains('\0') => match want {
            Wanted::Nothing => Ok(None),
            _ => Err(Error::data(path, Some(line), "the label is empty")),
        },
        label => Ok(label),
    }
}

/// What a JSON value is, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// serde_json's message without its "at line 1 column n": a line of the file may be its line 1.
pub(super) fn json_error(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(format: Format, text: &str, columns: &Columns, want: Wanted) -> Result<Vec<Example>> {
        read_from(text.as_bytes(), Path::new("f"), format, columns, want)
    }

    fn read(format: Format, text: &str) -> Result<Vec<Example>> {
        read_as(format, text, &Columns::default(), Wanted::Name)
    }

    fn error(format: Format, text: &str) -> String {
        read(format, text).unwrap_err().to_string()
    }

    fn example(line: usize, label: &str, a: &str, b: Option<&str>) -> Example {
        Example {
            text_a: a.into(),
            text_b: b.map(Into::into),
            label: Some(label.into()),
            line,
            ..Example::default()
        }
    }

    #[test]
    fn tsv_has_no_quoting() {
        let got = read(Format::Tsv, "\u{feff}label\ttext_a\ttext_b\r\n\r\nx\t\"a\tb \\t\r\ny\t\té").unwrap();
        assert_eq!(got, [example(3, "x", "\"a", Some("b \\t")), example(4, "y", "", Some("é"))]);
    }

    #[test]
    fn csv_quotes() {
        let got = read(Format::Csv, "text,label,id\n\"a, \"\"b\"\"\nc\",x,1\nd,y,2\n").unwrap();
        assert_eq!(got, [example(2, "x", "a, \"b\"\nc", None), example(4, "y", "d", None)]);
    }

    #[test]
    fn jsonl_labels_of_three_kinds() {
        let text = "{\"text\": \"a\", \"label\": 3}\n\n{\"label\": true, \"text_a\": \"b\", \"text_b\": \"c\"}\n\
                    {\"sentence\": \"\\u00e9\\n\", \"label\": \"x\", \"text_b\": null}";
        let got = read(Format::Jsonl, text).unwrap();
        let want =
            [example(1, "3", "a", None), example(3, "true", "b", Some("c")), example(4, "x", "é\n", None)];
        assert_eq!(got, want);
    }

    #[test]
    fn jsonl_of_tokens_and_tags() {
        let read = |line: &str, want| read_as(Format::Jsonl, line, &Columns::default(), want);
        let line =
            |key: &str| format!(r##"{{"id":"0","tokens":["New York","is","#"],"{key}":["B-x","O","O"]}}"##);
        for key in ["tags", "ner_tags", "label"] {
            let got = read(&line(key), Wanted::Tags).unwrap();
            assert_eq!(got[0].word_list(), ["New York", "is", "#"]);
            assert_eq!((got[0].text_a.as_str(), got[0].label.as_deref()), ("New York is #", Some("B-x O O")));
        }
        assert_eq!(read(&line("tags"), Wanted::Nothing).unwrap()[0].word_list().len(), 3);
        for (text, wanted) in [
            (
                r#"{"tokens":["a"],"ner_tags":[3]}"#,
                "f:1: `ner_tags` holds numbers; write the tags by their names",
            ),
            (
                r#"{"tokens":["a",""],"tags":["O","O"]}"#,
                "f:1: `tokens` should hold strings that are not empty",
            ),
            (
                r#"{"tokens":["a",1],"tags":["O","O"]}"#,
                "f:1: `tokens` should hold strings that are not empty",
            ),
            (r#"{"tokens":["a"]}"#, "f:1: no label (looked for `label`, `tags`, `ner_tags`)"),
            (
                r#"{"words_":["a"]}"#,
                "f:1: no text (looked for `tokens`, `words`, `text_a`, `text`, `sentence`)",
            ),
        ] {
            let e = read(text, Wanted::Tags).unwrap_err().to_string();
            assert!(e.starts_with(wanted), "{e}");
        }
        assert!(error(Format::Jsonl, &line("label")).contains("no text"), "texts of other tasks are strings");
    }

    #[test]
    fn questions_as_json_lines() {
        let line =
            r#"{"id":"7","context":"Ö is","question":"q","answers":{"text":["is"],"answer_start":[2]}}"#;
        for want in [Wanted::Answers, Wanted::Nothing] {
            let got = read_as(Format::Jsonl, line, &Columns::default(), want).unwrap();
            let e = &got[0];
            assert_eq!((&e.text_a[..], e.text_b.as_deref()), ("q", Some("Ö is")));
            assert_eq!(e.asked.as_ref().unwrap().answers[0].start, 3);
        }
        // A text of another task that has such keys too.
        let line = r#"{"text":"t","context":"c","question":"q"}"#;
        let got = read_as(Format::Jsonl, line, &Columns::default(), Wanted::Nothing).unwrap();
        assert_eq!(got[0].text_a, "t");
        assert!(asks_questions(br#"{"context":"c","question":"q","answers":{"#));
        assert!(!asks_questions(b""));
    }

    #[test]
    fn columns_by_name_and_files_without_labels() {
        let columns = Columns {
            label: Some("y".into()),
            text_a: Some("q".into()),
            text_b: Some("p".into()),
            ..Columns::default()
        };
        let text = "p\tq\ty\tlabel\n1\t2\t3\t4\n";
        let want = [example(2, "3", "2", Some("1"))];
        assert_eq!(read_as(Format::Tsv, text, &columns, Wanted::Name).unwrap(), want);
        let plain = Columns::default();
        for text in ["text\na\n", "text\tlabel\na\t\n"] {
            assert_eq!(read_as(Format::Tsv, text, &plain, Wanted::Nothing).unwrap()[0].label, None);
        }
        let text = "{\"text\":\"a\",\"label\":0.5}";
        assert_eq!(read_as(Format::Jsonl, text, &plain, Wanted::Nothing).unwrap()[0].label, None);
    }

    #[test]
    fn missing_columns_are_named_with_their_flag() {
        let e = error(Format::Tsv, "kind\ttext\na\tb\n");
        let want = "f:1: no column for the label (looked for `label`); the header has `kind`, `text`; \
                    name one with --label-column";
        assert_eq!(e, want);
        assert!(error(Format::Csv, "label,words\na,b\n").ends_with("name one with --text-column"));
        assert!(error(Format::Jsonl, "{\"text\":\"a\"}").ends_with("name one with --label-column"));
        assert!(error(Format::Jsonl, "{}").contains("the object has no key"));
        let columns = Columns { text_b: Some("other".into()), ..Columns::default() };
        for (format, text) in
            [(Format::Tsv, "label\ttext\na\tb\n"), (Format::Jsonl, "{\"label\":1,\"text\":\"\"}")]
        {
            let e = read_as(format, text, &columns, Wanted::Name).unwrap_err().to_string();
            assert!(e.contains("`other`") && e.ends_with("--text-b-column"), "{e}");
        }
        assert!(error(Format::Tsv, "label\ttext\ttext\na\tb\tc").contains("two columns `text`"));
    }

    #[test]
    fn bad_rows_are_placed() {
        let head = "label\ttext\n";
        assert_eq!(error(Format::Tsv, ""), "f: the file is empty");
        assert_eq!(error(Format::Csv, "\n\n"), "f: the file is empty");
        assert_eq!(error(Format::Jsonl, "  \n"), "f: the file is empty");
        assert_eq!(error(Format::Tsv, head), "f: there is a header but no example");
        let bad = |row: &str| error(Format::Tsv, &format!("{head}a\tb\n{row}\n"));
        assert_eq!(bad("a\tb\tc"), "f:3: 3 fields where the header has 2 fields");
        assert_eq!(bad("a"), "f:3: 1 field where the header has 2 fields");
        assert_eq!(bad("\tb"), "f:3: the label is empty");
        assert_eq!(bad(" \tb"), "f:3: the label is empty");
        assert_eq!(error(Format::Csv, "label,text\na,b,c\n"), "f:2: 3 fields where the header has 2 fields");
    }

    #[test]
    fn bad_json_is_placed() {
        let bad = |line: &str| error(Format::Jsonl, &format!("{{\"text\":\"a\",\"label\":1}}\n{line}"));
        assert!(bad("{\"text\":").starts_with("f:2: bad JSON at column 8: EOF"), "{}", bad("{\"text\":"));
        assert_eq!(bad("[1]"), "f:2: expected a JSON object, found an array");
        assert_eq!(bad("{\"text\":1,\"label\":1}"), "f:2: `text` should be a string but is an integer");
        let want = "f:2: `label` should be a string, an integer or a boolean but is a number with a fraction";
        assert_eq!(bad("{\"text\":\"a\",\"label\":0.5}"), want);
        assert_eq!(bad("{\"text\":\"\\u0000\",\"label\":1}"), "f:2: there is a NUL in `text`");
        let deep = "[".repeat(100_000);
        assert!(bad(&deep).contains("recursion limit"));
    }

    #[test]
    fn plain_text_is_a_text_a_line() {
        let read = |text: &str| read_as(Format::Text, text, &Columns::default(), Wanted::Nothing);
        let got = read("\u{feff}one\ttwo\r\n\n \t \n  = é =\nlast").unwrap();
        let got: Vec<(usize, &str)> = got.iter().map(|e| (e.line, &e.text_a[..])).collect();
        assert_eq!(got, [(1, "one\ttwo"), (4, "= é ="), (5, "last")]);
        for (text, wanted) in [
            ("", "f: the file is empty"),
            (" \n\n", "f: the file is empty"),
            ("\t\n", "f: every line is blank"),
        ] {
            assert_eq!(read(text).unwrap_err().to_string(), wanted);
        }
        assert_eq!(error(Format::Text, "a"), "f: plain text has no labels; it is for --task mlm");
    }

    #[test]
    fn format_by_extension_or_flag() {
        assert_eq!(Format::of(Path::new("a/b.TSV")).unwrap(), Format::Tsv);
        assert_eq!("ndjson".parse::<Format>().unwrap(), Format::Jsonl);
        let e = Format::of(Path::new("a.doc")).unwrap_err().to_string();
        assert!(e.contains("`doc`") && e.contains(".jsonl") && e.contains("--format"), "{e}");
        assert!(Format::of(Path::new("a")).is_err());
        assert!(matches!("xml".parse::<Format>(), Err(Error::Config(_))));
        let missing = read_examples(Path::new("no/such/file.tsv"), &Columns::default(), Wanted::Name);
        assert!(matches!(missing, Err(Error::Io { .. })));
    }
}
