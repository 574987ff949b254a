//! Retraining: a better bias file is never replaced by a worse one, and the same command on more lines just works.

use super::sandbox::{Sandbox, USAGE, emulated};

const NOT_BETTER: i32 = 4;

/// Lines with a word that tells the label. A number makes each text unique.
fn lines(numbers: std::ops::Range<usize>) -> String {
    let words = [["good", "fine"], ["bad", "awful"]];
    let line = |i: usize| {
        let label = i % 2;
        format!("{}\tsunday was a very {} movie {i}\n", ["good", "bad"][label], words[label][i / 2 % 2])
    };
    std::iter::once("label\ttext\n".to_owned()).chain(numbers.map(line)).collect()
}

/// Learns the labels of [`lines`].
const WELL: &str =
    "train --base base --data first.tsv --dev fresh.tsv --out mine.bias --epochs 20 --lr 0.01 --json";
/// Learns nothing: a random head, hardly a step, and that one is kept.
const BADLY: &str =
    "train --base base --data first.tsv --dev fresh.tsv --out mine.bias --epochs 1 --lr 1e-9 --keep last";

fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    s.write("first.tsv", lines(0..30));
    s.write("fresh.tsv", lines(100..130));
    s
}

#[test]
fn a_better_file_stays_without_force() {
    let s = sandbox();
    let well = s.json(WELL);
    assert_eq!(well["result"]["comparison"], serde_json::Value::Null, "there was none");
    let first = s.read("mine.bias");

    let badly = s.run(BADLY);
    badly.failed(
        BADLY,
        NOT_BETTER,
        &[
            "mine.bias is better on lines that neither file was trained on",
            "mine.new.bias",
            "--force",
            "the existing file",
        ],
    );
    assert_eq!(badly.stdout, "");
    assert_eq!(s.read("mine.bias"), first);
    s.run(&format!("{BADLY} --checkpoint ck")).failed(BADLY, NOT_BETTER, &["mine.new.bias"]);
    assert!(!s.path("ck").exists(), "it is over all the same");
    let score = |file| {
        s.json(&format!("eval --base base --bias {file} --data fresh.tsv --json"))["accuracy"].as_f64()
    };
    assert!(score("mine.new.bias") < score("mine.bias"), "the new one is there to be looked at");

    let forced = s.json(&format!("{BADLY} --force --json"));
    assert_ne!(s.read("mine.bias"), first);
    let comparison = &forced["result"]["comparison"];
    assert_eq!(comparison["previous"]["accuracy"], well["result"]["metrics"]["accuracy"]);
    assert!(comparison["lead"]["low"].as_f64().unwrap() > 0.0, "{forced}");
}

/// Lines that the existing file was trained on tell nothing of it.
#[test]
fn learned_lines_are_no_reason_to_keep_a_file() {
    let s = sandbox();
    s.json(WELL);
    let first = s.read("mine.bias");
    let on_its_own =
        BADLY.replace("--dev fresh.tsv", "--dev first.tsv").replace("--data first.tsv", "--data fresh.tsv");
    let done = s.ok(&on_its_own);
    assert!(
        done.stderr.contains("replaced without a comparison: there are too few lines here"),
        "{}",
        done.stderr
    );
    assert_ne!(s.read("mine.bias"), first);
    // Without its lines nothing is known of a file that was scored by cross-validation alone.
    std::fs::remove_file(s.path("mine.bias.lines")).unwrap();
    let done = s.ok("train --base base --data first.tsv --out mine.bias --epochs 2");
    assert!(done.stderr.contains("not known which lines"), "{}", done.stderr);
}

/// The same command on the same lines and more, day after day.
#[test]
fn more_lines_and_the_same_command() {
    let s = Sandbox::new();
    let run =
        "train --base base --data mine.tsv --out mine.bias --epochs 20 --lr 0.01 --effort normal --json";
    for &last in if emulated() { &[40, 55][..] } else { &[40, 55, 70] } {
        s.write("mine.tsv", lines(0..last));
        let report = s.json(run);
        let comparison = &report["result"]["comparison"];
        match last {
            40 => assert!(comparison.is_null()),
            _ => assert_eq!(comparison["examples"], 15, "the lines that are new: {comparison}"),
        }
        assert_eq!(report["result"]["source"], "cross_validation");
        assert_eq!(report["result"]["metrics"]["examples"], last);
        let lines: serde_json::Value = serde_json::from_slice(&s.read("mine.bias.lines")).unwrap();
        assert_eq!(lines["lines"].as_array().unwrap().len(), last, "each of the lines, and no text");
        assert!(!s.path("mine.new.bias").exists());
    }
}

