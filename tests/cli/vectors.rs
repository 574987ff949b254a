//! Texts as vectors: biases tuned on pairs, and what `embed` and `search` make of a base with or without them.

use crate::sandbox::{Done, IO, Sandbox, USAGE};
use safetensors::SafeTensors;
use serde_json::Value;

const WORDS: &str = "sunday station box time mile day restaurant movie";

/// A question and an answer for each of some words.
fn pairs() -> String {
    let pair = |w: &str| format!("how far was the {w}\twe love it on that {w} and never this\n");
    std::iter::once("text_a\ttext_b\n".to_owned()).chain(WORDS.split(' ').map(pair)).collect()
}

fn answers() -> String {
    pairs().lines().skip(1).map(|pair| pair.split_once('\t').unwrap().1.to_owned() + "\n").collect()
}

const TRAIN: &str = "train --task contrastive --base base --data pairs.tsv --dev pairs.tsv --out x.bias --batch 8 \
                     --epochs 80 --lr 0.01";

fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    s.write("pairs.tsv", pairs());
    s.write("lines", answers());
    s
}

fn with_query(s: &Sandbox, line: &str, query: &str) -> Done {
    Done::of(s.command(line).arg(query).output().unwrap())
}

/// Text and vector of each line that `embed` prints.
fn embed(s: &Sandbox, line: &str) -> Vec<(String, Vec<f32>)> {
    let done = s.ok(&format!("embed --base base {line}"));
    let one = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap();
        let vector = object["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32);
        (object["text"].as_str().unwrap().to_owned(), vector.collect())
    };
    done.stdout.lines().map(one).collect()
}

#[test]
fn pairs_that_belong_together_are_learned() {
    let s = sandbox();
    let nothing = TRAIN.replace("--epochs 80 --lr 0.01", "--epochs 1 --lr 1e-9 --json");
    let before = s.json(&nothing)["epochs"][0]["dev"].clone();
    let done = s.ok(TRAIN);
    assert!(
        done.stderr.contains("8 examples, a positive pair each") && done.stderr.contains("recall@1"),
        "{}",
        done.stderr
    );
    assert!(done.stdout.contains(" 0 head values"), "{}", done.stdout);
    let after = s.json("eval --base base --bias x.bias --data pairs.tsv --json");
    let untrained = &after["result"]["probe"]["metrics"];
    assert_eq!(untrained["recall_at_1"], before["recall_at_1"], "the base itself stands beside it: {after}");
    let score = |m: &Value, key: &str| m[key].as_f64().unwrap();
    for key in ["recall_at_1", "mrr"] {
        assert!(score(&after, key) > score(&before, key), "{before} {after}");
    }
    assert!(score(&after, "recall_at_1") > 0.8 && score(&after, "loss") < score(&before, "loss"), "{after}");
    let facts = s.json("inspect x.bias --json");
    assert_eq!((&facts["task"], &facts["labels"]), (&"contrastive".into(), &serde_json::json!([])));
    assert_eq!(facts["pooling"], "first", "`cls` of a sentence-transformer is the first token");
    // What was learned is in the vectors, and a tag or a label is not what it is for.
    let mut found = 0;
    for pair in pairs().lines().skip(1) {
        let (query, answer) = pair.split_once('\t').unwrap();
        let done = with_query(&s, "search --base base --bias x.bias --in lines --top 1", query);
        found += usize::from(done.stdout.trim_end().split_once('\t').unwrap().1 == answer);
    }
    assert!((found as f64 / 8.0 - score(&after, "recall_at_1")).abs() < 1e-9, "{found} of 8, {after}");
    s.refuses("predict --base base --bias x.bias hello", USAGE, &["contrastive", "embed", "search"]);
    s.refuses("eval --base base --bias x.bias --data train.tsv", USAGE, &["train.tsv:2", "second text"]);
}

/// Texts run twice, in micro-batches: neither their cut nor dropout nor what is kept of frozen layers shows.
#[test]
fn one_result_however_it_runs() {
    let s = sandbox();
    let line = TRAIN.replace("--epochs 80", "--epochs 3");
    for flags in ["--encoder-dropout 0.1", "--layers 1..2", "--pool mean"] {
        let run = |more: &str, kernel: &str| {
            let output = s.command(&format!("{line} {flags} {more}")).env("TRIMTAB_KERNEL", kernel).output();
            let done = Done::of(output.unwrap());
            assert_eq!(done.code, Some(0), "{}", done.stderr);
            s.read("x.bias")
        };
        let first = run("--threads 1", "");
        assert!(first == run("--threads 3", ""), "{flags}: threads");
        assert!(first == run("--prefix-cache 0", "portable"), "{flags}: kernels, cache");
    }
}

#[test]
fn a_vector_for_each_line() {
    let s = sandbox();
    s.write("some", "we love it\n\nthe station\n");
    let some = embed(&s, "some");
    let texts: Vec<&str> = some.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["we love it", "", "the station"], "a blank line has its place");
    assert!(some.iter().all(|(_, v)| v.len() == 64));
    // Neither the texts beside it nor the way it came in shows.
    s.write("many", "the station\n".to_owned() + &answers().repeat(9) + "the station");
    let many = embed(&s, "many");
    assert!(many[0].1 == some[2].1 && many[73].1 == some[2].1);
    let piped = s.shell("printf 'the station\n' | \"$@\" embed --base base -").output().unwrap();
    let done = s.ok("embed --base base some");
    assert_eq!(Done::of(piped).stdout.trim_end(), done.stdout.lines().nth(2).unwrap());
    // Length 1, and with a bias file its own.
    let unit = embed(&s, "--normalize some");
    let norm = unit[0].1.iter().map(|v| v * v).sum::<f32>();
    let scale = some[0].1[0] / unit[0].1[0];
    assert!((norm - 1.0).abs() < 1e-5 && (some[0].1[5] / unit[0].1[5] / scale - 1.0).abs() < 1e-5);
    assert!(embed(&s, "--bias me.bias some")[0].1 != some[0].1);
    // The matrix holds the same.
    s.ok("embed --base base some --out x.safetensors");
    let bytes = s.read("x.safetensors");
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let matrix = all.tensor("embeddings").unwrap();
    let rows: Vec<u8> = some.iter().flat_map(|(_, v)| v).flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!((matrix.shape(), matrix.data()), (&[3, 64][..], &rows[..]));
}

