//! Files as people have them: every command reads the same data in the same way, whatever wrote it.

use crate::sandbox::{Done, IO, Sandbox, USAGE, examples, tsv};
use serde_json::Value;

/// The labelled lines of the sandbox, with a letter beyond ASCII in each.
fn lines() -> Vec<(&'static str, String)> {
    examples().into_iter().map(|(label, text)| (label, text + " – größer")).collect()
}

fn table(delimiter: &str, header: &str) -> String {
    let rows = lines().into_iter().map(|(label, text)| format!("{label}{delimiter}{text}\r\n"));
    std::iter::once(header.replace('\t', delimiter) + "\r\n").chain(rows).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

/// The bias file of a training on `name`, and what was said on the way.
fn trained(s: &Sandbox, name: &str, flags: &str) -> (Vec<u8>, String) {
    let done = s.ok(&format!(
        "train --base base --data {name} --out x.bias --epochs 1 --effort quick --force {flags}"
    ));
    (s.read("x.bias"), done.stderr)
}

#[test]
fn one_bias_file_however_the_lines_are_written() {
    let s = Sandbox::new();
    s.write("plain.tsv", tsv(&lines()));
    let (plain, said) = trained(&s, "plain.tsv", "");
    assert!(!said.contains("note:"), "{said}");
    let in_1252 = |text: &str| -> Vec<u8> {
        text.chars().map(|c| if c == '–' { 0x96 } else { u8::try_from(u32::from(c)).unwrap() }).collect()
    };
    let json: Vec<Value> = lines()
        .iter()
        .map(|(label, text)| serde_json::json!({ "text": text, "label": [label], "id": 1 }))
        .collect();
    let tasks: Vec<Value> = lines()
        .iter()
        .map(|(label, text)| {
            let value = serde_json::json!({ "choices": [label] });
            let result = serde_json::json!([{ "from_name": "mood", "to_name": "text", "type": "choices", "value": value }]);
            serde_json::json!({ "id": 1, "data": { "text": text }, "annotations": [{ "result": result }] })
        })
        .collect();
    let jsonl: String = json.iter().map(|object| format!("{object}\n")).collect();
    for (name, bytes, flags, note) in [
        ("semicolons.csv", table(";", "label\ttext").into_bytes(), "", "`;` stands between the fields"),
        ("excel.csv", format!("\u{feff}sep=;\r\n{}", table(";", "label\ttext")).into_bytes(), "", ""),
        ("tabs.csv", table("\t", "label\ttext").into_bytes(), "--delimiter tab", ""),
        ("bars.txt", table("|", "Label\tTEXT").into_bytes(), "--format csv --delimiter |", ""),
        ("case.tsv", table("\t", "LABEL\tText").into_bytes(), "", ""),
        ("excel.tsv", utf16(&table("\t", "label\ttext")), "", ""),
        (
            "1252.tsv",
            in_1252(&table("\t", "label\ttext")),
            "",
            "1252.tsv is not UTF-8 and is read as Windows-1252",
        ),
        ("latin.csv", in_1252(&table(";", "label\ttext")), "--encoding cp1252 --delimiter ;", ""),
        ("doccano.jsonl", jsonl.clone().into_bytes(), "", ""),
        ("doccano.json", jsonl.into_bytes(), "", ""),
        ("pandas.json", serde_json::to_vec(&json).unwrap(), "", ""),
        ("studio.json", serde_json::to_vec_pretty(&tasks).unwrap(), "", ""),
        ("spaces.tsv", table("\t", "label\ttext").replace("good\t", "good \t").into_bytes(), "", ""),
    ] {
        s.write(name, bytes);
        let (got, said) = trained(&s, name, flags);
        assert!(got == plain, "{name}: {said}");
        assert!(said.contains(note) && (note.is_empty() != said.contains("note:")), "{name}: {said}");
    }
}

/// The flags of one file work for every command that reads it.
#[test]
fn the_same_flags_everywhere() {
    let s = Sandbox::new();
    let rows = examples().into_iter().map(|(label, text)| format!("\"{label} \";a mail;\"{text}; yes\"\r\n"));
    s.write("mail.txt", std::iter::once("Kind;Subject;Body\r\n".to_owned()).chain(rows).collect::<String>());
    let plain: Vec<(&str, String)> =
        examples().into_iter().map(|(label, text)| (label, format!("a mail {text}; yes"))).collect();
    s.write("plain.tsv", tsv(&plain));
    s.write("plain.txt", plain.iter().map(|(_, text)| format!("{text}\n")).collect::<String>());
    let flags = "--format csv --label-column kind --text-column subject,body";

    let (bias, _) = trained(&s, "mail.txt", flags);
    assert!(bias == trained(&s, "plain.tsv", "").0);
    let without_rate = |line: &str| {
        let printed = s.ok(line).stdout;
        printed.split_once("\n(").map_or(printed.clone(), |(before, _)| before.to_owned())
    };
    let eval = "eval --base base --bias x.bias --mistakes 0 --data";
    assert_eq!(without_rate(&format!("{eval} mail.txt {flags}")), without_rate(&format!("{eval} plain.tsv")));
    let predict = "predict --base base --bias x.bias --json --data";
    assert_eq!(
        s.ok(&format!("{predict} mail.txt {flags}")).stdout,
        s.ok(&format!("{predict} plain.tsv")).stdout
    );
    let embed = "embed --base base";
    assert_eq!(s.ok(&format!("{embed} mail.txt {flags}")).stdout, s.ok(&format!("{embed} plain.txt")).stdout);
    assert_eq!(s.ok(&format!("{embed} plain.tsv")).stdout, s.ok(&format!("{embed} plain.txt")).stdout);
    let search = |rest: &str| s.ok(&format!("search --base base --top 3 {rest} movie")).stdout;
    assert_eq!(search(&format!("--in mail.txt {flags}")), search("--in plain.txt"));
    let piped =
        s.shell(&format!("\"$@\" eval --base base --bias x.bias --mistakes 0 --data - {flags} < mail.txt"));
    let piped = Done::of({ piped }.output().unwrap());
    assert!(piped.stdout.starts_with(&without_rate(&format!("{eval} plain.tsv"))), "{}", piped.stderr);
    s.refuses("eval --base base --bias x.bias --data -", USAGE, &["--format"]);
    #[cfg(feature = "store")]
    {
        s.ok(&format!("learn --store a.store --data mail.txt {flags}"));
        s.ok("learn --store b.store --data plain.tsv");
        assert_eq!(s.ok("examples --store a.store").stdout, s.ok("examples --store b.store").stdout);
    }
    s.refuses(
        "eval --base base --bias x.bias --data mail.txt --format csv --label-column kind --text-column subject,none",
        USAGE,
        &["mail.txt:1", "no column `none`", "`Subject`"],
    );
}

#[test]
fn labels_that_differ_in_white_space_are_one() {
    let s = Sandbox::new();
    let text = tsv(&examples()).replace("good\tthat", "good \tthat").replace("bad\tthis", "\u{a0}bad\tthis");
    s.write("x.tsv", text);
    let (bias, said) = trained(&s, "x.tsv", "");
    assert_eq!(said.matches("are one label").count(), 2, "{said}");
    assert!(bias == trained(&s, "train.tsv", "").0);
    assert_eq!(s.json("inspect x.bias --json")["labels"], serde_json::json!(["bad", "good"]));
}

#[test]
fn bad_lines_are_numbered_or_left_out() {
    let s = Sandbox::new();
    let good = tsv(&examples());
    let mut bytes = good.clone().into_bytes();
    bytes.extend_from_slice(b"only one field\n\tno label\nbad\ta \xff box\nbad\t");
    bytes.extend_from_slice(&[b'x'; 2 << 20]);
    bytes.push(b'\n');
    s.write("x.tsv", bytes);
    let words = [
        "x.tsv: 4 lines cannot be used",
        "line 18: 1 field",
        "line 19: the label",
        "line 20: not UTF-8",
        "line 21:",
    ];
    s.refuses("train --base base --data x.tsv --out me.bias", USAGE, &words);
    s.refuses("eval --base base --bias me.bias --data x.tsv", USAGE, &words);
    let (bias, said) = trained(&s, "x.tsv", "--skip-bad-lines");
    assert!(said.contains("note: x.tsv: 4 lines left out:\n  line 18:"), "{said}");
    assert!(bias == trained(&s, "train.tsv", "").0);
    let done = s.ok("eval --base base --bias x.bias --data x.tsv --skip-bad-lines");
    assert!(done.stderr.contains("4 lines left out"), "{}", done.stderr);
    s.write("worst.tsv", "label\ttext\nx\n");
    s.refuses("train --base base --data worst.tsv --out y --skip-bad-lines", USAGE, &["no line can be used"]);
}

#[test]
fn other_kinds_of_files_are_named() {
    let s = Sandbox::new();
    for (name, bytes, words) in [
        ("x.parquet", &b"PAR1\0\0"[..], &["Parquet", "read_parquet('x.parquet')", "x.jsonl"][..]),
        ("x.xlsx", b"PK\x03\x04", &["spreadsheets are not read", "CSV"]),
        ("x.csv", b"PK\x03\x04rest of it", &["spreadsheet", "CSV"]),
        ("x.jsonl", b"\x1f\x8b\x08rest", &["gzip", "gunzip"]),
        ("x.mbox", b"From me", &["mail", "CSV"]),
        ("y.tsv", b"label,text\ngood,a\n", &["is the file --format csv?"]),
        ("x.txt", b"label\ttext\ngood\ta\n", &["--format tsv"]),
        ("z.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", &["git lfs pull"]),
    ] {
        s.write(name, bytes);
        s.refuses(&format!("train --base base --data {name} --out me.bias"), USAGE, words);
    }
    s.refuses(
        "train --base base --data train.tsv --encoding klingon --out y",
        USAGE,
        &["unknown encoding `klingon`"],
    );
    s.refuses("train --base base --data train.tsv --delimiter ab --out y", USAGE, &["`ab`"]);
}

#[test]
fn answers_come_with_their_texts() {
    let s = Sandbox::new();
    let answers = s.ok("predict --base base --bias me.bias --json --data train.tsv").stdout;
    let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    assert_eq!(first["text"], examples()[0].1.as_str());
    assert_eq!(first.get("text_b"), None);
    let mut command = s.command("predict --base base --bias me.bias --json");
    let done = Done::of(command.arg("we love it\tthe box").output().unwrap());
    let pair: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&pair["text"], &pair["text_b"]), (&"we love it".into(), &"the box".into()));
}

