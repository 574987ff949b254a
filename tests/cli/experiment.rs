//! `trimtab experiment`: its rows and its mask, its files, and what it refuses.

use crate::sandbox::{INTERRUPTED, IO, Sandbox, TINY, USAGE, examples};
use std::ops::ControlFlow;
use trimtab::data::Example;
use trimtab::experiment::{Findings, Lab, Run, Setup};
use trimtab::params::{Role, Terms};
use trimtab::task::Kind;
use trimtab::train::Criterion;
use trimtab::{Base, Model, Options, Task, TrainConfig};

const LINE: &str = "experiment --base base --data train.tsv --dev dev.tsv --out x";

fn labelled() -> Vec<Example> {
    let one = |(label, text_a): (&str, String)| Example {
        text_a,
        label: Some(label.to_owned()),
        ..Example::default()
    };
    examples().into_iter().map(one).collect()
}

fn model(base: &Base) -> Model {
    Model::new(base, Task::classify(["bad", "good"]), &Options::default()).unwrap()
}

/// Places in theta whose value training changed.
fn moved(base: &Base, values: Option<usize>, seed: u64) -> Vec<usize> {
    let mut model = model(base);
    let before = model.theta().to_vec();
    let config = TrainConfig { values, seed, epochs: 3, ..TrainConfig::default() };
    model.train(&labelled(), None, &config, |_| ControlFlow::Continue(())).unwrap();
    let head = model.graph().layout().head_weight().start;
    (0..head).filter(|&i| model.theta()[i].to_bits() != before[i].to_bits()).collect()
}

#[test]
fn as_many_values_as_drawn_move_and_no_other() {
    let s = Sandbox::new();
    let base = Base::open(s.path("base")).unwrap();
    let all = moved(&base, None, 0);
    let some = moved(&base, Some(20), 0);
    // A value whose gradient is zero in every step stays though it was drawn; those of b_k are not among the drawn.
    assert!((15..=20).contains(&some.len()), "{some:?}");
    assert!(some.iter().all(|i| all.contains(i)));
    let params: Vec<_> =
        some.iter().map(|i| model(&base).graph().layout().iter().position(|p| p.range.contains(i))).collect();
    assert!(params.iter().collect::<std::collections::BTreeSet<_>>().len() > 4, "from all over: {params:?}");
    assert_eq!(moved(&base, Some(20), 0), some);
    assert_ne!(moved(&base, Some(20), 1), some, "the seed draws");
    assert_eq!(moved(&base, Some(usize::MAX), 0), all, "all that there are");
    let none = TrainConfig { values: Some(0), ..TrainConfig::default() };
    let refused = model(&base).train(&labelled(), None, &none, |_| ControlFlow::Continue(()));
    assert_eq!(refused.unwrap_err().exit_code(), USAGE as u8);
}

#[test]
fn rows_are_what_the_paper_has() {
    let s = Sandbox::new();
    let base = Base::open(s.path("base")).unwrap();
    let model = model(&base);
    let (graph, config) = (model.graph(), base.config());
    let rows = Setup::subsets(graph, 16);
    let names: Vec<String> = rows.iter().map(Setup::to_string).collect();
    let two = (config.intermediate + config.hidden) * config.layers;
    assert_eq!(
        names,
        [
            "all biases",
            "q,m2",
            &format!("{two} random values"),
            "m2",
            "q",
            "v",
            "emb_ln,ln1,ln2",
            "head only"
        ]
    );
    let biases: Vec<usize> = rows.iter().map(|row| row.biases(graph)).collect();
    let one = config.hidden * config.layers;
    assert_eq!(
        biases[1..],
        [two, two, config.intermediate * config.layers, one, one, 2 * one + config.hidden, 0]
    );
    assert_eq!(Setup::sizes(graph, &[4, 16])[2..], [Setup::all(16), Setup::head_only(16)]);

    let contrastive = Model::new(&base, Task::Contrastive, &Options::default()).unwrap();
    assert!(
        Setup::subsets(contrastive.graph(), 9).iter().all(|row| row.terms != Terms::none()),
        "there is no head"
    );
    assert_eq!(Setup::sizes(contrastive.graph(), &[9]), [Setup::all(9)]);
}

