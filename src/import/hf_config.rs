//! `config.json` and `1_Pooling/config.json` of a Hugging Face directory.

use crate::config::{Config, Family, Gelu, Pooling};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::path::Path;

pub(super) type Object = Map<String, Value>;

/// What a `config.json` says.
#[derive(Debug)]
pub(super) struct Read {
    /// Sizes and choices.
    pub config: Config,
    /// Keys that were missing, for which transformers' default was taken.
    pub defaults: Vec<&'static str>,
}

/// The defaults of transformers' `BertConfig`, `RobertaConfig`, `DistilBertConfig` and `ElectraConfig` (4.57), by the keys
/// of [`Family::keys`] without the activation, then by the keys that all families share.
struct Defaults {
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    vocab: usize,
    pad_token: usize,
}

impl Defaults {
    const MAX_POSITIONS: usize = 512;
    const TYPES: usize = 2;
    const EPS: f64 = 1e-12;
    const ACTIVATION: &str = "gelu";
    /// Of ELECTRA, whose embeddings are narrower.
    const EMBEDDING: usize = 128;

    fn of(family: Family) -> Defaults {
        let bert =
            Defaults { hidden: 768, intermediate: 3072, layers: 12, heads: 12, vocab: 30522, pad_token: 0 };
        match family {
            Family::Bert => bert,
            Family::Roberta => Defaults { vocab: 50265, pad_token: 1, ..bert },
            Family::DistilBert => Defaults { layers: 6, ..bert },
            Family::Electra => Defaults { hidden: 256, intermediate: 1024, heads: 4, ..bert },
        }
    }
}

/// Reads the sizes and choices of an encoder from the text of its `config.json`.
///
/// Missing keys have transformers' defaults. A missing `model_type` is what `architectures` say, else what `family_of_names`
/// makes of the weights.
///
/// Fails with [`Error::Unsupported`] on another `model_type`, activation, position embedding or a decoder, and
/// with [`Error::Format`] on a family that cannot be told, or a size out of bounds.
pub(super) fn read_config(
    path: &Path,
    text: &[u8],
    family_of_names: &dyn Fn() -> Option<Family>,
) -> Result<Read> {
    let json = object(path, text)?;
    let family = match json.contains_key("model_type") {
        true => named_family(path, string(path, &json, "model_type")?)?,
        false => match architecture_family(path, &json)?.or_else(family_of_names) {
            Some(family) => family,
            None => {
                let known = Family::ALL.map(|f| format!("\"{}\"", f.name())).join(", ");
                let what = format!(
                    "key `model_type` is missing, and neither `architectures` nor the tensors' names tell it; add \
                     \"model_type\": one of {known}"
                );
                return Err(Error::format(path, what));
            }
        },
    };
    let defaults = Defaults::of(family);
    let mut taken = Vec::new();
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
    let gelu = match json.contains_key(activation) {
        true => string(path, &json, activation)?,
        false => Defaults::ACTIVATION,
    };
    let gelu = match gelu {
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
    let eps = match (family, json.get("layer_norm_eps")) {
        // It has no such key.
        (Family::DistilBert, _) | (_, None) => Defaults::EPS,
        (_, Some(eps)) => {
            let bad = || Error::format(path, format!("`layer_norm_eps` is {eps}; must be a number"));
            eps.as_f64().ok_or_else(bad)?
        }
    };
    let mut size = |key: &'static str, default: usize| {
        // transformers reads DistilBERT's sizes by BERT's names too (`attribute_map`).
        let found = [key, also_named(family, key)].into_iter().find(|key| json.contains_key(*key));
        match found {
            Some(key) => size(path, &json, key),
            None => {
                taken.push(key);
                Ok(default)
            }
        }
    };
    let width = size(hidden, defaults.hidden)?;
    let config = Config {
        family,
        hidden: width,
        intermediate: size(intermediate, defaults.intermediate)?,
        layers: size(layers, defaults.layers)?,
        heads: size(heads, defaults.heads)?,
        vocab: size("vocab_size", defaults.vocab)?,
        max_positions: size("max_position_embeddings", Defaults::MAX_POSITIONS)?,
        first_position: match family {
            Family::Roberta => size("pad_token_id", defaults.pad_token)?.saturating_add(1),
            _ => 0,
        },
        embedding: match family {
            Family::Electra => Some(size("embedding_size", Defaults::EMBEDDING)?).filter(|e| *e != width),
            _ => None,
        },
        types: if family == Family::DistilBert { 0 } else { size("type_vocab_size", Defaults::TYPES)? },
        layer_norm_eps: eps as f32,
        gelu,
    };
    config.validate(path).map_err(|e| match (e, taken.contains(&heads)) {
        (Error::Format { path, what }, true) => {
            let what = format!("{what} (`{heads}` is missing; {} is transformers' default)", config.heads);
            Error::Format { path, what }
        }
        (e, _) => e,
    })?;
    Ok(Read { config, defaults: taken })
}

