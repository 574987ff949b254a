//! The tasks beside classification, from file to answer: what is learned, told and refused.

use crate::sandbox::{Sandbox, USAGE, examples};

/// The sandbox's texts with labels of another kind.
fn relabelled(label: impl Fn(usize, &str, &str) -> String) -> String {
    let row =
        |(i, (label_is, text)): (usize, (&str, String))| format!("{}\t{text}\n", label(i, label_is, &text));
    std::iter::once("label\ttext\n".to_owned()).chain(examples().into_iter().enumerate().map(row)).collect()
}

/// Around 40 for `good` and 10 for `bad`.
fn numbers() -> String {
    relabelled(|i, label, _| format!("{}", if label == "good" { 40.0 } else { 10.0 } + (i % 3) as f64 * 0.5))
}

/// Whether it is good, and whether somebody loves it; nothing for most of the bad ones.
fn several() -> String {
    relabelled(|_, label, text| {
        let labels = [(label == "good", "good"), (text.matches("love").count() > 1, "loved")];
        labels.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    })
}

const LINE: &str = "train --base base --data x.tsv --dev x.tsv --out x.bias --epochs 30 --lr 0.03 --batch 4";

const GOOD: &str = "it was a very good movie";
const BAD: &str = "this was a very bad movie and we love it";

