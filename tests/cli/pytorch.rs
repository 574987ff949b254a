//! The Python of `docs/pytorch.md`, run as it stands there: its answer is that of `predict --exact`.
//!
//! Needs a Python with torch, transformers and safetensors: `python3`, or the one that `TRIMTAB_PYTHON` names. Without one the
//! test says so and passes.

use crate::sandbox::{Done, Sandbox, TINY};
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = include_str!("../../docs/pytorch.md");
const TEXT: &str = "Your parcel arrives today";

/// The first block of Python of the page.
fn snippet() -> &'static str {
    let (_, rest) = PAGE.split_once("```python\n").expect("a block of Python");
    rest.split_once("```").expect("its end").0
}

fn python() -> Option<String> {
    let python = std::env::var("TRIMTAB_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&python).args(["-c", "import torch, transformers, safetensors"]).output();
    match output {
        Ok(output) if output.status.success() => Some(python),
        _ => {
            eprintln!(
                "skipped: {python} has no torch, transformers and safetensors; TRIMTAB_PYTHON names another"
            );
            None
        }
    }
}

/// Trains on a checkpoint, runs the snippet beside it and compares the two answers; `pool` is what the model must use.
fn twin(python: &str, checkpoint: &Path, pool: &str, tolerance: f64) {
    let s = Sandbox::new();
    let place = s.path("models/all-MiniLM-L6-v2");
    std::fs::create_dir_all(&place).unwrap();
    for entry in std::fs::read_dir(checkpoint).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, place.join(path.file_name().unwrap())).unwrap();
        }
    }
    let pooling = match pool {
        "mean" => "pooling_mode_mean_tokens",
        _ => "pooling_mode_cls_token",
    };
    s.write_below("models/all-MiniLM-L6-v2/1_Pooling/config.json", format!("{{\"{pooling}\": true}}"));
    s.ok("quantize models/all-MiniLM-L6-v2 --output m");
    s.ok("train --base m --data train.tsv --dev dev.tsv --out me.bias.safetensors --epochs 2 --lr 0.01");
    assert_eq!(s.json("inspect me.bias.safetensors --json")["pooling"], pool);
    let answer =
        s.command("predict --base m --bias me.bias.safetensors --exact --json").arg(TEXT).output().unwrap();
    let ours: serde_json::Value = serde_json::from_str(&Done::of(answer).stdout).unwrap();

    s.write("twin.py", snippet());
    let output = s.program(python, &["twin.py"]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    let done = Done::of(output);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let (label, probabilities) = done.stdout.trim_end().split_once(' ').unwrap();
    let theirs: Vec<f64> = serde_json::from_str(probabilities).unwrap();
    assert_eq!(ours["label"], label);
    // In the order of the labels, which is that of their names.
    for (ours, theirs) in ours["probabilities"].as_object().unwrap().values().zip(&theirs) {
        let ours = ours.as_f64().unwrap();
        assert!((ours - theirs).abs() <= tolerance, "{ours} here, {theirs} in PyTorch");
    }
}

#[test]
fn the_snippet_of_the_page_answers_as_predict_does() {
    let Some(python) = python() else { return };
    twin(&python, Path::new(TINY), "mean", 0.02);
    twin(&python, Path::new(TINY), "cls", 0.02);
    let minilm = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/models/all-MiniLM-L6-v2"));
    match minilm.join("model.safetensors").exists() {
        true => twin(&python, &minilm, "mean", 0.02),
        false => eprintln!("skipped: models/all-MiniLM-L6-v2 is not there (models/get-minilm.py)"),
    }
}
