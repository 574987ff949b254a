//! The C library and the command line make the same bias file, byte for byte, and answer the same.

use crate::handles::{Base, Examples, Model, c, chosen, path};
use crate::sandbox::{Sandbox, emulated, examples, tsv};
use serde_json::Value;
use trimtab::capi::{trimtab_effort, trimtab_train_options};

/// 240 examples, of which the defaults hold some out: every one by its number another text.
fn many() -> Vec<(&'static str, String)> {
    let texts = examples();
    (0..240).map(|i| (texts[i % 16].0, format!("{} {}", texts[i * 7 % 16 / 2 * 2 + i % 2].1, i))).collect()
}

/// Trains `task` on `data` both ways; `flags` and `options` say the same.
fn same(s: &Sandbox, task: &str, data: &str, flags: &str, options: &trimtab_train_options) {
    let what = format!("{task}, {data}, {flags:?}");
    let effort = ["normal", "quick", "thorough"][options.effort as usize];
    s.ok(&format!(
        "train --base base --data {data} --task {task} --out cli.bias {flags} --force --effort {effort}"
    ));
    let base = Base::open(&s.path("base"));
    let model = Model::new(&base, task, &[]);
    let report = model.learn(&Examples::of(&s.path(data), task), options);
    assert!(report.examples > 0 && report.stopped == 0, "{what}: {report:?}");
    model.save(&s.path("c.bias"));
    assert!(s.read("cli.bias") == s.read("c.bias"), "{what}: the bias files differ");
}

#[test]
fn bias_files_by_default() {
    let s = Sandbox::new();
    s.write("many.tsv", tsv(&many()));
    same(&s, "classify", "train.tsv", "", &chosen());
    if emulated() {
        return;
    }
    same(&s, "classify", "many.tsv", "", &chosen());
    same(&s, "classify", "many.tsv", "--seed 7", &trimtab_train_options { seed: 7, ..chosen() });
}

#[test]
fn bias_files_of_every_task() {
    let s = Sandbox::new();
    let rows = examples();
    let numbered = |label: &dyn Fn(usize) -> String| -> String {
        let line = |(i, (_, t)): (usize, &(&str, String))| format!("{}\t{t}\twe love it {i}\n", label(i));
        std::iter::once("label\ttext_a\ttext_b\n".to_owned())
            .chain(rows.iter().enumerate().map(line))
            .collect()
    };
    s.write("numbers.tsv", numbered(&|i| format!("{}.5", i * 3 % 7)));
    s.write("several.tsv", numbered(&|i| ["a", "b,a", "", "c"][i % 4].to_owned()));
    s.write("pairs.tsv", numbered(&|_| "x".to_owned()));
    let sentence = |(label, text): &(&str, String)| {
        let tag = |w: &str| if w == *label { "B-X" } else { "O" };
        text.split(' ').map(|w| format!("{w} {}\n", tag(w))).collect::<String>() + "\n"
    };
    s.write("tags.conll", rows.iter().map(sentence).collect::<String>());
    let question = |(i, (label, text)): (usize, &(&str, String))| {
        serde_json::json!({ "context": text, "qas": [{ "id": i.to_string(), "question": "what was it",
            "answers": [{ "text": label, "answer_start": text.find(label).unwrap() }] }] })
    };
    let paragraphs: Vec<Value> = rows.iter().enumerate().map(question).collect();
    s.write("questions.json", serde_json::json!({ "data": [{ "paragraphs": paragraphs }] }).to_string());
    let few = trimtab_train_options { epochs: 3, ..chosen() };
    for (task, data) in [
        ("regress", "numbers.tsv"),
        ("multilabel", "several.tsv"),
        ("contrastive", "pairs.tsv"),
        ("tag", "tags.conll"),
        ("qa", "questions.json"),
    ] {
        same(&s, task, data, "--epochs 3", &few);
    }
}

