//! `config.json` and `1_Pooling/config.json` of a Hugging Face directory.

use crate::config::{Config, Gelu, Pooling};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

type Object = Map<String, Value>;

/// Reads the sizes and choices of a BERT from the text of its `config.json`.
///
/// Fails with [`Error::Unsupported`] on another `model_type`, activation, position embedding or a decoder, and
/// with [`Error::Format`] on a missing key or a size out of bounds.
pub(super) fn read_config(path: &Path, text: &[u8]) -> Result<Config> {
    let json = object(path, text)?;
    let model_type = string(path, &json, "model_type")?;
    if model_type != "bert" {
        return unsupported(path, format!("model_type `{model_type}` is not supported; supported: bert"));
    }
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
    let gelu = match string(path, &json, "hidden_act")? {
        "gelu" => Gelu::Erf,
        "gelu_new" | "gelu_pytorch_tanh" => Gelu::Tanh,
        other => {
            return unsupported(
                path,
                format!(
                    "hidden_act `{other}` is not supported; supported: gelu, gelu_new, gelu_pytorch_tanh"
                ),
            );
        }
    };
    let eps = present(path, &json, "layer_norm_eps")?;
    let Some(eps) = eps.as_f64() else {
        return Err(Error::format(path, format!("`layer_norm_eps` is {eps}; must be a number")));
    };
    let config = Config {
        hidden: size(path, &json, "hidden_size")?,
        intermediate: size(path, &json, "intermediate_size")?,
        layers: size(path, &json, "num_hidden_layers")?,
        heads: size(path, &json, "num_attention_heads")?,
        vocab: size(path, &json, "vocab_size")?,
        max_positions: size(path, &json, "max_position_embeddings")?,
        types: size(path, &json, "type_vocab_size")?,
        layer_norm_eps: eps as f32,
        gelu,
    };
    config.validate(path)?;
    Ok(config)
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
