//! `--task tag`: files of tokens in every layout, the schemes of their tags, and raw texts.

use crate::sandbox::{Sandbox, USAGE, examples};
use serde_json::Value;

const LINE: &str = "train --base base --out x.bias --task tag --epochs 30 --lr 0.03 --batch 4";

/// Words of the tiny model's vocabulary with spans of one or two words, in BIOES. `cell` makes a line of a word and its tag.
fn tagged(cell: impl Fn(usize, &str, &str) -> String) -> String {
    let sentence = |(_, text): (&str, String)| {
        let words: Vec<&str> = text.split(' ').collect();
        let line = |(i, word): (usize, &&str)| {
            let tag = match *word {
                "very" => "B-view",
                "good" | "bad" => "E-view",
                "movie" => "S-thing",
                _ => "O",
            };
            cell(i, word, tag) + "\n"
        };
        words.iter().enumerate().map(line).collect::<String>() + "\n"
    };
    examples().into_iter().map(sentence).collect()
}

fn bioes() -> String {
    tagged(|_, word, tag| format!("{word}\t{tag}"))
}

/// The scheme is told, and every scheme has spans to choose the best epoch by.
#[test]
fn every_scheme_has_spans() {
    let s = Sandbox::new();
    let bilou = bioes().replace("S-", "U-").replace("E-", "L-");
    let iob1 = bioes().replace("S-", "I-").replace("E-", "I-").replace("B-", "I-");
    for (scheme, file) in [("BIOES", bioes()), ("BILOU", bilou), ("IOB1", iob1)] {
        s.write("x.conll", file);
        let done = s.ok(&format!("{LINE} --data x.conll --dev x.conll --force --json"));
        assert!(done.stderr.contains(&format!("tags: {scheme}")), "{}", done.stderr);
        let trained: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(trained["scheme"], scheme);
        let line = "eval --base base --bias x.bias --data x.conll";
        let scores = s.json(&format!("{line} --json"));
        assert!(scores["span_f1"].as_f64().unwrap() > 0.9, "{scheme}: {scores}");
        assert_eq!((&scores["scheme"], &scores["unseen_labels"]["occurrences"]), (&scheme.into(), &0.into()));
        assert!(s.ok(line).stdout.contains(&format!("tags: {scheme}\n")));
    }
    // Parts of speech have none.
    s.write("x.conll", tagged(|_, word, tag| format!("{word} {}", if tag == "O" { "X" } else { "NOUN" })));
    let done = s.ok(&format!("{LINE} --data x.conll --dev x.conll --force"));
    assert!(!done.stderr.contains("tags:"), "{}", done.stderr);
    let scores = s.json("eval --base base --bias x.bias --data x.conll --json");
    assert_eq!((&scores["scheme"], &scores["span_f1"]), (&Value::Null, &0.0.into()));
}

/// Every layout gives the same sentences, so the same bytes.
#[test]
fn layouts_of_one_file() {
    let s = Sandbox::new();
    let train = |name: &str, flags: &str| {
        s.ok(&format!(
            "train --base base --task tag --epochs 1 --effort quick --data {name} --out {name}.bias {flags}"
        ));
        s.read(&format!("{name}.bias"))
    };
    s.write("tabs.conll", bioes());
    let wanted = train("tabs.conll", "");
    s.write(
        "2003.conll",
        "-DOCSTART- -X- -X- O\n\n".to_owned() + &tagged(|_, w, t| format!("{w} NN B-NP {t}")),
    );
    s.write("u.conll", {
        let comments =
            "# sent_id = 1\n# text = it was # a very good movie\n1-2\titwas\t_\t_\t_\t_\t_\t_\t_\t_\n";
        comments.to_owned()
            + &tagged(|i, w, t| format!("{}\t{w}\tx\t{t}\tN\t_\t0\troot\t_\tSpaceAfter=No", i + 1))
    });
    s.write("first.conll", tagged(|_, w, t| format!("{t}\t{w}")));
    let sentences = tagged(|_, w, t| format!("{w}\t{t}"));
    let object = |sentence: &str, key: &str| {
        let rows = sentence.lines().filter_map(|l| l.split_once('\t'));
        let (words, tags): (Vec<&str>, Vec<&str>) = rows.unzip();
        serde_json::json!({ "id": "0", "tokens": words, key: tags }).to_string() + "\n"
    };
    for key in ["tags", "ner_tags"] {
        let lines = sentences.trim_end().split("\n\n").map(|sentence| object(sentence, key));
        s.write(&format!("{key}.jsonl"), lines.collect::<String>());
    }
    for (name, flags) in [
        ("2003.conll", ""),
        ("u.conll", ""),
        ("first.conll", "--text-column 2 --label-column 1"),
        ("tags.jsonl", ""),
        ("ner_tags.jsonl", ""),
    ] {
        assert!(train(name, flags) == wanted, "{name}");
    }
    s.refuses(
        "train --base base --task tag --out y.bias --data u.conll --label-column NER",
        USAGE,
        &["u.conll", "no column `NER`", "UPOS", "--label-column"],
    );
}

