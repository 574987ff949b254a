//! Tests of reading files of examples.

use super::columns::{Columns, LabelForm};
use super::{Delimiter, Example, Format, Reading};
use crate::error::{Error, Result};
use std::path::Path;

fn read_as(format: Format, text: &str, columns: &Columns, want: LabelForm) -> Result<Vec<Example>> {
    let reading = Reading { format: Some(format), columns: columns.clone(), ..Reading::default() };
    Ok(reading.reader(text.as_bytes(), Path::new("f"), want)?.examples)
}

fn read(format: Format, text: &str) -> Result<Vec<Example>> {
    read_as(format, text, &Columns::default(), LabelForm::Name)
}

fn error(format: Format, text: &str) -> String {
    read(format, text).unwrap_err().to_string()
}

/// What every complaint of one line ends with.
const SKIP: &str = " (--skip-bad-lines leaves such lines out)";

fn example(line: usize, label: &str, a: &str, b: Option<&str>) -> Example {
    Example {
        text_a: a.into(),
        text_b: b.map(Into::into),
        label: Some(label.into()),
        line,
        ..Example::default()
    }
}

#[test]
fn tsv_has_no_quoting() {
    let got = read(Format::Tsv, "\u{feff}label\ttext_a\ttext_b\r\n\r\nx\t\"a\tb \\t\r\ny\t\té").unwrap();
    assert_eq!(got, [example(3, "x", "\"a", Some("b \\t")), example(4, "y", "", Some("é"))]);
}

#[test]
fn csv_quotes() {
    let got = read(Format::Csv, "text,label,id\n\"a, \"\"b\"\"\nc\",x,1\nd,y,2\n").unwrap();
    assert_eq!(got, [example(2, "x", "a, \"b\"\nc", None), example(4, "y", "d", None)]);
}

#[test]
fn jsonl_labels_of_three_kinds() {
    let text = "{\"text\": \"a\", \"label\": 3}\n\n{\"label\": true, \"text_a\": \"b\", \"text_b\": \"c\"}\n\
                {\"sentence\": \"\\u00e9\\n\", \"label\": \"x\", \"text_b\": null}";
    let got = read(Format::Jsonl, text).unwrap();
    let want = [example(1, "3", "a", None), example(3, "true", "b", Some("c")), example(4, "x", "é\n", None)];
    assert_eq!(got, want);
}

#[test]
fn columns_by_name_and_files_without_labels() {
    let columns = Columns { label: Some("y".into()), text_a: Some("q".into()), text_b: Some("p".into()) };
    let text = "p\tq\ty\tlabel\n1\t2\t3\t4\n";
    let want = [example(2, "3", "2", Some("1"))];
    assert_eq!(read_as(Format::Tsv, text, &columns, LabelForm::Name).unwrap(), want);
    let plain = Columns::default();
    for text in ["text\na\n", "text\tlabel\na\t\n"] {
        assert_eq!(read_as(Format::Tsv, text, &plain, LabelForm::Nothing).unwrap()[0].label, None);
    }
    let text = "{\"text\":\"a\",\"label\":0.5}";
    assert_eq!(read_as(Format::Jsonl, text, &plain, LabelForm::Nothing).unwrap()[0].label, None);
}

#[test]
fn missing_columns_are_named_with_their_flag() {
    let e = error(Format::Tsv, "kind\ttext\na\tb\n");
    let want = "f:1: no column for the label (looked for `label`, `labels`); the header has `kind`, `text`; \
                name one with --label-column";
    assert_eq!(e, want);
    assert!(error(Format::Csv, "label,words\na,b\n").ends_with("name one with --text-column"));
    assert!(error(Format::Jsonl, "{\"text\":\"a\"}").contains("name one with --label-column"));
    assert!(error(Format::Jsonl, "{}").contains("the object has no key"));
    let columns = Columns { text_b: Some("other".into()), ..Columns::default() };
    for (format, text) in
        [(Format::Tsv, "label\ttext\na\tb\n"), (Format::Jsonl, "{\"label\":1,\"text\":\"\"}")]
    {
        let e = read_as(format, text, &columns, LabelForm::Name).unwrap_err().to_string();
        assert!(e.contains("`other`") && e.contains("--text-b-column"), "{e}");
    }
    assert!(error(Format::Tsv, "label\ttext\ttext\na\tb\tc").contains("two columns `text`"));
}