fn ask(s: &Sandbox, flags: &str, text: &str) -> String {
    let script = format!("\"$@\" predict --base base --bias x.bias {flags} '{text}'");
    let done = s.shell(&script).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_number_is_learned_in_its_own_units() {
    let s = Sandbox::new();
    s.write("x.tsv", numbers());
    let done = s.ok(&format!("{LINE} --task regress"));
    assert!(
        done.stderr.contains("16 examples, a number each") && done.stderr.contains("Pearson"),
        "{}",
        done.stderr
    );
    let scores = s.json("eval --base base --bias x.bias --data x.tsv --json");
    for key in ["pearson", "spearman"] {
        assert!(scores[key].as_f64().unwrap() > 0.8, "{scores}");
    }
    assert!(scores["loss"].as_f64().unwrap() < 30.0, "the mean square of all is 225: {scores}");
    let answer = ask(&s, "", GOOD);
    let (value, text) = answer.split_once('\t').unwrap();
    assert_eq!(
        (text, value.split_once('.').map(|(_, d)| d.len())),
        (&*format!("{GOOD}\n"), Some(3)),
        "{answer}"
    );
    assert!((35.0..45.0).contains(&value.parse().unwrap()), "{answer}");
    let json: serde_json::Value = serde_json::from_str(&ask(&s, "--json", BAD)).unwrap();
    assert!((5.0..15.0).contains(&json["value"].as_f64().unwrap()) && json.get("label").is_none(), "{json}");
    let facts = s.json("inspect x.bias --json");
    assert_eq!((&facts["task"], &facts["labels"]), (&"regress".into(), &serde_json::json!([])));
}

#[test]
fn several_labels_a_text() {
    let s = Sandbox::new();
    s.write("x.tsv", several());
    let done = s.ok(&format!("{LINE} --task multilabel"));
    assert!(
        done.stderr.contains("16 examples, 2 labels") && done.stderr.contains("micro F1"),
        "{}",
        done.stderr
    );
    let scores = s.json("eval --base base --bias x.bias --data x.tsv --json");
    for key in ["micro_f1", "macro_f1", "accuracy"] {
        assert!(scores[key].as_f64().unwrap() > 0.8, "{key}: {scores}");
    }
    let json: serde_json::Value = serde_json::from_str(&ask(&s, "--json", GOOD)).unwrap();
    assert_eq!(json["labels"], serde_json::json!(["good"]));
    let both = [&json["probabilities"]["good"], &json["probabilities"]["loved"]].map(|p| p.as_f64().unwrap());
    assert!(both[0] > 0.5 && both[1] < 0.5, "{json}");
    let line = ask(&s, "", GOOD);
    assert!(line.starts_with("good\t0.") && line.ends_with(&format!("\t{GOOD}\n")), "{line}");
    // JSON has arrays, and says the same.
    let rows = several();
    let objects = rows.lines().skip(1).map(|row| {
        let (labels, text) = row.split_once('\t').unwrap();
        let labels: Vec<&str> = labels.split(", ").filter(|l| !l.is_empty()).collect();
        serde_json::json!({ "label": labels, "text": text }).to_string() + "\n"
    });
    s.write("x.jsonl", objects.collect::<String>());
    let again = s.json("eval --base base --bias x.bias --data x.jsonl --json");
    assert_eq!(again["micro_f1"], scores["micro_f1"]);
}

/// Words of the tiny model's vocabulary: `good` and `bad` are one-word spans of two kinds, or two words with `very`.
fn tagged() -> String {
    let mut file = String::new();
    for (_, text) in examples() {
        let mut open = false;
        for word in text.split(' ') {
            let tag = match word {
                "very" => "B-view",
                "good" | "bad" if open => "I-view",
                "movie" => "B-thing",
                _ => "O",
            };
            open = word == "very";
            file += &format!("{word}\tx\t{tag}\n");
        }
        file += "\n";
    }
    file
}

#[test]
fn a_tag_for_each_word() {
    let s = Sandbox::new();
    s.write("x.conll", tagged());
    let line = LINE.replace("x.tsv", "x.conll");
    let done = s.ok(&format!("{line} --task tag"));
    assert!(
        done.stderr.contains("16 examples, 4 labels") && done.stderr.contains("span F1"),
        "{}",
        done.stderr
    );
    let scores = s.json("eval --base base --bias x.bias --data x.conll --json");
    assert!(
        scores["span_f1"].as_f64().unwrap() > 0.9 && scores["accuracy"].as_f64().unwrap() > 0.95,
        "{scores}"
    );
    let wanted = "it\tO\nwas\tO\na\tO\nvery\tB-view\ngood\tI-view\nmovie\tB-thing\n\n";
    assert_eq!(ask(&s, "", GOOD), wanted);
    let json: serde_json::Value = serde_json::from_str(&ask(&s, "--json", GOOD)).unwrap();
    assert_eq!(json["tags"], serde_json::json!(["O", "O", "O", "B-view", "I-view", "B-thing"]));
    assert_eq!(
        (json["words"][5].as_str(), json["probabilities"].as_array().map(Vec::len)),
        (Some("movie"), Some(6))
    );
    let facts = s.json("inspect x.bias --json");
    assert_eq!((&facts["task"], &facts["pooling"]), (&"tag".into(), &"tokens".into()));
    // A sentence longer than fits: its first words are tagged as ever, the others get `O`.
    let long = ask(&s, "", &format!("{GOOD} {}", "box ".repeat(200)));
    assert!(long.starts_with(&wanted[..wanted.len() - 1]) && long.lines().count() == 207, "{long}");
    // JSON lines of the same.
    let sentences: String = tagged()
        .trim_end()
        .split("\n\n")
        .map(|sentence| {
            let rows: Vec<Vec<&str>> = sentence.lines().map(|l| l.split('\t').collect()).collect();
            let (words, tags): (Vec<&str>, Vec<&str>) = rows.iter().map(|r| (r[0], r[2])).unzip();
            serde_json::json!({ "text": words.join(" "), "label": tags }).to_string() + "\n"
        })
        .collect();
    s.write("x.jsonl", sentences);
    let again = s.json("eval --base base --bias x.bias --data x.jsonl --json");
    assert_eq!((&again["span_f1"], &again["loss"]), (&scores["span_f1"], &scores["loss"]));
}

const QUESTION: &str = "how good was it";

/// Contexts of up to four windows of 24 tokens; the answer is `very` and the word behind it. Not all characters are bytes.
fn contexts() -> impl Iterator<Item = (String, String)> {
    let context = |(i, (label, text)): (usize, (&str, String))| {
        (format!("é {}{text}", "a box ".repeat(i % 4 * 5)), format!("very {label}"))
    };
    examples().into_iter().enumerate().map(context)
}

fn asked() -> String {
    let paragraph = |(i, (context, answer)): (usize, (String, String))| {
        let start = context[..context.find("very").unwrap()].chars().count();
        let answers = serde_json::json!([{ "text": answer, "answer_start": start }]);
        let question = serde_json::json!({ "id": format!("q{i}"), "question": QUESTION, "answers": answers });
        serde_json::json!({ "context": context, "qas": [question] })
    };
    let paragraphs: Vec<_> = contexts().enumerate().map(paragraph).collect();
    serde_json::json!({ "version": "1.1", "data": [{ "title": "t", "paragraphs": paragraphs }] }).to_string()
}

#[test]
fn an_answer_to_each_question() {
    let s = Sandbox::new();
    s.write("x.json", asked());
    let line = LINE.replace("x.tsv", "x.json") + " --task qa --max-len 24 --stride 6";
    let done = s.ok(&line);
    assert!(
        done.stderr.contains("16 examples, an answer span each") && done.stderr.contains("exact match"),
        "{}",
        done.stderr
    );
    let scores = s.json("eval --base base --bias x.bias --data x.json --json");
    for key in ["exact_match", "f1"] {
        assert!(scores[key].as_f64().unwrap() > 0.8, "{scores}");
    }
    assert_eq!(scores["examples"], 16);
    let facts = s.json("inspect x.bias --json");
    assert_eq!((&facts["task"], &facts["pooling"]), (&"qa".into(), &"tokens".into()));
    assert_eq!((&facts["max_len"], &facts["stride"]), (&24.into(), &6.into()));

    // Answers of a file, by the names of its questions, are those that were scored.
    let lines = s.ok("predict --base base --bias x.bias --data x.json --json").stdout;
    let mut right = 0.0;
    for (i, (line, (context, answer))) in lines.lines().zip(contexts()).enumerate() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        let [start, end] = ["start", "end"].map(|key| json[key].as_u64().unwrap() as usize);
        let found: String = context.chars().skip(start).take(end - start).collect();
        assert_eq!(
            (&json["answer"], &json["id"]),
            (&found.as_str().into(), &format!("q{i}").into()),
            "{json}"
        );
        assert!((0.0..=1.0).contains(&json["score"].as_f64().unwrap()), "{json}");
        right += f64::from(u8::from(found == answer)) / 16.0;
    }
    assert_eq!((lines.lines().count(), scores["exact_match"].as_f64()), (16, Some(right)));
    let (context, answer) = contexts().nth(3).unwrap();
    let line = ask(&s, "", &format!("{QUESTION}\t{context}"));
    assert!(
        line.starts_with(&format!("{answer}\t0.")) && line.ends_with(&format!("\t{QUESTION}\n")),
        "{line}"
    );
    let json: serde_json::Value = serde_json::from_str(&ask(&s, "--json", &format!("{QUESTION}\t"))).unwrap();
    let empty = serde_json::json!(
        { "answer": "", "score": 0.0, "start": 0, "end": 0, "question": QUESTION, "context": "" }
    );
    assert_eq!(json, empty);

    let few = line_of_two_epochs();
    s.ok(&format!("{few} --out one.bias --threads 1"));
    s.ok(&format!("{few} --out two.bias --threads 2"));
    assert!(s.read("one.bias") == s.read("two.bias"), "threads change the result");
    s.ok(&format!("{few} --out third.bias --max-len 30"));
    assert_eq!(s.json("inspect third.bias --json")["stride"], 10);
}