/// What `predict` prints has a line for each token of the file: `#`, and tokens that hold spaces or are made of them.
#[test]
fn tags_line_up_with_tokens() {
    let s = Sandbox::new();
    let sentence = "#\tO\n10 000\tO\n\u{a0}\tO\nvery good\tS-view\na\u{3000}b\tO\n#movie\tS-thing\n\n";
    s.write("x.conll", sentence.repeat(6) + &bioes());
    let report = s.json(&format!("{LINE} --data x.conll --effort quick --json"));
    assert_eq!(report["labels"].as_array().unwrap().len(), 5, "{report}");
    let scores = s.json("eval --base base --bias x.bias --data x.conll --json");
    assert_eq!(scores["examples"], 22);
    let told = s.ok("predict --base base --bias x.bias --data x.conll").stdout;
    let tokens =
        |text: &str| text.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>();
    // What is printed has one blank line more behind the last sentence of each call.
    let [told, file] = [told.as_str(), &(sentence.repeat(6) + &bioes())]
        .map(|text| tokens(text).into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>());
    assert_eq!(told, file);
    // Spaces between columns: the same, without spaces in tokens.
    s.write("y.conll", "# # B-view\n1.5 CD O\n. . O\n");
    let told = s.ok("predict --base base --bias x.bias --data y.conll").stdout;
    assert_eq!(
        told.lines().map(|l| l.split('\t').next().unwrap()).collect::<Vec<_>>()[..3],
        ["#", "1.5", "."]
    );
    s.refuses("eval --base base --bias x.bias --data z.conll", 1, &["z.conll"]);
    s.write("z.conll", "very good S-view\nmovie S-thing\n");
    s.refuses("eval --base base --bias x.bias --data z.conll", USAGE, &["z.conll:2", "2 columns", "tabs"]);
}

/// A raw text is split into words, wherever it comes from; the tokens of files are not.
#[test]
fn raw_texts_are_split_into_words() {
    let s = Sandbox::new();
    s.write("x.conll", bioes());
    s.ok(&format!("{LINE} --data x.conll --effort quick"));
    let predict = "predict --base base --bias x.bias";
    let words = |out: &str| {
        out.lines().map(|l| l.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>().join("|")
    };
    let text = "it was a very good movie.";
    let wanted = "it|was|a|very|good|movie|.|";
    let mut command = s.command(predict);
    let out = String::from_utf8(command.arg(text).output().unwrap().stdout).unwrap();
    assert_eq!(words(&out), wanted);
    assert!(out.contains("very\tB-view\ngood\tE-view\nmovie\tS-thing\n.\t"), "{out}");
    s.write("x.txt", text.to_owned() + "\n");
    assert_eq!(words(&s.ok(&format!("{predict} --data x.txt")).stdout), wanted);
    let script = format!("printf '%s\\n' \"don't (we love it)\" | \"$@\" {predict} --json");
    let out = s.shell(&script).output().unwrap().stdout;
    let json: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["words"], serde_json::json!(["don't", "(", "we", "love", "it", ")"]));
    s.write("y.conll", "it\nmovie.\n");
    assert_eq!(words(&s.ok(&format!("{predict} --data y.conll")).stdout), "it|movie.|");
}

