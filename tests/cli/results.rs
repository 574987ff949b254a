//! What `train`, `quantize` and `inspect` give: files and JSON that other programs rely on.

use crate::sandbox::{Sandbox, TINY, USAGE};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeSet;

const TRAIN: &str = "train --base base --data train.tsv --out x.bias --epochs 2";

/// Names of the tensors of a bias file.
fn tensors(s: &Sandbox, name: &str) -> BTreeSet<String> {
    let bytes = s.read(name);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.names().into_iter().map(|n| n.to_owned()).collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().chain(&["classifier.weight", "classifier.bias"]).map(|n| n.to_string()).collect()
}

#[test]
fn train_json() {
    let s = Sandbox::new();
    let report = s.json(&format!("{TRAIN} --dev dev.tsv --json"));
    assert_eq!(report["out"], "x.bias");
    assert_eq!(report["labels"], serde_json::json!(["bad", "good"]));
    assert_eq!(report["file_bytes"], s.read("x.bias").len());
    assert_eq!(report["interrupted"], false);
    assert_eq!(report["steps"], 2 * 4, "16 lines in batches of 4");
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 2);
    for epoch in epochs {
        assert!(epoch["train_loss"].as_f64().unwrap() > 0.0);
        assert_eq!(epoch["dev"]["examples"], 6);
    }
    assert!(report["kept"].as_u64().unwrap() <= 2);
    for key in ["trained_biases", "trained_head", "train_s", "examples_per_s"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report}");
    }
}

#[test]
fn the_kept_epoch_is_the_one_eval_finds() {
    let s = Sandbox::new();
    for keep in ["accuracy", "loss", "last"] {
        let report = s.json(
            &format!("{TRAIN} --epochs 5 --lr 0.05 --dev dev.tsv --keep {keep} --force --json",)
                .replace("--epochs 2 ", ""),
        );
        let kept = report["kept"].as_u64().unwrap();
        let then = match kept {
            0 => &report["before"],
            epoch => &report["epochs"][epoch as usize - 1]["dev"],
        };
        let now = s.json("eval --base base --bias x.bias --data dev.tsv --json");
        for key in ["accuracy", "loss", "mcc"] {
            assert_eq!(now[key], then[key], "{keep}: {key}");
        }
    }
}

#[test]
fn stdout_has_results_only_and_stderr_plain_lines() {
    let s = Sandbox::new();
    let done = s.ok(&format!("{TRAIN} --dev dev.tsv"));
    assert!(
        done.stdout.starts_with("x.bias: ") && done.stdout.contains("accuracy on 6 held-out lines"),
        "{}",
        done.stdout
    );
    assert!(!done.stderr.contains(['\r', '\u{1b}']), "{:?}", done.stderr);
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert!(lines[0].contains("examples, 2 labels"), "{}", done.stderr);
    assert!(lines[1].starts_with("memory: about "), "{}", done.stderr);
    assert_eq!(lines[2], "chosen: 2 epochs in batches of 4, learning rate 0.003, encoder dropout 0.1");
    assert!(lines[3].starts_with("linear probe: dev loss"), "{}", done.stderr);
    assert!(lines[4].starts_with("epoch 1/2") && lines[5].starts_with("epoch 2/2"), "{}", done.stderr);
    assert!(lines[4].contains("dev loss") && lines[4].contains("accuracy"), "{}", done.stderr);
    let done = s.ok(&format!("{TRAIN} --json"));
    assert_eq!(done.stdout.lines().count(), 1);
    let done = s.ok(&format!("quantize {TINY} --output again"));
    assert_eq!((done.stdout.lines().count(), done.stderr.as_str()), (1, ""));
}

