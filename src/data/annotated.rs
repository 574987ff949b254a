//! What labelling tools export, as flat objects: Label Studio's JSON and JSON-MIN, doccano's JSON and JSONL.

use super::columns::{Columns, Wanted};
use super::list;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// An object with its texts and its labels at the top. What no labelling tool wrote stays as it is.
///
/// Errors: an annotation that gives no one label, in words.
pub(super) fn flat(mut object: Object, columns: &Columns, want: Wanted) -> Result<Object, String> {
    if object.get("data").is_some_and(Value::is_object) {
        return task(object, columns, want);
    }
    // doccano before version 1.5
    if !object.contains_key("text")
        && let Some(text @ Value::String(_)) = object.get("data")
    {
        let text = text.clone();
        object.insert("text".into(), text);
    }
    // JSON-MIN writes several choices as {"choices": [...]}.
    for value in object.values_mut() {
        if let Value::Object(inner) = value
            && inner.len() == 1
            && let Some(choices @ Value::Array(_)) = inner.get_mut("choices")
        {
            *value = choices.take();
        }
    }
    Ok(object)
}

/// A task of Label Studio: texts in `data`, answers in `annotations`, each of them from a control of the page.
fn task(mut object: Object, columns: &Columns, want: Wanted) -> Result<Object, String> {
    let annotations = ["annotations", "completions"].iter().find_map(|key| object.remove(*key));
    let Some(Value::Object(mut flat)) = object.remove("data") else { unreachable!("the caller looked") };
    if let ([], Some(key)) = (
        columns.text_a().places(&flat.keys().collect::<Vec<_>>())?.as_slice(),
        only(flat.iter().filter(|(_, v)| v.is_string()).map(|(k, _)| k.clone())),
    ) && !columns.text_a().is_named()
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
        (0, _) | (_, Wanted::Nothing) => answers.pop().unwrap_or_default(),
        (1, _) => answers.pop().unwrap_or_default(),
        (n, _) => return Err(format!("its annotations disagree: there are {n} different ones")),
    };
    if answer.is_empty() && want != Wanted::Nothing {
        return Err("it is not annotated".into());
    }
    let label = columns.label();
    if !label.is_named() {
        match only(answer.keys().cloned()) {
            Some(key) => drop(flat.insert("label".into(), answer[&key].clone())),
            None if want != Wanted::Nothing => {
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
        let field = match kind {
            "choices" | "rating" | "number" => value.get(kind),
            _ => return Err(format!("answers of type `{kind}` are not read; choices, ratings and numbers are")),
        };
        if let Some(field) = field {
            answers.insert(name.to_owned(), field.clone());
        }
    }
    Ok(answers)
}

/// The only one of several things.
fn only<T>(mut things: impl Iterator<Item = T>) -> Option<T> {
    things.next().filter(|_| things.next().is_none())
}
