//! Directories of sentence-transformers: modules, pooling, lengths, and the embeddings that they give.

use crate::changed::*;
use crate::sandbox::*;
use serde_json::{Value, json};

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
