//! `export --format onnx --from`: the ONNX file that a base was made from, with a personal model's biases and head.
//! Files of `tests/onnx`, made with several exporters.

mod common;

use common::tokenizer_json;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trimtab::config::Pooling;
use trimtab::data::Example;
use trimtab::export::{Report, onnx_patch};
use trimtab::import::{Checkpoint, canonical};
use trimtab::onnx_model::{OnnxModel, OnnxOptions};
use trimtab::quant::{Base, quantize};
use trimtab::{Error, Model, Options, Prediction, Task, TrainConfig};

const TEXTS: [&str; 6] =
    ["a good movie", "a bad movie", "not good", "very bad", "good food", "the food was bad"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/onnx/{name}.onnx"))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        fs::write(folder.path("tokenizer.json"), tokenizer_json()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn base(&self, file: &Path) -> Base {
        let checkpoint = Checkpoint::open_onnx(file, Some(&self.path("tokenizer.json")), None).unwrap();
        let out = self.path("base");
        quantize(&checkpoint, &out, &mut |_, _| ControlFlow::Continue(())).unwrap();
        Base::open(&out).unwrap()
    }

    fn export(&self, model: &Model, from: &Path, name: &str) -> Result<Report, Error> {
        onnx_patch::export(model, from, &self.path(name))
    }
}

fn examples() -> Vec<Example> {
    let label = |t: &str| Some(if t.contains("good") { "up" } else { "down" }.into());
    TEXTS.iter().map(|t| Example { text_a: (*t).into(), label: label(t), ..Example::default() }).collect()
}

/// All biases far from where they were.
fn trained(base: &Base, pooling: Pooling) -> Model {
    let options = Options { pooling: Some(pooling), exact: true, ..Options::default() };
    let mut model = Model::new(base, Task::classify(["up", "down"]), &options).unwrap();
    let config = TrainConfig { epochs: 40, lr: 0.02, batch: 2, ..TrainConfig::default() };
    model.train(&examples(), None, &config, |_| ControlFlow::Continue(())).unwrap();
    model
}

/// Probabilities of the first label.
fn answers(answers: Vec<Prediction>) -> Vec<f64> {
    answers.iter().map(|a| a.probabilities()[0]).collect()
}

#[test]
fn weights_stay_and_biases_are_the_model_s() {
    for (name, pooling) in [
        ("ts-eager-13", Pooling::Cls),
        ("ts-eager-17", Pooling::Mean),
        ("ts-sdpa-14", Pooling::First),
        ("ts-no-pooler", Pooling::Mean),
        ("ts-ids-and-mask", Pooling::Cls),
        ("ts-classifier", Pooling::Cls),
        ("ts-f16", Pooling::Cls),
        ("ts-f16", Pooling::Mean),
        ("dynamo-eager-18", Pooling::Cls),
        ("dynamo-sdpa-20", Pooling::Mean),
        ("distilbert", Pooling::Mean),
        ("electra", Pooling::Mean),
        ("int8-s-pc", Pooling::Cls),
        ("int8-s-pt", Pooling::Mean),
        ("int8-u-pc", Pooling::Mean),
        ("int8-u-pt", Pooling::Cls),
    ] {
        let folder = Folder::new();
        let base = folder.base(&fixture(name));
        let model = trained(&base, pooling);
        let report = folder.export(&model, &fixture(name), "out.onnx").unwrap();
        let out = folder.path("out.onnx");
        assert_eq!(report.bytes, fs::metadata(&out).unwrap().len(), "{name}");

        // What the file's encoder is now.
        let options =
            OnnxOptions { tokenizer: Some(folder.path("tokenizer.json")), ..OnnxOptions::default() };
        let ours = answers(model.predict_all(&examples()).unwrap());
        let theirs = OnnxModel::open(&out, &options).unwrap();
        assert_eq!(theirs.task().labels(), ["up", "down"], "{name}");
        let theirs = answers(theirs.predict_all(&examples()).unwrap());
        // Weights of the f32 files are not rounded there, int8 activations are: of random weights that is much.
        let most = if name.starts_with("int8") { 0.25 } else { 0.1 };
        let apart = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: at most {apart:.4} apart");
        assert!(apart <= most, "{name}: {ours:?} and {theirs:?}");
        assert!(ours.iter().any(|p| *p > 0.9) && ours.iter().any(|p| *p < 0.1), "{name} learned: {ours:?}");

        let again = folder.base(&out);
        for spec in canonical::tensors(again.config(), again.has_pooler(), false) {
            if spec.kind != canonical::Kind::Vector {
                let [there, here] = [&again, &base].map(|b| b.matrix(&spec.name).unwrap());
                assert_eq!(there.scale(), here.scale(), "{name}: {}", spec.name);
                assert!((0..there.rows()).all(|r| there.row(r).eq(here.row(r))), "{name}: {}", spec.name);
            }
        }
        for p in model.graph().layout().iter().filter(|p| p.name.ends_with("bias")) {
            let Ok(there) = again.vector(&p.name) else { continue };
            let wanted = &model.theta()[p.range.clone()];
            let far =
                |(a, b): (&f32, &f32)| (a - b).abs() > if name == "ts-f16" { 1e-3 * b.abs() } else { 0.0 };
            assert!(!there.iter().zip(wanted).any(far), "{name}: {}", p.name);
        }
        // Once more, of what came out: the head that it has is left out.
        let model = trained(&again, pooling);
        let second = onnx_patch::export(&model, &out, &folder.path("second.onnx")).unwrap();
        assert!(second.bytes.abs_diff(report.bytes) < 300, "{name}: {} and {}", second.bytes, report.bytes);
    }
}

#[test]
fn what_is_not_the_base_s_is_refused() {
    let folder = Folder::new();
    let model = trained(&folder.base(&fixture("ts-eager-17")), Pooling::Mean);
    let refused = |from: &Path, words: &[&str]| {
        let error = folder.export(&model, from, "out.onnx").unwrap_err().to_string();
        words.iter().for_each(|w| assert!(error.contains(w), "no {w:?} in: {error}"));
        assert!(!folder.path("out.onnx").exists());
    };
    // Other weights, of another type, another network, none at all.
    refused(&fixture("int8-s-pc"), &["int8-s-pc.onnx", "not the base"]);
    refused(&fixture("distilbert"), &["distilbert.onnx", "not the base"]);
    refused(&fixture("ts-relu"), &["ts-relu.onnx", "GELU"]);
    refused(&folder.path("tokenizer.json"), &["tokenizer.json"]);
    refused(&folder.path("none.onnx"), &["none.onnx"]);
    let bytes = fs::read(fixture("ts-eager-17")).unwrap();
    fs::write(folder.path("cut.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    refused(&folder.path("cut.onnx"), &["cut.onnx"]);
}