/// Scores of a pair model on single texts mean nothing.
#[test]
fn pairs_without_their_second_text_are_warned_of() {
    let s = Sandbox::new();
    let rows = |header: &str| -> String {
        let row = |(label, text): (&str, String)| format!("{label}\t{text}\tthe box\n");
        std::iter::once(header.to_owned()).chain(examples().into_iter().map(row)).collect()
    };
    s.write("pairs.tsv", rows("label\ttext_a\ttext_b\n"));
    s.write("other.tsv", rows("label\ttext_a\tsecond\n"));
    for flags in ["--pool mean", "--pool mean --terms none"] {
        s.ok(&format!(
            "train --base base --data pairs.tsv --out x.bias --epochs 1 --effort quick --force {flags}"
        ));
        for command in ["eval", "predict"] {
            let line = format!("{command} --base base --bias x.bias --data");
            let warned =
                |rest: &str| s.ok(&format!("{line} {rest}")).stderr.contains("learned from pairs of texts");
            assert!(
                warned("other.tsv") && !warned("pairs.tsv") && !warned("other.tsv --text-b-column second")
            );
        }
    }
}

/// `search` looks through vectors that `embed` has written, and through no others.
#[test]
fn vectors_are_used_again() {
    let s = Sandbox::new();
    let texts: Vec<String> = examples().into_iter().map(|(_, text)| text).collect();
    s.write("lines", texts.join("\n") + "\n\n");
    s.ok("embed --base base lines --out v.safetensors");
    s.write("v.jsonl", s.ok("embed --base base --normalize lines").stdout);
    let search = |rest: &str| s.ok(&format!("search --base base --json --top 4 {rest} movie")).stdout;
    let fresh = search("--in lines");
    assert_eq!(search("--in lines --vectors v.safetensors"), fresh);
    // Of vectors of length 1 the last digit of a cosine may differ.
    let found = |printed: &str| -> Vec<(u64, String)> {
        let one = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        printed.lines().map(one).map(|f| (f["line"].as_u64().unwrap(), f["text"].to_string())).collect()
    };
    assert_eq!(found(&search("--vectors v.jsonl")), found(&fresh));
    s.write("other", texts[1..].join("\n"));
    s.write("shifted", texts[1..].join("\n") + "\none more\n\n");
    for (line, words) in [
        ("--in other --vectors v.safetensors", &["17 vectors for 15 texts"][..]),
        ("--in shifted --vectors v.safetensors", &["of other texts, of another model"]),
        ("--bias me.bias --in lines --vectors v.safetensors", &["of another model"]),
        ("--vectors v.safetensors", &["--in"]),
        ("--in lines --vectors v.jsonl", &["leave --in out"]),
        ("--vectors lines", &["not what `embed` prints"]),
        ("--in lines --vectors base.safetensors", &["No such file"]),
    ] {
        let code = if words[0].contains("No such") { IO } else { USAGE };
        s.refuses(&format!("search --base base {line} movie"), code, words);
    }
}

