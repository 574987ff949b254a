//! `tokenizer.json`, and what `tokenizer_config.json` and sentence-transformers' settings change in it.
//!
//! transformers opens `tokenizer.json` and then has its class set some of it by `tokenizer_config.json`. Done here as in its
//! version 4.57, so that a text has the same tokens: `BertTokenizerFast` and those made after it rebuild the normalizer from
//! `do_lower_case` (true where it is missing), `strip_accents` and `tokenize_chinese_chars`; every class sets
//! `add_prefix_space` (false where it is missing). Without `tokenizer_config.json` the tokenizer stays as it is.

use super::hf_config::{Object, object};
use super::{MAX_CONFIG, read_small, read_tokenizer};
use crate::config::{Config, Family};
use crate::error::{Error, Result};
use crate::tokenize;
use serde_json::{Value, json};
use std::path::Path;

/// A tokenizer as transformers would run it.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    /// `tokenizer.json`, byte for byte where nothing is changed.
    pub json: Vec<u8>,
    /// `model_max_length`, where it is a bound.
    pub max_length: Option<usize>,
    /// What the files disagree about.
    pub warnings: Vec<String>,
}

/// Classes that rebuild BERT's normalizer.
const LIKE_BERT: [&str; 6] = [
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "RetriBertTokenizer",
];
/// Keys of `tokenizer_config.json` that name a special token.
const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl TokenizerFiles {
    /// Reads the tokenizer at `path` and the files beside it; `lower_case` is sentence-transformers' `do_lower_case`.
    ///
    /// Fails with [`Error::Format`] on a file that is broken, and on a tokenizer that does not fit the model
    /// ([`tokenize::check_fit`]).
    pub fn read(path: &Path, config: &Config, lower_case: bool) -> Result<TokenizerFiles> {
        let mut files =
            TokenizerFiles { json: read_tokenizer(path)?, max_length: None, warnings: Vec::new() };
        let beside = path.with_file_name("tokenizer_config.json");
        let said = match beside.exists() {
            true => Some(object(&beside, &read_small(&beside, MAX_CONFIG)?)?),
            false => None,
        };
        if said.is_none() && config.family != Family::Roberta {
            // transformers would take its defaults, which a lost file explains better than intent.
            let tokenizer = parse(path, &files.json)?;
            if tokenizer["normalizer"]["type"] == "BertNormalizer"
                && tokenizer["normalizer"]["lowercase"] == false
            {
                files.warnings.push(format!(
                    "{} does not lower-case, and there is no {}: texts are not lower-cased here, but transformers would \
                     (`do_lower_case` is true by default)",
                    path.display(),
                    beside.display()
                ));
            }
        }
        if let Some(said) = &said {
            files.follow(path, &beside, said, config.family)?;
            // transformers writes 1e30 for "no bound".
            let length = said.get("model_max_length").and_then(Value::as_f64);
            files.max_length = length.filter(|n| (1.0..1e9).contains(n)).map(|n| n as usize);
        }
        if lower_case {
            files.lower_first(path)?;
        }
        let fit = tokenize::check_fit(&files.json, path, config.vocab)?;
        if !fit.has_special_tokens {
            files.warnings.push(format!(
                "{}: puts no special tokens such as [CLS] and [SEP] around a text, which the model has most likely \
                 learned with",
                path.display()
            ));
        }
        for key in SPECIAL {
            let token = said.as_ref().and_then(|said| said.get(key));
            let token = token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
            if let Some(token) = token.filter(|token| !fit.knows(token)) {
                files.warnings.push(format!(
                    "{} names {token:?} as its {key}, but {} has no such token; the latter is used",
                    beside.display(),
                    path.display()
                ));
            }
        }
        Ok(files)
    }

    /// Changes the tokenizer as transformers does by what `tokenizer_config.json` says.
    fn follow(&mut self, path: &Path, beside: &Path, said: &Object, family: Family) -> Result<()> {
        let class = said.get("tokenizer_class").and_then(Value::as_str).unwrap_or(match family {
            Family::Bert | Family::DistilBert | Family::Electra => "BertTokenizer",
            Family::Roberta => "RobertaTokenizer",
        });
        let mut tokenizer = parse(path, &self.json)?;
        let mut differ = Vec::new();
        let like_bert = LIKE_BERT.contains(&class.strip_suffix("Fast").unwrap_or(class));
        if like_bert && tokenizer["normalizer"]["type"] == "BertNormalizer" {
            for (key, ours, default) in [
                ("do_lower_case", "lowercase", json!(true)),
                ("strip_accents", "strip_accents", Value::Null),
                ("tokenize_chinese_chars", "handle_chinese_chars", json!(true)),
            ] {
                let value = flag(beside, said, key, default)?;
                set(&mut tokenizer["normalizer"], ours, key, value, said, &mut differ);
            }
        }
        if tokenizer["pre_tokenizer"].get("add_prefix_space").is_some() {
            let value = flag(beside, said, "add_prefix_space", json!(false))?;
            set(
                &mut tokenizer["pre_tokenizer"],
                "add_prefix_space",
                "add_prefix_space",
                value,
                said,
                &mut differ,
            );
        }
        if !differ.is_empty() {
            self.warnings.push(format!(
                "{} and {} disagree; the first is followed, as transformers does: {}",
                beside.display(),
                path.display(),
                differ.join("; ")
            ));
            self.json = text(&tokenizer)?;
        }
        Ok(())
    }

    /// Puts a step before all others that lower-cases the text, unless one of them does, as sentence-transformers.
    fn lower_first(&mut self, path: &Path) -> Result<()> {
        let mut tokenizer = parse(path, &self.json)?;
        let normalizer = &mut tokenizer["normalizer"];
        if lowers(normalizer) {
            return Ok(());
        }
        let mut steps = vec![json!({ "type": "Lowercase" })];
        match normalizer.take() {
            Value::Null => {}
            Value::Object(mut all) if all.get("type").is_some_and(|t| t == "Sequence") => {
                match all.get_mut("normalizers").map(Value::take) {
                    Some(Value::Array(inner)) => steps.extend(inner),
                    _ => {
                        return Err(Error::format(path, "not a tokenizer: a Sequence without `normalizers`"));
                    }
                }
            }
            other => steps.push(other),
        }
        *normalizer = json!({ "type": "Sequence", "normalizers": steps });
        self.json = text(&tokenizer)?;
        Ok(())
    }
}