fn line_of_two_epochs() -> &'static str {
    "train --base base --data x.json --task qa --epochs 2 --limit 6"
}

#[test]
fn what_is_no_question_is_refused() {
    let s = Sandbox::new();
    s.write("x.json", asked());
    s.write("moved.json", asked().replacen("very good", "awfully good", 1));
    s.write("unanswered.json", asked().replacen("\"answers\"", "\"plausible_answers\"", 1));
    s.write("cut.json", &asked()[..300]);
    s.write("empty.json", "");
    s.write("deep.json", format!("{{\"data\":{}", "[".repeat(1 << 20)));
    let train = "train --base base --out y.bias --epochs 1";
    for (line, words) in [
        ("--data x.json", &["x.json", "--task qa"][..]),
        ("--data train.tsv --task qa", &["train.tsv", "SQuAD"]),
        ("--data x.json --dev train.tsv --task qa", &["train.tsv", "SQuAD"]),
        (
            "--data moved.json --task qa",
            &["moved.json", "`q0`", "`very good`", "does not stand at character", "nor anywhere"],
        ),
        ("--data unanswered.json --task qa", &["unanswered.json", "`q0`", "no `answers`"]),
        ("--data cut.json --task qa", &["cut.json:1", "bad JSON at column 300"]),
        ("--data empty.json --task qa", &["empty.json", "the file is empty"]),
        ("--data deep.json --task qa", &["deep.json:1"]),
        ("--data train.tsv --stride 9", &["--stride is for qa"]),
        ("--data x.json --dev x.json --task qa --keep accuracy", &["qa has no accuracy", "exact_match"]),
        ("--data x.json --task qa --class-weights", &["class weights", "qa"]),
        ("--data x.json --task qa --max-len 3", &["max-len 3"]),
    ] {
        s.refuses(&format!("{train} {line}"), USAGE, words);
        assert!(!s.path("y.bias").exists(), "{line}");
    }
    s.ok(&format!("{} --out q.bias", line_of_two_epochs()));
    s.refuses("predict --base base --bias q.bias alone", USAGE, &["a question, and the text"]);
    s.refuses("eval --base base --bias q.bias --data train.tsv", USAGE, &["train.tsv", "SQuAD"]);
    s.refuses("predict --base base --bias q.bias --data cut.json", USAGE, &["cut.json:1"]);
    s.ok("predict --base base --bias q.bias --data unanswered.json");
}

