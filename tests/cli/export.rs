//! `trimtab export` and `import-bias`: what is written, what is refused. tests/exports.py says that the answers are right.

use crate::sandbox::{IO, Sandbox, USAGE};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

fn trained_by_cls(s: &Sandbox) {
    s.ok("train --base base --data train.tsv --out cls.bias --epochs 2 --pool cls");
}

fn parsed(s: &Sandbox, name: &str) -> Value {
    serde_json::from_slice(&s.read(name)).unwrap()
}

/// Tensors of a safetensors file in f32, in the order of their names.
fn tensors(s: &Sandbox, name: &str) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let bytes = s.read(name);
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> =
        all.tensors().into_iter().map(|(n, t)| (n, t.shape().to_vec(), t.data().to_vec())).collect();
    all.sort();
    all
}

fn write_tensors(s: &Sandbox, name: &str, tensors: &[(String, Vec<usize>, Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(n, shape, data)| (n.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &s.path(name)).unwrap();
}

/// The exported checkpoint becomes a base of the same int8 weights, whose own biases are the trained ones.
#[test]
fn a_directory_that_quantize_reads_again() {
    let s = Sandbox::new();
    trained_by_cls(&s);
    let said = s.json("export --base base --bias cls.bias --format hf --output hf --json");
    assert_eq!(said["what"], "BertForSequenceClassification");
    let config = parsed(&s, "hf/config.json");
    assert_eq!(config["id2label"], serde_json::json!({ "0": "bad", "1": "good" }));
    assert_eq!(config["problem_type"], "single_label_classification");
    assert_eq!(config["layer_norm_eps"], 1e-12);
    s.ok("quantize hf -o again");
    let of = |base: &str| s.json(&format!("inspect {base} --json"))["weights_sha256"].clone();
    assert_eq!(of("again"), of("base"));
    let written = tensors(&s, "hf/model.safetensors");
    for (name, _, data) in tensors(&s, "cls.bias") {
        assert!(written.iter().any(|(n, _, d)| *n == name && *d == data), "{name} is not the trained one");
    }
    s.no_leftovers();
}

#[test]
fn a_mean_brings_its_own_class() {
    let s = Sandbox::new();
    s.ok("train --base base --data train.tsv --out mean.bias --epochs 2 --pool mean");
    s.ok("export --base base --bias mean.bias --format hf --output hf");
    let config = parsed(&s, "hf/config.json");
    assert_eq!(config["model_type"], "trimtab-mean-bert");
    let code = String::from_utf8(s.read("hf/modeling_trimtab.py")).unwrap();
    assert!(code.contains("class MeanForSequenceClassification(BertPreTrainedModel)"), "{code}");
    assert!(!code.contains('{') || !code.contains("amily}"), "a place is not filled in:\n{code}");
    let line = "export --base base --bias mean.bias --format peft --output adapter";
    s.refuses(line, USAGE, &["mean of the tokens", "--pool cls"]);
    s.ok("export --base base --bias mean.bias --format onnx-int8 --output m.onnx");
}

#[test]
fn onnx_files() {
    let s = Sandbox::new();
    for (form, output) in [("onnx", "a.onnx"), ("onnx-int8", "b.onnx")] {
        let said =
            s.json(&format!("export --base base --bias me.bias --format {form} --output {output} --json"));
        assert_eq!((&said["what"], &said["bytes"]), (&"logits".into(), &s.read(output).len().into()));
        let again = format!("export --base base --bias me.bias --format {form} --output {output}");
        let first = s.read(output);
        s.refuses(&again, USAGE, &[output, "--force"]);
        s.ok(&format!("{again} --force"));
        assert!(s.read(output) == first, "{form}: not the same bytes");
    }
    assert!(s.read("b.onnx").len() * 2 < s.read("a.onnx").len());
    s.refuses("export --base base --bias me.bias --format onnx --output base", USAGE, &["would replace"]);
    s.refuses("export --base base --bias me.bias --format onnx --output no/x.onnx", USAGE, &["no directory"]);
}

#[test]
fn what_is_there_is_not_replaced() {
    let s = Sandbox::new();
    trained_by_cls(&s);
    let line =
        |form: &str, to: &str| format!("export --base base --bias cls.bias --format {form} --output {to}");
    for form in ["hf", "peft"] {
        s.refuses(&line(form, "base"), USAGE, &["no directory"]);
        s.refuses(&format!("{} --force", line(form, "base")), USAGE, &["no directory"]);
        let to = format!("new-{form}");
        std::fs::create_dir(s.path(&to)).unwrap();
        s.ok(&line(form, &to));
        s.refuses(&line(form, &to), USAGE, &["not empty", "--force"]);
        s.ok(&format!("{} --force", line(form, &to)));
        s.write(&format!("{to}/thesis.txt"), "years of work");
        s.refuses(&format!("{} --force", line(form, &to)), USAGE, &["thesis.txt"]);
    }
    s.no_leftovers();
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk() {
    let s = Sandbox::new();
    trained_by_cls(&s);
    s.ok("export --base base --bias cls.bias --format hf --output old");
    for (form, blocks, to) in [
        ("hf", 8, "new"),
        ("hf", 8, "old"),
        ("onnx", 8, "x.onnx"),
        ("onnx-int8", 0, "x.onnx"),
        ("peft", 1, "new"),
    ] {
        let line = format!("export --base base --bias cls.bias --format {form} --output {to} --force");
        let limited = s.shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\" {line}"));
        s.refuses_with(limited, &line, IO, &["File too large"]);
    }
}

#[test]
fn there_and_back() {
    let s = Sandbox::new();
    trained_by_cls(&s);
    let answer = s.ok("predict --base base --bias cls.bias --json fine").stdout;
    let import = "--base base --labels bad,good --pool cls --output back.bias";
    // The names of a state_dict are those of a bias file.
    write_tensors(&s, "state", &tensors(&s, "cls.bias"));
    let said = s.json(&format!("import-bias state {import} --json"));
    assert_eq!(said["terms"], s.json("inspect cls.bias --json")["terms"]);
    assert!(tensors(&s, "back.bias") == tensors(&s, "cls.bias"));
    assert_eq!(s.ok("predict --base base --bias back.bias --json fine").stdout, answer);
    // As an adapter, whose sums are rounded once more.
    s.ok("export --base base --bias cls.bias --format peft --output adapter");
    s.ok(&format!("import-bias adapter/adapter_model.safetensors {import}"));
    let floats = |data: &[u8]| data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>();
    for ((name, _, a), (other, _, b)) in tensors(&s, "back.bias").iter().zip(&tensors(&s, "cls.bias")) {
        assert_eq!(name, other);
        assert!(floats(a).iter().zip(floats(b)).all(|(a, b)| (a - b).abs() <= 1e-6), "{name}");
    }
}

#[test]
fn what_import_refuses() {
    let s = Sandbox::new();
    trained_by_cls(&s);
    let good = tensors(&s, "cls.bias");
    let line = "import-bias state --base base --labels bad,good --pool cls --output new";
    let with = |name: &str, shape: &[usize]| {
        let mut some = good.clone();
        some.retain(|t| t.0 != name);
        some.push((name.to_owned(), shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]));
        write_tensors(&s, "state", &some);
    };
    with("bert.encoder.layer.0.output.dense.weight", &[64, 128]);
    s.refuses(line, USAGE, &["layer.0.output.dense.weight", "only biases can differ"]);
    with("bert.encoder.layer.0.output.LayerNorm.weight", &[64]);
    s.refuses(line, USAGE, &["only biases can differ"]);
    with("bert.encoder.layer.0.output.dense.bias", &[63]);
    s.refuses(line, USAGE, &["[64]", "[63]"]);
    with("cls.predictions.bias", &[3]);
    s.refuses(line, USAGE, &["cls.predictions.bias", "--ignore-unknown"]);
    let said = s.json(&format!("{line} --ignore-unknown --json"));
    assert_eq!(said["ignored"], serde_json::json!(["cls.predictions.bias"]));
    std::fs::remove_file(s.path("new")).unwrap();
    write_tensors(&s, "state", &good[..good.len() - 4]);
    s.refuses(&line.replace("bad,good", "a,b,c"), USAGE, &["classifier"]);
    s.refuses(&line.replace("--labels bad,good", ""), USAGE, &["--labels"]);
    s.refuses(&line.replace("state", "train.tsv"), USAGE, &["train.tsv"]);
}