#[test]
fn the_nearest_lines_first() {
    let s = sandbox();
    s.write("lines", "\n".to_owned() + &answers() + "the box\n\nthe box\n");
    let done = with_query(&s, "search --base base --in lines --json --top 3", "the box");
    let found: Vec<Value> = done.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let lines: Vec<u64> = found.iter().map(|f| f["line"].as_u64().unwrap()).collect();
    assert_eq!((lines.len(), &lines[..2]), (3, &[10, 12][..]), "of equals the first");
    let scores: Vec<f64> = found.iter().map(|f| f["score"].as_f64().unwrap()).collect();
    assert!((scores[0] - 1.0).abs() < 1e-6 && scores[0] == scores[1] && scores[1] > scores[2], "{scores:?}");
    let all = with_query(&s, "search --base base --in lines --top 100", "the box").stdout;
    assert_eq!((all.lines().count(), all.lines().next()), (10, Some("1.000\tthe box")), "no blank one");
}

#[test]
fn what_has_no_vectors_is_refused() {
    let s = sandbox();
    s.write("empty", "");
    s.write("blank", "\n \n");
    s.write("bad", b"we love it\nbad \xff byte\n");
    s.write("tags.conll", "the\tA\nbox\tB\n\n");
    s.write("same.tsv", "text_a\ttext_b\na\tb\nc\tb\n");
    s.ok("train --task tag --base base --data tags.conll --out tags.bias --epochs 1");
    for (line, code, words) in [
        ("embed --base base empty", USAGE, &["empty", "the file is empty"][..]),
        ("embed --base base no-such-file", IO, &["no-such-file"]),
        ("embed --base base empty --out x.safetensors", USAGE, &["the file is empty"]),
        ("embed --base base bad --out x.safetensors", USAGE, &["bad:2", "not UTF-8"]),
        ("embed --base base lines --out lines", USAGE, &["would replace"]),
        ("embed --base base lines --out base", USAGE, &["would replace"]),
        ("embed --base base lines --out no/such/dir", USAGE, &["no directory"]),
        ("embed --base base --bias tags.bias lines", USAGE, &["tag", "tokens"]),
        ("embed --base base --max-len 2 lines", USAGE, &["max-len 2"]),
        ("search --base base --in blank x", USAGE, &["blank", "no line to search"]),
        ("search --base base --in lines --top 0 x", USAGE, &["--top"]),
        ("search --base base --in bad x", USAGE, &["bad:2", "not UTF-8"]),
        ("train --task contrastive --base base --out y --data train.tsv", USAGE, &["train.tsv:2", "text_b"]),
        ("train --task contrastive --base base --out y --data same.tsv", USAGE, &["same second text"]),
        ("train --task contrastive --base base --out y --data pairs.tsv --batch 1", USAGE, &["2 pairs"]),
        ("train --task contrastive --base base --out y --data pairs.tsv --terms none", USAGE, &["no head"]),
        ("train --task contrastive --base base --out y --data empty --format tsv", USAGE, &["empty"]),
    ] {
        s.refuses(line, code, words);
    }
    let done = s.run("embed --base base bad");
    done.failed("embed", USAGE, &["bad:2", "not UTF-8"]);
    assert_eq!(done.stdout.lines().count(), 1, "what came before is answered: {}", done.stdout);
}

/// Texts compared by their labels, then a linear probe: one bias file of a classifier, the same however it was made.
#[test]
fn few_examples_by_setfit() {
    let s = sandbox();
    let line = "train --setfit --base base --data train.tsv --dev dev.tsv --out x.bias --batch 4 --lr 0.003";
    let done = s.ok(&format!("{line} --threads 1"));
    assert!(done.stderr.contains("chosen: SetFit: 20 epochs of comparing texts"), "{}", done.stderr);
    let first = s.read("x.bias");
    for flags in ["--threads 2", "--memory 200MB", "--checkpoint ck --every 7", "--checkpoint ck --resume"] {
        s.ok(&format!("{line} {flags}"));
        assert!(first == s.read("x.bias"), "{flags}");
    }
    let scores = s.json("eval --base base --bias x.bias --data train.tsv --json");
    assert!(scores["accuracy"].as_f64().unwrap() > 0.9, "{scores}");
    let facts = s.json("inspect x.bias --json");
    assert_eq!((&facts["task"], &facts["settings"]["recipe"]), (&"classify".into(), &"setfit".into()));
    assert_eq!(facts["settings"]["epochs"], 10, "of the second part");
    s.write("numbers.tsv", "label\ttext\n1\ta\n2\tb\n");
    for (flags, words) in [
        ("--data train.tsv --terms none", &["setfit", "biases"][..]),
        ("--data numbers.tsv --task regress", &["setfit is for classify"]),
    ] {
        s.refuses(&format!("train --setfit --base base --out y {flags}"), USAGE, words);
    }
}