#[cfg(feature = "store")]
#[test]
fn pairs_without_labels_are_kept_in_a_store() {
    let s = Sandbox::new();
    let words = ["sunday", "station", "box", "time", "mile", "day", "restaurant", "movie"];
    let pairs: String =
        words.iter().map(|w| format!("how far was the {w}\twe love it on that {w}\n")).collect();
    s.write("pairs.tsv", format!("text_a\ttext_b\n{pairs}"));
    let done = s.ok("learn --store me.store --data pairs.tsv");
    assert_eq!(done.stdout, "8 new; 8 examples of 0 labels in me.store\n");
    let mut command = s.command("learn --store me.store");
    let done = Done::of(command.arg("how far was the box\twe love it on that box").output().unwrap());
    assert!(done.stdout.contains("1 known already"), "{}{}", done.stdout, done.stderr);
    let line = "train --task contrastive --base base --epochs 1 --out";
    s.ok(&format!("{line} a.bias --data me.store"));
    s.ok(&format!("{line} b.bias --data pairs.tsv"));
    assert!(s.read("a.bias") == s.read("b.bias"));
    let first = s.ok("examples --store me.store --json").stdout;
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!((&first["label"], &first["text_b"]), (&Value::Null, &"we love it on that sunday".into()));
    let mut command = s.command("learn --store me.store");
    let done = Done::of(command.arg("a single text").output().unwrap());
    done.failed("learn", USAGE, &["no label to learn", "pairs"]);
    s.refuses("learn --store new.store", USAGE, &["--label", "--data"]);
}
