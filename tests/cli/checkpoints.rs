//! Checkpoints as people have them: old configs, tokenizer files that disagree, wrapped names, pointers.

use crate::changed::*;
use crate::sandbox::*;
use safetensors::SafeTensors;
use safetensors::tensor::serialize_to_file;
use serde_json::{Value, json};
use std::path::Path;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\nsize 90868376\n";

#[test]
fn missing_config_keys_have_the_defaults_of_transformers() {
    let m = Model::new();
    m.quantize();
    let whole = m.0.read("b");
    for key in [
        "layer_norm_eps",
        "hidden_act",
        "type_vocab_size",
        "pad_token_id",
        "position_embedding_type",
        "model_type",
    ] {
        let before = m.json("config.json");
        m.edit("config.json", |c| drop(c.as_object_mut().unwrap().remove(key)));
        m.quantize();
        assert!(m.0.read("b") == whole, "{key}");
        m.put("config.json", before);
    }
    // Sizes that the weights contradict: both are named.
    for (key, default, found) in [
        ("vocab_size", "30522", "167 rows"),
        ("hidden_size", "768", "64 columns"),
        ("max_position_embeddings", "512", "64 rows"),
        ("intermediate_size", "3072", "128 rows"),
        ("num_hidden_layers", "12", "has 2 layers"),
    ] {
        let before = m.json("config.json");
        m.edit("config.json", |c| drop(c.as_object_mut().unwrap().remove(key)));
        m.refuses(&["m/config.json", &format!("`{key}` is missing"), default, "model.safetensors", found]);
        m.edit("config.json", |c| c[key] = json!(16));
        m.refuses(&["m/config.json", &format!("`{key}` is 16"), "model.safetensors", found]);
        m.put("config.json", before);
    }
    m.edit("config.json", |c| drop(c.as_object_mut().unwrap().remove("num_attention_heads")));
    m.refuses(&["`num_attention_heads` is missing", "12"]);
    m.edit("config.json", |c| {
        c["num_attention_heads"] = json!(4);
        c["num_hidden_layers"] = json!(1);
    });
    let done = m.quantize();
    assert!(
        done.stderr.contains("`num_hidden_layers` is 1") && done.stderr.contains("2 layers"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_family_is_told_by_names_where_that_is_clear() {
    let m = Model::new();
    for tiny in ["tiny-bert", "tiny-roberta", "tiny-distilbert", "tiny-electra"] {
        let dir = Path::new(TINY).with_file_name(tiny);
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            m.0.write_below(&format!("m/{name}"), std::fs::read(dir.join(name)).unwrap());
        }
        m.quantize();
        let whole = m.0.read("b");
        m.edit("config.json", |c| drop(c.as_object_mut().unwrap().remove("model_type")));
        m.quantize();
        assert!(m.0.read("b") == whole, "{tiny}: architectures");
        m.edit("config.json", |c| drop(c.as_object_mut().unwrap().remove("architectures")));
        let family = tiny.trim_start_matches("tiny-");
        m.rename(|name| {
            match ["embeddings", "encoder.", "transformer.", "pooler."].iter().any(|p| name.starts_with(p)) {
                true => Some(format!("{family}.{name}")),
                false => Some(name.to_owned()),
            }
        });
        m.quantize();
        assert!(m.0.read("b") == whole, "{tiny}: names");
        m.edit("config.json", |c| c["architectures"] = json!(["AlbertModel"]));
        m.refuses(&["`AlbertModel`", "model_type"]);
    }
    let m = Model::new();
    m.edit("config.json", |c| {
        c.as_object_mut().unwrap().retain(|key, _| key != "model_type" && key != "architectures");
    });
    m.rename(|name| Some(name.trim_start_matches("bert.").to_owned()));
    m.refuses(&["m/config.json", "`model_type` is missing", "\"bert\"", "\"roberta\""]);
}

#[test]
fn distilberts_sizes_by_berts_names() {
    let m = Model::new();
    let dir = Path::new(TINY).with_file_name("tiny-distilbert");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        m.0.write_below(&format!("m/{name}"), std::fs::read(dir.join(name)).unwrap());
    }
    m.quantize();
    let whole = m.0.read("b");
    m.edit("config.json", |c| {
        let all = c.as_object_mut().unwrap();
        for (ours, theirs) in
            [("dim", "hidden_size"), ("n_layers", "num_hidden_layers"), ("n_heads", "num_attention_heads")]
        {
            let value = all.remove(ours).unwrap();
            all.insert(theirs.into(), value);
        }
    });
    m.quantize();
    assert!(m.0.read("b") == whole);
}

/// As transformers 4.57 and sentence-transformers do it; `tests/compare_checkpoints.py` compares with them.
#[test]
fn tokenizer_files_that_disagree() {
    let m = Model::new();
    let normalizer = |lowercase: bool, accents: Value, chinese: bool| {
        m.edit("tokenizer.json", |t| {
            t["normalizer"] = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese,
                                      "strip_accents": accents, "lowercase": lowercase });
        });
    };
    let stored = |m: &Model| -> Value {
        let bytes = m.0.read("b");
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let json: Value = serde_json::from_slice(all.tensor("tokenizer.json").unwrap().data()).unwrap();
        json["normalizer"].clone()
    };
    let original = m.0.read("m/tokenizer.json");
    for (said, has, wanted) in [
        // What `tokenizer_config.json` says, what `tokenizer.json` has (lowercase, strip_accents), and what must come out.
        (
            json!({ "do_lower_case": false, "strip_accents": false }),
            (true, Value::Null),
            (false, json!(false)),
        ),
        (json!({ "do_lower_case": true }), (false, Value::Null), (true, Value::Null)),
        (json!({}), (false, json!(true)), (true, Value::Null)),
        (
            json!({ "tokenizer_class": "BertTokenizerFast", "do_lower_case": false }),
            (true, Value::Null),
            (false, Value::Null),
        ),
    ] {
        normalizer(has.0, has.1.clone(), true);
        m.put("tokenizer_config.json", said.clone());
        let done = m.quantize();
        assert!(
            done.stderr.contains("tokenizer_config.json and m/tokenizer.json disagree"),
            "{}",
            done.stderr
        );
        assert_eq!(
            (&stored(&m)["lowercase"], &stored(&m)["strip_accents"]),
            (&wanted.0.into(), &wanted.1),
            "{said}"
        );
        m.embed("");
    }
    normalizer(true, Value::Null, true);
    m.put("tokenizer_config.json", json!({ "tokenize_chinese_chars": false }));
    assert!(m.quantize().stderr.contains("`tokenize_chinese_chars` is false"));
    assert_eq!(stored(&m)["handle_chinese_chars"], false);
    // A class that takes the file as it is, and a lost tokenizer_config.json.
    normalizer(false, Value::Null, true);
    m.put(
        "tokenizer_config.json",
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": true }),
    );
    assert_eq!((m.quantize().stderr.as_str(), &stored(&m)["lowercase"]), ("", &false.into()));
    std::fs::remove_file(m.0.path("m/tokenizer_config.json")).unwrap();
    let done = m.quantize();
    assert!(
        done.stderr.contains("does not lower-case") && done.stderr.contains("tokenizer_config.json"),
        "{}",
        done.stderr
    );
    assert_eq!(stored(&m)["lowercase"], false);
    // sentence-transformers lower-cases first, if no other step does.
    m.put("sentence_bert_config.json", json!({ "max_seq_length": 32, "do_lower_case": true }));
    m.quantize();
    assert_eq!(
        (&stored(&m)["normalizers"][0]["type"], &stored(&m)["normalizers"][1]["lowercase"]),
        (&"Lowercase".into(), &false.into())
    );
    m.0.write("lines", "WE LOVE IT\nwe love it\n");
    let both = m.embed("");
    near(&both[..1], &both[1..]);
    // Nothing to change: not a byte is.
    m.0.write_below("m/tokenizer.json", &original);
    m.put(
        "tokenizer_config.json",
        json!({ "do_lower_case": true, "strip_accents": null, "model_max_length": 512 }),
    );
    assert_eq!(m.quantize().stderr, "");
    let bytes = m.0.read("b");
    assert!(SafeTensors::deserialize(&bytes).unwrap().tensor("tokenizer.json").unwrap().data() == original);
    for (said, words) in [
        (json!({ "do_lower_case": "no" }), ["`do_lower_case`", "true or false"]),
        (json!([]), ["tokenizer_config.json", "JSON object"]),
    ] {
        m.put("tokenizer_config.json", said);
        m.refuses(&words);
    }
    m.put("tokenizer_config.json", json!({ "cls_token": { "content": "<start>" }, "sep_token": "[SEP]" }));
    let done = m.quantize();
    assert!(
        done.stderr.contains("\"<start>\" as its cls_token") && !done.stderr.contains("sep_token"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_byte_level_tokenizer_and_its_prefix_space() {
    let m = Model::new();
    let dir = Path::new(TINY).with_file_name("tiny-roberta");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        m.0.write_below(&format!("m/{name}"), std::fs::read(dir.join(name)).unwrap());
    }
    let before = m.embeds();
    let now = m.json("tokenizer.json")["pre_tokenizer"]["add_prefix_space"].as_bool().unwrap();
    m.put("tokenizer_config.json", json!({ "add_prefix_space": !now }));
    let done = m.quantize();
    assert!(done.stderr.contains("`add_prefix_space`"), "{}", done.stderr);
    assert!(m.embed("") != before);
    m.put("tokenizer_config.json", json!({ "add_prefix_space": now }));
    assert!(m.embeds() == before);
}

#[test]
fn tokenizers_that_do_not_fit_the_model_are_refused() {
    let m = Model::new();
    let before = m.json("tokenizer.json");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut t = before.clone();
        change(&mut t);
        m.put("tokenizer.json", t);
    };
    with(&|t| t["model"]["vocab"]["zebra"] = json!(167));
    m.refuses(&["m/tokenizer.json", "\"zebra\" has id 167", "167 rows"]);
    with(&|t| t["model"]["vocab"]["zebra"] = json!(30_000));
    m.refuses(&["\"zebra\" has id 30000", "167 rows"]);
    with(&|t| t["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([101]));
    m.refuses(&["\"[CLS]\" is 101 in `post_processor`, but 2 in the vocabulary"]);
    with(&|t| {
        t["post_processor"] = json!({ "type": "BertProcessing", "sep": ["[END]", 3], "cls": ["[CLS]", 2] });
    });
    m.refuses(&["\"[END]\"", "(id 3)", "vocabulary does not have it"]);
    with(&|t| t["model"]["unk_token"] = json!("<nothing>"));
    m.refuses(&["`unk_token` \"<nothing>\"", "167 tokens"]);
    with(&|t| t["model"] = json!({ "type": "Nothing" }));
    m.refuses(&["m/tokenizer.json", "not a tokenizer"]);
    with(&|t| t["post_processor"] = Value::Null);
    let done = m.quantize();
    assert!(done.stderr.contains("no special tokens"), "{}", done.stderr);
}

#[test]
fn names_that_wrappers_made() {
    let m = Model::new();
    m.quantize();
    let whole = m.0.read("b");
    let original = m.0.read("m/model.safetensors");
    for prefix in ["_orig_mod.", "module.", "model.", "module._orig_mod.", "model.module.", "0.auto_model."] {
        m.0.write_below("m/model.safetensors", &original);
        m.rename(|name| Some(format!("{prefix}{name}")));
        m.quantize();
        assert!(m.0.read("b") == whole, "{prefix}");
    }
    // Layers that were compiled one by one.
    m.0.write_below("m/model.safetensors", &original);
    m.rename(|name| Some(name.replace(".attention.", "._orig_mod.attention.")));
    m.quantize();
    assert!(m.0.read("b") == whole);
    // What is no wrapper is shown beside what was expected.
    m.0.write_below("m/model.safetensors", &original);
    m.rename(|name| Some(format!("student.{name}")));
    m.refuses(&["missing", "`student.", "embeddings", "is there, for example"]);
    m.0.write_below("m/model.safetensors", &original);
    m.rename(|name| (!name.ends_with("layer.1.output.dense.weight")).then(|| name.to_owned()));
    m.refuses(&["layer.1.output.dense.weight", "missing", "`", "output.dense.weight` is there, for example"]);
}

/// Biases of a wrapped model too.
#[test]
fn biases_that_were_trained_in_a_wrapper() {
    let m = Model::new();
    let import = "import-bias part --base base --labels bad,good --output";
    m.0.write("part", m.0.read("me.bias"));
    m.0.ok(&format!("{import} plain"));
    let bytes = m.0.read("me.bias");
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let wrapped = all.tensors().into_iter().map(|(name, view)| (format!("module._orig_mod.{name}"), view));
    serialize_to_file(wrapped, None, &m.0.path("part")).unwrap();
    m.0.ok(&format!("{import} wrapped"));
    assert!(m.0.read("plain") == m.0.read("wrapped"));
}

#[test]
fn pointers_of_git_lfs_are_told_as_such() {
    let m = Model::new();
    let fetch = ["a Git LFS pointer", "90868376 bytes", "git lfs pull"];
    let words = |file: &str| -> Vec<String> {
        fetch.iter().map(|w| (*w).to_owned()).chain([file.to_owned()]).collect()
    };
    let refuses = |file: &str| {
        let words = words(file);
        m.refuses(&words.iter().map(String::as_str).collect::<Vec<_>>());
    };
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let before = m.0.read(&format!("m/{name}"));
        for pointer in [POINTER.to_owned(), POINTER.replace('\n', "\r\n"), format!("\u{feff}{POINTER}")] {
            m.0.write_below(&format!("m/{name}"), pointer);
            refuses(name);
        }
        m.0.write_below(&format!("m/{name}"), before);
    }
    m.dense("2_Dense", 64, 8, "torch.nn.Tanh");
    m.pool("pooling_mode_mean_tokens");
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]);
    m.0.write_below("m/2_Dense/model.safetensors", POINTER);
    refuses("2_Dense/model.safetensors");
    std::fs::remove_file(m.0.path("m/modules.json")).unwrap();
    let weights = m.0.read("m/model.safetensors");
    std::fs::remove_file(m.0.path("m/model.safetensors")).unwrap();
    let reads_onnx = cfg!(feature = "onnx");
    let names = ["model.safetensors.index.json", "pytorch_model.bin", "model.onnx"];
    for name in &names[..if reads_onnx { 3 } else { 2 }] {
        m.0.write_below(&format!("m/{name}"), POINTER);
        refuses(name);
        std::fs::remove_file(m.0.path(&format!("m/{name}"))).unwrap();
    }
    m.put(
        "model.safetensors.index.json",
        json!({ "weight_map": { "bert.embeddings.word_embeddings.weight": "a.safetensors" } }),
    );
    m.0.write_below("m/a.safetensors", POINTER);
    refuses("a.safetensors");
    m.0.write_below("m/model.safetensors", weights);
    // A base, a bias file, and an ONNX classifier.
    m.0.write("pointer", POINTER);
    m.0.write("pointer.onnx", POINTER);
    m.0.refuses("predict --base pointer --bias me.bias hello", USAGE, &fetch);
    m.0.refuses("predict --base base --bias pointer hello", USAGE, &fetch);
    if reads_onnx {
        m.0.refuses("predict --onnx pointer.onnx --tokenizer m/tokenizer.json hello", USAGE, &fetch);
    }
    m.0.write_below("m/model.safetensors", "<!DOCTYPE html><html>Not found</html>");
    m.refuses(&["model.safetensors", "a web page", "download"]);
}

#[test]
fn metadata_that_is_null() {
    let m = Model::new();
    m.quantize();
    let whole = m.0.read("b");
    let (mut header, data) = crate::common::split(&m.0.read("m/model.safetensors"));
    header["__metadata__"] = Value::Null;
    m.0.write_below("m/model.safetensors", crate::common::join(&header, &data));
    m.quantize();
    assert!(m.0.read("b") == whole);
}