/// One label that was not in training is no reason to refuse a file: it counts as wrong, and is told.
#[test]
fn unseen_labels_count_as_wrong() {
    let s = Sandbox::new();
    let eval = |bias: &str, data: &str| {
        let line = format!("eval --base base --bias {bias} --data {data}");
        (s.json(&format!("{line} --json")), s.ok(&line).stdout)
    };
    let known = eval("me.bias", "train.tsv").0;
    let (n, right) = (16.0, (16.0 * known["accuracy"].as_f64().unwrap()).round());
    let file = String::from_utf8(s.read("train.tsv")).unwrap();
    s.write("new.tsv", file.clone() + "other\tgood movie\nfresh\tbad movie\nother\tit\n");
    let (scores, told) = eval("me.bias", "new.tsv");
    let unseen = serde_json::json!({ "names": ["fresh", "other"], "examples": 3, "occurrences": 3 });
    assert_eq!(scores["unseen_labels"], unseen);
    assert!((scores["accuracy"].as_f64().unwrap() - right / (n + 3.0)).abs() < 1e-12, "{scores}");
    assert!(
        (scores["loss"].as_f64().unwrap() - known["loss"].as_f64().unwrap()).abs() < 1e-9,
        "of known labels"
    );
    assert!(scores["macro_f1"].as_f64().unwrap() <= 0.5, "two of four labels have an F1 of 0: {scores}");
    let sentence = "3 lines have labels that were not in training (`fresh`, `other`); they count as wrong";
    assert!(told.contains(sentence), "{told}");
    s.write("only.tsv", "label\ttext\nother\tgood\n");
    assert_eq!(eval("me.bias", "only.tsv").0["accuracy"], 0.0);

    // Training with such lines held out, of each task with labels.
    let train = |task: &str, files: &str| {
        let done =
            s.ok(&format!("train --base base --task {task} {files} --out x.bias --force --epochs 2 --json"));
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert!(done.stderr.contains("that were not in training"), "{}", done.stderr);
        assert!(report["result"]["warnings"].to_string().contains("unseen_labels"), "{report}");
        report
    };
    let report = train("classify", "--data train.tsv --dev new.tsv");
    assert_eq!(
        (&report["result"]["unseen_labels"], report["labels"].as_array().unwrap().len()),
        (&unseen, 2)
    );
    assert_eq!(report["result"]["metrics"]["examples"], 19);

    s.write("several.tsv", file.replace("good\t", "good,nice\t"));
    s.write("several-new.tsv", file.replace("good\t", "good,nice,new\t"));
    let report = train("multilabel", "--data several.tsv --dev several-new.tsv");
    assert_eq!(report["result"]["unseen_labels"]["occurrences"], 8);
    let (scores, told) = eval("x.bias", "several-new.tsv");
    assert!(
        scores["accuracy"].as_f64().unwrap() <= 0.5 && told.contains("8 lines have labels"),
        "{scores} {told}"
    );

    s.write("x.conll", bioes());
    s.write("new.conll", bioes().replace("S-thing", "S-new"));
    let report = train("tag", "--data x.conll --dev new.conll");
    assert_eq!(
        report["labels"].as_array().unwrap().len(),
        4,
        "the head has no output for what is not learned"
    );
    s.ok(&format!("{LINE} --data x.conll --force --effort quick"));
    let (scores, told) = eval("x.bias", "new.conll");
    let (all, span_f1) = (eval("x.bias", "x.conll").0, scores["span_f1"].as_f64().unwrap());
    assert!(all["span_f1"].as_f64().unwrap() > 0.9, "{all}");
    assert!((0.4..0.6).contains(&span_f1), "one of two spans of each sentence is another now: {scores}");
    assert!(told.contains("16 tokens have tags that were not in training (`S-new`)"), "{told}");
}