#[test]
fn bad_rows_are_placed() {
    let head = "label\ttext\n";
    assert_eq!(error(Format::Tsv, ""), "f: the file is empty");
    assert_eq!(error(Format::Csv, "\n\n"), "f: the file is empty");
    assert_eq!(error(Format::Jsonl, "  \n"), "f: the file is empty");
    assert_eq!(error(Format::Tsv, head), "f: there is a header but no example");
    let bad = |row: &str| error(Format::Tsv, &format!("{head}a\tb\n{row}\n"));
    assert_eq!(bad("a\tb\tc"), format!("f:3: 3 fields where the header has 2 fields{SKIP}"));
    assert_eq!(bad("a"), format!("f:3: 1 field where the header has 2 fields{SKIP}"));
    assert_eq!(bad("\tb"), format!("f:3: the label is empty{SKIP}"));
    assert_eq!(bad(" \tb"), format!("f:3: the label is empty{SKIP}"));
    assert_eq!(
        error(Format::Csv, "label,text\na,b,c\n"),
        format!("f:2: 3 fields where the header has 2 fields{SKIP}")
    );
}

#[test]
fn bad_json_is_placed() {
    let bad = |line: &str| error(Format::Jsonl, &format!("{{\"text\":\"a\",\"label\":1}}\n{line}"));
    assert!(bad("{\"text\":").starts_with("f:2: bad JSON at column 8: EOF"), "{}", bad("{\"text\":"));
    assert_eq!(bad("[1]"), format!("{}{SKIP}", "f:2: expected a JSON object, found an array"));
    assert_eq!(
        bad("{\"text\":1,\"label\":1}"),
        format!("{}{SKIP}", "f:2: `text` should be a string but is an integer")
    );
    let want = "f:2: `label` should be a string, an integer or a boolean but is a number with a fraction";
    assert_eq!(bad("{\"text\":\"a\",\"label\":0.5}"), format!("{want}{SKIP}"));
    assert_eq!(
        bad("{\"text\":\"\\u0000\",\"label\":1}"),
        format!("{}{SKIP}", "f:2: there is a NUL in `text`")
    );
    let deep = "[".repeat(100_000);
    assert!(bad(&deep).contains("recursion limit"));
}

#[test]
fn plain_text_is_a_text_a_line() {
    let read = |text: &str| read_as(Format::Text, text, &Columns::default(), LabelForm::Nothing);
    let got = read("\u{feff}one\ttwo\r\n\n \t \n  = é =\nlast").unwrap();
    let got: Vec<(usize, &str)> = got.iter().map(|e| (e.line, &e.text_a[..])).collect();
    assert_eq!(got, [(1, "one\ttwo"), (4, "= é ="), (5, "last")]);
    for (text, wanted) in
        [("", "f: the file is empty"), (" \n\n", "f: the file is empty"), ("\t\n", "f: every line is blank")]
    {
        assert_eq!(read(text).unwrap_err().to_string(), wanted);
    }
    assert_eq!(
        error(Format::Text, "a"),
        "f: plain text has no labels; it is for --task mlm. If the file is a table, say --format tsv or csv"
    );
}

#[test]
fn missing_files() {
    let missing = super::read_examples(Path::new("no/such/file.tsv"), &Columns::default(), LabelForm::Name);
    assert!(matches!(missing, Err(Error::Io { .. })));
}

fn found(reading: &Reading, name: &str, text: &str, want: LabelForm) -> Result<super::Found> {
    reading.reader(text.as_bytes(), Path::new(name), want)
}