/// A model of pairs cannot answer single texts, so it is not compared on them.
#[test]
fn a_file_that_cannot_read_the_lines_is_replaced() {
    let s = sandbox();
    let pairs = lines(0..30).replace("label\ttext", "label\ttext_a\ttext_b").replace(" was a ", "\twas a ");
    s.write("pairs.tsv", pairs);
    s.ok("train --base base --data pairs.tsv --out mine.bias --pool apart --epochs 1");
    for more in ["", "--dev fresh.tsv"] {
        let done = s.ok(&format!(
            "train --base base --data first.tsv --out mine.bias --pool windows --epochs 1 {more}"
        ));
        assert!(done.stderr.contains("replaced without a comparison"), "{}", done.stderr);
        s.ok("train --base base --data pairs.tsv --out mine.bias --pool apart --epochs 1");
    }
}

#[test]
fn only_what_a_model_replaces_is_replaced() {
    let s = sandbox();
    let run = "train --base base --data first.tsv --epochs 1 --out mine.bias";
    s.ok(run);
    s.write("numbers.tsv", lines(0..30).replace("good\t", "1\t").replace("bad\t", "2\t"));
    let other = "train --base base --task regress --data numbers.tsv --epochs 1 --out mine.bias";
    s.refuses(other, USAGE, &["mine.bias", "task classify, not regress", "force"]);
    s.write("notes.txt", "my notes");
    s.refuses(&run.replace("mine.bias", "notes.txt"), USAGE, &["notes.txt", "is not a bias file"]);
    s.ok(&format!("quantize {} --output again", super::sandbox::TINY));
    s.ok(&run.replace("--base base", "--base again"));
    s.ok(&format!("{other} --force"));
    // Other labels are no other task.
    s.ok(&format!("{run} --force"));
    s.write("first.tsv", lines(0..30).replace("good\t", "great\t"));
    s.ok(run);
}

#[test]
fn no_epoch_may_be_worse_than_the_probe() {
    let s = Sandbox::new();
    // Far too large a rate spoils what the probe knew.
    let report = s.json("train --base base --data train.tsv --dev train.tsv --out x.bias --epochs 2 --lr 0.9 --head fitted --json");
    let main = |m: &serde_json::Value| m["accuracy"].as_f64().unwrap();
    let result = &report["result"];
    assert!(main(&result["metrics"]) >= main(&report["before"]), "{report}");
    assert_eq!(result["probe"]["metrics"], report["before"]);
    let interval = &result["interval"];
    let [low, high] = ["low", "high"].map(|end| interval[end].as_f64().unwrap());
    assert!(low <= main(&result["metrics"]) && main(&result["metrics"]) <= high, "{report}");
}

#[test]
fn a_share_is_held_out_if_asked() {
    let s = Sandbox::new();
    s.write("many.tsv", lines(0..200));
    const RUN: &str = "train --base base --data many.tsv --out x.bias --epochs 1 --batch 16 --force";
    for (flags, steps, source, scored) in [
        ("--hold-out 0.25", 10, "held_out", 50),
        ("--hold-out 0.5 --patience 1", 7, "held_out", 100),
        ("--hold-out 0 --effort normal", 13, "cross_validation", 200),
        ("--limit 100 --effort normal", 7, "cross_validation", 100),
    ] {
        let report = s.json(&format!("{RUN} {flags} --json"));
        assert_eq!(report["steps"], steps, "{flags}");
        assert_eq!(report["result"]["source"], source, "{flags}");
        assert_eq!(report["result"]["metrics"]["examples"], scored, "{flags}");
    }
    // One line has a label of its own: it is learned from, whatever the seed.
    s.write("rare.tsv", lines(0..9) + "rare\tone\n");
    for seed in 0..if emulated() { 2 } else { 12 } {
        let run = format!(
            "train --base base --data rare.tsv --out y.bias --epochs 1 --hold-out 0.4 --seed {seed} --json"
        );
        let report = s.json(&run);
        let labels = report["result"]["labels"].as_array().unwrap();
        let rare = labels.iter().find(|l| l["label"] == "rare").unwrap();
        assert_eq!(rare["examples"], 0, "seed {seed}: {rare}");
    }
    for bad in ["1", "-0.1", "nan", "x"] {
        s.refuses(&format!("{RUN} --hold-out={bad}"), USAGE, &["--hold-out", "between 0 and 1"]);
    }
    s.refuses(&format!("{RUN} --hold-out 0.1 --dev many.tsv"), USAGE, &["--hold-out", "--dev"]);
}
