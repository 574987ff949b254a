//! `predict` and `eval`: an answer for every text, the same whatever stands around it, as soon as it can be.

use crate::sandbox::{Done, Sandbox, USAGE, examples};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

const PREDICT: &str = "predict --base base --bias me.bias";

fn predict_stdin(s: &Sandbox, flags: &str, input: impl AsRef<[u8]>) -> Done {
    s.write("input", input);
    let stdin = std::fs::File::open(s.path("input")).unwrap();
    Done::of(s.command(&format!("{PREDICT} {flags}")).stdin(stdin).output().unwrap())
}

#[test]
fn texts_as_arguments() {
    let s = Sandbox::new();
    let mut command = s.command(PREDICT);
    let texts = ["a very good movie", "", "bad\ta pair of texts"];
    let done = Done::of(command.args(texts).output().unwrap());
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    for (line, text) in lines.iter().zip(texts) {
        let mut fields = line.splitn(3, '\t');
        assert!(["good", "bad"].contains(&fields.next().unwrap()), "{line}");
        let p: f64 = fields.next().unwrap().parse().unwrap();
        assert!((0.5..=1.0).contains(&p), "{line}");
        assert_eq!(fields.next(), Some(text));
    }
}

#[test]
fn a_file_is_answered_as_its_lines_are() {
    let s = Sandbox::new();
    let texts: String = examples().iter().map(|(_, text)| format!("{text}\n")).collect();
    for flags in ["", "--json"] {
        let by_file = s.ok(&format!("{PREDICT} --data train.tsv {flags}")).stdout;
        assert_eq!(by_file, predict_stdin(&s, flags, &texts).stdout);
        assert_eq!(by_file.lines().count(), 16);
    }
    s.refuses(&format!("{PREDICT} --data train.tsv text"), USAGE, &["--data"]);
    s.refuses(&format!("{PREDICT} --data none.tsv"), crate::sandbox::IO, &["none.tsv"]);
}

/// Neither a text nor a label breaks the form of the answers, or steers the terminal that shows them.
#[test]
fn an_answer_is_one_line_whatever_is_in_it() {
    let s = Sandbox::new();
    s.write(
        "x.jsonl",
        r#"{"label":"a\nb","text":"good"}"#.to_owned() + "\n" + r#"{"label":"\u001b[2J","text":"bad"}"#,
    );
    s.ok("train --base base --data x.jsonl --out x.bias --epochs 1");
    let done = Done::of(
        s.command("predict --base base --bias x.bias").args(["one\ntwo", "\u{1b}[31m"]).output().unwrap(),
    );
    let inspect = s.ok("inspect x.bias");
    assert_eq!(done.stdout.lines().count(), 2, "{}", done.stdout);
    for text in [done.stdout, inspect.stdout] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    s.write("y.tsv", "label\ttext\n\u{1b}[2J\tgood\nother\tbad\n");
    let done = s.ok("eval --base base --bias x.bias --data y.tsv");
    assert!(done.stdout.contains("`other`") && !done.stdout.contains('\u{1b}'), "{:?}", done.stdout);
    assert_eq!(
        s.json("predict --base base --bias x.bias --json x")["probabilities"].as_object().unwrap().len(),
        2
    );
}

#[test]
fn json_has_a_probability_for_each_label() {
    let s = Sandbox::new();
    let answer = s.json(&format!("{PREDICT} --json hello"));
    let probabilities = answer["probabilities"].as_object().unwrap();
    assert_eq!(probabilities.keys().collect::<Vec<_>>(), ["bad", "good"]);
    let p: Vec<f64> = probabilities.values().map(|v| v.as_f64().unwrap()).collect();
    assert!((p[0] + p[1] - 1.0).abs() < 1e-9, "{p:?}");
    assert_eq!(answer["label"], if p[1] > p[0] { "good" } else { "bad" });
}

