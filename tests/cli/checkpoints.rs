//! Checkpoints as people have them: sentence-transformers' modules, old configs, files that disagree, wrapped names, pointers.

use crate::sandbox::{Done, Sandbox, TINY, USAGE};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\nsize 90868376\n";
const TEXTS: &str = "we love it\nnot a Good movie, é!\nthe station was far and the day was very long\n";
const CLASSES: &str = "sentence_transformers.models.";

/// A sandbox with the tiny checkpoint in `m`, to be changed, and some texts in `lines`.
struct Model(Sandbox);

impl Model {
    fn new() -> Model {
        let s = Sandbox::new();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            s.write_below(&format!("m/{name}"), std::fs::read(Path::new(TINY).join(name)).unwrap());
        }
        s.write("lines", TEXTS);
        Model(s)
    }

    fn put(&self, name: &str, value: Value) {
        self.0.write_below(&format!("m/{name}"), value.to_string());
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.0.read(&format!("m/{name}"))).unwrap()
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.json(name);
        change(&mut value);
        self.put(name, value);
    }

    /// `modules.json`: path and class of each module.
    fn modules(&self, all: &[(&str, &str)]) {
        let module = |(i, (path, class)): (usize, &(&str, &str))| {
            let class = if class.contains('.') { (*class).to_owned() } else { format!("{CLASSES}{class}") };
            json!({ "idx": i, "name": i.to_string(), "path": path, "type": class })
        };
        self.put("modules.json", all.iter().enumerate().map(module).collect());
    }

    /// Pooling of one mode, by the old keys.
    fn pool(&self, mode: &str) {
        self.put("1_Pooling/config.json", json!({ "word_embedding_dimension": 64, mode: true }));
    }

    /// A Dense module in `dir`: its weight `[out, in]` and bias.
    fn dense(&self, dir: &str, inputs: usize, outputs: usize, activation: &str) -> (Vec<f32>, Vec<f32>) {
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 101.0 - 0.5;
        let weight: Vec<f32> = (0..inputs * outputs).map(value).collect();
        let bias: Vec<f32> = (0..outputs).map(|i| value(i + 5)).collect();
        self.put(
            &format!("{dir}/config.json"),
            json!({ "in_features": inputs, "out_features": outputs, "bias": true, "activation_function": activation }),
        );
        let tensors =
            [("linear.weight", vec![outputs, inputs], &weight), ("linear.bias", vec![outputs], &bias)];
        let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| crate::common::bytes_of(t.2, Dtype::F32)).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &self.0.path(&format!("m/{dir}/model.safetensors"))).unwrap();
        (weight, bias)
    }

    /// Writes the weights again, each under the name that `name` gives it, or left out.
    fn rename(&self, name: impl Fn(&str) -> Option<String>) {
        let bytes = self.0.read("m/model.safetensors");
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: BTreeMap<String, TensorView> =
            all.tensors().into_iter().filter_map(|(n, view)| Some((name(&n)?, view))).collect();
        serialize_to_file(tensors, None, &self.0.path("m/model.safetensors")).unwrap();
    }

    /// Quantizes it to `b`.
    fn quantize(&self) -> Done {
        self.0.ok("quantize m --output b")
    }

    fn refuses(&self, words: &[&str]) {
        self.0.refuses("quantize m --output b", USAGE, words);
    }

    /// What `embed` gives for the lines.
    fn embed(&self, flags: &str) -> Vec<Vec<f64>> {
        let done = self.0.ok(&format!("embed --base b --exact {flags} lines"));
        let one = |line: &str| {
            let object: Value = serde_json::from_str(line).unwrap();
            object["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        done.stdout.lines().map(one).collect()
    }

    /// Token ids do not show, but vectors do: whether two tokenizers read the lines alike.
    fn embeds(&self) -> Vec<Vec<f64>> {
        self.quantize();
        self.embed("")
    }
}

fn near(a: &[Vec<f64>], b: &[Vec<f64>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len());
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far <= 1e-5, "{far}");
    }
}

