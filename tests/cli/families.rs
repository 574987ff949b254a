//! RoBERTa, DistilBERT and ELECTRA from checkpoint to answer: what differs from BERT in files and on the command line.

use crate::sandbox::{Sandbox, USAGE};
use safetensors::SafeTensors;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;

/// Family, a bias of its first layer, the pooler and the head for a text, by their names in transformers.
const FAMILIES: [(&str, &str, &str, &str); 3] = [
    ("roberta", "roberta.encoder.layer.0.intermediate.dense", "classifier.dense", "classifier.out_proj"),
    ("distilbert", "distilbert.transformer.layer.0.ffn.lin1", "pre_classifier", "classifier"),
    ("electra", "electra.encoder.layer.0.intermediate.dense", "classifier.dense", "classifier.out_proj"),
];

fn golden(family: &str) -> String {
    format!("{}/tests/golden/tiny-{family}", env!("CARGO_MANIFEST_DIR"))
}

fn tensors(s: &Sandbox, name: &str) -> BTreeSet<String> {
    let bytes = s.read(name);
    SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect()
}

/// The checkpoint of a family with its tensors renamed, or left out.
fn renamed(s: &Sandbox, family: &str, to: &str, name: impl Fn(&str) -> Option<String>) {
    std::fs::create_dir(s.path(to)).unwrap();
    let from = golden(family);
    for file in ["config.json", "tokenizer.json"] {
        s.write(&format!("{to}/{file}"), std::fs::read(Path::new(&from).join(file)).unwrap());
    }
    let bytes = std::fs::read(Path::new(&from).join("model.safetensors")).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let kept = all.tensors().into_iter().filter_map(|(n, t)| Some((name(&n)?, t)));
    safetensors::serialize_to_file(kept, None, &s.path(&format!("{to}/model.safetensors"))).unwrap();
}

#[test]
fn from_checkpoint_to_answer() {
    for (family, m2, pooler, head) in FAMILIES {
        let s = Sandbox::new();
        s.ok(&format!("quantize {} -o f", golden(family)));
        let facts = s.json("inspect --verify f --json");
        assert_eq!((&facts["family"], &facts["pooling"]), (&family.into(), &"cls".into()));
        let line = "train --base f --data train.tsv --epochs 2 --batch 5";
        s.ok(&format!("{line} --out x.bias --threads 1"));
        let names = tensors(&s, "x.bias");
        for name in [m2, pooler, head] {
            assert!(names.contains(&format!("{name}.bias")), "{name} in {names:?}");
        }
        assert_eq!(names.iter().filter(|name| name.ends_with("weight")).count(), 1, "{names:?}");
        assert_eq!(names.contains("electra.embeddings_project.bias"), family == "electra");
        let terms = s.json("inspect x.bias --json")["terms"].as_str().unwrap().to_owned();
        assert_eq!(terms.contains("emb_proj"), family == "electra", "{terms}");

        s.ok(&format!("{line} --out y.bias --threads 2"));
        assert!(s.read("x.bias") == s.read("y.bias"), "{family}: 2 threads");
        let portable = s.command(&format!("{line} --out y.bias")).env("TRIMTAB_KERNEL", "portable").output();
        assert!(
            portable.unwrap().status.success() && s.read("x.bias") == s.read("y.bias"),
            "{family}: portable"
        );

        let answer = s.json("predict --base f --bias x.bias --json fine");
        assert!(answer["label"].is_string(), "{answer}");
        s.ok("eval --base f --bias x.bias --data dev.tsv");
    }
}

/// Frozen layers of an encoder with a projection: kept or computed again.
#[test]
fn frozen_projection() {
    let s = Sandbox::new();
    s.ok(&format!("quantize {} -o f", golden("electra")));
    for part in ["--layers 1..2", "--terms emb_proj,m2", "--terms emb_proj --encoder-dropout 0.1"] {
        let run = |out: &str, flags: &str| {
            s.ok(&format!("train --base f --data train.tsv --out {out} --epochs 2 --batch 5 {part} {flags}"));
            s.read(out)
        };
        assert!(run("x.bias", "") == run("y.bias", "--prefix-cache 0 --threads 2"), "{part}");
    }
    s.refuses("train --base base --data train.tsv --out z.bias --terms emb_proj", USAGE, &["emb_proj"]);
}

/// A checkpoint of the encoder alone, without the prefix and without the classifier.
#[test]
fn plain_encoders_are_pooled_by_the_mean() {
    for (family, ..) in FAMILIES {
        let s = Sandbox::new();
        renamed(&s, family, "plain", |name| Some(name.strip_prefix(&format!("{family}."))?.to_owned()));
        s.ok("quantize plain -o f");
        let facts = s.json("inspect f --json");
        assert_eq!((&facts["pooling"], &facts["pooler"]), (&"mean".into(), &false.into()));
        let line = "train --base f --data train.tsv --out x.bias --epochs 1";
        s.refuses(&format!("{line} --pool cls"), USAGE, &["no pooler", "--pool mean"]);
        s.ok(line);
    }
}

/// `RobertaModel` has its pooler under another name than `RobertaForSequenceClassification`.
#[test]
fn the_pooler_of_a_plain_roberta() {
    let s = Sandbox::new();
    renamed(&s, "roberta", "plain", |name| {
        let name = name.replace("classifier.dense", "roberta.pooler.dense");
        Some(name.strip_prefix("roberta.").unwrap().to_owned())
    });
    s.ok("quantize plain -o f");
    s.ok(&format!("quantize {} -o g", golden("roberta")));
    let (f, g) = (s.json("inspect f --json"), s.json("inspect g --json"));
    assert_eq!((&f["pooling"], &f["fingerprint"]), (&"cls".into(), &g["fingerprint"]));
}

#[test]
fn broken_checkpoints() {
    let s = Sandbox::new();
    let refused = |to: &str, words: &[&str]| s.refuses(&format!("quantize {to} -o f"), USAGE, words);
    for (to, (family, key, value, words)) in ["a", "b", "c", "d", "e", "f"].into_iter().zip([
        ("roberta", "pad_token_id", json!(66), &["config.json", "position 67", "66"][..]),
        ("roberta", "pad_token_id", json!(null), &["`pad_token_id`"]),
        ("distilbert", "dim", json!(62), &["`dim` 62", "`n_heads` 4"]),
        ("distilbert", "activation", json!("relu"), &["activation `relu`"]),
        ("electra", "embedding_size", json!(0), &["`embedding_size` is 0"]),
        (
            "electra",
            "embedding_size",
            json!(64),
            &["`embedding_size` is 64", "electra.embeddings", "32 columns"],
        ),
    ]) {
        renamed(&s, family, to, |name| Some(name.to_owned()));
        let path = format!("{to}/config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&s.read(&path)).unwrap();
        config[key] = value;
        s.write(&path, config.to_string());
        refused(to, words);
    }
    renamed(&s, "electra", "g", |name| (!name.contains("project.weight")).then(|| name.to_owned()));
    refused("g", &["model.safetensors", "embeddings_project.weight", "[64, 32]"]);
}