/// Whether a normalizer lower-cases somewhere.
fn lowers(normalizer: &Value) -> bool {
    match normalizer.get("type").and_then(Value::as_str) {
        Some("Lowercase") => true,
        Some("BertNormalizer") => normalizer["lowercase"] == true,
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|all| all.iter().any(lowers)),
        _ => false,
    }
}

/// Sets `part[ours]` to `value`, and notes it where that changes it.
fn set(part: &mut Value, ours: &str, key: &str, value: Value, said: &Object, differ: &mut Vec<String>) {
    let now = part.get(ours).cloned().unwrap_or(Value::Null);
    if now != value {
        let default = if said.contains_key(key) { "" } else { " (its default)" };
        differ.push(format!("`{key}` is {value}{default} in the first, `{ours}` {now} in the second"));
        part[ours] = value;
    }
}

/// A setting that is true, false or, where `default` is null, null.
fn flag(path: &Path, said: &Object, key: &str, default: Value) -> Result<Value> {
    match said.get(key) {
        None => Ok(default),
        Some(value) if value.is_boolean() || (value.is_null() && default.is_null()) => Ok(value.clone()),
        Some(value) => Err(Error::format(path, format!("`{key}` is {value}; must be true or false"))),
    }
}

fn parse(path: &Path, json: &[u8]) -> Result<Value> {
    let value: Value =
        serde_json::from_slice(json).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(Error::format(path, "not a tokenizer: it is not a JSON object")),
    }
}

fn text(tokenizer: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(tokenizer).map_err(|e| Error::Internal(format!("tokenizer: {e}")))
}