fn dense(x: &[f64], (weight, bias): &(Vec<f32>, Vec<f32>), f: impl Fn(f64) -> f64) -> Vec<f64> {
    let rows = weight.chunks(x.len()).zip(bias);
    rows.map(|(w, b)| f(w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(*b)))
        .collect()
}

fn unit(x: Vec<f64>) -> Vec<f64> {
    let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
    x.iter().map(|v| v / length).collect()
}

#[test]
fn dense_and_normalize_are_applied_in_their_order() {
    let m = Model::new();
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling")]);
    m.pool("pooling_mode_mean_tokens");
    let pooled = m.embeds();
    let tanh = m.dense("2_Dense", 64, 16, "torch.nn.modules.activation.Tanh");
    m.modules(&[
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
    ]);
    let projected: Vec<_> = pooled.iter().map(|x| unit(dense(x, &tanh, f64::tanh))).collect();
    near(&m.embeds(), &projected);
    // The same vectors in a file, for `search`, and after a bias file of a task with a head.
    let found =
        m.0.command("search --base b --exact --in lines --top 1 --json").arg("we love it").output().unwrap();
    let found: Value = serde_json::from_str(&Done::of(found).stdout).unwrap();
    assert_eq!((&found["text"], found["score"].as_f64().unwrap() > 0.9999), (&"we love it".into(), true));
    m.0.ok("train --base b --data train.tsv --out x.bias --epochs 1 --terms none");
    near(&m.embed("--bias x.bias"), &projected);
    // Another order and another activation, classes where newer versions have them.
    let relu = m.dense("2_Dense", 64, 8, "torch.nn.modules.activation.ReLU");
    let last = m.dense("4_Dense", 8, 70, "torch.nn.modules.linear.Identity");
    m.modules(&[
        ("", "sentence_transformers.base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformers.sentence_transformer.modules.pooling.Pooling"),
        ("3_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
        ("2_Dense", "sentence_transformers.base.modules.dense.Dense"),
        ("4_Dense", "Dense"),
    ]);
    let wanted = pooled.iter().map(|x| dense(&dense(&unit(x.clone()), &relu, |x| x.max(0.0)), &last, |x| x));
    near(&m.embeds(), &wanted.collect::<Vec<_>>());
    assert_eq!(m.0.json("inspect b --json")["embedding_width"], 70);
}

#[test]
fn contrastive_does_not_train_below_a_dense() {
    let m = Model::new();
    m.dense("2_Dense", 64, 16, "torch.nn.Tanh");
    m.pool("pooling_mode_mean_tokens");
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]);
    m.quantize();
    m.0.write("pairs.tsv", "text_a\ttext_b\na\tb\nc\td\n");
    m.0.refuses(
        "train --task contrastive --base b --data pairs.tsv --out x",
        USAGE,
        &["Dense", "contrastive"],
    );
}