#[test]
fn delimiters_are_found_out_declared_or_given() {
    for (text, remark) in [
        ("label,text\na,\"b, c\"\n", None),
        ("label;text\r\na;b, c\r\n", Some("`;` stands")),
        ("label\ttext\na\tb, c\n", Some("a tab stands")),
        ("label|text\na|b, c\n", Some("`|` stands")),
        ("id;Text;Label\n1;b, c;a\n", Some("`;` stands")),
        ("\u{feff}sep=;\r\nlabel;text\r\na;b, c\r\n", None),
        ("SEP=|\nlabel|text\na|b, c\n", None),
        ("sep=\t\nlabel\ttext\na\tb, c\n", None),
        ("label;\"text\"\na;\"b, c\"\n", Some("`;` stands")),
    ] {
        let got = found(&Reading::default(), "f.csv", text, LabelForm::Name).unwrap();
        assert_eq!(
            (got.examples[0].label.as_deref(), got.examples[0].text_a.as_str()),
            (Some("a"), "b, c"),
            "{text}"
        );
        assert_eq!(got.remarks.len(), usize::from(remark.is_some()), "{:?}", got.remarks);
        assert!(remark.is_none_or(|words| got.remarks[0].contains(words)), "{:?}", got.remarks);
    }
    let given = Reading { delimiter: Some("^".parse().unwrap()), ..Reading::default() };
    let got = found(&given, "f.csv", "label^text\na^b\n", LabelForm::Name).unwrap();
    assert_eq!(got.examples[0], example(2, "a", "b", None));
    let e =
        found(&Reading::default(), "f.csv", "kind;words\na;b\n", LabelForm::Name).unwrap_err().to_string();
    assert!(e.contains("the header has `kind`, `words`"), "{e}");
    for bad in ["", "ab", "\"", "\n", "x", "\u{e9}"] {
        assert!(bad.parse::<Delimiter>().is_err(), "{bad}");
    }
    assert_eq!("tab".parse::<Delimiter>().unwrap(), "\t".parse().unwrap());
}

#[test]
fn line_numbers_stand_behind_a_declared_delimiter() {
    let e = found(&Reading::default(), "f.csv", "sep=;\nlabel;text\na;b\nc\n", LabelForm::Name)
        .unwrap_err()
        .to_string();
    assert!(e.starts_with("f.csv:4: 1 field where"), "{e}");
}

#[test]
fn several_columns_are_one_text() {
    let columns = Columns { text_a: Some("Subject,Body".into()), ..Columns::default() };
    let reading = Reading { columns, ..Reading::default() };
    for (name, text) in [
        ("f.csv", "label,subject,body\na,Bins,\"glass, too\"\nb,,only\n"),
        ("f.tsv", "label\tsubject\tbody\na\tBins\tglass, too\nb\t \tonly\n"),
        (
            "f.jsonl",
            "{\"label\":\"a\",\"subject\":\"Bins\",\"body\":\"glass, too\"}\n{\"label\":\"b\",\"Subject\":\"\",\"Body\":\"only\"}",
        ),
    ] {
        let got = found(&reading, name, text, LabelForm::Name).unwrap().examples;
        let got: Vec<&str> = got.iter().map(|e| e.text_a.trim()).collect();
        assert_eq!(got, ["Bins glass, too", "only"], "{name}");
    }
    let e = found(&reading, "f.csv", "label,subject\na,b\n", LabelForm::Name).unwrap_err().to_string();
    assert!(e.contains("no column `Body`; there is `label`, `subject`"), "{e}");
}

#[test]
fn decimal_commas_of_spreadsheets() {
    let number = |text| {
        found(&Reading::default(), "f.csv", text, LabelForm::Number).unwrap().examples[0].label.clone()
    };
    assert_eq!(number("label;text\n3,5;a\n").as_deref(), Some("3.5"));
    assert_eq!(number("label,text\n\"3,5\",a\n").as_deref(), Some("3,5"), "no spreadsheet of such a country");
}

