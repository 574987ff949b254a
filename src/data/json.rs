//! Examples from JSON objects: one a line, or an array of them.

use super::columns::{Column, Columns, LabelForm};
use super::lines::Lines;
use super::problems::{LINE, Problems, QUESTION, json_error};
use super::table::checked;
use super::words::strings;
use super::{Example, annotated, marked, squad};
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
    pub want: LabelForm,
    pub skip_bad_lines: bool,
    /// Where remarks go.
    pub remarks: &'a mut Vec<String>,
    /// Of the object before.
    pub names: Names,
}

impl Json<'_> {
    /// One object a line.
    pub fn read_lines(&mut self, reader: impl BufRead) -> Result<Vec<Example>> {
        let mut lines = Lines::new(reader, self.path);
        let mut problems = Problems::new(self.path, LINE);
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
        match json.trim_ascii_start().first() {
            _ if self.want == LabelForm::Answers || squad::is_squad(json) => self.read_questions(json),
            Some(b'[') => self.read_array(json),
            // One object, over several lines.
            Some(b'{') if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok() => {
                self.read_array(&[b"[", json, b"]"].concat())
            }
            _ => self.read_lines(json),
        }
    }

    /// Questions about texts.
    pub fn read_questions(&mut self, reader: impl BufRead) -> Result<Vec<Example>> {
        if !matches!(self.want, LabelForm::Answers | LabelForm::Nothing) {
            return Err(Error::data(self.path, None, "a file of questions is for --task qa"));
        }
        let mut problems = Problems::new(self.path, QUESTION);
        let examples = squad::read(reader, self.path, self.want, &mut problems)?;
        self.end(examples, problems, true)
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

    fn example(&mut self, value: Value, line: usize) -> Result<Example> {
        let (path, want) = (self.path, self.want);
        let fail = |what: String| Error::data(path, Some(line), what);
        let Value::Object(mut object) = value else {
            return Err(fail(format!("expected a JSON object, found {}", kind(&value))));
        };
        if !self.names.fit(&object) {
            let is_plain = annotated::is_plain(&object);
            if !is_plain {
                object = annotated::flat(object, self.columns, want).map_err(fail)?;
            }
            self.names = Names::of(&object, is_plain, self.columns, want).map_err(fail)?;
        }
        let names = &self.names;
        let text = |names: &[String]| -> Result<String> {
            match names {
                [one] => string(&object, one).map(str::to_owned).map_err(fail),
                several => {
                    let parts: Result<Vec<&str>, String> =
                        several.iter().map(|n| string(&object, n)).collect();
                    Ok(parts.map_err(fail)?.join(" "))
                }
            }
        };
        let sentence = match names.text_a.as_slice() {
            [one] if matches!(want, LabelForm::Tags | LabelForm::Nothing) && object[one].is_array() => {
                words(one, &object[one]).map_err(fail)?
            }
            several => Example { text_a: text(several)?, ..Example::default() },
        };
        let text_b = (!names.text_b.is_empty()).then(|| text(&names.text_b)).transpose()?;
        let label = match names.label.as_ref().map(|key| (key, &object[key])) {
            Some((_, value)) if want == LabelForm::Tags && marked::is_marks(value) => {
                let sentence = marked::sentence(&sentence.text_a, value).map_err(fail)?;
                return Ok(Example { line, ..sentence });
            }
            Some((key, value)) => label(key, value, want).map_err(fail)?,
            None => None,
        };
        let label = checked(label, path, line, want)?;
        Ok(Example { text_b, label, line, ..sentence })
    }
}

/// Which keys of an object hold what. Most objects of a file have the same keys, so that they are looked for once.
#[derive(Default)]
pub(super) struct Names {
    keys: Vec<String>,
    is_plain: bool,
    text_a: Vec<String>,
    text_b: Vec<String>,
    label: Option<String>,
}