#[test]
fn what_does_not_fit_the_task_is_refused() {
    let s = Sandbox::new();
    s.write("numbers.tsv", numbers());
    s.write("several.tsv", several());
    s.write("x.conll", tagged());
    s.write("one.conll", "a O-\nb O-\n");
    s.write("bare.conll", "a\tO\nb\n");
    s.write("empty.conll", "\n\n");
    s.write("other.conll", "a B-new\n");
    let train = "train --base base --out y.bias --epochs 1";
    for (line, words) in [
        ("--data train.tsv --task regress", &["train.tsv:2", "`good` is not a number", "regress"][..]),
        ("--data numbers.tsv --dev train.tsv --task regress", &["train.tsv:2", "not a number"]),
        ("--data numbers.tsv --task regress --class-weights", &["class weights", "regress"]),
        (
            "--data numbers.tsv --dev numbers.tsv --task regress --keep mcc",
            &["--keep", "regress has no mcc", "pearson"],
        ),
        ("--data several.tsv", &["several.tsv", "the label is empty"]),
        ("--data train.tsv --task guess", &["guess", "classify, multilabel, regress, tag, qa"]),
        ("--data x.conll", &["x.conll", "--task tag"]),
        ("--data train.tsv --task tag", &["train.tsv:2", "1 tags for"]),
        ("--data one.conll --task tag", &["one.conll", "same tag"]),
        ("--data bare.conll --task tag", &["bare.conll:2", "no tag behind `b`"]),
        ("--data x.conll --dev train.tsv --task tag", &["train.tsv:2", "1 tags for"]),
        ("--data empty.conll --task tag", &["empty.conll", "empty"]),
    ] {
        s.refuses(&format!("{train} {line}"), USAGE, words);
        assert!(!s.path("y.bias").exists(), "{line}");
    }
    s.ok("train --base base --data numbers.tsv --task regress --out n.bias --epochs 1");
    s.ok(&format!("{train} --data x.conll --dev other.conll --task tag"));
    let scores = s.json("eval --base base --bias y.bias --data one.conll --json");
    assert_eq!((&scores["accuracy"], &scores["unseen_labels"]["names"][0]), (&0.0.into(), &"O-".into()));
    s.refuses("eval --base base --bias n.bias --data train.tsv", USAGE, &["train.tsv:2", "not a number"]);
}