#[test]
fn bad_lines_are_listed_or_left_out() {
    let text = "label\ttext\na\tb\nbad\n\tempty\na\tb\tc\nc\td\n";
    let e = found(&Reading::default(), "f.tsv", text, LabelForm::Name).unwrap_err().to_string();
    for line in
        ["3 lines cannot be used", "line 3: 1 field", "line 4: the label is empty", "line 5: 3 fields"]
    {
        assert!(e.contains(line), "{e}");
    }
    let skip = Reading { skip_bad_lines: true, ..Reading::default() };
    let got = found(&skip, "f.tsv", text, LabelForm::Name).unwrap();
    assert_eq!(got.examples, [example(2, "a", "b", None), example(6, "c", "d", None)]);
    assert!(
        got.remarks.len() == 1 && got.remarks[0].starts_with("f.tsv: 3 lines left out:"),
        "{:?}",
        got.remarks
    );

    let bytes = b"label\ttext\na\t\xff\nb\tgood\nc\t\0\n";
    let got = skip.reader(&bytes[..], Path::new("f.tsv"), LabelForm::Name).unwrap();
    assert_eq!(got.examples, [example(3, "b", "good", None)]);
    let json = "{\"label\":1,\"text\":\"a\"}\n{\"label\":\n[]\n{\"label\":2}\n";
    let got = found(&skip, "f.jsonl", json, LabelForm::Name).unwrap();
    assert_eq!(got.examples, [example(1, "1", "a", None)]);
    assert!(got.remarks[0].contains("3 lines left out"), "{:?}", got.remarks);
    let e = found(&skip, "f.tsv", "label\ttext\nbad\n", LabelForm::Name).unwrap_err().to_string();
    assert_eq!(e, "f.tsv: no line can be used");
}

#[test]
fn quotes_in_a_tsv_are_remarked_upon() {
    let text = "label\ttext\n".to_owned() + &"a\t\"b\"\n".repeat(4);
    let got = found(&Reading::default(), "f.tsv", &text, LabelForm::Name).unwrap();
    assert_eq!(got.examples[0].text_a, "\"b\"");
    assert!(got.remarks[0].contains("--format csv --delimiter tab"), "{:?}", got.remarks);
    let reading =
        Reading { format: Some(Format::Csv), delimiter: Some("tab".parse().unwrap()), ..Reading::default() };
    assert_eq!(found(&reading, "f.tsv", &text, LabelForm::Name).unwrap().examples[0].text_a, "b");
}

#[test]
fn json_files_are_arrays_or_lines() {
    for text in [
        "[{\"label\":\"x\",\"text\":\"a\"},\n {\"label\":[\"y\"],\"text\":\"b\",\"id\":3}]",
        "{\"label\":\"x\",\"text\":\"a\"}\n{\"labels\":[\"y\"],\"text\":\"b\"}\n",
    ] {
        let got = found(&Reading::default(), "f.json", text, LabelForm::Name).unwrap().examples;
        assert_eq!(got, [example(1, "x", "a", None), example(2, "y", "b", None)]);
    }
    let error = |text, want| found(&Reading::default(), "f.json", text, want).unwrap_err().to_string();
    assert!(
        error("[{\"label\":1,\"text\":\"a\"},3]", LabelForm::Name)
            .starts_with("f.json:2: expected a JSON object")
    );
    assert!(error("[1", LabelForm::Name).starts_with("f.json:1: bad JSON"));
    assert_eq!(error("[]", LabelForm::Name), "f.json: the file is empty");
    assert_eq!(error(" ", LabelForm::Name), "f.json: the file is empty");
    assert!(error("{\"data\":[]}", LabelForm::Name).contains("for --task qa"));
    let two = "{\"label\":[\"x\",\"y\"],\"text\":\"a\"}";
    assert!(error(two, LabelForm::Name).contains("2 labels where one is needed; --task multilabel"));
    assert_eq!(
        found(&Reading::default(), "f.json", two, LabelForm::Several).unwrap().examples,
        [example(1, "x,y", "a", None)]
    );
}

/// As Label Studio exports a page of choices, with its own fields.
fn task(text: &str, annotations: &str) -> String {
    format!(
        r#"{{"id":7,"annotations":[{annotations}],"file_upload":"x.csv","drafts":[],"predictions":[],"data":{{"text":"{text}"}},
            "meta":{{}},"created_at":"2026-01-05T10:00:00Z","inner_id":1,"total_annotations":1,"project":2}}"#
    )
}

