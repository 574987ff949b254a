//! Reads questions about texts from SQuAD v1.1 files: one JSON object of articles, paragraphs and their questions.

use super::json::json_error;
use super::{Answer, Asked, Example, Wanted, shorten};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::io::{BufRead, Read};
use std::path::Path;

/// Longest file read, in bytes: eight times SQuAD's own.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of contexts, of which each question gets a copy: a small file could ask for any amount of memory.
const COPIES_BYTES_MAX: usize = 1 << 30;

#[derive(Deserialize)]
#[serde(expecting = "an object with `data`, as SQuAD has it")]
struct Squad {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<Gold>,
}

#[derive(Deserialize)]
struct Gold {
    text: String,
    /// In Unicode characters, as Python counts them.
    answer_start: usize,
}

/// Whether a JSON file is one of questions rather than of labelled texts.
pub(super) fn is_squad(json: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "data")]
        _data: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Any>(json).is_ok()
}

/// Questions as examples: `text_a` is the question, `text_b` its context, `line` the number of the question.
///
/// Each answer must stand in the context where the file says. Without answers wanted, a question may have none.
pub(super) fn read(reader: impl BufRead, path: &Path, want: Wanted) -> Result<Vec<Example>> {
    let fail = |what: String| Error::data(path, None, what);
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(format!("longer than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if json.iter().all(u8::is_ascii_whitespace) {
        return Err(fail("the file is empty".into()));
    }
    let squad: Squad = serde_json::from_slice(json).map_err(|e| {
        let kind = if e.is_data() { "not as SQuAD has it" } else { "bad JSON" };
        Error::data(path, Some(e.line()), format!("{kind} at column {}: {}", e.column(), json_error(&e)))
    })?;

    let (mut examples, mut copies_bytes) = (Vec::new(), 0usize);
    for Paragraph { context, qas } in squad.data.into_iter().flat_map(|article| article.paragraphs) {
        let starts: Vec<usize> = context.char_indices().map(|(byte, _)| byte).collect();
        for Question { id, question, answers } in qas {
            let fail = |what: String| fail(format!("question `{}`: {what}", shorten(&id, 60)));
            if want == Wanted::Answers && answers.is_empty() {
                return Err(fail("there is no answer; every question needs one in its context".into()));
            }
            let placed = |Gold { text, answer_start }: Gold| match starts.get(answer_start) {
                Some(&start) if !text.is_empty() && context[start..].starts_with(&text) => {
                    Ok(Answer { text, start })
                }
                _ => {
                    let text = shorten(&text, 60);
                    Err(fail(format!("the answer `{text}` does not stand at character {answer_start}")))
                }
            };
            let answers = answers.into_iter().map(placed).collect::<Result<_>>()?;
            copies_bytes += context.len();
            if copies_bytes > COPIES_BYTES_MAX {
                return Err(fail(format!(
                    "with a copy of its context for each question there is more than {} MiB of text",
                    COPIES_BYTES_MAX >> 20
                )));
            }
            examples.push(Example {
                text_a: question,
                text_b: Some(context.clone()),
                asked: Some(Asked { id, answers }),
                line: examples.len() + 1,
                ..Example::default()
            });
        }
    }
    if examples.is_empty() {
        return Err(fail("there is no question in the file".into()));
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str, want: Wanted) -> Result<Vec<Example>> {
        read(json.as_bytes(), Path::new("f"), want)
    }

    fn file(qas: &str) -> String {
        format!(
            r#"{{"version":"1.1","data":[{{"title":"t","paragraphs":[{{"context":"Ö is é, né","qas":[{qas}]}}]}}]}}"#
        )
    }

    #[test]
    fn offsets_are_characters_and_become_bytes() {
        let json = file(
            r#"{"id":"1","question":"what?","answers":[{"answer_start":5,"text":"é"},{"text":"né","answer_start":8}]},
               {"id":"2","question":"","answers":[{"answer_start":0,"text":"Ö is"}],"is_impossible":false}"#,
        );
        let got = text(&format!("\u{feff}{json}"), Wanted::Answers).unwrap();
        let answer = |text: &str, start| Answer { text: text.into(), start };
        let example = |line, id: &str, question: &str, answers| Example {
            text_a: question.into(),
            text_b: Some("Ö is é, né".into()),
            label: None,
            asked: Some(Asked { id: id.into(), answers }),
            line,
        };
        let wanted = [
            example(1, "1", "what?", vec![answer("é", 6), answer("né", 10)]),
            example(2, "2", "", vec![answer("Ö is", 0)]),
        ];
        assert_eq!(got, wanted);
        let bare = file(r#"{"id":"1","question":"q"}"#);
        assert_eq!(text(&bare, Wanted::Nothing).unwrap()[0].asked.as_ref().unwrap().answers, []);
        let e = text(&bare, Wanted::Answers).unwrap_err().to_string();
        assert!(e.starts_with("f: question `1`: there is no answer"), "{e}");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let answer = |start: &str, text: &str| {
            file(&format!(
                r#"{{"id":"7","question":"q","answers":[{{"answer_start":{start},"text":"{text}"}}]}}"#
            ))
        };
        for (json, wanted) in [
            (String::new(), "f: the file is empty"),
            ("\u{feff} \n".into(), "f: the file is empty"),
            (r#"{"data":[]}"#.into(), "f: there is no question in the file"),
            (file(""), "f: there is no question in the file"),
            ("{\n".into(), "f:2: bad JSON at column 0: EOF"),
            (
                "3".into(),
                "f:1: not as SQuAD has it at column 1: invalid type: integer `3`, expected an object",
            ),
            ("{}".into(), "f:1: not as SQuAD has it at column 2: missing field `data`"),
            (file(r#"{"id":"1"}"#), "f:1: not as SQuAD has it at column 96: missing field `question`"),
            (answer("6", "é"), "f: question `7`: the answer `é` does not stand at character 6"),
            (answer("99", "é"), "f: question `7`: the answer `é` does not stand at character 99"),
            (answer("8", "né!"), "f: question `7`: the answer `né!` does not stand at character 8"),
            (answer("8", ""), "f: question `7`: the answer `` does not stand at character 8"),
            (answer("-1", "é"), "f:1: not as SQuAD has it"),
            (answer("1e99", "é"), "f:1: not as SQuAD has it"),
            ("[".repeat(100_000), "f:1: "),
            (format!("{{\"data\":{}", "[".repeat(100_000)), "f:1: "),
            (format!("{{\"x\":{}", "[".repeat(100_000)), "f:1: bad JSON"),
            (format!("{{\"x\":{}", "{\"x\":".repeat(100_000)), "f:1: bad JSON"),
        ] {
            let e = text(&json, Wanted::Answers).unwrap_err().to_string();
            assert!(e.starts_with(wanted), "{e}");
        }
        let e = read(
            &b"{\"data\":[{\"paragraphs\":[{\"context\":\"\xff\",\"qas\":[]}]}]}"[..],
            Path::new("f"),
            Wanted::Answers,
        );
        assert!(e.unwrap_err().to_string().contains("unicode"));
    }
}
