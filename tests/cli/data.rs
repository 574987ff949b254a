//! Labelled data that cannot be used: each refusal says what is wrong, where, and how to mend it.

use crate::sandbox::{IO, Sandbox, USAGE};

/// Training, scoring on dev and `eval` all refuse the file, with the same words.
fn refused_everywhere(name: &str, bytes: impl AsRef<[u8]>, code: i32, words: &[&str]) {
    let s = Sandbox::new();
    s.write(name, bytes);
    for line in [
        format!("train --base base --data {name} --out me.bias"),
        format!("train --base base --data train.tsv --dev {name} --out me.bias"),
        format!("eval --base base --bias me.bias --data {name}"),
    ] {
        s.refuses(&line, code, words);
    }
}

#[test]
fn empty_file() {
    for name in ["x.tsv", "x.csv", "x.jsonl"] {
        refused_everywhere(name, "", USAGE, &[name, "the file is empty"]);
    }
}

#[test]
fn header_only() {
    refused_everywhere("x.tsv", "label\ttext\n", USAGE, &["x.tsv", "no example"]);
    refused_everywhere("x.csv", "label,text\n\n\n", USAGE, &["x.csv", "no example"]);
}

#[test]
fn missing_column() {
    let words = ["x.tsv:1", "`kind`, `words`", "--label-column"];
    refused_everywhere("x.tsv", "kind\twords\ngood\ta box\n", USAGE, &words);
    let words = ["x.csv:1", "`label`, `words`", "--text-column"];
    refused_everywhere("x.csv", "label,words\ngood,a box\n", USAGE, &words);
    let words = ["x.jsonl:1", "`label`, `words`", "--text-column"];
    refused_everywhere("x.jsonl", r#"{"label":"good","words":"a box"}"#, USAGE, &words);
}

#[test]
fn column_flags_mend_it() {
    let s = Sandbox::new();
    s.write("x.tsv", "kind\twords\ngood\ta box\nbad\tthe time\n");
    let flags = "--label-column kind --text-column words";
    s.ok(&format!("train --base base --data x.tsv --out x.bias --epochs 1 {flags}"));
    s.ok(&format!("eval --base base --bias x.bias --data x.tsv {flags}"));
    let line = format!("train --base base --data x.tsv --out x.bias {flags} --text-b-column other");
    s.refuses(&line, USAGE, &["`other`", "--text-b-column"]);
}

#[test]
fn unknown_label() {
    let s = Sandbox::new();
    s.write("x.tsv", "label\ttext\ngood\ta box\nugly\ta movie\n");
    // It counts as wrong, and is told.
    let said = "1 lines have labels that were not in training (`ugly`)";
    let done = s.ok("train --base base --data train.tsv --dev x.tsv --out x.bias --epochs 1");
    assert!(done.stderr.contains(said), "{}", done.stderr);
    assert!(s.ok("eval --base base --bias me.bias --data x.tsv").stdout.contains(said));
}

#[test]
fn one_class_only() {
    let s = Sandbox::new();
    s.write("x.tsv", "label\ttext\ngood\ta box\ngood\ta movie\n");
    let words = ["x.tsv", "every example is labelled `good`", "two labels"];
    s.refuses("train --base base --data x.tsv --out me.bias", USAGE, &words);
    let words = ["every example is labelled `good`"];
    s.refuses("train --base base --data train.tsv --limit 1 --out me.bias", USAGE, &words);
}

#[test]
fn bytes_that_are_no_text() {
    let head = b"label\ttext\ngood\ta box\n".as_slice();
    let with = |row: &[u8]| [head, row].concat();
    refused_everywhere("x.tsv", with(b"bad\ta \0 box\n"), USAGE, &["x.tsv:3", "NUL"]);
    refused_everywhere("x.tsv", with(b"bad\ta \xff box\n"), USAGE, &["x.tsv:3", "not UTF-8", "0xff"]);
    refused_everywhere("x.csv", b"label,text\nbad,\xe2\x82\n", USAGE, &["x.csv:2", "not UTF-8"]);
    refused_everywhere(
        "x.jsonl",
        b"{\"label\":\"bad\",\"text\":\"\xff\"}",
        USAGE,
        &["x.jsonl:1", "not UTF-8"],
    );
}

#[test]
fn line_of_ten_megabytes() {
    let long = "x".repeat(10_000_000);
    let bytes = format!("label\ttext\ngood\t{long}\n");
    refused_everywhere("x.tsv", bytes, USAGE, &["x.tsv:2", "10 MB long", "1 MiB"]);
    refused_everywhere("x.csv", format!("label,text\ngood,{long}\n"), USAGE, &["x.csv:2", "1 MiB"]);
}

#[test]
fn ragged_row() {
    let words = ["x.tsv:3", "3 fields where the header has 2 fields"];
    refused_everywhere("x.tsv", "label\ttext\ngood\ta\nbad\tb\tc\n", USAGE, &words);
    refused_everywhere("x.csv", "label,text\ngood,a\nbad\n", USAGE, &["x.csv:3", "1 field where"]);
    let words = ["x.csv:2", "never closed"];
    refused_everywhere("x.csv", "label,text\ngood,\"a\nbad,b\n", USAGE, &words);
}

#[test]
fn empty_label() {
    refused_everywhere("x.tsv", "label\ttext\n\ta box\n", USAGE, &["x.tsv:2", "the label is empty"]);
}

#[test]
fn bad_json() {
    let first = "{\"label\":\"good\",\"text\":\"a\"}\n";
    let with = |line: &str| format!("{first}{line}\n");
    refused_everywhere("x.jsonl", with("{\"label\":"), USAGE, &["x.jsonl:2", "bad JSON at column"]);
    refused_everywhere("x.jsonl", with("[1, 2]"), USAGE, &["x.jsonl:2", "expected a JSON object"]);
    refused_everywhere(
        "x.jsonl",
        with("{\"label\":0.5,\"text\":\"\"}"),
        USAGE,
        &["x.jsonl:2", "`label` should be"],
    );
    refused_everywhere("x.jsonl", with(&"[".repeat(100_000)), USAGE, &["x.jsonl:2", "recursion"]);
}

#[test]
fn unknown_extension() {
    let words = ["x.doc", "`doc`", ".tsv, .csv, .jsonl", "--format"];
    refused_everywhere("x.doc", "label\ttext\ngood\ta\n", USAGE, &words);
    let s = Sandbox::new();
    s.write("x.doc", s.read("train.tsv"));
    s.ok("train --base base --data x.doc --format tsv --out x.bias --epochs 1");
    let words = ["xml", "tsv, csv, jsonl"];
    s.refuses("train --base base --data x.txt --format xml --out x.bias", USAGE, &words);
}

#[test]
fn missing_file_and_directory() {
    let s = Sandbox::new();
    std::fs::create_dir(s.path("folder.tsv")).unwrap();
    for (name, code, words) in
        [("none.tsv", IO, ["none.tsv", "No such file"]), ("folder.tsv", IO, ["folder.tsv", "directory"])]
    {
        s.refuses(&format!("train --base base --data {name} --out me.bias"), code, &words);
        s.refuses(&format!("train --base base --data train.tsv --dev {name} --out me.bias"), code, &words);
        s.refuses(&format!("eval --base base --bias me.bias --data {name}"), code, &words);
    }
}