#[test]
fn a_line_in_a_line_out() {
    let s = Sandbox::new();
    for (input, answers) in [
        ("", 0),
        ("\n", 1),
        ("one", 1),
        ("one\n", 1),
        ("one\n\n  \ntwo\r\na\tb\n\t\n", 6),
        (&"a very good movie\n\n".repeat(100), 200),
    ] {
        for flags in ["", "--json"] {
            let done = predict_stdin(&s, flags, input);
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{input:?}");
            assert_eq!(done.stdout.lines().count(), answers, "{input:?}");
        }
    }
}

#[test]
fn a_pair_is_not_its_text_with_a_tab() {
    let s = Sandbox::new();
    let done = predict_stdin(&s, "--json", "good\tmovie\ngood movie\n");
    let (pair, one) = done.stdout.trim_end().split_once('\n').unwrap();
    assert_ne!(pair, one, "the second text of a pair has a type of its own");
}

#[test]
fn answers_come_before_the_end_of_input() {
    let s = Sandbox::new();
    let mut child = s
        .command(PREDICT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for text in ["a good movie", "", "a bad day"] {
        writeln!(stdin, "{text}").unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap(); // waits for ever if answers wait for the end
        assert!(answer.ends_with(&format!("\t{text}\n")), "{answer}");
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_line_is_named_and_those_before_it_answered() {
    let s = Sandbox::new();
    for (bytes, what) in
        [(b"bad \xff byte".as_slice(), "not UTF-8"), (b"nul \0", "NUL"), (&[b'x'; 2 << 20], "1 MiB")]
    {
        let done = predict_stdin(&s, "", [b"one\n\n", bytes, b"\nfour\n"].concat());
        done.failed("predict", USAGE, &["standard input:3", what]);
        assert_eq!(done.stdout.lines().count(), 2, "{}", done.stdout);
    }
}

#[test]
fn a_text_alone_and_among_others_has_one_answer() {
    let s = Sandbox::new();
    let texts: Vec<String> = examples().into_iter().map(|(_, text)| text).collect();
    let mut many: Vec<&str> = Vec::new();
    for i in 0..40 {
        many.extend(texts.iter().cycle().skip(i).take(i % 7).map(String::as_str));
        many.push("");
        many.push("never");
    }
    let together = predict_stdin(&s, "--json", many.join("\n") + "\n").stdout;
    let answers: Vec<&str> = together.lines().collect();
    assert_eq!(answers.len(), many.len());
    for text in texts.iter().map(String::as_str).chain(["", "never"]) {
        let alone = Done::of(s.command(&format!("{PREDICT} --json")).arg(text).output().unwrap()).stdout;
        for (i, _) in many.iter().enumerate().filter(|(_, t)| **t == text) {
            assert_eq!(answers[i], alone.trim_end(), "text {i}: {text}");
        }
    }
}

#[test]
fn eval_gives_one_object() {
    let s = Sandbox::new();
    let eval = "eval --base base --bias me.bias --data dev.tsv";
    let m = s.json(&format!("{eval} --json"));
    assert_eq!(m["examples"], 6);
    for key in ["accuracy", "f1", "macro_f1", "mcc", "loss", "examples_per_s"] {
        assert!(m[key].is_number(), "{key} in {m}");
    }
    assert!((0.0..=1.0).contains(&m["accuracy"].as_f64().unwrap()));
    assert!(m["loss"].as_f64().unwrap() > 0.0 && m["examples_per_s"].as_f64().unwrap() > 0.0);
    let text = s.ok(eval).stdout;
    assert!(text.starts_with("accuracy on 6 lines, with 95 % intervals:"), "{text}");
    for part in ["this model", "most frequent label", "calibration error", "precision  recall", "examples/s"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// `eval` says what `predict` answers: accuracy and loss follow from the probabilities.
#[test]
fn eval_agrees_with_predict() {
    let s = Sandbox::new();
    let metrics = s.json("eval --base base --bias me.bias --data train.tsv --json");
    let examples = examples();
    let input: String = examples.iter().map(|(_, text)| format!("{text}\n")).collect();
    let done = predict_stdin(&s, "--json", input);
    let answers: Vec<Value> = done.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.len(), examples.len());
    let n = examples.len() as f64;
    let right = examples.iter().zip(&answers).filter(|((label, _), a)| a["label"] == *label).count() as f64;
    let loss: f64 =
        examples.iter().zip(&answers).map(|((l, _), a)| -a["probabilities"][*l].as_f64().unwrap().ln()).sum();
    assert!((metrics["accuracy"].as_f64().unwrap() - right / n).abs() < 1e-12);
    let (said, loss) = (metrics["loss"].as_f64().unwrap(), loss / n);
    assert!((said - loss).abs() < 1e-6 * loss, "{said} {loss}");
}

#[test]
fn exact_is_near_int8_but_not_it() {
    let s = Sandbox::new();
    let p = |flags: &str| {
        s.json(&format!("{PREDICT} --json movie {flags}"))["probabilities"]["good"].as_f64().unwrap()
    };
    let (int8, exact) = (p(""), p("--exact"));
    assert!(int8 != exact && (int8 - exact).abs() < 0.05, "{int8} {exact}");
    s.ok("eval --base base --bias me.bias --data dev.tsv --exact");
    s.ok("train --base base --data train.tsv --out x.bias --epochs 1 --exact");
}

/// An ONNX classifier answers as the model it was exported of, with the labels that its file tells.
#[cfg(feature = "onnx")]
#[test]
fn an_onnx_file_answers_by_itself() {
    let s = Sandbox::new();
    s.ok("export --base base --bias me.bias --format onnx --output me.onnx");
    let texts = "a very good movie\nbad\n\nbad\ta pair of texts\n";
    let tokenizer = format!("{}/tokenizer.json", crate::sandbox::TINY);
    std::fs::copy(&tokenizer, s.path("tokenizer.json")).unwrap();
    let ask = |line: &str| {
        s.write("input", texts);
        let stdin = std::fs::File::open(s.path("input")).unwrap();
        let done = Done::of(s.command(line).stdin(stdin).output().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{line}");
        done.stdout
    };
    let probabilities = |lines: String| -> Vec<(String, f64)> {
        let all = lines.lines().flat_map(|line| {
            let answer: Value = serde_json::from_str(line).unwrap();
            answer["probabilities"].as_object().unwrap().clone()
        });
        all.map(|(label, p)| (label, p.as_f64().unwrap())).collect()
    };
    let exact = probabilities(ask(&format!("{PREDICT} --exact --json")));
    let onnx = probabilities(ask("predict --onnx me.onnx --json"));
    assert_eq!(exact.len(), onnx.len());
    for ((label, p), (other, q)) in exact.iter().zip(&onnx) {
        assert!(label == other && (p - q).abs() < 1e-4, "{label} {p}, {other} {q}");
    }
    let plain = ask("predict --onnx me.onnx --threads 1");
    assert_eq!(plain, ask("predict --onnx me.onnx --tokenizer tokenizer.json --threads 2"));
    let renamed = ask("predict --onnx me.onnx --labels x,y");
    assert_eq!(renamed, plain.replace("bad\t0", "x\t0").replace("good\t0", "y\t0"));
    s.refuses("predict --onnx me.onnx --labels x,y,z hi", USAGE, &["me.onnx", "3 labels", "2 outputs"]);
    s.refuses("predict --onnx base hi --labels x,y", USAGE, &["base"]);
    s.refuses("predict --onnx me.onnx --exact hi", USAGE, &["--exact"]);
    s.refuses("predict --base base hi", USAGE, &["--bias"]);
    s.refuses("predict --labels x,y hi", USAGE, &["--onnx"]);
}