fn choice(name: &str, choices: &str) -> String {
    let value = format!(r#"{{"choices":[{choices}]}}"#);
    format!(
        r#"{{"id":3,"was_cancelled":false,"lead_time":1.5,"result":[{{"value":{value},"id":"a1","from_name":"{name}","to_name":"text","type":"choices","origin":"manual"}}]}}"#
    )
}

#[test]
fn exports_of_label_studio() {
    let file = format!(
        "[{}, {}]",
        task("so good", &choice("mood", "\"glad\"")),
        task("so bad", &format!("{}, {}", choice("mood", "\"sad\""), choice("mood", "\"sad\"")))
    );
    let got = found(&Reading::default(), "f.json", &file, LabelForm::Name).unwrap().examples;
    assert_eq!(got, [example(1, "glad", "so good", None), example(2, "sad", "so bad", None)]);

    let error =
        |tasks: &str, want| found(&Reading::default(), "f.json", tasks, want).unwrap_err().to_string();
    let disagree = task("a", &format!("{}, {}", choice("mood", "\"sad\""), choice("mood", "\"glad\"")));
    assert!(
        error(&format!("[{disagree}]"), LabelForm::Name).starts_with("f.json:1: its annotations disagree")
    );
    assert!(
        error(&format!("[{}]", task("a", "")), LabelForm::Name).starts_with("f.json:1: it is not annotated")
    );
    let cancelled = choice("mood", "\"sad\"").replace("\"was_cancelled\":false", "\"was_cancelled\":true");
    assert!(error(&format!("[{}]", task("a", &cancelled)), LabelForm::Name).contains("it is not annotated"));
    let boxes = choice("mood", "\"sad\"").replace("\"type\":\"choices\"", "\"type\":\"rectanglelabels\"");
    assert!(
        error(&format!("[{}]", task("a", &boxes)), LabelForm::Name)
            .contains("type `rectanglelabels` are not read")
    );

    let two = r#"{"result":[{"from_name":"mood","type":"choices","value":{"choices":["sad"]}},
                            {"from_name":"stars","type":"rating","value":{"rating":2}}]}"#;
    let file = format!("[{}]", task("a", two));
    assert!(
        error(&file, LabelForm::Name)
            .contains("answers to `mood`, `stars`; name one of them with --label-column")
    );
    let columns = Columns { label: Some("stars".into()), ..Columns::default() };
    let reading = Reading { columns, ..Reading::default() };
    assert_eq!(
        found(&reading, "f.json", &file, LabelForm::Number).unwrap().examples,
        [example(1, "2", "a", None)]
    );

    let several = format!("[{}]", task("a", &choice("topic", "\"x\", \"y\"")));
    assert_eq!(
        found(&Reading::default(), "f.json", &several, LabelForm::Several).unwrap().examples,
        [example(1, "x,y", "a", None)]
    );
    // A file for each task.
    let one = task("a", &choice("mood", "\"sad\"")).replace(",\"", ",\n  \"");
    assert_eq!(
        found(&Reading::default(), "f.json", &one, LabelForm::Name).unwrap().examples,
        [example(1, "sad", "a", None)]
    );
    let min = r#"[{"text":"a","id":1,"mood":"sad","annotator":1,"annotation_id":3,"lead_time":2.5},
                  {"text":"b","id":2,"mood":{"choices":["sad","tired"]},"annotator":1}]"#;
    let columns = Columns { label: Some("mood".into()), ..Columns::default() };
    let reading = Reading { columns, ..Reading::default() };
    let got = found(&reading, "f.json", min, LabelForm::Several).unwrap().examples;
    assert_eq!(got, [example(1, "sad", "a", None), example(2, "sad,tired", "b", None)]);
    // The text has a name of its own.
    let named =
        task("a", &choice("mood", "\"sad\"")).replace("{\"text\":\"a\"}", "{\"review\":\"a\",\"stars\":4}");
    let got = found(&Reading::default(), "f.json", &format!("[{named}]"), LabelForm::Name).unwrap().examples;
    assert_eq!(got, [example(1, "sad", "a", None)]);
}

