//! Texts that are longer than one sequence.

use crate::sameness;
use crate::sandbox::{Sandbox, emulated};

/// Texts of several windows of 16 tokens. Only the last window tells the label. A few texts are short.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    let line = |i: usize| {
        let label = ["good", "bad"][i % 2];
        let start = ["movie", "day", "box", "station", "time"][i % 5];
        let cue = [label; 6].join(" ");
        match i % 6 {
            0 => format!("{label}\t{start} was {cue}\n"),
            _ => format!("{label}\t{start}{} {cue}\n", " was never the mile for you".repeat(4)),
        }
    };
    s.write("long.tsv", "label\ttext\n".to_owned() + &(0..48).map(line).collect::<String>());
    s
}

fn trained(s: &Sandbox, flags: &str, kernel: &str) -> Vec<u8> {
    sameness::trained(s, "long.tsv", &format!("--max-len 16 {flags}"), kernel)
}

#[test]
fn windows_are_chosen_where_truncation_loses_the_cue() {
    let s = sandbox();
    let train = "train --base base --data long.tsv --max-len 16 --json --effort normal --epochs 20 --lr 0.01";
    let done = s.ok(&format!("{train} --out x.bias"));
    assert!(done.stderr.contains("long texts: windows; the probe's loss"), "{}", done.stderr);
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["result"]["choice"]["windows"], true, "{report}");
    assert_eq!(report["result"]["warnings"].as_array().unwrap().len(), 0, "nothing is cut off: {report}");
    let accuracy = |report: &serde_json::Value| report["result"]["metrics"]["accuracy"].as_f64().unwrap();
    let cut = s.json(&format!("{train} --pool mean --out y.bias"));
    assert!(accuracy(&report) >= 0.9 && accuracy(&cut) < 0.8, "{} and {}", accuracy(&report), accuracy(&cut));
    assert_eq!(cut["result"]["choice"]["windows"], serde_json::Value::Null, "it was told");

    assert_eq!(s.json("inspect x.bias --json")["pooling"], "windows");
    let scores = s.json("eval --base base --bias x.bias --data long.tsv --json");
    assert!(scores["accuracy"].as_f64().unwrap() >= 0.9, "{scores}");
    s.ok("export --base base --bias x.bias --format onnx -o x.onnx");
}

#[test]
fn learn_the_same_wherever() {
    let s = sandbox();
    let first = trained(&s, "--threads 1 --pool windows", "");
    assert!(first == trained(&s, "--threads 2", ""), "chosen or asked for, it is the same");
    for flags in ["--threads 2 --memory 200MB", "--threads 2 --checkpoint run --every 3"] {
        assert!(first == trained(&s, flags, ""), "{flags}");
    }
    assert!(first == trained(&s, "", "portable"), "portable");
    if emulated() {
        return;
    }
    let upper = "--layers 1..2 --pool windows";
    let kept = trained(&s, &format!("{upper} --prefix-cache 0"), "");
    assert!(kept == trained(&s, upper, ""), "hidden states are kept");
}
