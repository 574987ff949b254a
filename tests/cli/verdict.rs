//! A run never leaves less than there was: beside a head alone, and beside the bias file it would replace.

use super::sandbox::Sandbox;

/// Learns the sandbox's labels.
const WELL: &str =
    "train --base base --data train.tsv --dev train.tsv --out mine.bias --epochs 20 --lr 0.01 --json";
/// Learns nothing: a random head, hardly a step, and that one is kept.
const BADLY: &str =
    "train --base base --data train.tsv --dev train.tsv --out mine.bias --epochs 1 --lr 1e-9 --keep last";
const NOT_BETTER: i32 = 4;

#[test]
fn a_better_file_stays_without_force() {
    let s = Sandbox::new();
    let well = s.json(WELL);
    assert_eq!(well["held_out"]["previous"], serde_json::Value::Null, "there was none");
    let first = s.read("mine.bias");

    let badly = s.run(BADLY);
    badly.failed(
        BADLY,
        NOT_BETTER,
        &["mine.bias scores better", "mine.new.bias", "--force", "the file before"],
    );
    assert_eq!(badly.stdout, "");
    assert_eq!(s.read("mine.bias"), first);
    s.run(&format!("{BADLY} --checkpoint ck")).failed(BADLY, NOT_BETTER, &["mine.new.bias"]);
    assert!(!s.path("ck").exists(), "it is over all the same");
    let score = |file| {
        s.json(&format!("eval --base base --bias {file} --data train.tsv --json"))["accuracy"].as_f64()
    };
    assert!(score("mine.new.bias") < score("mine.bias"), "the new one is there to be looked at");

    let forced = s.json(&format!("{BADLY} --force --json"));
    assert_ne!(s.read("mine.bias"), first);
    let previous = &forced["held_out"]["previous"];
    assert_eq!(previous["scores"]["accuracy"], well["held_out"]["scores"]["accuracy"]);
    assert!(previous["lead"]["high"].as_f64().unwrap() <= 0.0, "{forced}");
}

#[test]
fn as_good_a_file_or_another_task_is_replaced() {
    let s = Sandbox::new();
    s.json(WELL);
    let first = s.read("mine.bias");
    s.json(WELL);
    assert_eq!(s.read("mine.bias"), first, "the same run gives the same file, and no worse one");
    // Other labels cannot be compared.
    s.write("other.tsv", "label\ttext\none\tgood\ntwo\tbad\none\tfine\ntwo\tawful\n");
    s.ok(&BADLY.replace("train.tsv", "other.tsv"));
    assert_ne!(s.read("mine.bias"), first);
}

#[test]
fn no_epoch_may_be_worse_than_the_head_alone() {
    let s = Sandbox::new();
    // Far too large a rate spoils what the fitted head knew.
    let report = s.json("train --base base --data train.tsv --dev train.tsv --out x.bias --epochs 2 --lr 0.9 --head fitted --json");
    let main = |m: &serde_json::Value| m["accuracy"].as_f64().unwrap();
    let held_out = &report["held_out"];
    assert!(main(&held_out["scores"]) >= main(&report["before"]), "{report}");
    assert_eq!(held_out["head_alone"]["scores"], report["before"]);
    let interval = &held_out["interval"];
    let [low, high] = ["low", "high"].map(|end| interval[end].as_f64().unwrap());
    assert!(low <= main(&held_out["scores"]) && main(&held_out["scores"]) <= high, "{report}");
}

#[test]
fn some_lines_are_held_out_where_there_is_no_dev() {
    let s = Sandbox::new();
    let lines: String = (0..200).map(|i| format!("{}\tword {i}\n", ["good", "bad"][i % 2])).collect();
    s.write("many.tsv", format!("label\ttext\n{lines}"));
    const RUN: &str = "train --base base --data many.tsv --out x.bias --epochs 1 --batch 16";
    let held = s.ok(RUN);
    assert!(held.stderr.contains("held out: 20 of the 200 examples"), "{}", held.stderr);
    assert!(held.stdout.contains("accuracy on 20 held-out examples"), "{}", held.stdout);
    assert_eq!(
        s.json(&format!("{RUN} --hold-out 0.25 --force --json"))["held_out"]["scores"]["examples"],
        50
    );
    for (flags, steps) in [("--hold-out 0", 13), ("--limit 199", 13), ("--hold-out 0.5 --patience 1", 7)] {
        let report = s.json(&format!("{RUN} {flags} --force --json"));
        assert_eq!(report["steps"], steps, "{flags}");
        assert_eq!(report["held_out"].is_null(), steps == 13, "{flags}");
    }
    // Of the second label there is one: all are learned from.
    s.write("rare.tsv", format!("label\ttext\nrare\tone\n{}", "many\tof them\n".repeat(2)));
    for seed in 0..4 {
        s.ok(&format!(
            "train --base base --data rare.tsv --out y.bias --epochs 1 --hold-out 0.4 --seed {seed}"
        ));
    }
    for bad in ["1", "-0.1", "nan", "x"] {
        s.refuses(&format!("{RUN} --hold-out={bad}"), 2, &["--hold-out", "between 0 and 1"]);
    }
    s.refuses(&format!("{RUN} --hold-out 0.1 --dev many.tsv"), 2, &["--hold-out", "--dev"]);
}