/// BERT's name for a key of DistilBERT's; other keys have one name.
fn also_named(family: Family, key: &'static str) -> &'static str {
    match (family, key) {
        (Family::DistilBert, "dim") => "hidden_size",
        (Family::DistilBert, "n_layers") => "num_hidden_layers",
        (Family::DistilBert, "n_heads") => "num_attention_heads",
        _ => key,
    }
}

fn named_family(path: &Path, model_type: &str) -> Result<Family> {
    match Family::ALL.into_iter().find(|f| f.name() == model_type) {
        Some(family) => Ok(family),
        None => {
            let known = Family::ALL.map(Family::name).join(", ");
            unsupported(path, format!("model_type `{model_type}` is not supported; supported: {known}"))
        }
    }
}

/// The family of which `architectures` name a class, such as `BertModel` or `BertForMaskedLM`; `None` where there are none.
fn architecture_family(path: &Path, json: &Object) -> Result<Option<Family>> {
    let Some(class) = json.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str) else {
        return Ok(None);
    };
    let of_family = |family: &Family| {
        let rest = class.strip_prefix(match family {
            Family::Bert => "Bert",
            Family::Roberta => "Roberta",
            Family::DistilBert => "DistilBert",
            Family::Electra => "Electra",
        });
        rest.is_some_and(|rest| rest == "Model" || rest.starts_with("For"))
    };
    match Family::ALL.into_iter().find(of_family) {
        Some(family) => Ok(Some(family)),
        None => {
            unsupported(path, format!("architecture `{class}` is not supported, and `model_type` is missing"))
        }
    }
}

/// The family whose tensors have such names, if no other family has them too.
pub(super) fn family_of_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Family> {
    let any = |prefix: &str| names.clone().any(|name| name.starts_with(prefix));
    let mut found = Family::ALL.into_iter().filter(|f| any(&format!("{}.", f.name())));
    match (found.next(), found.next()) {
        (Some(family), None) => Some(family),
        (Some(_), Some(_)) => None,
        // Without a prefix, BERT, RoBERTa and ELECTRA have the same names but for ELECTRA's projection.
        (None, _) if any("transformer.layer.0.attention.q_lin.") => Some(Family::DistilBert),
        (None, _) if any("embeddings_project.") => Some(Family::Electra),
        (None, _) => None,
    }
}

/// Whether the last layer of a masked-LM head is the word embeddings: unless the config says no, as in transformers.
pub(super) fn ties_embeddings(path: &Path, text: &[u8]) -> Result<bool> {
    Ok(object(path, text)?.get("tie_word_embeddings").and_then(Value::as_bool) != Some(false))
}

/// Reads how sentence-transformers pools, from the text of `1_Pooling/config.json`: [`Pooling::Mean`] or
/// [`Pooling::First`], which it calls `cls`.
///
/// Fails with [`Error::Unsupported`] on any other mode, or several modes at once.
pub(super) fn read_pooling(path: &Path, text: &[u8]) -> Result<Pooling> {
    let json = object(path, text)?;
    let mut modes: Vec<String> = Vec::new();
    for (key, value) in &json {
        // Old files have a flag for each mode, new ones one key with its name, or with the names of several.
        match (key.strip_prefix("pooling_mode_"), value) {
            (Some(mode), Value::Bool(true)) => modes.push(mode.replace("_tokens", "").replace("_token", "")),
            (None, Value::String(mode)) if key == "pooling_mode" => modes.push(mode.replace("_tokens", "")),
            (None, Value::Array(all)) if key == "pooling_mode" => {
                modes.extend(all.iter().map(|mode| mode.as_str().unwrap_or("?").replace("_tokens", "")));
            }
            _ => {}
        }
    }
    modes.sort();
    modes.dedup();
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        [] => Err(Error::format(path, "names no pooling mode; supported: mean, cls")),
        _ => unsupported(
            path,
            format!("pooling mode `{}` is not supported; supported: mean, cls", modes.join("` with `")),
        ),
    }
}

pub(super) fn unsupported<T>(path: &Path, what: String) -> Result<T> {
    Err(Error::Unsupported { path: path.to_owned(), what })
}

pub(super) fn object(path: &Path, text: &[u8]) -> Result<Object> {
    serde_json::from_slice(text).map_err(|e| Error::format(path, format!("not a JSON object: {e}")))
}

fn present<'a>(path: &Path, json: &'a Object, key: &str) -> Result<&'a Value> {
    json.get(key).ok_or_else(|| Error::format(path, format!("key `{key}` is missing")))
}

pub(super) fn string<'a>(path: &Path, json: &'a Object, key: &str) -> Result<&'a str> {
    let value = present(path, json, key)?;
    value.as_str().ok_or_else(|| Error::format(path, format!("`{key}` is {value}; must be a string")))
}

pub(super) fn size(path: &Path, json: &Object, key: &str) -> Result<usize> {
    let value = present(path, json, key)?;
    let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
    n.ok_or_else(|| Error::format(path, format!("`{key}` is {value}; must be a whole number")))
}
