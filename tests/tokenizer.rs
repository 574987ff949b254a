//! The text encoder gives the ids that PyTorch was given for the golden data.

use std::path::Path;
use trimtab::tokenize::TextEncoder;

#[test]
fn ids_and_types_equal_the_golden_ones() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let path = dir.join("tiny-bert/tokenizer.json");
    let encoder = TextEncoder::from_bytes(&std::fs::read(&path).unwrap(), &path, 64, 167, 2).unwrap();

    let bytes = std::fs::read(dir.join("tiny-bert-cls.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let texts = &metadata.metadata().as_ref().unwrap()["texts"];
    let texts: Vec<(String, Option<String>, usize)> = serde_json::from_str(texts).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rows = |name: &str| -> Vec<Vec<i32>> {
        let t = tensors.tensor(name).unwrap();
        let values: Vec<i32> =
            t.data().chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as i32).collect();
        values.chunks(t.shape()[1]).map(<[i32]>::to_vec).collect()
    };
    let (ids, types) = (rows("input.input_ids"), rows("input.token_type_ids"));
    assert_eq!(texts.len(), ids.len());
    for (i, (a, b, _)) in texts.iter().enumerate() {
        let encoded = encoder.encode(a, b.as_deref()).unwrap();
        let n = encoded.ids.len();
        assert_eq!(encoded.ids, ids[i][..n], "{a}");
        assert_eq!(encoded.types, types[i][..n], "{a}");
        assert!(ids[i][n..].iter().all(|&id| id == 0), "{a}");
    }
}

/// What fuzzing found in the tokenizers library: it panics on these.
#[test]
fn broken_tokenizers_are_errors() {
    let open = |json: &str| TextEncoder::from_bytes(json.as_bytes(), Path::new("t.json"), 16, 32, 2);
    for json in [r#"{"version":"1.0","decoder":l"#, r#"{"decoder":"#] {
        let error = open(json).err().expect("it is broken").to_string();
        assert!(error.starts_with("t.json: not a tokenizer"), "{error}");
    }
    // A template with a token that it does not tell the id of.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-bert/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    json["post_processor"]["special_tokens"].as_object_mut().unwrap().remove("[SEP]").unwrap();
    let encoder =
        TextEncoder::from_bytes(json.to_string().as_bytes(), Path::new("t.json"), 16, 167, 2).unwrap();
    let error = encoder.encode("good", None).unwrap_err().to_string();
    assert!(error.starts_with("t.json: tokenizing failed"), "{error}");
}
