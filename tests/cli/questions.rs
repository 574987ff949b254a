//! `--task qa`: questions that have no answer, and files that say wrongly where an answer stands.

use crate::sandbox::{Sandbox, USAGE, examples};
use serde_json::{Value, json};

const LINE: &str =
    "train --base base --task qa --epochs 40 --lr 0.03 --batch 4 --max-len 32 --stride 6 --out x.bias";

/// Whether a movie is there to be asked about: of every third text it is not.
fn questions() -> Vec<Value> {
    let one = |(i, (label, text)): (usize, (&str, String))| {
        let context = if i % 3 == 0 { text.replace("very", "box").replace(label, "day") } else { text };
        let answer = format!("very {label}");
        let at = context.find(&answer);
        let answers: Vec<Value> = at.iter().map(|at| json!({ "text": answer, "answer_start": at })).collect();
        json!({ "context": context, "qas": [{ "id": format!("q{i}"), "question": "how good was it",
                "answers": answers, "is_impossible": at.is_none() }] })
    };
    examples().into_iter().enumerate().map(one).collect()
}

fn squad(paragraphs: &[Value]) -> String {
    json!({ "version": "v2.0", "data": [{ "title": "t", "paragraphs": paragraphs }] }).to_string()
}

#[test]
fn no_answer_is_learned_told_and_scored() {
    let s = Sandbox::new();
    s.write("x.json", squad(&questions()));
    s.ok(&format!("{LINE} --data x.json --dev x.json"));
    assert!(s.ok("inspect x.bias --json").stdout.contains("unanswerable"));
    let scores = s.json("eval --base base --bias x.bias --data x.json --json");
    assert_eq!((&scores["HasAns_total"], &scores["NoAns_total"]), (&10.into(), &6.into()), "{scores}");

    // The scores are those of the official script for what is predicted.
    let lines = s.ok("predict --base base --bias x.bias --data x.json --json").stdout;
    let mut right = [0.0, 0.0];
    for (line, paragraph) in lines.lines().zip(questions()) {
        let answer: Value = serde_json::from_str(line).unwrap();
        let question = &paragraph["qas"][0];
        let wanted = question["answers"][0]["text"].as_str().unwrap_or("");
        let is_none = question["is_impossible"] == true;
        right[usize::from(is_none)] += f64::from(u8::from(answer["answer"] == wanted));
        if answer["answer"] == "" {
            assert_eq!((&answer["start"], &answer["end"]), (&0.into(), &0.into()));
            assert!(answer["score"].as_f64().unwrap() > 0.0, "{answer}");
        }
    }
    let near = |name: &str, wanted: f64| {
        let got = scores[name].as_f64().unwrap_or_else(|| panic!("{name}: {scores}"));
        assert!((got - wanted).abs() < 1e-12, "{name}: {got}, not {wanted}");
    };
    near("HasAns_exact", right[0] / 10.0);
    near("NoAns_exact", right[1] / 6.0);
    near("NoAns_f1", right[1] / 6.0);
    near("exact", (right[0] + right[1]) / 16.0);
    near("exact_match", (right[0] + right[1]) / 16.0);
    assert!(right[1] >= 5.0 && right[0] >= 8.0, "it has learned both: {right:?}");
    let told = s.ok("eval --base base --bias x.bias --data x.json").stdout;
    assert!(
        told.contains(", exact match where there is an answer ")
            && told.contains(", unanswerable and right "),
        "{told}"
    );

    // The layout of `datasets`, in lines.
    let row = |p: &Value| {
        let q = &p["qas"][0];
        let of =
            |key: &str| q["answers"].as_array().unwrap().iter().map(|a| a[key].clone()).collect::<Vec<_>>();
        json!({ "id": q["id"], "title": "t", "context": p["context"], "question": q["question"],
                "answers": { "text": of("text"), "answer_start": of("answer_start") } })
        .to_string()
            + "\n"
    };
    s.write("x.jsonl", questions().iter().map(row).collect::<String>());
    let again = s.json("eval --base base --bias x.bias --data x.jsonl --json");
    for key in ["f1", "HasAns_f1", "NoAns_exact", "loss"] {
        assert_eq!(again[key], scores[key], "{key}");
    }
    assert_eq!(s.ok("predict --base base --bias x.bias --data x.jsonl --json").stdout, lines);
}

/// A model that has seen no unanswerable question answers all of them, and is scored as ever where all have an answer.
#[test]
fn without_unanswerable_questions_nothing_changes() {
    let s = Sandbox::new();
    let answerable: Vec<Value> =
        questions().into_iter().filter(|p| p["qas"][0]["is_impossible"] == false).collect();
    s.write("x.json", squad(&answerable));
    s.write("2.json", squad(&questions()));
    s.ok(&format!("{LINE} --data x.json"));
    assert!(!s.ok("inspect x.bias --json").stdout.contains("unanswerable"));
    let scores = s.json("eval --base base --bias x.bias --data x.json --json");
    assert!(scores.get("exact").is_none() && scores.get("HasAns_exact").is_none(), "{scores}");
    let scores = s.json("eval --base base --bias x.bias --data 2.json --json");
    assert_eq!((&scores["NoAns_exact"], &scores["NoAns_total"]), (&0.0.into(), &6.into()), "{scores}");
    assert_eq!(scores["HasAns_total"], 10);
    let lines = s.ok("predict --base base --bias x.bias --data 2.json --json").stdout;
    assert!(lines.lines().all(|l| !l.contains("\"answer\":\"\"")), "{lines}");
}

#[test]
fn a_wrong_offset_is_mended_or_listed() {
    let s = Sandbox::new();
    let file = |offset: i64, context: &str| {
        let question = |id: &str, start: i64| json!({ "id": id, "question": "how", "answers": [{ "text": "very good", "answer_start": start }] });
        squad(&[json!({ "context": context, "qas": [question("a", 7), question("b", offset)] })])
    };
    let train = "train --base base --task qa --epochs 1 --effort quick";
    s.write("right.json", file(7, "it was very good 🏠 movie"));
    s.ok(&format!("{train} --data right.json --out right.bias"));
    for (name, offset) in [("one", 8), ("bytes", 5), ("minus", -1), ("far", 9999)] {
        s.write(&format!("{name}.json"), file(offset, "it was very good 🏠 movie"));
        s.ok(&format!("{train} --data {name}.json --out {name}.bias"));
        assert!(s.read(&format!("{name}.bias")) == s.read("right.bias"), "{name}");
    }
    s.write("twice.json", file(8, "it was very good and very good"));
    s.refuses(
        &format!("{train} --data twice.json --out y.bias"),
        USAGE,
        &["twice.json", "`b`", "`very good`", "stands 2 times", "--skip-bad-lines"],
    );
}