#[test]
fn a_transformer_in_a_folder_below() {
    let m = Model::new();
    m.pool("pooling_mode_mean_tokens");
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]);
    let plain = m.embeds();
    let base = m.0.read("b");
    std::fs::create_dir(m.0.path("m/0_Transformer")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::rename(m.0.path(&format!("m/{name}")), m.0.path(&format!("m/0_Transformer/{name}")))
            .unwrap();
    }
    m.modules(&[("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]);
    near(&m.embeds(), &plain);
    assert!(m.0.read("b") == base, "the same base, byte for byte");
}

#[test]
fn modules_that_would_change_the_vectors_are_refused_by_name() {
    let m = Model::new();
    m.pool("pooling_mode_mean_tokens");
    m.dense("2_Dense", 64, 16, "torch.nn.Tanh");
    let (first, second) = (("", "Transformer"), ("1_Pooling", "Pooling"));
    for (modules, words) in [
        (vec![first, second, ("2_LSTM", "LSTM")], ["sentence_transformers.models.LSTM", "not supported"]),
        (vec![first, second, ("2_X", "my_package.Dense")], ["my_package.Dense", "not supported"]),
        (vec![("", "CLIPModel")], ["CLIPModel", "not supported"]),
        (vec![first], ["Pooling", "both are needed"]),
        (vec![first, second, ("3_Pooling", "Pooling")], ["module 2", "Pooling"]),
        (vec![first, ("2_Dense", "Dense"), second], ["module 1", "Dense"]),
        (vec![("../m", "Transformer"), second], ["\"../m\"", "stay in the directory"]),
        (vec![("/etc", "Transformer"), second], ["\"/etc\"", "stay in the directory"]),
        (vec![first, ("..\\x", "Pooling")], ["..\\\\x", "stay in the directory"]),
        (vec![first, second, ("2_Missing", "Dense")], ["2_Missing/config.json", "No such file"]),
    ] {
        m.modules(&modules);
        let code = if words[1] == "No such file" { crate::sandbox::IO } else { USAGE };
        m.0.refuses("quantize m --output b", code, &[&words[..], &["m/"]].concat());
    }
    for broken in ["{", "{}", "[1]", "[{}]"] {
        m.0.write_below("m/modules.json", broken);
        m.refuses(&["modules.json"]);
    }
    m.modules(&[first, second, ("2_Dense", "Dense")]);
    for (key, value, words) in [
        ("activation_function", json!("torch.nn.modules.activation.Hardswish"), ["Hardswish", "Tanh"]),
        ("activation_function", json!("my.module.Tanh"), ["`my.module.Tanh`", "not supported"]),
        ("use_residual", json!(true), ["use_residual", "not supported"]),
        ("module_input_name", json!("token_embeddings"), ["module_input_name", "token_embeddings"]),
        ("in_features", json!(32), ["linear.weight", "expected shape [16, 32], found [16, 64]"]),
        ("out_features", json!(1 << 20), ["1048576 values", "2_Dense/config.json"]),
        ("bias", json!("yes"), ["`bias`", "true or false"]),
    ] {
        let before = m.json("2_Dense/config.json");
        m.edit("2_Dense/config.json", |c| c[key] = value);
        m.refuses(&words);
        m.put("2_Dense/config.json", before);
    }
    m.dense("2_Dense", 32, 16, "torch.nn.Tanh");
    m.refuses(&["modules.json", "takes vectors of 32 values", "gives 64"]);
    let weights = m.0.path("m/2_Dense/model.safetensors");
    std::fs::rename(&weights, m.0.path("m/2_Dense/pytorch_model.bin")).unwrap();
    m.refuses(&["2_Dense/pytorch_model.bin", "pickled", "SentenceTransformer(DIR).save(DIR)"]);
}

#[test]
fn poolings_by_old_and_new_keys() {
    let m = Model::new();
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling")]);
    m.pool("pooling_mode_mean_tokens");
    let mean = m.embeds();
    for new in [json!("mean"), json!(["mean"])] {
        m.put(
            "1_Pooling/config.json",
            json!({ "embedding_dimension": 64, "pooling_mode": new, "include_prompt": true }),
        );
        near(&m.embeds(), &mean);
    }
    for (config, name) in [
        (json!({ "pooling_mode_max_tokens": true }), "`max`"),
        (json!({ "pooling_mode_weightedmean_tokens": true }), "`weightedmean`"),
        (json!({ "pooling_mode_lasttoken": true }), "`lasttoken`"),
        (json!({ "pooling_mode": "mean_sqrt_len_tokens" }), "`mean_sqrt_len`"),
        (json!({ "pooling_mode": ["cls", "mean"] }), "`cls` with `mean`"),
        (json!({ "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true }), "`max` with `mean`"),
    ] {
        m.put("1_Pooling/config.json", config);
        m.refuses(&["1_Pooling/config.json", name, "supported: mean, cls"]);
    }
}

/// As sentence-transformers: the first token as it is, whether there is a pooler or not.
#[test]
fn cls_is_the_first_token_with_and_without_a_pooler() {
    let m = Model::new();
    m.pool("pooling_mode_cls_token");
    let with = m.embeds();
    assert_eq!(m.0.json("inspect b --json")["pooling"], "cls");
    m.rename(|name| (!name.contains("pooler")).then(|| name.to_owned()));
    near(&m.embeds(), &with);
    assert_eq!(m.0.json("inspect b --json")["pooling"], "first");
    let done = m.0.ok("train --base b --data train.tsv --dev dev.tsv --out x.bias --epochs 2 --lr 0.01");
    assert!(
        done.stderr.contains("first token") && done.stderr.contains("no pooler layer"),
        "{}",
        done.stderr
    );
    assert_eq!(m.0.json("inspect x.bias --json")["pooling"], "first");
    m.0.ok("eval --base b --bias x.bias --data dev.tsv");
    m.0.ok("predict --base b --bias x.bias hello");
    m.0.refuses(
        "train --base b --data train.tsv --out y --pool cls",
        USAGE,
        &["no pooler", "leave out the pooling", "first", "--pool mean"],
    );
    // What transformers has no class for brings its own; ONNX says it in its graph.
    m.0.ok("export --base b --bias x.bias --format hf --output hf");
    assert_eq!(m.0.json_file("hf/config.json")["architectures"][0], "FirstForSequenceClassification");
    m.0.ok("export --base b --bias x.bias --format onnx --output x.onnx");
    let ask = |line: &str| -> Vec<f64> {
        let answer = m.0.json(line);
        let all = answer["probabilities"].as_object().unwrap();
        all.values().map(|v| v.as_f64().unwrap()).collect()
    };
    let ours = ask("predict --base b --bias x.bias --exact --json movie");
    m.0.write("tokenizer.json", m.0.read("m/tokenizer.json"));
    // The tests for ARM read no ONNX.
    let theirs =
        if cfg!(feature = "onnx") { ask("predict --onnx x.onnx --json movie") } else { ours.clone() };
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-4), "{ours:?} {theirs:?}");
    m.0.refuses(
        "export --base b --bias x.bias --format peft --output p",
        USAGE,
        &["the first token without a pooler layer"],
    );
}

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

#[test]
fn embeddings_are_as_long_as_the_model_says() {
    let m = Model::new();
    m.0.write("lines", "the movie was far ".repeat(40) + "\n");
    m.quantize();
    let base = m.0.read("b");
    let [all, few] = ["", "--max-len 20"].map(|flags| m.embed(flags));
    assert!(all != few && m.embed("--max-len 64") == all, "without a word, as many as there are positions");
    // The settings' own number, more than there are positions, and the tokenizer's where the settings have none.
    for (settings, tokenizer, wanted) in [
        (json!({ "max_seq_length": 20, "do_lower_case": false }), json!({ "model_max_length": 512 }), &few),
        (json!({ "max_seq_length": 4096 }), json!({ "model_max_length": 20 }), &all),
        (json!({ "max_seq_length": null }), json!({ "model_max_length": 20 }), &few),
        (json!({}), json!({ "model_max_length": 1e30 }), &all),
    ] {
        m.put("sentence_bert_config.json", settings.clone());
        m.put("tokenizer_config.json", tokenizer);
        m.quantize();
        assert!(m.embed("") == *wanted, "{settings}");
    }
    assert!(m.0.read("b") == base, "what says nothing leaves no trace");
    std::fs::remove_file(m.0.path("m/sentence_bert_config.json")).unwrap();
    m.put("sentence_roberta_config.json", json!({ "max_seq_length": 20 }));
    m.quantize();
    assert!(m.embed("") == few);
    // `search` too: beyond the 20th token nothing counts.
    m.0.write("two", format!("{0} this\n{0} that\n", "the movie was far ".repeat(5)));
    let found = m.0.ok("search --base b --exact --in two --json movie").stdout;
    let scores: Vec<f64> =
        found.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["score"].as_f64().unwrap()).collect();
    assert_eq!(scores[0], scores[1]);
    // Training keeps its own default.
    m.0.ok("train --base b --data train.tsv --out x.bias --epochs 1");
    assert_eq!(m.0.json("inspect x.bias --json")["max_len"], 64);
    for bad in [json!(0), json!(-1), json!("many")] {
        m.put("sentence_roberta_config.json", json!({ "max_seq_length": bad }));
        m.refuses(&["sentence_roberta_config.json", "`max_seq_length`"]);
    }
}

#[test]
fn a_default_prompt_is_told() {
    let m = Model::new();
    let prompts =
        |name: Value| json!({ "prompts": { "query": "query: ", "none": "" }, "default_prompt_name": name });
    m.put("config_sentence_transformers.json", prompts(json!("query")));
    let done = m.quantize();
    assert!(done.stderr.contains("\"query: \"") && done.stderr.contains("config_sentence_transformers.json"));
    for quiet in [Value::Null, json!("none")] {
        m.put("config_sentence_transformers.json", prompts(quiet));
        assert_eq!(m.quantize().stderr, "");
    }
}

/// Bases of earlier versions lack the new metadata, and a base that is damaged there is refused.
#[test]
fn bases_say_no_nonsense_of_modules() {
    let m = Model::new();
    m.quantize();
    let (header, data) = crate::common::split(&m.0.read("b"));
    let meta = header["__metadata__"].as_object().unwrap();
    assert!(!meta.contains_key("modules") && !meta.contains_key("max_seq_length"));
    for (key, value, words) in [
        ("modules", "{", "metadata `modules`"),
        ("modules", "[{\"type\":\"lstm\"}]", "lstm"),
        (
            "modules",
            "[{\"type\":\"dense\",\"inputs\":3,\"outputs\":4,\"bias\":true,\"activation\":\"tanh\"}]",
            "gives 64",
        ),
        (
            "modules",
            "[{\"type\":\"dense\",\"inputs\":64,\"outputs\":4,\"bias\":true,\"activation\":\"tanh\"}]",
            "modules.0.linear.weight",
        ),
        ("max_seq_length", "0", "`max_seq_length` is \"0\""),
        ("max_seq_length", "65", "`max_seq_length` is \"65\""),
        ("max_seq_length", "x", "`max_seq_length` is \"x\""),
    ] {
        let mut header = header.clone();
        header["__metadata__"][key] = value.into();
        m.0.write("b", crate::common::join(&header, &data));
        m.0.refuses("embed --base b lines", USAGE, &["b: ", words]);
    }
}

/// Exports of embeddings give what `embed` gives; what they cannot is refused.
#[test]
fn exports_of_embeddings_know_the_modules() {
    let m = Model::new();
    m.pool("pooling_mode_mean_tokens");
    m.0.write("pairs.tsv", "text_a\ttext_b\nwe\tlove\nthe\tmovie\nmy\tday\n");
    let train = "train --task contrastive --base b --data pairs.tsv --out x.bias --epochs 1 --batch 3";
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]);
    m.quantize();
    m.0.ok(train);
    m.0.ok("export --base b --bias x.bias --format hf --output hf");
    let modules = m.0.json_file("hf/modules.json");
    assert_eq!(modules[2]["type"], "sentence_transformers.models.Normalize");
    m.0.ok("export --base b --bias x.bias --format onnx --output x.onnx");
    let holds = |op: &str| m.0.read("x.onnx").windows(op.len()).any(|w| w == op.as_bytes());
    assert!(holds("ReduceSum") && holds("sentence_embedding"));
    // The exported directory is a checkpoint like any other, with the same embeddings.
    let wanted = m.embed("--bias x.bias");
    m.0.ok("quantize hf --output b2");
    let done = m.0.ok("embed --base b2 --exact lines").stdout;
    let all: Vec<Vec<f64>> = done
        .lines()
        .map(|l| {
            serde_json::from_value(serde_json::from_str::<Value>(l).unwrap()["embedding"].clone()).unwrap()
        })
        .collect();
    near(&all, &wanted);

    m.dense("2_Dense", 64, 16, "torch.nn.Tanh");
    let plain = m.0.read("x.bias");
    m.modules(&[("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]);
    m.quantize();
    m.0.write("biases", plain);
    m.0.ok("import-bias biases --base b --task contrastive --output y.bias");
    for format in ["hf", "onnx", "onnx-int8", "peft"] {
        let line = format!("export --base b --bias y.bias --format {format} --output y");
        m.0.refuses(&line, USAGE, &["Dense", "exports do not have"]);
    }
}
