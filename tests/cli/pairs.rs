//! Pairs whose texts are read apart and compared.

use crate::sameness;
use crate::sandbox::{Sandbox, USAGE, emulated, examples};

/// Pairs of which every second one says the same twice, and one line in each label.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    let line = |(i, (_, text)): (usize, &(&str, String))| match i % 2 {
        0 => format!("same\t{text}\t{text}\n"),
        _ => format!("other\t{text}\tis it open on day {i}\n"),
    };
    let rows: Vec<String> = examples().iter().enumerate().map(line).collect();
    s.write("pairs.tsv", "label\ttext_a\ttext_b\n".to_owned() + &rows.concat());
    s.write(
        "numbers.tsv",
        "label\ttext_a\ttext_b\n1\ta movie\tthe movie\n0.2\ta day\tnever\n0.5\ta box\twe\n",
    );
    s
}

fn trained(s: &Sandbox, flags: &str, kernel: &str) -> Vec<u8> {
    sameness::trained(s, "pairs.tsv", &format!("--pool apart {flags}"), kernel)
}

#[test]
fn are_chosen_answered_and_scored() {
    let s = sandbox();
    // Whether two texts are the same is what vectors that are compared tell, and a random encoder's of both together do not.
    let done = s.ok("train --base base --data pairs.tsv --dev pairs.tsv --out x.bias --epochs 2");
    assert!(done.stderr.contains("pairs: bi-encoder"), "{}", done.stderr);
    assert!(done.stderr.contains("learning rate 0.001, head from the linear probe"), "{}", done.stderr);
    assert_eq!(s.json("inspect x.bias --json")["pooling"], "apart");
    let scores = s.json("eval --base base --bias x.bias --data pairs.tsv --json");
    assert_eq!(scores["accuracy"], 1.0, "{scores}");
    let chosen = s.read("x.bias");
    s.ok(
        "train --base base --data pairs.tsv --dev pairs.tsv --out x.bias --epochs 2 --pool apart --threads 1",
    );
    assert!(chosen == s.read("x.bias"), "chosen or asked for, it is the same");
    let done = s.ok("train --base base --data pairs.tsv --out y.bias --epochs 2 --pool mean");
    assert!(!done.stderr.contains("pairs:"), "nothing is tried where it is told: {}", done.stderr);
    s.ok("train --base base --task regress --data numbers.tsv --out n.bias --epochs 2 --pool apart");
    let exact = s.json("eval --base base --bias n.bias --data numbers.tsv --exact --json");
    assert_eq!(exact["examples"], 3);
}

#[test]
fn learn_the_same_wherever() {
    let s = sandbox();
    let first = trained(&s, "--threads 1", "");
    for flags in ["--threads 2", "--memory 200MB", "--threads 2 --checkpoint run --every 3"] {
        assert!(first == trained(&s, flags, ""), "{flags}");
    }
    assert!(first == trained(&s, "", "portable"), "portable");
    if emulated() {
        return;
    }
    let dropped = "--encoder-dropout 0.1 --dropout 0.2";
    assert!(
        trained(&s, &format!("{dropped} --threads 1"), "") == trained(&s, dropped, "portable"),
        "{dropped}"
    );
    let upper = "--layers 1..2 --dev pairs.tsv --keep last";
    let first = trained(&s, &format!("{upper} --prefix-cache 0"), "");
    assert!(first == trained(&s, upper, ""), "hidden states are kept");
}

#[test]
fn one_text_and_other_tasks_are_refused() {
    let s = sandbox();
    trained(&s, "", "");
    s.write("one.tsv", "label\ttext\nsame\ta movie\nother\ta day\n");
    let train = "train --base base --out y.bias --pool apart";
    for (line, words) in [
        ("predict --base base --bias x.bias hello", &["compares two texts", "`hello`"][..]),
        ("eval --base base --bias x.bias --data one.tsv", &["compares two texts"]),
        ("embed --base base --bias x.bias train.tsv", &["compares two texts"]),
        ("search --base base --bias x.bias --in train.tsv x", &["compares two texts"]),
        ("export --base base --bias x.bias --format peft -o y", &["--pool cls"]),
        (&format!("{train} --data train.tsv"), &["compares two texts"]),
        (&format!("{train} --data pairs.tsv --task contrastive"), &["contrastive", "pool cls or mean"]),
        (&format!("{train} --data pairs.tsv --setfit"), &["setfit", "pool cls or mean"]),
    ] {
        s.refuses(line, USAGE, words);
    }
}
