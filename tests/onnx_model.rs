//! ONNX classifiers that are run as they are: those of `tests/onnx`, against what ONNX Runtime answers, and hostile ones.

mod common;

use common::tokenizer_json;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use trimtab::data::Example;
use trimtab::onnx_model::{OnnxModel, OnnxOptions};
use trimtab::{Prediction, Task};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/onnx/{name}"))
}

/// The tests' tokenizer, in a folder of its own.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.put("tokenizer.json", tokenizer_json());
        folder
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        // Anew: ext4 would sync one that is truncated and rewritten.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn options(&self, labels: usize) -> OnnxOptions {
        OnnxOptions {
            tokenizer: Some(self.0.path().join("tokenizer.json")),
            labels: (labels > 0).then(|| (0..labels).map(|i| i.to_string()).collect()),
            threads: Some(1),
            ..OnnxOptions::default()
        }
    }

    fn refused(&self, path: &Path, labels: usize, words: &[&str]) {
        let error = OnnxModel::open(path, &self.options(labels)).err().expect("it is refused").to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }
}

fn texts(texts: &[&str]) -> Vec<Example> {
    texts.iter().map(|t| Example { text_a: (*t).into(), ..Example::default() }).collect()
}

#[test]
fn answers_as_onnx_runtime_does() {
    let folder = Folder::new();
    let rows: Map<String, Value> =
        serde_json::from_slice(&fs::read(fixture("answers.json")).unwrap()).unwrap();
    assert!(rows.len() >= 14, "{} expected", rows.len());
    for (name, row) in rows {
        let logits: Vec<f64> = row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let sum: f64 = logits.iter().map(|y| y.exp()).sum();
        let model =
            OnnxModel::open(&fixture(&format!("{name}.onnx")), &folder.options(logits.len())).unwrap();
        let answer = &model.predict_all(&texts(&["a e j p w"])).unwrap()[0];
        // Halves are computed in f32 here.
        let most = if name == "ts-f16" { 1e-3 } else { 2e-5 };
        for (p, y) in answer.probabilities().iter().zip(&logits) {
            assert!((p - y.exp() / sum).abs() <= most, "{name}: {p} instead of {}", y.exp() / sum);
        }
        assert_eq!(answer.probabilities().len(), logits.len());
    }
}

#[test]
fn a_text_s_answer_does_not_depend_on_others() {
    let folder = Folder::new();
    // One of any length, and one of 7 tokens in two rows, which a shorter text is padded to and a longer one cut.
    for (name, labels) in [("ts-classifier.onnx", 3), ("ts-fixed.onnx", 32)] {
        let model = OnnxModel::open(&fixture(name), &folder.options(labels)).unwrap();
        let all = ["good", "the movie was not very good", "food and a movie", ""];
        let together = model.predict_all(&texts(&all)).unwrap();
        for (text, answer) in all.iter().zip(&together) {
            assert_eq!(&model.predict_all(&texts(&[text])).unwrap()[0], answer, "{name}: {text}");
        }
        assert_ne!(together[0], together[1]);
    }
}

#[test]
fn labels_come_from_where_they_are() {
    let folder = Folder::new();
    let file = folder.put("model.onnx", fs::read(fixture("ts-classifier.onnx")).unwrap());
    let ask = |options: &OnnxOptions| {
        let model = OnnxModel::open(&file, options).unwrap();
        (model.task().clone(), model.predict_all(&texts(&["a good movie"])).unwrap().remove(0))
    };
    let plain = OnnxOptions::default();
    // The fixture's output has no name, so somebody must say what it means.
    folder.refused(&file, 0, &["model.onnx", "--labels"]);
    folder.refused(&file, 2, &["2 labels are given, but the model has 3 outputs"]);
    let mut config = json!({"id2label": {"0": "x", "1": "y", "2": "z"}});
    folder.put("config.json", config.to_string());
    let (task, answer) = ask(&plain);
    assert_eq!(task, Task::classify(["x", "y", "z"]));
    let Prediction::Label { label, probabilities } = &answer else { panic!("{answer:?}") };
    let best = (0..3).max_by(|i, j| probabilities[*i].total_cmp(&probabilities[*j])).unwrap();
    assert_eq!(label, ["x", "y", "z"][best]);
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(ask(&folder.options(3)).0, Task::classify(["0", "1", "2"]));
    config["problem_type"] = "multi_label_classification".into();
    folder.put("config.json", config.to_string());
    let (task, answer) = ask(&plain);
    assert_eq!(task.labels(), ["x", "y", "z"]);
    assert!(matches!(answer, Prediction::Labels { .. }), "{answer:?}");
}

