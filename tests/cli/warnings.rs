//! Warnings about training lines and about scores on trained lines, and `not sure` as an answer.

use crate::sandbox::{Sandbox, examples, tsv};
use serde_json::Value;

/// The kinds of warnings that training on these lines gives. Each is printed on stderr too.
fn kinds(s: &Sandbox, lines: &str, flags: &str) -> Vec<String> {
    s.write("w.tsv", format!("label\ttext\n{lines}"));
    let done =
        s.ok(&format!("train --base base --data w.tsv --out w.bias --effort quick --force --json {flags}"));
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let warnings = report["result"]["warnings"].as_array().unwrap();
    for warning in warnings {
        let said = format!("warning: {}", warning["message"].as_str().unwrap());
        assert!(done.stderr.contains(&said), "{said} in {}", done.stderr);
    }
    warnings.iter().map(|w| w["kind"].as_str().unwrap().to_owned()).collect()
}

/// Lines without anything to warn of.
fn fine() -> String {
    let numbered =
        |i: usize| examples().into_iter().map(move |(label, text)| format!("{label}\t{text} {i}\n"));
    (0..2).flat_map(numbered).collect()
}

#[test]
fn what_is_wrong_with_the_lines() {
    let s = Sandbox::new();
    let none: [&str; 0] = [];
    assert_eq!(kinds(&s, &fine(), "--epochs 3 --lr 0.01"), none);
    let five = fine().lines().take(5).map(|l| format!("{l}\n")).collect::<String>();
    assert_eq!(kinds(&s, &five, "--epochs 1"), ["few_examples", "many_labels"]);
    let labels: String = (0..24).map(|i| format!("label {}\ta movie {i}\n", i / 2)).collect();
    assert_eq!(kinds(&s, &labels, "--epochs 1"), ["many_labels"]);
    assert_eq!(kinds(&s, &(fine() + "rare\ta box\n"), "--epochs 1"), ["rare_labels"]);
    assert_eq!(kinds(&s, &(fine() + "good\tthe box\nbad\tthe box\n"), "--epochs 1"), ["conflicting_labels"]);
    assert_eq!(kinds(&s, &(fine() + "good\t\nbad\t \n"), "--epochs 1"), ["empty_texts"]);
    let other: String =
        (0..20).map(|i| format!("{}\t今日は良い映画 {i}\n", ["good", "bad"][i % 2])).collect();
    assert_eq!(kinds(&s, &other, "--epochs 1"), ["unknown_tokens"]);
    assert_eq!(kinds(&s, &fine(), "--epochs 1 --max-len 6 --pool mean"), ["truncated_texts"]);
    assert_eq!(
        kinds(&s, &fine(), "--epochs 2 --lr 1e-30 --dropout 0 --encoder-dropout 0"),
        ["loss_does_not_fall"]
    );
}

#[test]
fn scores_on_trained_lines_are_no_scores() {
    let s = Sandbox::new();
    s.ok("train --base base --data train.tsv --out x.bias --epochs 1");
    let eval = "eval --base base --bias x.bias --data";
    let own = s.ok(&format!("{eval} train.tsv"));
    assert!(own.stderr.contains("16 of the 16 lines were used to train this bias file"), "{}", own.stderr);
    let fresh: Vec<(&str, String)> = examples().into_iter().map(|(l, t)| (l, format!("{t} again"))).collect();
    s.write("fresh.tsv", tsv(&fresh));
    assert_eq!(s.ok(&format!("{eval} fresh.tsv")).stderr, "");
    assert!(own.stdout.contains("does not say how good it is"), "{}", own.stdout);
    assert_eq!(s.json(&format!("{eval} train.tsv --json"))["trained_on"], 16);
    std::fs::remove_file(s.path("x.bias.lines")).unwrap();
    assert_eq!(s.ok(&format!("{eval} train.tsv")).stderr, "", "nothing is known of it any more");
}

#[test]
fn not_sure_is_an_answer() {
    let s = Sandbox::new();
    let lines: String = (0..60)
        .map(|i| {
            // A third of the lines say nothing of their label.
            let (label, word) =
                [("good", "good"), ("bad", "bad"), (["good", "bad"][i / 3 % 2], "movie")][i % 3];
            format!("{label}\tsunday was a very {word} day {i}\n")
        })
        .collect();
    s.write("some.tsv", format!("label\ttext\n{lines}"));
    let report =
        s.json("train --base base --data some.tsv --out x.bias --epochs 20 --lr 0.01 --effort normal --json");
    let sure = &report["result"]["at_precision_0.95"];
    assert!(sure["share"].as_f64().is_some_and(|share| share < 0.9), "{sure}");
    let ask = "predict --base base --bias x.bias --min-precision 0.95";
    let answer = |word: &str| {
        let mut command = s.command(ask);
        let done = command.arg(format!("sunday was a very {word} day 99")).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(answer("good").starts_with("good\t"), "{}", answer("good"));
    assert!(answer("movie").starts_with("not sure\t"), "{}", answer("movie"));
    let json = s.json(&format!("{ask} --json movie"));
    assert!(json["sure"].is_boolean() && json["label"].is_string(), "{json}");
    s.refuses("predict --base base --bias me.bias --min-precision 0.95 hello", 2, &["how precise"]);
    s.refuses(&format!("{ask}5 hello").replace("0.955", "1.5"), 2, &["between 0 and 1"]);
}

/// New lines alone, from a bias file that knows others.
#[test]
fn starting_from_other_lines_forgets_them() {
    let s = Sandbox::new();
    let rows = crate::sandbox::examples();
    s.write("old.tsv", crate::sandbox::tsv(&rows[..10]));
    s.write("new.tsv", crate::sandbox::tsv(&rows[10..]));
    s.ok("train --base base --data old.tsv --out old.bias --epochs 1 --effort quick");
    let train = "train --base base --start old.bias --epochs 1 --effort quick --force --out x.bias --data";
    let said = s.ok(&format!("{train} new.tsv")).stderr;
    assert!(said.contains("old.bias was trained on 10 lines, and 10 of them are not in this data"), "{said}");
    let warnings = s.json(&format!("{train} new.tsv --json"))["result"]["warnings"].to_string();
    assert!(warnings.contains("start_forgets"), "{warnings}");
    assert!(!s.ok(&format!("{train} train.tsv")).stderr.contains("will forget"), "all of them are there");
    std::fs::remove_file(s.path("old.bias.lines")).unwrap();
    assert!(!s.ok(&format!("{train} new.tsv")).stderr.contains("will forget"), "nothing is known of them");
}