#[test]
fn runs_become_tables() {
    let s = Sandbox::new();
    let base = Base::open(s.path("base")).unwrap();
    let graph_of = model(&base);
    let (train, task, options) = (labelled(), Task::classify(["bad", "good"]), Options::default());
    let config = |_| TrainConfig { epochs: 2, keep: Criterion::Last, ..TrainConfig::default() };
    let lab =
        Lab { base: &base, task: &task, options: &options, config: &config, train: &train, dev: &train };
    let setups = [Setup::all(16), Setup::head_only(16), Setup::all(16), Setup::all(8), Setup::head_only(8)];
    let mut findings = Findings::new(&base, graph_of.graph(), Kind::Classify, &setups);
    assert_eq!(findings.rows().len(), 4, "each setup once");
    assert!(!findings.subsets_table(&setups).contains("all biases"), "no run, no row");
    assert!(findings.change(&setups[0]).is_none());

    let run = |setup: &Setup, seed| lab.run(setup, seed, |_| ControlFlow::Continue(())).unwrap().unwrap();
    let scored = |accuracy: f64, run: Run| {
        let mut scores = run.scores.unwrap();
        let json = serde_json::json!({"accuracy": accuracy, "f1": 0.0, "macro_f1": 0.0, "mcc": 0.0});
        scores.scores = serde_json::from_value(json).unwrap();
        Run { scores: Some(scores), train_s: 1.26, ..run }
    };
    findings.add(0, scored(0.5, run(&setups[0], 0)));
    findings.add(0, scored(0.75, run(&setups[0], 1)));
    findings.add(1, scored(0.25, run(&setups[1], 0)));
    findings.add(1, Run { seed: 1, scores: None, train_s: 0.0, change: vec![] });
    findings.add(2, Run { seed: 0, scores: None, train_s: 0.0, change: vec![] });
    let table = findings.subsets_table(&setups[..2]);
    assert!(
        table.starts_with("| trained | biases | share of all | accuracy × 100 | seconds |\n|---|"),
        "{table}"
    );
    // The sample's deviation of 50 and 75 is 12.5 · √2.
    assert!(
        table.contains(
            " % | 62.5 ± 17.7 | 1.3 |\n| head only | 0 | 0.000 % | 25.0 (1 of 2 diverged) | 1.3 |\n"
        ),
        "{table}"
    );
    let table = findings.sizes_table(&setups);
    let rows = "| examples | all biases | head only |\n|--:|--:|--:|\n| 16 | 62.5 ± 17.7 | 25.0 (1 of 2 diverged) |\n| 8 | diverged | – |\n";
    assert!(table.starts_with(rows), "{table}");
    assert!(findings.sizes_plot(&setups).contains("all biases, 16 examples: 62.5 ± 17.7"));

    let change = findings.change(&setups[0]).unwrap();
    let symbols: Vec<&str> = change.iter().map(|(symbol, _)| &symbol[..]).collect();
    assert_eq!(symbols[..3], ["emb_ln", "q", "k"]);
    for (symbol, values) in &change {
        assert_eq!(values.iter().flatten().all(|v| *v > 0.0), symbol != "k", "{symbol}: {values:?}");
    }
    let of = |seed| run(&setups[0], seed).change;
    let is_q = |(role, _): &&(Role, f64)| matches!(role, Role::Bias(trimtab::params::Term::Q, Some(0)));
    let [one, two] = [0, 1].map(|seed| of(seed).iter().find(is_q).unwrap().1);
    assert_eq!(change[1].1[0], Some((one + two) / 2.0), "the mean over the seeds");

    let mut steps = 0;
    let stopped = lab.run(&setups[0], 0, |_| {
        steps += 1;
        if steps > 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.unwrap().is_none(), "an interrupted run is no finding");
}

#[test]
fn tables_and_plots_are_written() {
    let s = Sandbox::new();
    let done = s.ok(&format!("{LINE}/deep --seeds 2 --epochs 2 --sizes 8,4,999"));
    assert!(
        done.stderr.contains("note: there are 16 examples") && done.stderr.contains("run 24/24"),
        "{}",
        done.stderr
    );
    assert!(!done.stderr.contains("epoch "), "a line a run: {}", done.stderr);
    let report = String::from_utf8(s.read("x/deep/experiment.md")).unwrap();
    assert_eq!(report, done.stdout);
    let command = "```sh\ntrimtab experiment --base base --data train.tsv --dev dev.tsv --out x/deep --seeds 2 --epochs 2 --sizes 8,4,999\n```";
    for words in [
        command,
        "over 2 seeds",
        "| all biases | ",
        "| head only | 0 |",
        "| 4 | ",
        "| 16 | ",
        "| emb_ln | ",
        "From a random head",
    ] {
        assert!(report.contains(words), "{words}\n{report}");
    }
    for name in ["size.svg", "change.svg"] {
        let svg = String::from_utf8(s.read(&format!("x/deep/{name}"))).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && report.contains(name), "{name}");
    }
    s.no_leftovers();

    // The same again, but for times, and only what was asked for.
    let line = format!("{LINE} --seeds 1 --epochs 2 --what sizes --sizes 16,4 --json");
    let [mut a, mut b] = [s.json(&line), s.json(&format!("{line} --threads 1"))];
    assert_eq!(
        (&a["score"], &a["interrupted"], a["rows"].as_array().unwrap().len()),
        (&"accuracy".into(), &false.into(), 4)
    );
    for row in [&mut a, &mut b].into_iter().flat_map(|all| all["rows"].as_array_mut().unwrap()) {
        assert_eq!(row["mean"], row["runs"][0]["scores"]["accuracy"], "{row}");
        assert!(row["runs"][0]["train_s"].take().as_f64().unwrap() > 0.0);
    }
    assert_eq!(a, b);
    let changed = |row: &serde_json::Value| row["change"]["v"][0].as_f64().unwrap() > 0.0;
    assert!(changed(&a["rows"][0]) && !changed(&a["rows"][1]), "all biases, then a head only: {a}");
    assert!(s.path("x/size.svg").exists() && !s.path("x/change.svg").exists());
}