#[test]
fn terms_and_layers_choose_the_tensors() {
    let s = Sandbox::new();
    s.ok(&format!("{TRAIN} --terms none"));
    assert_eq!(tensors(&s, "x.bias"), names(&[]));
    s.ok(&format!("{TRAIN} --terms q,m2 --layers 1..2"));
    let layer = "bert.encoder.layer.1";
    let want = [format!("{layer}.attention.self.query.bias"), format!("{layer}.intermediate.dense.bias")];
    assert_eq!(tensors(&s, "x.bias"), names(&want.each_ref().map(String::as_str)));
    s.ok(&format!("{TRAIN} --terms emb_ln --layers 0..1"));
    assert_eq!(tensors(&s, "x.bias"), names(&["bert.embeddings.LayerNorm.bias"]));
    s.ok(&format!("{TRAIN} --terms pooler --pool cls"));
    assert_eq!(tensors(&s, "x.bias"), names(&["bert.pooler.dense.bias"]));

    s.ok(&format!("{TRAIN} --pool cls"));
    let all = tensors(&s, "x.bias");
    assert_eq!(all.len(), 2 + 1 + 2 * 7 + 1, "head, embeddings, layers without k, pooler");
    assert!(!all.iter().any(|n| n.contains("self.key")), "b_k has no gradient");
}

#[test]
fn half_is_half_the_size_and_predicts() {
    let s = Sandbox::new();
    s.ok(TRAIN);
    let full = s.read("x.bias");
    let answer = |s: &Sandbox| {
        let answer = s.json("predict --base base --bias x.bias --json movie");
        answer["probabilities"]["good"].as_f64().unwrap()
    };
    let p = answer(&s);
    s.ok(&format!("{TRAIN} --half"));
    let half = s.read("x.bias");
    let data = |bytes: &[u8]| bytes.len() - 8 - u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(data(&half) * 2, data(&full));
    assert!(half.len() < full.len() * 2 / 3);
    assert!((answer(&s) - p).abs() < 1e-2);
    for (bytes, dtype) in [(&full, Dtype::F32), (&half, Dtype::F16)] {
        assert!(SafeTensors::deserialize(bytes).unwrap().iter().all(|(_, t)| t.dtype() == dtype));
    }
}

#[test]
fn plots_are_two_svgs() {
    let s = Sandbox::new();
    for flags in ["--dev dev.tsv", "--terms none", "--terms q --layers 0..1", "--epochs 1"] {
        let _ = std::fs::remove_dir_all(s.path("plots"));
        let line = format!("train --base base --data train.tsv --out x.bias --plots plots/deep {flags}");
        s.ok(&line);
        for name in ["learning-curve.svg", "bias-change.svg"] {
            let svg = String::from_utf8(s.read(&format!("plots/deep/{name}"))).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{line}: {name}");
            assert!(!svg.contains("NaN"), "{line}: {name}");
        }
    }
    s.no_leftovers();
}

#[test]
fn pairs_of_texts() {
    let s = Sandbox::new();
    s.write(
        "x.tsv",
        "label\ttext_a\ttext_b\n".to_owned() + &"good\ta movie\twe love it\nbad\ta day\tnever\n".repeat(4),
    );
    s.ok("train --base base --data x.tsv --dev x.tsv --out x.bias --epochs 2");
    let m = s.json("eval --base base --bias x.bias --data x.tsv --json");
    assert_eq!(m["examples"], 8);
    s.write("y.tsv", "label\ttext_a\nbad\ta day\n");
    s.ok("eval --base base --bias x.bias --data y.tsv");
}

#[test]
fn labels_of_any_kind() {
    let s = Sandbox::new();
    s.write(
        "x.jsonl",
        "{\"label\":10,\"text\":\"a\"}\n{\"label\":9,\"text\":\"b\"}\n{\"label\":-1,\"text\":\"c\"}\n",
    );
    let report = s.json("train --base base --data x.jsonl --out x.bias --epochs 1 --json");
    assert_eq!(report["labels"], serde_json::json!(["-1", "9", "10"]));
    s.write("y.csv", "label,text\n\"a, \"\"b\"\"\",x\n\u{1f600} é,y\n");
    let report = s.json("train --base base --data y.csv --out y.bias --epochs 1 --json");
    assert_eq!(report["labels"], serde_json::json!(["a, \"b\"", "\u{1f600} é"]));
    s.json("eval --base base --bias y.bias --data y.csv --json");
}

