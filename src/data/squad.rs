//! Reads questions about texts: SQuAD 1.1 and 2.0 (one JSON object of articles, paragraphs and their questions), and what
//! Hugging Face `datasets` makes of them (a question with its context in each object, one a line or in an array).

use super::problems::Problems;
use super::problems::json_error;
use super::{Answer, Asked, Example, LabelForm, shorten};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, Read};
use std::path::Path;

/// Longest file read, in bytes: eight times SQuAD's own.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of contexts, of which each question gets a copy: a small file could ask for any amount of memory.
const COPIES_BYTES_MAX: usize = 1 << 30;

/// Any object of such a file: the whole, an article, a paragraph or a question.
#[derive(Deserialize)]
#[serde(expecting = "an object with `data`, as SQuAD has it")]
struct Node {
    data: Option<Vec<Node>>,
    paragraphs: Option<Vec<Node>>,
    qas: Option<Vec<Node>>,
    context: Option<String>,
    question: Option<String>,
    id: Option<Value>,
    answers: Option<Answers>,
    is_impossible: Option<bool>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`answers` should be an array of objects with `text` and `answer_start`, or one object of two arrays"
)]
enum Answers {
    /// SQuAD's.
    Rows(Vec<Gold>),
    /// Of `datasets`.
    Columns { text: Vec<String>, answer_start: Vec<Value> },
}

#[derive(Deserialize)]
struct Gold {
    text: String,
    /// In Unicode characters, as Python counts them.
    answer_start: Option<Value>,
}

impl Answers {
    fn rows(self) -> Vec<Gold> {
        match self {
            Answers::Rows(rows) => rows,
            Answers::Columns { text, answer_start } => {
                let starts = answer_start.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
                text.into_iter().zip(starts).map(|(text, answer_start)| Gold { text, answer_start }).collect()
            }
        }
    }
}

/// Whether a JSON file is one of questions rather than of labelled texts.
pub(super) fn is_squad(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "data")]
        _data: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Any>(json).is_ok() || is_lines(json)
}

/// Whether the first JSON object of these bytes, which may end within it, is a question with its context, as `datasets` writes
/// them.
pub(super) fn is_lines(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let start = start.strip_prefix(b"[").unwrap_or(start);
    let has = |key: &str| start.windows(key.len() + 2).any(|w| w == format!("\"{key}\"").as_bytes());
    match serde_json::Deserializer::from_slice(start).into_iter::<Value>().next() {
        Some(Ok(Value::Object(first))) => {
            let is_there = |key: &&str| first.contains_key(*key);
            let texts = ["text_a", "text", "sentence", "tokens", "words"];
            ["question", "context"].iter().all(is_there) && !texts.iter().any(is_there)
        }
        Some(Err(e)) if e.is_eof() => has("question") && has("context"),
        _ => false,
    }
}

