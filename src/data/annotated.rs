//! What labelling tools export, as flat objects: Label Studio's JSON and JSON-MIN, doccano's JSON and JSONL, Prodigy's JSONL.

use super::columns::{Columns, LabelForm};
use super::list;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Keys that labelling tools write, and others may.
const THEIRS: [&str; 10] = [
    "data",
    "annotations",
    "completions",
    "_task_hash",
    "answer",
    "tokens",
    "cats",
    "accept",
    "entities",
    "spans",
];

/// Whether an object has none of the keys by which [`flat`] tells what a tool wrote.
pub(super) fn is_plain(object: &Object) -> bool {
    !THEIRS.iter().any(|key| object.contains_key(*key))
}

/// An object with its texts and its labels at the top. What no labelling tool wrote stays as it is.
///
/// Errors: an annotation that gives no one label, in words.
pub(super) fn flat(mut object: Object, columns: &Columns, want: LabelForm) -> Result<Object, String> {
    if object.get("data").is_some_and(Value::is_object) {
        return task(object, columns, want);
    }
    // Of Prodigy, whose rejected answers have the label that was rejected.
    if want != LabelForm::Nothing
        && object.contains_key("_task_hash")
        && let Some(answer @ ("reject" | "ignore")) = object.get("answer").and_then(Value::as_str)
    {
        return Err(format!("its `answer` is `{answer}`"));
    }
    // Prodigy's tokens are objects beside the text.
    if object.contains_key("text")
        && object
            .get("tokens")
            .and_then(Value::as_array)
            .is_some_and(|tokens| tokens.iter().any(Value::is_object))
    {
        object.remove("tokens");
    }
    if !["label", "labels"].iter().any(|key| object.contains_key(*key))
        && let Some(label) = label_of(&object, want)
    {
        object.insert("label".into(), label);
    }
    // doccano before version 1.5
    if !object.contains_key("text")
        && let Some(text @ Value::String(_)) = object.get("data")
    {
        let text = text.clone();
        object.insert("text".into(), text);
    }
    Ok(object)
}

/// The label of a text where a tool did not call it that. doccano: `cats` of a text with `entities`, `entities` of one with
/// relations, and the `annotations` of its first versions. Prodigy: `accept` and `spans`.
fn label_of(object: &Object, want: LabelForm) -> Option<Value> {
    let list = |key: &str| object.get(key).filter(|value| value.is_array());
    let [cats, accept, entities, spans, annotations] =
        ["cats", "accept", "entities", "spans", "annotations"].map(list);
    match want {
        LabelForm::Tags => entities.or(spans).or(annotations).cloned(),
        _ => cats.or(accept).cloned().or_else(|| {
            let name = |annotation: &Value| match annotation.get("label")? {
                Value::Number(n) => Some(Value::String(n.to_string())),
                label => Some(label.clone()),
            };
            annotations?.as_array()?.iter().map(name).collect::<Option<Vec<Value>>>().map(Value::Array)
        }),
    }
}

/// A task of Label Studio: texts in `data`, answers in `annotations`, each of them from a control of the page.
fn task(mut object: Object, columns: &Columns, want: LabelForm) -> Result<Object, String> {
    let annotations = ["annotations", "completions"].iter().find_map(|key| object.remove(*key));
    let Some(Value::Object(mut flat)) = object.remove("data") else { unreachable!("the caller looked") };
    if let ([], Some(key)) = (
        columns.text_a(want).places(&flat.keys().collect::<Vec<_>>())?.as_slice(),
        only(flat.iter().filter(|(_, v)| v.is_string()).map(|(k, _)| k.clone())),
    ) && !columns.text_a(want).is_named()
    {
        let text = flat[&key].clone();
        flat.insert("text".into(), text);
    }
    let Some(Value::Array(annotations)) = annotations else { return Ok(flat) };
    let is_cancelled = |a: &&Value| a.get("was_cancelled").and_then(Value::as_bool) == Some(true);
    let mut answers: Vec<Object> = Vec::new();
    for annotation in annotations.iter().filter(|a| !is_cancelled(a)) {
        let answer = controls(annotation)?;
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    let answer = match (answers.len(), want) {
        (0, _) | (_, LabelForm::Nothing) => answers.pop().unwrap_or_default(),
        (1, _) => answers.pop().unwrap_or_default(),
        (n, _) => return Err(format!("its annotations disagree: there are {n} different ones")),
    };
    if answer.is_empty() && want != LabelForm::Nothing {
        return Err("it is not annotated".into());
    }
    let label = columns.label(want);
    if !label.is_named() {
        match only(answer.keys().cloned()) {
            Some(key) => drop(flat.insert("label".into(), answer[&key].clone())),
            None if want != LabelForm::Nothing => {
                let controls = list(&answer.keys().collect::<Vec<_>>(), 9);
                return Err(format!("it has answers to {controls}; name one of them with --label-column"));
            }
            None => {}
        }
    }
    flat.extend(answer);
    Ok(flat)
}

/// What an annotation answers, by the name of the control.
fn controls(annotation: &Value) -> Result<Object, String> {
    let mut answers = Object::new();
    let results = annotation.get("result").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for result in results {
        let (Some(name), Some(kind), Some(value)) = (
            result.get("from_name").and_then(Value::as_str),
            result.get("type").and_then(Value::as_str),
            result.get("value"),
        ) else {
            continue; // relations between spans have no value
        };
        match kind {
            "choices" | "rating" | "number" => {
                if let Some(field) = value.get(kind) {
                    answers.insert(name.to_owned(), field.clone());
                }
            }
            // Marked parts of the text, one a result.
            "labels" => {
                let marks = answers.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                marks.as_array_mut().ok_or("one control gives two kinds of answers")?.push(value.clone());
            }
            _ => {
                return Err(format!(
                    "answers of type `{kind}` are not read; choices, labels, ratings and numbers are"
                ));
            }
        }
    }
    Ok(answers)
}

/// The only one of several things.
fn only<T>(mut things: impl Iterator<Item = T>) -> Option<T> {
    things.next().filter(|_| things.next().is_none())
}