#[test]
fn patience_ends_early_and_says_so() {
    let s = Sandbox::new();
    let line =
        "train --base base --data train.tsv --dev dev.tsv --out x.bias --epochs 200 --lr 1e-9 --patience 2";
    let report = s.json(&format!("{line} --keep accuracy --json"));
    assert!(report["epochs"].as_array().unwrap().len() < 200);
    assert!(report["stopped"].as_str().unwrap().contains("dev"));
}

/// Where a run chooses how long it is, it also ends where nothing more comes; epochs that were asked for are done.
#[test]
fn five_epochs_without_a_better_score_are_enough() {
    let s = Sandbox::new();
    let line = "train --base base --data train.tsv --out x.bias --lr 1e-30 --keep accuracy --force";
    for (flags, epochs) in [
        ("", 6),
        ("--patience 3", 4),
        ("--patience 0", 20),
        ("--epochs 9", 9),
        ("--epochs 9 --patience 1", 2),
    ] {
        let line = format!("{line} --dev dev.tsv {flags}");
        let report = s.json(&format!("{line} --json"));
        assert_eq!(report["epochs"].as_array().unwrap().len(), epochs, "{line}");
        assert_eq!(report["stopped"].is_null(), [20, 9].contains(&epochs), "{line}");
        let said = s.ok(&line).stderr.contains("early stopping, patience 5");
        assert_eq!(said, flags.is_empty(), "{line}");
    }
    let without = s.ok("train --base base --data train.tsv --out y.bias");
    assert!(!without.stderr.contains("early stopping"), "{}", without.stderr);
}

#[test]
fn quantize_json() {
    let s = Sandbox::new();
    let report = s.json(&format!("quantize {TINY} --output again --json"));
    assert_eq!(report["base_bytes"], s.read("again").len());
    assert_eq!(report["weights_sha256"], s.json("inspect again --json")["weights_sha256"]);
    assert!(report["relative_error"].as_f64().unwrap() < 0.02);
}

#[test]
fn inspect_json() {
    let s = Sandbox::new();
    let machine = s.json("inspect --json");
    assert_eq!(machine["kind"], "machine");
    let kernels = machine["kernels"].as_array().unwrap();
    assert!(kernels.contains(&machine["kernel"]) && machine["cpus"].as_u64().unwrap() > 0);

    let base = s.json("inspect base --json");
    assert_eq!((base["kind"].as_str(), &base["kernels"]), (Some("base"), &machine["kernels"]));
    for key in ["weights_sha256", "fingerprint"] {
        let digest = base[key].as_str().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()), "{key}: {digest}");
    }
    assert_eq!(base["config"]["layers"], 2);

    let bias = s.json("inspect me.bias --json");
    assert_eq!((bias["kind"].as_str(), &bias["base_fingerprint"]), (Some("bias"), &base["fingerprint"]));
    assert_eq!(bias["labels"], serde_json::json!(["bad", "good"]));
    assert_eq!(bias["layers"], "0..2");
    assert_eq!(bias["settings"]["epochs"], 2);

    for line in ["inspect", "inspect base", "inspect me.bias"] {
        let text = s.ok(line).stdout;
        assert!(text.lines().count() > 5 && text.contains("kind"), "{line}\n{text}");
    }
    s.refuses("inspect train.tsv", USAGE, &["train.tsv"]);
}

#[test]
fn help_of_every_command() {
    let s = Sandbox::new();
    let help = s.ok("--help").stdout;
    for command in ["pull", "quantize", "train", "eval", "predict", "inspect", "demo", "experiment"] {
        assert!(help.contains(command), "{command}");
        let text = s.ok(&format!("{command} --help")).stdout;
        assert!(text.contains("Usage: trimtab") && text.contains(command), "{text}");
    }
    assert!(s.ok("--version").stdout.starts_with("trimtab "));
    let done = s.run("");
    assert_eq!(done.code, Some(USAGE));
    assert!(done.stderr.contains("Usage"));
}
