//! Examples from JSON objects: one a line, or an array of them.

use super::columns::{Column, Columns, Wanted};
use super::lines::Lines;
use super::problems::Problems;
use super::reading::ended;
use super::table::checked;
use super::words::strings;
use super::{Example, annotated, squad};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::io::{BufRead, Read};
use std::path::Path;

/// Longest file that is read as a whole, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// JSON on its way to examples.
pub(super) struct Json<'a> {
    pub path: &'a Path,
    pub columns: &'a Columns,
    pub want: Wanted,
    pub skip_bad_lines: bool,
    /// Where remarks go.
    pub remarks: &'a mut Vec<String>,
}

impl Json<'_> {
    /// One object a line.
    pub fn read_lines(&mut self, reader: impl BufRead) -> Result<Vec<Example>> {
        let mut lines = Lines::new(reader, self.path);
        let mut problems = Problems::new(self.path, "line");
        let (mut examples, mut any) = (Vec::new(), false);
        loop {
            let Some(next) = problems.take(lines.next_line())? else {
                any = true;
                continue;
            };
            let Some((line, text)) = next else { break };
            any = true;
            let value = serde_json::from_str::<Value>(text).map_err(|e| {
                let what = format!("bad JSON at column {}: {}", e.column(), json_error(&e));
                Error::data(self.path, Some(line), what)
            });
            if let Some(value) = problems.take(value)? {
                examples.extend(problems.take(self.example(value, line))?);
            }
        }
        self.end(examples, problems, any)
    }

    /// A `.json` file: an array of objects, questions as SQuAD has them, or one object a line.
    pub fn read_file(&mut self, reader: impl BufRead) -> Result<Vec<Example>> {
        let (path, fail) = (self.path, |what: String| Error::data(self.path, None, what));
        let mut bytes = Vec::new();
        reader.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(fail(format!(
                "longer than {} MiB; write one object a line, as .jsonl",
                FILE_BYTES_MAX >> 20
            )));
        }
        let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let asks =
            || self.want == Wanted::Nothing && self.columns.text_a.is_none() && squad::asks_questions(json);
        match json.trim_ascii_start().first() {
            _ if self.want == Wanted::Answers || asks() => self.read_questions(json),
            Some(b'[') => self.read_array(json),
            _ if squad::is_squad(json) => match self.want {
                Wanted::Nothing => self.read_questions(json),
                _ => Err(fail("a file of questions is for --task qa".into())),
            },
            _ => self.read_lines(json),
        }
    }

    fn read_questions(&mut self, json: &[u8]) -> Result<Vec<Example>> {
        let mut problems = Problems::new(self.path, "question");
        let examples = squad::read(json, self.path, self.want, &mut problems)?;
        ended(examples, problems, self.skip_bad_lines, self.remarks)
    }

    fn read_array(&mut self, json: &[u8]) -> Result<Vec<Example>> {
        let values: Vec<Value> = serde_json::from_slice(json).map_err(|e| {
            let what = format!("bad JSON at column {}: {}", e.column(), json_error(&e));
            Error::data(self.path, Some(e.line()), what)
        })?;
        let mut problems = Problems::new(self.path, "entry");
        let any = !values.is_empty();
        let mut examples = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            examples.extend(problems.take(self.example(value, i + 1))?);
        }
        self.end(examples, problems, any)
    }

    fn end(&mut self, examples: Vec<Example>, problems: Problems, any: bool) -> Result<Vec<Example>> {
        self.remarks.extend(problems.end(self.skip_bad_lines)?);
        if any && examples.is_empty() {
            return Err(Error::data(self.path, None, "no line can be used"));
        }
        Ok(examples)
    }

    fn example(&self, value: Value, line: usize) -> Result<Example> {
        let (path, want) = (self.path, self.want);
        let fail = |what: String| Error::data(path, Some(line), what);
        let Value::Object(object) = value else {
            return Err(fail(format!("expected a JSON object, found {}", kind(&value))));
        };
        let object = annotated::flat(object, self.columns, want).map_err(fail)?;
        let keys: Vec<&String> = object.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        let missing = |column: &Column| fail(column.missing("no", "object", &keys));
        let text = |column: &Column| -> Result<Option<String>> {
            let mut parts = Vec::new();
            for i in column.places(&keys).map_err(fail)? {
                parts.push(string(&object, keys[i]).map_err(fail)?);
            }
            Ok((!parts.is_empty()).then(|| parts.join(" ")))
        };
        let [text_a, text_b] = [self.columns.text_a_in_json(want), self.columns.text_b()];
        let words = match text_a.places(&keys).map_err(fail)?[..] {
            [i] if matches!(want, Wanted::Tags | Wanted::Nothing) => {
                object[keys[i]].as_array().map(|w| (keys[i], w))
            }
            _ => None,
        };
        let sentence = match words {
            Some((key, words)) => {
                let words =
                    strings(words).filter(|words| words.iter().all(|w| !w.is_empty() && !w.contains('\0')));
                Example::of_words(
                    words.ok_or_else(|| fail(format!("`{key}` should hold strings that are not empty")))?,
                )
            }
            None => Example { text_a: text(&text_a)?.ok_or_else(|| missing(&text_a))?, ..Example::default() },
        };
        let second = text(&text_b)?;
        if second.is_none() && text_b.is_named() {
            return Err(missing(&text_b));
        }
        let column = self.columns.label_in_json(want);
        let label = match column.place(&keys).map_err(fail)?.map(|i| (keys[i], &object[keys[i]])) {
            Some((key, value)) => label(key, value, want).map_err(fail)?,
            None if want != Wanted::Nothing => return Err(missing(&column)),
            None => None,
        };
        let label = checked(label, path, line, want)?;
        Ok(Example { text_b: second, label, line, ..sentence })
    }
}

