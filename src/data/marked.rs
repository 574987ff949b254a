//! Parts of a text that a labelling tool has marked, as tags of its words.

use super::{Example, shorten, split_words};
use serde_json::Value;
use std::ops::Range;

/// A part of a text with a label.
struct Mark {
    /// In characters, as doccano and Python count them, or in UTF-16 units, as a browser does.
    start: usize,
    end: usize,
    label: String,
    /// The part itself, where the file has it.
    text: Option<String>,
}

/// Whether a value is a list of marks: `[start, end, label]`, or objects with such fields.
pub(super) fn is_marks(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|marks| !marks.is_empty() && marks.iter().all(|mark| Mark::of(mark).is_some()))
}

/// A sentence whose words are tagged in BIO: the words of a mark `B-label`, `I-label`, others `O`.
///
/// Errors: a mark that is not in the text, or two of one word, in words.
pub(super) fn sentence(text: &str, marks: &Value) -> Result<Example, String> {
    let mut marks: Vec<Mark> = marks.as_array().into_iter().flatten().filter_map(Mark::of).collect();
    marks.sort_by_key(|mark| mark.start);
    let words = split_words(text);
    let mut at = 0;
    let places: Vec<Range<usize>> = words
        .iter()
        .map(|word| {
            let start =
                at + text[at..].find(word.as_str()).expect("words are parts of the text, in its order");
            at = start + word.len();
            start..at
        })
        .collect();
    let mut tags = vec!["O".to_owned(); words.len()];
    for mark in marks {
        let range = mark.bytes(text)?;
        let inside = |place: &Range<usize>| place.start < range.end && range.start < place.end;
        let mut prefix = "B";
        for (i, _) in places.iter().enumerate().filter(|(_, place)| inside(place)) {
            if tags[i] != "O" {
                return Err(format!("two marks cover `{}`; a word has one tag", shorten(&words[i], 40)));
            }
            tags[i] = format!("{prefix}-{}", mark.label);
            prefix = "I";
        }
        if prefix == "B" {
            return Err(format!("the mark `{}` covers no word", shorten(&mark.label, 40)));
        }
    }
    Ok(Example { label: Some(tags.join(" ")), ..Example::of_words(words) })
}

impl Mark {
    fn of(value: &Value) -> Option<Mark> {
        let number =
            |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let word = |value: Option<&Value>| match value? {
            Value::Number(n) => Some(n.to_string()),
            label => {
                let label = label.as_str()?.trim().replace(char::is_whitespace, "_");
                (!label.is_empty()).then_some(label)
            }
        };
        if let [start, end, label] = value.as_array().map_or(&[][..], Vec::as_slice) {
            let (start, end) = (number(Some(start))?, number(Some(end))?);
            return Some(Mark { start, end, label: word(Some(label))?, text: None });
        }
        let field = |names: [&str; 2]| names.iter().find_map(|name| value.get(name));
        let label = match field(["label", "labels"])? {
            Value::Array(labels) if labels.len() == 1 => word(labels.first())?,
            label => word(Some(label))?,
        };
        let text = value.get("text").and_then(Value::as_str).map(str::to_owned);
        let (start, end) = (number(field(["start", "start_offset"]))?, number(field(["end", "end_offset"]))?);
        Some(Mark { start, end, label, text })
    }

    /// Where it is in the text, in bytes.
    fn bytes(&self, text: &str) -> Result<Range<usize>, String> {
        let by = |width: fn(char) -> usize| {
            let mut units = 0;
            let mut ends: Vec<(usize, usize)> = text
                .char_indices()
                .map(|(byte, c)| {
                    units += width(c);
                    (units - width(c), byte)
                })
                .collect();
            ends.push((units, text.len()));
            let byte = |unit: usize| ends.binary_search_by_key(&unit, |end| end.0).ok().map(|i| ends[i].1);
            let range = byte(self.start)?..byte(self.end)?;
            (range.start < range.end && self.text.as_ref().is_none_or(|t| text[range.clone()] == **t))
                .then_some(range)
        };
        by(|_| 1).or_else(|| by(char::len_utf16)).ok_or_else(|| {
            format!(
                "the mark `{}` from {} to {} is not in the text",
                shorten(&self.label, 40),
                self.start,
                self.end
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tagged(text: &str, marks: Value) -> Result<String, String> {
        assert!(is_marks(&marks));
        let e = sentence(text, &marks)?;
        let tags = e.label.clone().unwrap();
        Ok(e.word_list()
            .iter()
            .zip(tags.split(' '))
            .map(|(w, t)| format!("{w}/{t}"))
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn words_of_a_mark_begin_with_b() {
        let want = "Jo/B-PER Müller/I-PER lives/O in/O Berlin/B-LOC ./O";
        let text = "Jo Müller lives in Berlin.";
        assert_eq!(tagged(text, json!([[0, 9, "PER"], [19, 25, "LOC"]])).unwrap(), want);
        let objects = json!([{"start": 19, "end": 25, "labels": ["LOC"], "text": "Berlin"},
                             {"start_offset": 0, "end_offset": 9, "label": "PER", "id": 3}]);
        assert_eq!(tagged(text, objects).unwrap(), want);
    }

    #[test]
    fn browsers_count_in_utf_16() {
        let marks = json!([{"start": 3, "end": 9, "labels": ["LOC"], "text": "Berlin"}]);
        assert_eq!(tagged("😀 Berlin", marks).unwrap(), "😀/O Berlin/B-LOC");
        assert_eq!(tagged("😀 Berlin", json!([[2, 8, "a b"]])).unwrap(), "😀/O Berlin/B-a_b");
    }

    #[test]
    fn marks_that_do_not_fit() {
        for (marks, words) in [
            (json!([[0, 99, "X"]]), "from 0 to 99 is not in the text"),
            (json!([[1, 1, "X"]]), "is not in the text"),
            (json!([[0, 2, "X"], [1, 4, "Y"]]), "two marks cover `Jo`"),
            (json!([[2, 3, "X"]]), "covers no word"),
            (json!([{"start": 0, "end": 2, "label": "X", "text": "Al"}]), "is not in the text"),
        ] {
            let e = tagged("Jo is here", marks).unwrap_err();
            assert!(e.contains(words), "{e}");
        }
        for other in [json!(["a", "b"]), json!([]), json!("x"), json!([[1, 2]]), json!([{"label": "x"}])] {
            assert!(!is_marks(&other), "{other}");
        }
    }
}
