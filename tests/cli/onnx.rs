//! `predict --onnx` on taggers, and on exports that it does not read.
#![cfg(feature = "onnx")]

use crate::sandbox::{Sandbox, USAGE, examples};
use serde_json::{Value, json};

/// The tags of an export are those of the bias file: for raw texts, for the words of a file, and for a text that is cut.
#[test]
fn an_export_tags_as_its_bias_file_does() {
    let s = Sandbox::new();
    let sentence = |(label, text): &(&str, String)| {
        let tag = |word: &str| if word == *label { "B-x" } else { "O" };
        text.split(' ').map(|word| format!("{word} {}\n", tag(word))).collect::<String>() + "\n"
    };
    s.write("t.conll", examples().iter().map(sentence).collect::<String>());
    let long = "a bad one ".repeat(12);
    s.write("texts.txt", format!("it was a very good movie, and we love it\n{long}\n"));
    let train = "train --base base --data t.conll --task tag --out t.bias --effort quick";
    s.ok(&format!("{train} --epochs 30 --lr 0.03 --batch 4 --max-len 24"));
    let answers = |flags: &str| -> Vec<Value> {
        let done = s.ok(&format!("predict {flags} --json"));
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let sure = |answer: &Value| -> Vec<f64> {
        answer["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect()
    };
    for data in ["t.conll", "texts.txt"] {
        let exact = answers(&format!("--base base --bias t.bias --exact --data {data}"));
        let tags: Vec<&Value> = exact.iter().flat_map(|e| e["tags"].as_array().unwrap()).collect();
        assert!(["B-x", "O"].iter().all(|tag| tags.iter().any(|t| *t == tag)), "it has learned nothing");
        for (form, most) in [("onnx", 1e-4), ("onnx-int8", 0.1)] {
            s.ok(&format!("export --base base --bias t.bias --format {form} --output {form}.onnx --force"));
            let theirs = answers(&format!("--onnx {form}.onnx --data {data}"));
            assert_eq!(theirs.len(), exact.len());
            for (ours, theirs) in exact.iter().zip(&theirs) {
                assert_eq!(ours["words"], theirs["words"], "{form}");
                assert_eq!(ours["tags"], theirs["tags"], "{form}");
                for (p, q) in sure(ours).into_iter().zip(sure(theirs)) {
                    assert!((p - q).abs() < most, "{form}, {data}: {p} and {q}");
                }
            }
        }
    }
    let typed = s.ok("predict --onnx onnx.onnx good,movie").stdout;
    let words: Vec<&str> = typed.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(words, ["good", ",", "movie", ""], "as a tagger prints them");
    s.refuses("predict --onnx onnx.onnx --labels x hi", USAGE, &["1 labels are given", "2 outputs"]);
}

/// What an ONNX file cannot answer here is answered by the files that it was made from, and the message says so.
#[test]
fn an_export_that_is_not_read_says_what_to_use() {
    let s = Sandbox::new();
    let question = json!({"id": "1", "question": "who", "answers": [{"text": "good", "answer_start": 9}]});
    let paragraph = json!({"context": "it was a good movie", "qas": [question]});
    s.write("q.json", json!({"data": [{"paragraphs": [paragraph]}]}).to_string());
    let first = |text: &str| text.split(' ').next().unwrap().to_owned();
    let pair = |(label, text): &(&str, String)| format!("{label}\t{text}\ta movie of {}\n", first(text));
    let pairs = examples().iter().map(pair).collect::<String>();
    s.write("pairs.tsv", format!("label\ttext_a\ttext_b\n{pairs}"));
    for (name, flags) in [
        ("qa", "--data q.json --task qa"),
        ("contrastive", "--data pairs.tsv --task contrastive"),
        ("apart", "--data pairs.tsv --pool apart"),
    ] {
        s.ok(&format!("train --base base --out {name}.bias --effort quick --epochs 1 --hold-out 0 {flags}"));
        s.ok(&format!("export --base base --bias {name}.bias --format onnx --output {name}.onnx"));
        let words = ["base and bias file", if name == "contrastive" { "`embed`" } else { "use" }];
        s.refuses(&format!("predict --onnx {name}.onnx hi"), USAGE, &words);
    }
}
