//! What `transformers` wants to know of a tokenizer beside its `tokenizer.json`.

use crate::config::{Config, Family};
use serde_json::{Map, Value, json};

/// Special tokens, by their key in `tokenizer_config.json` and the contents that BERT's and RoBERTa's have.
const SPECIAL: [(&str, [&str; 2]); 5] = [
    ("cls_token", ["[CLS]", "<s>"]),
    ("sep_token", ["[SEP]", "</s>"]),
    ("pad_token", ["[PAD]", "<pad>"]),
    ("unk_token", ["[UNK]", "<unk>"]),
    ("mask_token", ["[MASK]", "<mask>"]),
];

/// `tokenizer_config.json` for the text of a `tokenizer.json`, and the id of its padding token.
///
/// The class is the one that changes nothing: BERT's own would set the lower-casing anew.
pub(super) fn config(tokenizer: &[u8], config: &Config, max_len: usize, words: bool) -> (Value, u64) {
    let parsed: Value = serde_json::from_slice(tokenizer).unwrap_or(Value::Null);
    let id = |content: &str| {
        let added = parsed["added_tokens"].as_array().into_iter().flatten();
        let known = added.filter(|t| t["content"] == content).find_map(|t| t["id"].as_u64());
        known.or_else(|| parsed["model"]["vocab"][content].as_u64())
    };
    let inputs: &[&str] = match config.family {
        Family::Bert | Family::Electra => &["input_ids", "token_type_ids", "attention_mask"],
        Family::Roberta | Family::DistilBert => &["input_ids", "attention_mask"],
    };
    let mut object = Map::from_iter([
        ("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast")),
        ("model_max_length".to_owned(), json!(max_len)),
        ("model_input_names".to_owned(), json!(inputs)),
    ]);
    for (key, contents) in SPECIAL {
        if let Some(content) = contents.into_iter().find(|c| id(c).is_some()) {
            object.insert(key.to_owned(), json!(content));
        }
    }
    // transformers sets this to what is said here, or else to false. As `train` does, words of a tagger have one.
    if let Some(own) = parsed["pre_tokenizer"]["add_prefix_space"].as_bool() {
        object.insert("add_prefix_space".to_owned(), json!(own || words));
    }
    let pad = object.get("pad_token").and_then(|token| id(token.as_str()?));
    // RoBERTa's positions begin behind the padding's id; with another one they would be moved.
    let by_position = config.first_position.checked_sub(1).map(|id| id as u64);
    (Value::Object(object), by_position.or(pad).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gelu;

    #[test]
    fn what_is_in_the_tokenizer_and_nothing_else() {
        let mut bert = Config {
            family: Family::Bert,
            hidden: 4,
            intermediate: 4,
            layers: 1,
            heads: 1,
            vocab: 9,
            max_positions: 8,
            first_position: 0,
            embedding: None,
            types: 2,
            layer_norm_eps: 1e-12,
            gelu: Gelu::Erf,
        };
        let text = br#"{"added_tokens":[{"id":3,"content":"[PAD]"}],"model":{"vocab":{"[CLS]":1}}}"#;
        let (found, pad) = config(text, &bert, 64, true);
        assert_eq!((pad, &found["pad_token"], &found["cls_token"]), (3, &json!("[PAD]"), &json!("[CLS]")));
        assert!(found.get("sep_token").is_none() && found.get("add_prefix_space").is_none(), "{found}");
        assert_eq!(found["model_input_names"].as_array().unwrap().len(), 3);
        bert.family = Family::Roberta;
        bert.first_position = 2;
        let text = br#"{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"added_tokens":[]}"#;
        let (found, pad) = config(text, &bert, 64, true);
        assert_eq!((pad, &found["add_prefix_space"]), (1, &json!(true)));
        assert_eq!(config(text, &bert, 64, false).0["add_prefix_space"], json!(false));
        assert_eq!(config(b"no JSON", &bert, 64, false).1, 1);
    }
}