#[test]
fn what_is_no_classifier_is_refused() {
    let folder = Folder::new();
    folder.refused(&fixture("ts-no-pooler.onnx"), 2, &["no output of [batch, labels]"]);
    folder.refused(&folder.put("x.onnx", "{}"), 2, &["x.onnx"]);
    let short = OnnxOptions { max_len: Some(2), ..folder.options(3) };
    let error = OnnxModel::open(&fixture("ts-classifier.onnx"), &short).err().unwrap().to_string();
    assert!(error.contains("max-len 2"), "{error}");
}

/// Protobuf: a field of bytes, and one of a number.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    [&out, bytes].concat()
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn node(op: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|i| field(1, i)).collect();
    field(1, [inputs, field(2, output), field(3, output), field(4, op)].concat())
}

fn shape_tensor(name: &str, values: &[i64]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    field(5, [number(1, values.len() as u8), number(2, 7), field(8, name), field(9, data)].concat())
}

fn value_info(at: u8, name: &str, element: u8, dims: &[&str]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|d| field(1, field(2, d))).collect();
    field(at, [field(1, name), field(2, field(1, [number(1, element), field(2, dims)].concat()))].concat())
}

/// A model of these nodes and tensors, from `input_ids` to `logits`.
fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    let ends = [value_info(11, "input_ids", 7, &["b", "s"]), value_info(12, "logits", 1, &["b", "s"])];
    [number(1, 8), field(7, [&ends, parts].concat().concat()), field(8, number(2, 17))].concat()
}

#[test]
fn small_files_that_ask_for_much_are_refused() {
    let folder = Folder::new();
    let million = 1_000_003;
    let bombs = [
        // A constant as it stands there, one that is computed, and one that grows by broadcasting.
        vec![shape_tensor("n", &[million, million]), node("ConstantOfShape", &["n"], "logits")],
        vec![
            shape_tensor("n", &[million]),
            shape_tensor("m", &[3 * million]),
            node("Mul", &["n", "m"], "nm"),
            node("ConstantOfShape", &["nm"], "logits"),
        ],
        vec![
            shape_tensor("n", &[million, 1]),
            shape_tensor("m", &[1, million]),
            node("ConstantOfShape", &["n"], "x"),
            node("ConstantOfShape", &["m"], "y"),
            node("Add", &["x", "y"], "logits"),
        ],
        // Sizes of the text, much enlarged.
        vec![
            shape_tensor("n", &[million]),
            node("Shape", &["input_ids"], "s"),
            node("Mul", &["s", "n"], "ns"),
            node("ConstantOfShape", &["ns"], "logits"),
        ],
        vec![
            shape_tensor("n", &[million]),
            node("Shape", &["input_ids"], "s"),
            node("Mul", &["s", "n"], "ns"),
            node("Expand", &["input_ids", "ns"], "logits"),
        ],
    ];
    for (i, bomb) in bombs.iter().enumerate() {
        let path = folder.put("bomb.onnx", model(bomb));
        let error = OnnxModel::open(&path, &folder.options(2)).err().expect("it is refused").to_string();
        assert!(
            ["elements", "may be huge", "depends on"].iter().any(|word| error.contains(word)),
            "bomb {i}: {error}"
        );
    }
}

#[test]
fn damaged_files_never_panic() {
    let folder = Folder::new();
    let good = fs::read(fixture("ts-classifier.onnx")).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(33);
    let (mut ran, mut failed) = (0, 0);
    for round in 0..48 {
        let mut bytes = good.clone();
        if round % 4 == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        } else {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
        }
        let path = folder.put("damaged.onnx", bytes);
        let answer = OnnxModel::open(&path, &folder.options(3))
            .and_then(|model| model.predict_all(&texts(&["a good movie"])));
        if answer.is_ok() { ran += 1 } else { failed += 1 }
    }
    assert!(ran > 5 && failed > 12, "{ran} ran, {failed} failed: not the damage it should be");
}