#[test]
fn every_task_has_its_score() {
    let s = Sandbox::new();
    let flags = "--seeds 1 --epochs 1 --what subsets,change";
    s.write("n.tsv", "label\ttext\n1\tgood\n2\tbad\n3\tmovie\n");
    s.write("m.tsv", "label\ttext\na\tgood\na,b\tbad\n\tmovie\n");
    s.write("t.conll", "good NN\nbad JJ\n\nmovie NN\n");
    s.write("p.tsv", "text_a\ttext_b\ngood\tbad\nmovie\tbox\nmile\tday\n");
    let question = r#"{"id":"1","question":"how","answers":[{"text":"good","answer_start":2}]}"#;
    s.write(
        "q.json",
        format!(r#"{{"data":[{{"paragraphs":[{{"context":"a good movie","qas":[{question}]}}]}}]}}"#),
    );
    for (task, file, score) in [
        ("regress", "n.tsv", "pearson"),
        ("multilabel", "m.tsv", "micro f1"),
        ("tag", "t.conll", "accuracy"), // there are no spans
        ("contrastive", "p.tsv", "recall at 1"),
        ("qa", "q.json", "f1"),
    ] {
        let line =
            format!("experiment --base base --data {file} --dev {file} --out {task} --task {task} {flags}");
        let report = s.ok(&line).stdout;
        assert!(report.contains(&format!("| {score} × 100 |")), "{report}");
        assert_eq!(report.contains("head only"), task != "contrastive", "{report}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let s = Sandbox::new();
    s.write("numbers.tsv", "label\ttext\n1\tgood\n2\tbad\n");
    for (line, code, words) in [
        ("experiment --base base --data train.tsv --out x", USAGE, &["--dev"][..]),
        ("experiment --base base --data train.tsv --dev dev.tsv", USAGE, &["--out"]),
        (&format!("{LINE} --what tables"), USAGE, &["tables", "subsets", "sizes", "change"]),
        (&format!("{LINE} --sizes 0"), USAGE, &["--sizes", "0"]),
        (&format!("{LINE} --sizes 5,x"), USAGE, &["--sizes", "x"]),
        (&format!("{LINE} --seeds 0"), USAGE, &["--seeds"]),
        (&format!("{LINE} --epochs 0"), USAGE, &["epochs"]),
        (&format!("{LINE} --lr 0"), USAGE, &["learning rate"]),
        (&format!("{LINE} --stride 9"), USAGE, &["--stride is for qa"]),
        (&format!("{LINE} --task regress"), USAGE, &["train.tsv:2", "not a number"]),
        (&format!("{LINE} --data numbers.tsv"), USAGE, &["--data"]),
        ("experiment --base base --data none.tsv --dev dev.tsv --out x", IO, &["none.tsv"]),
        (
            "experiment --base base --data train.tsv --dev dev.tsv --out base",
            USAGE,
            &["--out base", "not a directory"],
        ),
        ("experiment --base base --data train.tsv --dev dev.tsv --out base/x", IO, &["base/x"]),
        ("experiment --base train.tsv --data train.tsv --dev dev.tsv --out x", USAGE, &["train.tsv"]),
    ] {
        s.refuses(line, code, words);
        assert!(!s.path("x").exists(), "{line}");
    }
    s.ok(&format!("quantize {TINY} --output again"));
    let diverged = s.ok(&format!("{LINE} --lr 1e30 --seeds 1 --epochs 1 --what subsets"));
    assert!(diverged.stdout.contains("| diverged | – |"), "{}", diverged.stdout);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_done() {
    use crate::interrupt::{end, signal, started};
    let s = Sandbox::new();
    let line = format!("{LINE} --seeds 1000 --epochs 1 --what subsets");
    let (child, stderr) = started(&s, &line, "run 3/");
    signal("INT", &child);
    let done = end(child, stderr);
    done.failed(&line, INTERRUPTED, &["stopping", "interrupted: x/experiment.md holds", "of 8000 runs"]);
    let report = String::from_utf8(s.read("x/experiment.md")).unwrap();
    assert!(
        report == done.stdout
            && report.contains("| all biases |")
            && report.contains("of 8000 runs are done"),
        "{report}"
    );
    s.no_leftovers();

    let many: String = (0..60_000).map(|i| ["good\ta good movie\n", "bad\ta bad movie\n"][i % 2]).collect();
    s.write("many.tsv", format!("label\ttext\n{many}"));
    let line = "experiment --base base --data many.tsv --dev dev.tsv --out y --epochs 1000 --batch 1";
    let (child, stderr) = started(&s, line, "examples");
    signal("INT", &child);
    end(child, stderr).failed(line, INTERRUPTED, &["no run was finished"]);
    assert_eq!(std::fs::read_dir(s.path("y")).unwrap().count(), 0);
}