/// Questions as examples: `text_a` is the question, `text_b` its context, `line` the number of the question.
///
/// An answer that does not stand where the file says is taken where it stands, if that is one place. A question is
/// unanswerable if `is_impossible` says so, or if there is no such key and `answers` is empty. Questions with other
/// problems go to `problems`. Without answers wanted, a question may have none.
pub(super) fn read(
    reader: impl BufRead,
    path: &Path,
    want: LabelForm,
    problems: &mut Problems,
) -> Result<Vec<Example>> {
    let fail = |what: String| Error::data(path, None, what);
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(format!("longer than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let Some(first) = json.iter().find(|b| !b.is_ascii_whitespace()) else {
        return Err(fail("the file is empty".into()));
    };
    let bad = |e: serde_json::Error| {
        let kind = if e.is_data() { "not as SQuAD has it" } else { "bad JSON" };
        Error::data(path, Some(e.line()), format!("{kind} at column {}: {}", e.column(), json_error(&e)))
    };
    let mut questions = Questions { path, want, problems, examples: Vec::new(), count: 0, copies_bytes: 0 };
    if *first == b'[' {
        for node in serde_json::from_slice::<Vec<Node>>(json).map_err(bad)? {
            questions.add(node, None)?;
        }
    } else {
        // One object, or one a line.
        for node in serde_json::Deserializer::from_slice(json).into_iter::<Node>() {
            questions.add(node.map_err(bad)?, None)?;
        }
    }
    if questions.count == 0 {
        return Err(fail("there is no question in the file".into()));
    }
    Ok(questions.examples)
}

/// What was found so far.
struct Questions<'a, 'p> {
    path: &'a Path,
    want: LabelForm,
    problems: &'a mut Problems<'p>,
    examples: Vec<Example>,
    /// Questions with and without problems.
    count: usize,
    copies_bytes: usize,
}

impl Questions<'_, '_> {
    /// All of an object; `context` is that of the paragraph it is in.
    fn add(&mut self, mut node: Node, context: Option<&Context>) -> Result<()> {
        let inner = [node.data.take(), node.paragraphs.take()];
        let is_outer = inner.iter().any(Option::is_some);
        for node in inner.into_iter().flatten().flatten() {
            self.add(node, None)?;
        }
        if is_outer {
            return Ok(());
        }
        let own = node.context.take().map(Context::of);
        if let Some(qas) = node.qas.take() {
            let Some(own) = own else {
                return Err(Error::data(
                    self.path,
                    None,
                    "not as SQuAD has it: a paragraph without `context`",
                ));
            };
            return qas.into_iter().try_for_each(|question| self.add(question, Some(&own)));
        }
        let Some(context) = own.as_ref().or(context) else {
            let what = match node.question {
                Some(_) => "not as SQuAD has it: a question without `context`",
                None => "not as SQuAD has it: an object without `data`, `paragraphs`, `qas` or `question`",
            };
            return Err(Error::data(self.path, None, what));
        };
        self.question(node, context)
    }

    fn question(&mut self, node: Node, context: &Context) -> Result<()> {
        self.count += 1;
        let number = self.count;
        let id = match node.id {
            Some(Value::String(id)) => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => number.to_string(),
        };
        let named = |what: String| format!("question `{}` (number {number}): {what}", shorten(&id, 60));
        let asked = match node.question {
            Some(question) => answers_of(node.answers, node.is_impossible, context, self.want)
                .map(|(answers, unanswerable)| (question, answers, unanswerable)),
            None => Err("it has no `question`".into()),
        };
        let (question, answers, unanswerable) = match asked {
            Ok(asked) => asked,
            Err(what) => {
                self.problems.add(number, named(what));
                return Ok(());
            }
        };
        self.copies_bytes += context.text.len();
        if self.copies_bytes > COPIES_BYTES_MAX {
            let what = format!(
                "with a copy of its context for each question there is more than {} MiB of text",
                COPIES_BYTES_MAX >> 20
            );
            return Err(Error::data(self.path, None, named(what)));
        }
        self.examples.push(Example {
            text_a: question,
            text_b: Some(context.text.clone()),
            asked: Some(Box::new(Asked { id, answers, unanswerable })),
            line: number,
            ..Example::default()
        });
        Ok(())
    }
}

/// A text, and where its characters begin.
struct Context {
    text: String,
    starts: Vec<usize>,
}

impl Context {
    fn of(text: String) -> Context {
        let starts = text.char_indices().map(|(byte, _)| byte).collect();
        Context { text, starts }
    }

    /// Where an answer stands. Errors: what is wrong with it.
    fn place(&self, gold: Gold) -> std::result::Result<Answer, String> {
        let Gold { text, answer_start } = gold;
        let claimed = answer_start.as_ref().and_then(position);
        if let Some(&start) = claimed.and_then(|at| self.starts.get(at))
            && !text.is_empty()
            && self.text[start..].starts_with(&text)
        {
            return Ok(Answer { text, start });
        }
        let bare = text.trim();
        if bare.is_empty() {
            return Err("an answer is empty".into());
        }
        let mut found = self.starts.iter().filter(|&&start| self.text[start..].starts_with(bare));
        let shown = shorten(&text, 60);
        let at = match (claimed, &answer_start) {
            (Some(at), _) => format!("at character {at}"),
            (None, Some(other)) => format!("at `{}`", shorten(&other.to_string(), 20)),
            (None, None) => "where the file says, which is nowhere".into(),
        };
        match (found.next(), found.next()) {
            (Some(&start), None) => Ok(Answer { text: bare.to_owned(), start }),
            (None, _) => {
                Err(format!("the answer `{shown}` does not stand {at}, nor anywhere in the context"))
            }
            (Some(_), Some(_)) => {
                let times = found.count() + 2;
                Err(format!(
                    "the answer `{shown}` does not stand {at}, and stands {times} times in the context"
                ))
            }
        }
    }
}

/// A number of characters; pandas makes `27.0` of it.
fn position(value: &Value) -> Option<usize> {
    let whole = |v: f64| (v >= 0.0 && v.fract() == 0.0 && v < 1e15).then_some(v as usize);
    value.as_u64().and_then(|v| usize::try_from(v).ok()).or_else(|| value.as_f64().and_then(whole))
}

/// The answers of a question, and whether it is unanswerable. Errors: what is wrong with them.
fn answers_of(
    answers: Option<Answers>,
    is_impossible: Option<bool>,
    context: &Context,
    want: LabelForm,
) -> std::result::Result<(Vec<Answer>, bool), String> {
    let is_told = answers.is_some();
    let mut rows = answers.map(Answers::rows).unwrap_or_default();
    if is_impossible == Some(true) {
        // Some writers put an empty text there.
        rows.retain(|gold| !gold.text.is_empty());
    }
    match (rows.is_empty(), is_impossible) {
        (true, Some(true)) => return Ok((Vec::new(), true)),
        (true, None) if is_told => return Ok((Vec::new(), true)),
        (true, _) if want != LabelForm::Answers => return Ok((Vec::new(), false)),
        (true, None) => return Err("it has no `answers`; those of an unanswerable question are []".into()),
        (true, Some(false)) => return Err("it has no answer, and `is_impossible` is false".into()),
        (false, Some(true)) => return Err("it has an answer, and `is_impossible` is true".into()),
        (false, _) => {}
    }
    let placed = rows.into_iter().map(|gold| context.place(gold)).collect::<std::result::Result<_, _>>()?;
    Ok((placed, false))
}

#[cfg(test)]
#[path = "squad_tests.rs"]
mod tests;
