//! `trimtab export` and `import-bias`: what is written, what is refused. tests/exports.py says that the answers are right.

use crate::sandbox::{IO, Sandbox, TINY, USAGE, examples};
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

/// An export and the bias file give the same answers, and the export needs no flag for it.
#[cfg(feature = "onnx")]
#[test]
fn predict_reads_what_export_wrote() {
    let s = Sandbox::new();
    let rows = examples();
    let file = |label: &dyn Fn(usize, &str) -> String| {
        let row = |(i, (is, text)): (usize, &(&str, String))| format!("{}\t{text}\n", label(i, is));
        "label\ttext\n".to_owned() + &rows.iter().enumerate().map(row).collect::<String>()
    };
    let texts = rows.iter().map(|(_, text)| format!("{text}\n")).collect::<String>();
    // Longer than --max-len: the export says where it is cut.
    s.write("texts.txt", texts + &"it was a good movie and a bad one ".repeat(9) + "\n");
    let several = |i: usize, is: &str| match (is, i % 3) {
        ("good", 0) => "good, loved".to_owned(),
        ("good", _) => "good".to_owned(),
        (_, 0) => "loved".to_owned(),
        _ => String::new(),
    };
    let number = |i: usize, is: &str| format!("{}", if is == "good" { 40 } else { 10 } + i % 3);
    for (name, data, flags) in [
        ("mean", file(&|_, is| is.to_owned()), "--task classify --pool mean"),
        ("cls", file(&|_, is| is.to_owned()), "--task classify --pool cls"),
        ("many", file(&|i, _| format!("label {}", i % 5)), "--task classify"),
        ("several", file(&several), "--task multilabel"),
        ("number", file(&number), "--task regress"),
    ] {
        s.write("x.tsv", data);
        s.ok(&format!(
            "train --base base --data x.tsv --dev x.tsv --out {name}.bias --epochs 12 --lr 0.02 --batch 4 --max-len 24 {flags}"
        ));
        let answers = |flags: &str| -> Vec<Vec<f64>> {
            let done = s.ok(&format!("predict {flags} --json --data texts.txt"));
            let numbers = |line: &str| {
                let answer: Value = serde_json::from_str(line).unwrap();
                match &answer["probabilities"] {
                    Value::Object(by_label) => by_label.values().map(|p| p.as_f64().unwrap()).collect(),
                    _ => vec![answer["value"].as_f64().unwrap_or_else(|| panic!("{line}"))],
                }
            };
            done.stdout.lines().map(numbers).collect()
        };
        let bias = answers(&format!("--base base --bias {name}.bias"));
        let exact = answers(&format!("--base base --bias {name}.bias --exact"));
        let spread = |column: usize| {
            let values = exact.iter().map(|row| row[column]);
            values.clone().fold(f64::MIN, f64::max) - values.fold(f64::MAX, f64::min)
        };
        // Of numbers a hundredth of their range counts as a hundredth of a probability.
        let unit = if name == "number" { spread(0) } else { 1.0 };
        assert!(spread(0) > 0.05, "{name} has learned nothing: {exact:?}");
        let apart = |a: &[Vec<f64>], b: &[Vec<f64>]| {
            assert_eq!((a.len(), a[0].len()), (b.len(), b[0].len()), "{name}");
            let pairs = a.iter().flatten().zip(b.iter().flatten());
            pairs.map(|(a, b)| (a - b).abs() / unit).fold(0.0, f64::max)
        };
        // How far the base's own int8 is from its floats: of random weights, trained hard, that is much.
        let own = apart(&exact, &bias);
        for (form, most) in [("onnx", 1e-4), ("onnx-int8", 0.02 + own)] {
            // A folder each, and a name that is not `model.onnx`.
            let folder = format!("{name}-{form}");
            std::fs::create_dir(s.path(&folder)).unwrap();
            s.ok(&format!(
                "export --base base --bias {name}.bias --format {form} --output {folder}/mine.onnx"
            ));
            let theirs = answers(&format!("--onnx {folder}/mine.onnx"));
            let [from_exact, from_int8] = [&exact, &bias].map(|ours| apart(ours, &theirs));
            println!("{name}, {form}: at most {from_exact:.5} from --exact, {from_int8:.5} from int8");
            assert!(
                from_exact <= most && from_int8 <= most + own,
                "{name}, {form}: {from_exact}, {from_int8}, {own}"
            );
        }
    }
}

#[cfg(feature = "onnx")]
#[test]
fn tokenizer_and_labels_come_with_an_onnx_file() {
    let s = Sandbox::new();
    let export = |to: &str| format!("export --base base --bias me.bias --format onnx --output {to}");
    std::fs::create_dir(s.path("folder")).unwrap();
    let said = s.json(&(export("folder") + " --json"));
    assert_eq!(said["output"], "folder/model.onnx");
    assert_eq!(said["beside"], serde_json::json!(["folder/tokenizer.json", "folder/config.json"]));
    let config = parsed(&s, "folder/config.json");
    assert_eq!(config["id2label"], serde_json::json!({ "0": "bad", "1": "good" }));
    assert_eq!(config["label2id"], serde_json::json!({ "bad": 0, "good": 1 }));
    // It names no class that is not there: transformers and Optimum read it.
    assert_eq!((&config["model_type"], &config["auto_map"]), (&"bert".into(), &Value::Null));
    assert_eq!(s.read("folder/tokenizer.json"), std::fs::read(format!("{TINY}/tokenizer.json")).unwrap());
    s.refuses(&export("folder"), USAGE, &["folder/model.onnx", "--force"]);
    s.ok(&(export("folder") + " --force"));

    // Files of another model in their places stay.
    s.write("config.json", r#"{"id2label": {"0": "other", "1": "words"}}"#);
    s.write("tokenizer.json", "another's");
    let [theirs, tokens] = ["config.json", "tokenizer.json"].map(|name| s.read(name));
    let done = s.ok(&export("a.b.onnx"));
    for name in ["a.b.config.json", "a.b.tokenizer.json"] {
        assert!(done.stderr.contains(name) && done.stderr.contains("stays"), "{}", done.stderr);
    }
    s.ok(&(export("a.b.onnx") + " --force"));
    assert!(s.read("config.json") == theirs && s.read("tokenizer.json") == tokens);
    assert_eq!(parsed(&s, "a.b.config.json")["id2label"]["1"], "good");
    let answer = s.ok("predict --onnx a.b.onnx --json good").stdout;
    assert!(answer.contains("\"bad\"") && answer.contains("\"good\""), "{answer}");

    // The file's own name comes first, so that one of an earlier export must not stay.
    for name in ["config.json", "tokenizer.json"] {
        std::fs::remove_file(s.path(name)).unwrap();
    }
    s.write(
        "three.tsv",
        String::from_utf8(s.read("train.tsv")).unwrap() + "so-so\tit was a movie\nso-so\ta box\n",
    );
    s.ok("train --base base --data three.tsv --out other.bias --epochs 1 --effort quick");
    s.ok("export --base base --bias other.bias --format onnx --output a.b.onnx --force");
    assert_eq!(parsed(&s, "a.b.config.json")["id2label"]["2"], "so-so");
    assert!(s.ok("predict --onnx a.b.onnx --json good").stdout.contains("so-so"));

    // A stream has nothing beside it.
    let before = s.files();
    let done = s.ok(&export("/dev/null"));
    assert!(done.stderr.contains("alone"), "{}", done.stderr);
    s.unchanged_since(&before, "to /dev/null");
}