#[test]
fn exports_of_doccano() {
    let lines = "{\"id\":1,\"text\":\"a\",\"label\":[\"x\"],\"Comments\":[]}\n{\"id\":2,\"data\":\"b\",\"label\":[\"y\"]}\n";
    let want = [example(1, "x", "a", None), example(2, "y", "b", None)];
    for name in ["f.jsonl", "f.json"] {
        assert_eq!(found(&Reading::default(), name, lines, LabelForm::Name).unwrap().examples, want);
    }
    let old = r#"{"id":1,"text":"a","annotations":[{"id":1,"label":2,"user":1}]}"#;
    assert_eq!(
        found(&Reading::default(), "f.jsonl", old, LabelForm::Name).unwrap().examples,
        [example(1, "2", "a", None)]
    );
    let intent = r#"{"text":"a b","entities":[[0,1,"LOC"]],"cats":["x"]}"#;
    let label = |want| {
        found(&Reading::default(), "f.jsonl", intent, want).unwrap().examples[0].label.clone().unwrap()
    };
    assert_eq!((label(LabelForm::Name), label(LabelForm::Tags)), ("x".into(), "B-LOC O".into()));
    let none = "{\"id\":1,\"text\":\"a\",\"label\":[]}\n";
    assert!(
        found(&Reading::default(), "f.jsonl", none, LabelForm::Name)
            .unwrap_err()
            .to_string()
            .contains("label is empty")
    );
    let reading = Reading { skip_bad_lines: true, ..Reading::default() };
    assert_eq!(
        found(&reading, "f.jsonl", &format!("{none}{lines}"), LabelForm::Name).unwrap().examples.len(),
        2
    );
}

#[test]
fn exports_of_prodigy() {
    let lines = r#"{"text":"a","_input_hash":1,"_task_hash":2,"options":[{"id":"x"}],"accept":["x"],"answer":"accept"}
{"text":"b","_input_hash":1,"_task_hash":2,"label":"x","answer":"reject"}"#;
    let e = found(&Reading::default(), "f.jsonl", lines, LabelForm::Name).unwrap_err().to_string();
    assert!(e.starts_with("f.jsonl:2: its `answer` is `reject`"), "{e}");
    let reading = Reading { skip_bad_lines: true, ..Reading::default() };
    assert_eq!(
        found(&reading, "f.jsonl", lines, LabelForm::Name).unwrap().examples,
        [example(1, "x", "a", None)]
    );
    let spans = r#"{"text":"Jo is","tokens":[{"text":"Jo","start":0,"end":2,"id":0}],"spans":[{"start":0,"end":2,"token_start":0,"token_end":0,"label":"PER"}],"answer":"accept"}"#;
    let got = found(&Reading::default(), "f.jsonl", spans, LabelForm::Tags).unwrap().examples;
    assert_eq!(got[0].label.as_deref(), Some("B-PER O"));
}

#[test]
fn labels_are_merged_with_a_remark() {
    let got =
        found(&Reading::default(), "f.tsv", "label\ttext\nlater\ta\nlater \tb\nnow\tc\n", LabelForm::Name)
            .unwrap();
    let labels: Vec<&str> = got.examples.iter().filter_map(|e| e.label.as_deref()).collect();
    assert_eq!(labels, ["later", "later", "now"]);
    assert!(got.remarks[0].contains("`later`, `later ` are one label"), "{:?}", got.remarks);
}