#[test]
fn bias_files_of_every_setting() {
    let s = Sandbox::new();
    s.write("many.tsv", tsv(&many()[..60]));
    let (terms, start) = (c("q,m2"), path(&s.path("me.bias")));
    // Cross-validation is the same for each of them, and tested above.
    let effort = trimtab_effort::Quick as i32;
    let few = trimtab_train_options { epochs: 2, effort, ..chosen() };
    for (flags, options) in [
        ("--batch 5 --lr 0.001", trimtab_train_options { batch: 5, lr: 0.001, ..few }),
        ("--hold-out 0.25", trimtab_train_options { hold_out: 0.25, ..few }),
        ("--hold-out 0", trimtab_train_options { hold_out: -1.0, ..few }),
        ("--terms q,m2", trimtab_train_options { terms: terms.as_ptr(), ..few }),
        ("--layers 1..2", trimtab_train_options { layers_from: 1, ..few }),
        ("--layers 0..1", trimtab_train_options { layers_to: 1, ..few }),
        ("--start me.bias", trimtab_train_options { start: start.as_ptr(), ..few }),
        ("--memory 2GiB", trimtab_train_options { memory: 2 << 30, ..few }),
        ("--hold-out 0.2 --patience 1 --lr 0.1", {
            trimtab_train_options { hold_out: 0.2, patience: 1, lr: 0.1, ..few }
        }),
    ] {
        same(&s, "classify", "many.tsv", &format!("{flags} --epochs 2"), &options);
    }
}

/// Examples one by one, labels by name, a model that was trained before, held-out ones of its own: the file is the same.
#[test]
fn bias_files_by_other_ways() {
    let s = Sandbox::new();
    // emulated, the epochs that a run chooses take half a minute
    let (flags, options) = match emulated() {
        true => ("--epochs 4", trimtab_train_options { epochs: 4, ..chosen() }),
        false => ("", chosen()),
    };
    s.ok(&format!("train --base base --data train.tsv --dev dev.tsv --out cli.bias {flags} --effort normal"));
    let (base, copy) = (Base::open(&s.path("base")), Base::of_bytes(&s.read("base")).unwrap());
    let some = Examples::new();
    examples().iter().for_each(|(label, text)| some.add(text, None, Some(label)));
    assert_eq!(some.count(), 16);
    let dev = Examples::of(&s.path("dev.tsv"), "classify");
    for model in [
        Model::new(&base, "classify", &["bad", "good"]),
        Model::new(&base, "classify", &[]),
        Model::open(&base, &s.path("me.bias")),
        Model::new(&copy, "classify", &[]),
    ] {
        for time in 0..2 {
            model.train(&some, Some(&dev), &options, |_| trimtab::capi::trimtab_reply::Continue).unwrap();
            model.save(&s.path("c.bias"));
            assert!(s.read("cli.bias") == s.read("c.bias"), "time {time}");
        }
    }
}

#[test]
fn answers_scores_and_vectors() {
    let s = Sandbox::new();
    let base = Base::open(&s.path("base"));
    let model = Model::open(&base, &s.path("me.bias"));
    let text = "sunday was a very good movie";
    let cli = s.command("predict --base base --bias me.bias --json").arg(text).output().unwrap();
    let mut cli: Value = serde_json::from_slice(&cli.stdout).unwrap();
    assert_eq!(cli.as_object_mut().unwrap().remove("text"), Some(text.into()));
    let answer = model.predict(text);
    assert_eq!(serde_json::from_str::<Value>(&answer.json()).unwrap(), cli);
    assert_eq!(answer.text(), cli["label"]);
    assert!(answer.value().is_nan());
    let labels = answer.labels();
    assert_eq!(labels.iter().map(|(l, _)| l.as_str()).collect::<Vec<_>>(), ["bad", "good"]);
    assert!(labels.iter().all(|(l, p)| cli["probabilities"][l] == *p), "{labels:?} {cli}");

    let scores = model.evaluate(&Examples::of(&s.path("train.tsv"), "classify"));
    let cli = s.json("eval --base base --bias me.bias --data train.tsv --json");
    assert_eq!((scores.examples, scores.main), (16, scores.accuracy));
    for (name, score) in [
        ("accuracy", scores.accuracy),
        ("macro_f1", scores.macro_f1),
        ("mcc", scores.mcc),
        ("loss", scores.loss),
    ] {
        assert_eq!(cli[name], score, "{name} of {cli}");
    }
    assert!(scores.pearson.is_nan() && scores.perplexity.is_nan());

    s.write("lines.txt", format!("{text}\n"));
    let width = base.width();
    for (model, flags) in [(model, "--bias me.bias"), (Model::new(&base, "contrastive", &[]), "")] {
        let cli = s.json(&format!("embed --base base {flags} lines.txt"));
        let vector = model.try_embed(text, width).unwrap();
        assert_eq!(serde_json::from_value::<Vec<f32>>(cli["embedding"].clone()).unwrap(), vector, "{flags}");
    }
}