impl Names {
    /// Errors: what is missing.
    fn of(
        object: &Map<String, Value>,
        is_plain: bool,
        columns: &Columns,
        want: LabelForm,
    ) -> Result<Names, String> {
        let keys: Vec<&String> = object.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        let missing = |column: &Column| column.missing("no", "object", &keys);
        let [label, text_a, text_b] = [columns.label(want), columns.text_a(want), columns.text_b()];
        let named =
            |places: Vec<usize>| -> Vec<String> { places.into_iter().map(|i| keys[i].clone()).collect() };
        let names = Names {
            keys: object.keys().cloned().collect(),
            is_plain,
            text_a: named(text_a.places(&keys)?),
            text_b: named(text_b.places(&keys)?),
            label: label.place(&keys)?.map(|i| keys[i].clone()),
        };
        match () {
            _ if names.text_a.is_empty() => Err(missing(&text_a)),
            _ if names.text_b.is_empty() && text_b.is_named() => Err(missing(&text_b)),
            _ if names.label.is_none() && want != LabelForm::Nothing => Err(missing(&label)),
            _ => Ok(names),
        }
    }

    /// Whether these are the keys of an object that no tool wrote, with a value each.
    fn fit(&self, object: &Map<String, Value>) -> bool {
        self.is_plain && object.keys().eq(&self.keys) && !object.values().any(Value::is_null)
    }
}

/// The string at a key. Errors: what it is instead.
fn string<'o>(object: &'o Map<String, Value>, key: &str) -> Result<&'o str, String> {
    match &object[key] {
        Value::String(s) if s.contains('\0') => Err(format!("there is a NUL in `{key}`")),
        Value::String(s) => Ok(s),
        Value::Object(_) => Err(format!(
            "`{key}` should be a string but is an object; pandas writes one object a line with to_json(orient='records', \
             lines=True)"
        )),
        other => Err(format!("`{key}` should be a string but is {}", kind(other))),
    }
}

/// A sentence whose words are known one by one. Errors: what is wrong with them.
fn words(key: &str, value: &Value) -> Result<Example, String> {
    match value.as_array().and_then(|words| strings(words)) {
        Some(words) if words.iter().all(|word| !word.is_empty() && !word.contains('\0')) => {
            Ok(Example::of_words(words))
        }
        _ => Err(format!("`{key}` should hold strings that are not empty")),
    }
}

/// A label as it would stand in a table. Errors: what it is instead.
fn label(key: &str, value: &Value, want: LabelForm) -> Result<Option<String>, String> {
    match value {
        Value::String(s) => Ok(Some(s.clone())),
        Value::Bool(b) => Ok(Some(b.to_string())),
        Value::Number(n) if !n.is_f64() || want == LabelForm::Number => Ok(Some(n.to_string())),
        // Labelling tools write a list even where there is one.
        // Label Studio's JSON-MIN writes several choices so.
        Value::Object(inner) if inner.len() == 1 && inner.get("choices").is_some_and(Value::is_array) => {
            self::label(key, &inner["choices"], want)
        }
        Value::Array(labels) if want == LabelForm::Name => match labels.as_slice() {
            [Value::String(one)] => Ok(Some(one.clone())),
            [] => Ok(Some(String::new())),
            [Value::String(_), ..] => Err(format!(
                "`{key}` holds {} labels where one is needed; --task multilabel learns several",
                labels.len()
            )),
            _ => Err(format!("`{key}` should be a string, an integer or a boolean but is an array")),
        },
        Value::Array(labels) if matches!(want, LabelForm::Several | LabelForm::Tags) => {
            let names: Option<Vec<&str>> = labels.iter().map(Value::as_str).collect();
            // They are joined as they stand in a table.
            let (by, what) = if want == LabelForm::Tags { (" ", "spaces") } else { (",", "commas") };
            match names.filter(|names| names.iter().all(|n| !n.contains(by))) {
                Some(names) => Ok(Some(names.join(by))),
                None if want == LabelForm::Tags && labels.iter().any(Value::is_number) => Err(format!(
                    "`{key}` holds numbers; write the tags by their names, which `datasets` has in \
                     features[\"{key}\"].feature.names"
                )),
                None => Err(format!("`{key}` should hold strings without {what}")),
            }
        }
        _ if want == LabelForm::Nothing => Ok(None),
        other => {
            let known = match want {
                LabelForm::Number => "a number",
                LabelForm::Several | LabelForm::Tags => "an array of strings or a string",
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