#[test]
fn json_of_tokens_and_tags() {
    let read = |line: &str, want| read_as(Format::Jsonl, line, &Columns::default(), want);
    let line =
        |key: &str| format!(r##"{{"id":"0","tokens":["New York","is","#"],"{key}":["B-x","O","O"]}}"##);
    for key in ["tags", "ner_tags", "label"] {
        let got = read(&line(key), LabelForm::Tags).unwrap();
        assert_eq!(got[0].word_list(), ["New York", "is", "#"]);
        assert_eq!((got[0].text_a.as_str(), got[0].label.as_deref()), ("New York is #", Some("B-x O O")));
    }
    assert_eq!(read(&line("tags"), LabelForm::Nothing).unwrap()[0].word_list().len(), 3);
    for (text, wanted) in [
        (
            r#"{"tokens":["a"],"ner_tags":[3]}"#,
            "f:1: `ner_tags` holds numbers; write the tags by their names",
        ),
        (r#"{"tokens":["a",""],"tags":["O","O"]}"#, "f:1: `tokens` should hold strings that are not empty"),
        (r#"{"tokens":["a",1],"tags":["O","O"]}"#, "f:1: `tokens` should hold strings that are not empty"),
        (r#"{"tokens":["a"]}"#, "f:1: no label (looked for `label`, `labels`, `tags`, `ner_tags`)"),
        (r#"{"words_":["a"]}"#, "f:1: no text (looked for `tokens`, `words`, `text_a`, `text`, `sentence`)"),
    ] {
        let e = read(text, LabelForm::Tags).unwrap_err().to_string();
        assert!(e.starts_with(wanted), "{e}");
    }
    assert!(error(Format::Jsonl, &line("label")).contains("no text"), "texts of other tasks are strings");
}

#[test]
fn questions_as_json_lines() {
    let line = r#"{"id":"7","context":"Ö is","question":"q","answers":{"text":["is"],"answer_start":[2]}}"#;
    for (format, want) in [
        (Format::Jsonl, LabelForm::Answers),
        (Format::Jsonl, LabelForm::Nothing),
        (Format::Json, LabelForm::Nothing),
    ] {
        let got = read_as(format, line, &Columns::default(), want).unwrap();
        let e = &got[0];
        assert_eq!((&e.text_a[..], e.text_b.as_deref()), ("q", Some("Ö is")));
        assert_eq!(e.asked.as_ref().unwrap().answers[0].start, 3);
    }
    // A text of another task that has such keys too.
    let line = r#"{"text":"t","context":"c","question":"q"}"#;
    let got = read_as(Format::Jsonl, line, &Columns::default(), LabelForm::Nothing).unwrap();
    assert_eq!(got[0].text_a, "t");
    assert!(super::squad::is_lines(br#"{"context":"c","question":"q","answers":{"#));
    assert!(!super::squad::is_lines(b""));
}

#[test]
fn marked_parts_of_labelling_tools() {
    let studio = r#"[{"id":1,"data":{"text":"Jo is in Berlin."},"annotations":[{"result":[
        {"from_name":"ner","to_name":"text","type":"labels","value":{"start":9,"end":15,"text":"Berlin","labels":["LOC"]}},
        {"from_name":"ner","to_name":"text","type":"labels","value":{"start":0,"end":2,"text":"Jo","labels":["PER"]}}]}]}]"#;
    let doccano = r#"{"id":1,"text":"Jo is in Berlin.","label":[[0,2,"PER"],[9,15,"LOC"]]}"#;
    let relations = r#"{"id":1,"text":"Jo is in Berlin.","relations":[],"entities":
        [{"id":1,"label":"PER","start_offset":0,"end_offset":2},{"id":2,"label":"LOC","start_offset":9,"end_offset":15}]}"#;
    for (name, text) in [
        ("f.json", studio),
        ("f.jsonl", doccano),
        ("f.json", doccano),
        ("f.jsonl", &relations.replace('\n', " ")),
    ] {
        let got = found(&Reading::default(), name, text, LabelForm::Tags).unwrap().examples;
        assert_eq!(got[0].word_list(), ["Jo", "is", "in", "Berlin", "."]);
        assert_eq!(got[0].label.as_deref(), Some("B-PER O O B-LOC O"), "{text}");
    }
    let e = found(&Reading::default(), "f.jsonl", &doccano.replace("15", "99"), LabelForm::Tags)
        .unwrap_err()
        .to_string();
    assert!(e.starts_with("f.jsonl:1: the mark `LOC` from 9 to 99 is not in the text"), "{e}");
}
