//! Whether a tokenizer belongs to a model: its ids are rows of the model's table, and the special tokens that it puts around
//! a text are in its vocabulary.

use super::Inner;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// A tokenizer that fits.
pub(crate) struct Fit {
    vocabulary: HashMap<String, u32>,
    /// Whether it puts special tokens around a text.
    pub has_special_tokens: bool,
}

impl Fit {
    /// Whether the vocabulary has a token, added ones included.
    pub fn knows(&self, token: &str) -> bool {
        self.vocabulary.contains_key(token)
    }
}

/// Checks the tokenizer `json` of the file `path` for a model whose word table has `rows` rows.
///
/// Fails with [`Error::Format`] on a token whose id is no row, and on a special or unknown token that is missing or has two
/// ids.
pub(crate) fn check_fit(json: &[u8], path: &Path, rows: usize) -> Result<Fit> {
    let fail = |what: String| Err(Error::format(path, what));
    let tokenizer =
        Inner::from_bytes(json).map_err(|e| Error::format(path, format!("not a tokenizer: {e}")))?;
    let vocabulary = tokenizer.vocabulary();
    // Of equal ids the first in order of names, so that the message is the same in every run.
    let last = vocabulary.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
    if let Some((token, id)) = last.filter(|(_, id)| **id as usize >= rows) {
        return fail(format!(
            "token {token:?} has id {id}, but the model's table of word embeddings has {rows} rows (`vocab_size`): the \
             tokenizer is not this model's"
        ));
    }
    let parts: Value =
        serde_json::from_slice(json).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
    for (token, id) in around(&parts["post_processor"]) {
        match vocabulary.get(token) {
            None => {
                return fail(format!(
                    "puts the token {token:?} around texts (id {id}), but its vocabulary does not have it"
                ));
            }
            Some(known) if u64::from(*known) != id => {
                return fail(format!(
                    "token {token:?} is {id} in `post_processor`, but {known} in the vocabulary"
                ));
            }
            Some(_) => {}
        }
    }
    // A Unigram model has its number instead.
    if let Some(token) = parts["model"]["unk_token"].as_str()
        && !vocabulary.contains_key(token)
    {
        return fail(format!(
            "its `unk_token` {token:?} is missing in its vocabulary of {} tokens",
            vocabulary.len()
        ));
    }
    Ok(Fit { vocabulary, has_special_tokens: tokenizer.special(false) > 0 })
}

/// The special tokens that a post-processor puts around texts, with the ids that it gives them.
fn around(processor: &Value) -> Vec<(&str, u64)> {
    let pair = |value: &'static str| Some((processor[value][0].as_str()?, processor[value][1].as_u64()?));
    let mut all: Vec<(&str, u64)> = ["cls", "sep"].into_iter().filter_map(pair).collect();
    for special in processor["special_tokens"].as_object().into_iter().flat_map(|all| all.values()) {
        let (tokens, ids) = (special["tokens"].as_array(), special["ids"].as_array());
        let both = tokens.into_iter().flatten().zip(ids.into_iter().flatten());
        all.extend(both.filter_map(|(token, id)| Some((token.as_str()?, id.as_u64()?))));
    }
    all.extend(processor["processors"].as_array().into_iter().flatten().flat_map(around));
    all
}
