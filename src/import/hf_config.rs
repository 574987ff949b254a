//! `config.json` and `1_Pooling/config.json` of a Hugging Face directory.

use crate::config::{Config, Family, Gelu, Pooling};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

type Object = Map<String, Value>;

/// Reads the sizes and choices of an encoder from the text of its `config.json`.
///
/// Fails with [`Error::Unsupported`] on another `model_type`, activation, position embedding or a decoder, and
/// with [`Error::Format`] on a missing key or a size out of bounds.
pub(super) fn read_config(path: &Path, text: &[u8]) -> Result<Config> {
    let json = object(path, text)?;
    let model_type = string(path, &json, "model_type")?;
    let Some(family) = Family::ALL.into_iter().find(|f| f.name() == model_type) else {
        let known = Family::ALL.map(Family::name).join(", ");
        return unsupported(path, format!("model_type `{model_type}` is not supported; supported: {known}"));
    };
    let [hidden, intermediate, layers, heads, activation] = family.keys();
    let position = match json.get("position_embedding_type") {
        None | Some(Value::Null) => "absolute",
        Some(_) => string(path, &json, "position_embedding_type")?,
    };
    if position != "absolute" {
        return unsupported(
            path,
            format!("position_embedding_type `{position}` is not supported; supported: absolute"),
        );
    }
    if json.get("is_decoder").and_then(Value::as_bool) == Some(true) {
        return unsupported(path, "is_decoder is true; supported: encoders only".into());
    }
    let gelu = match string(path, &json, activation)? {
        "gelu" => Gelu::Erf,
        "gelu_new" | "gelu_pytorch_tanh" => Gelu::Tanh,
        other => {
            return unsupported(
                path,
                format!(
                    "{activation} `{other}` is not supported; supported: gelu, gelu_new, gelu_pytorch_tanh"
                ),
            );
        }
    };
    let eps = match family {
        // It has no such key.
        Family::DistilBert => 1e-12,
        _ => {
            let eps = present(path, &json, "layer_norm_eps")?;
            let bad = || Error::format(path, format!("`layer_norm_eps` is {eps}; must be a number"));
            eps.as_f64().ok_or_else(bad)?
        }
    };
    let size = |key: &str| size(path, &json, key);
    let hidden = size(hidden)?;
    let config = Config {
        family,
        hidden,
        intermediate: size(intermediate)?,
        layers: size(layers)?,
        heads: size(heads)?,
        vocab: size("vocab_size")?,
        max_positions: size("max_position_embeddings")?,
        first_position: match family {
            Family::Roberta => size("pad_token_id")?.saturating_add(1),
            _ => 0,
        },
        embedding: match family {
            Family::Electra => Some(size("embedding_size")?).filter(|width| *width != hidden),
            _ => None,
        },
        types: if family == Family::DistilBert { 0 } else { size("type_vocab_size")? },
        layer_norm_eps: eps as f32,
        gelu,
    };
    config.validate(path)?;
    Ok(config)
}

/// Whether the last layer of a masked-LM head is the word embeddings: unless the config says no, as in transformers.
pub(super) fn ties_embeddings(path: &Path, text: &[u8]) -> Result<bool> {
    Ok(object(path, text)?.get("tie_word_embeddings").and_then(Value::as_bool) != Some(false))
}

/// Reads how sentence-transformers pools, from the text of `1_Pooling/config.json`.
///
/// Fails with [`Error::Unsupported`] on any other mode than `mean` or `cls`, or several modes at once.
pub(super) fn read_pooling(path: &Path, text: &[u8]) -> Result<Pooling> {
    let json = object(path, text)?;
    let mut modes: Vec<String> = Vec::new();
    for (key, value) in &json {
        // Old files have a flag for each mode, new ones one key with its name.
        match (key.strip_prefix("pooling_mode_"), value) {
            (Some(mode), Value::Bool(true)) => modes.push(mode.replace("_tokens", "").replace("_token", "")),
            (None, Value::String(mode)) if key == "pooling_mode" => modes.push(mode.clone()),
            _ => {}
        }
    }
    modes.sort();
    modes.dedup();
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::Cls),
        [] => Err(Error::format(path, "names no pooling mode; supported: mean, cls")),
        _ => unsupported(
            path,
            format!("pooling mode `{}` is not supported; supported: mean, cls", modes.join("` with `")),
        ),
    }
}

fn unsupported<T>(path: &Path, what: String) -> Result<T> {
    Err(Error::Unsupported { path: path.to_owned(), what })
}

fn object(path: &Path, text: &[u8]) -> Result<Object> {
    serde_json::from_slice(text).map_err(|e| Error::format(path, format!("not a JSON object: {e}")))
}

fn present<'a>(path: &Path, json: &'a Object, key: &str) -> Result<&'a Value> {
    json.get(key).ok_or_else(|| Error::format(path, format!("key `{key}` is missing")))
}

fn string<'a>(path: &Path, json: &'a Object, key: &str) -> Result<&'a str> {
    let value = present(path, json, key)?;
    value.as_str().ok_or_else(|| Error::format(path, format!("`{key}` is {value}; must be a string")))
}

fn size(path: &Path, json: &Object, key: &str) -> Result<usize> {
    let value = present(path, json, key)?;
    let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
    n.ok_or_else(|| Error::format(path, format!("`{key}` is {value}; must be a whole number")))
}