/// The string at a key. Errors: what it is instead.
fn string<'o>(object: &'o Map<String, Value>, key: &str) -> Result<&'o str, String> {
    match &object[key] {
        Value::String(s) if s.contains('\0') => Err(format!("there is a NUL in `{key}`")),
        Value::String(s) => Ok(s),
        other => Err(format!("`{key}` should be a string but is {}", kind(other))),
    }
}

/// A label as it would stand in a table. Errors: what it is instead.
fn label(key: &str, value: &Value, want: Wanted) -> Result<Option<String>, String> {
    match value {
        Value::String(s) => Ok(Some(s.clone())),
        Value::Bool(b) => Ok(Some(b.to_string())),
        Value::Number(n) if !n.is_f64() || want == Wanted::Number => Ok(Some(n.to_string())),
        // Labelling tools write a list even where there is one.
        Value::Array(labels) if want == Wanted::Name => match labels.as_slice() {
            [Value::String(one)] => Ok(Some(one.clone())),
            [] => Ok(Some(String::new())),
            [Value::String(_), ..] => Err(format!(
                "`{key}` holds {} labels where one is needed; --task multilabel learns several",
                labels.len()
            )),
            _ => Err(format!("`{key}` should be a string, an integer or a boolean but is an array")),
        },
        Value::Array(labels) if matches!(want, Wanted::Several | Wanted::Tags) => {
            let names: Option<Vec<&str>> = labels.iter().map(Value::as_str).collect();
            // They are joined as they stand in a table.
            let (by, what) = if want == Wanted::Tags { (" ", "spaces") } else { (",", "commas") };
            match names.filter(|names| names.iter().all(|n| !n.contains(by))) {
                Some(names) => Ok(Some(names.join(by))),
                None if want == Wanted::Tags && labels.iter().any(Value::is_number) => Err(format!(
                    "`{key}` holds numbers; write the tags by their names, which `datasets` has in \
                     features[\"{key}\"].feature.names"
                )),
                None => Err(format!("`{key}` should hold strings without {what}")),
            }
        }
        _ if want == Wanted::Nothing => Ok(None),
        other => {
            let known = match want {
                Wanted::Number => "a number",
                Wanted::Several | Wanted::Tags => "an array of strings or a string",
                _ => "a string, an integer or a boolean",
            };
            Err(format!("`{key}` should be {known} but is {}", kind(other)))
        }
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
