//! Hidden words: a base with a masked-LM head gets used to plain text, fills in masks, and lends its biases to other tasks.

use crate::mlm::write_checkpoint;
use crate::sandbox::{Done, Sandbox, USAGE, examples};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const LINE: &str = "train --base f --task mlm --out x.bias --epochs 12 --lr 0.03 --batch 4";

/// A sandbox that also has the base `f` with a masked-LM head, made of the checkpoint `head`, and `x.txt`.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    write_checkpoint("bert", &s.path("head"));
    s.ok("quantize head -o f");
    s.write("x.txt", lines());
    s
}

/// The sandbox's texts, with blank lines between.
fn lines() -> String {
    examples().into_iter().map(|(_, text)| format!("{text}\n\n")).collect()
}

fn ask(s: &Sandbox, flags: &str, text: &str) -> String {
    let done = s.shell(&format!("\"$@\" predict --base f --bias x.bias {flags} '{text}'")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn tensors(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut all: Vec<_> = file.tensors().into_iter().map(|(name, t)| (name, t.data().to_vec())).collect();
    all.sort();
    all
}

#[test]
fn plain_text_is_learned_and_masks_are_filled() {
    let s = sandbox();
    let done = s.ok(&format!("{LINE} --data x.txt --dev x.txt"));
    assert!(done.stderr.contains("16 examples, 15 % of the tokens masked"), "{}", done.stderr);
    assert!(
        done.stdout.contains("0 head values") && done.stdout.contains("base, not trained"),
        "{}",
        done.stdout
    );
    let scores = s.json("eval --base f --bias x.bias --data x.txt --json");
    let [loss, perplexity] = ["loss", "perplexity"].map(|key| scores[key].as_f64().unwrap());
    assert!((perplexity - loss.exp()).abs() < 1e-9 * perplexity && scores["examples"] == 16, "{scores}");
    // No epoch is kept that is worse than the base itself.
    let begun = s.json(&format!("{LINE} --data x.txt --dev x.txt --force --json"))["before"].clone();
    assert!(loss < 0.85 * begun["loss"].as_f64().unwrap(), "{scores}, {begun} before");
    let facts = s.json("inspect x.bias --json");
    assert_eq!(
        (&facts["task"], &facts["pooling"], &facts["labels"]),
        (&"mlm".into(), &"tokens".into(), &json!([]))
    );
    assert!(tensors(&s.read("x.bias")).iter().all(|(name, _)| name.starts_with("bert.")), "no head is in it");

    let answer = ask(&s, "", "it was a very good [MASK] and [MASK]");
    assert_eq!(answer.lines().count(), 2, "{answer}");
    for line in answer.lines() {
        let (words, text) = line.split_once('\t').unwrap();
        assert_eq!((words.split(", ").count(), text), (5, "it was a very good [MASK] and [MASK]"));
    }
    let json: Value =
        serde_json::from_str(&ask(&s, "--json", "it was a very good [MASK] and [MASK]")).unwrap();
    let masks = json["masks"].as_array().unwrap();
    assert_eq!(masks.len(), 2, "{json}");
    for words in masks {
        let p: Vec<f64> =
            words.as_array().unwrap().iter().map(|w| w["probability"].as_f64().unwrap()).collect();
        assert!(p.len() == 5 && p.windows(2).all(|p| p[0] >= p[1]) && p.iter().sum::<f64>() <= 1.0, "{json}");
    }
    let first = masks[0][0]["word"].as_str().unwrap();
    assert!(answer.starts_with(&format!("{first} 0.")), "{answer} {json}");
    // A mask by itself, in a batch or in another line of stdin: the same.
    s.write("masks.txt", "[MASK]\nwe love [MASK] box\n");
    let of_file = s.ok("predict --base f --bias x.bias --data masks.txt --json").stdout;
    let apart: Vec<String> = ["[MASK]", "we love [MASK] box"].map(|text| ask(&s, "--json", text)).into();
    assert_eq!(of_file, apart.concat());
}

/// Threads, kernels, cuts and the form of the data change nothing; the seed does.
#[test]
fn the_same_bits() {
    let s = sandbox();
    let texts: String = examples().into_iter().map(|(label, text)| format!("{label}\t{text}\n")).collect();
    s.write("x.tsv", format!("label\ttext\n{texts}"));
    let objects = examples().into_iter().map(|(_, text)| json!({ "text": text }).to_string() + "\n");
    s.write("x.jsonl", objects.collect::<String>());
    let run = |flags: &str, kernel: &str| {
        let line = format!("train --base f --task mlm --out x.bias --epochs 2 --batch 5 {flags}");
        let done = Done::of(s.command(&line).env("TRIMTAB_KERNEL", kernel).output().unwrap());
        assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
        s.read("x.bias")
    };
    let first = run("--data x.txt --threads 1", "");
    let budget =
        s.smallest_budget("train --base f --task mlm --out x.bias --epochs 2 --batch 5 --data x.txt");
    let budget = format!("--data x.txt --memory {budget}MiB");
    for flags in ["--data x.txt --threads 2", "--data x.tsv", "--data x.jsonl", &budget] {
        assert!(first == run(flags, ""), "{flags}");
    }
    assert!(first == run("--data x.txt", "portable"), "portable");
    assert!(tensors(&first) != tensors(&run("--data x.txt --seed 1", "")));
    let upper = run("--data x.txt --layers 1..2 --threads 1", "");
    assert!(upper == run("--data x.txt --layers 1..2 --threads 2 --prefix-cache 0", ""), "frozen layers");
    run("--data x.txt --exact --encoder-dropout 0.1", "");
}

#[test]
fn long_texts_are_read_in_windows() {
    let s = sandbox();
    // 120 words of one token each, 10 a window.
    s.write("long.txt", format!("{}\nshort\n", "the movie was very good ".repeat(24)));
    s.ok("train --base f --task mlm --data long.txt --out x.bias --epochs 1 --max-len 12");
    let scores = s.json("eval --base f --bias x.bias --data long.txt --json");
    assert_eq!(scores["examples"], 13, "{scores}");
    assert_eq!(s.json("inspect x.bias --json")["max_len"], 12);
    let text = format!("{} [MASK]", "a ".repeat(30));
    let line = format!("\"$@\" predict --base f --bias x.bias '{text}'");
    s.refuses_with(s.shell(&line), &line, USAGE, &["no [MASK] among the first 12 tokens"]);
}

#[test]
fn another_task_begins_from_adapted_biases() {
    let s = sandbox();
    s.ok(&format!("{LINE} --data x.txt"));
    let adapted = tensors(&s.read("x.bias"));
    // Nothing but a head is learned: the encoder's biases are the adapted ones.
    let head = "train --base f --data train.tsv --epochs 1 --terms none --pool mean";
    s.ok(&format!("{head} --start x.bias --out y.bias"));
    let begun = tensors(&s.read("y.bias"));
    assert!(adapted.iter().all(|tensor| begun.contains(tensor)));
    assert!(begun.iter().any(|(name, _)| name == "classifier.weight") && begun.len() == adapted.len() + 2);
    s.ok("eval --base f --bias y.bias --data dev.tsv");
    s.ok(&format!("{head} --out z.bias"));
    assert_eq!(tensors(&s.read("z.bias")).len(), 2);
    // And back: of any task, with a head that is left behind, and biases that only one of the two has.
    s.ok("train --base f --data train.tsv --epochs 1 --pool cls --start x.bias --out y.bias");
    s.ok(&format!("{LINE} --data x.txt --dev x.txt --start y.bias"));
    s.ok("train --base f --data train.tsv --start x.bias --setfit --out y.bias");

    let train = "train --base f --data train.tsv --out w.bias --epochs 1 --start";
    s.refuses(&format!("{train} me.bias"), USAGE, &["me.bias", "was trained on another base"]);
    s.refuses(&format!("{train} train.tsv"), USAGE, &["train.tsv"]);
    s.refuses(&format!("{train} none.bias"), 1, &["none.bias"]);
    s.refuses(
        &train.replace("w.bias", "x.bias").replace("--start", "--start x.bias"),
        USAGE,
        &["--out x.bias would replace"],
    );
}

/// The checkpoint with some of its tensors, and a word in its config.
fn changed(s: &Sandbox, to: &str, name: impl Fn(&str) -> Option<String>, config: Option<(&str, Value)>) {
    write_checkpoint("bert", &s.path(to));
    let bytes = s.read("head/model.safetensors");
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let kept = all.tensors().into_iter().filter_map(|(n, t)| Some((name(&n)?, t)));
    safetensors::serialize_to_file(kept, None, &s.path(&format!("{to}/model.safetensors"))).unwrap();
    if let Some((key, value)) = config {
        let path = format!("{to}/config.json");
        let mut json: Value = serde_json::from_slice(&s.read(&path)).unwrap();
        json[key] = value;
        s.write(&path, json.to_string());
    }
}

#[test]
fn heads_of_checkpoints() {
    let s = sandbox();
    let same = |name: &str| Some(name.to_owned());
    assert_eq!(s.json("inspect f --verify --json")["mlm_head"], "tied");
    assert!(s.ok("inspect f").stdout.contains("mlm_head"));
    // Names of the time of TensorFlow, and the bias under its other name.
    let old = |name: &str| {
        let name =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        Some(name.replace("cls.predictions.bias", "cls.predictions.decoder.bias"))
    };
    changed(&s, "old", old, None);
    s.ok("quantize old -o g");
    let fingerprint = |base: &str| s.json(&format!("inspect {base} --json"))["fingerprint"].clone();
    assert_eq!(fingerprint("f"), fingerprint("g"));
    // A head that lacks a part is none, and the base that of a checkpoint without one.
    changed(&s, "part", |name| same(name).filter(|n| n != "cls.predictions.bias"), None);
    s.ok("quantize part -o g");
    assert!(s.json("inspect g --json").get("mlm_head").is_none());
    assert_eq!(fingerprint("g"), fingerprint("base"));
    let train = "train --task mlm --data x.txt --out y.bias --force";
    for base in ["g", "base"] {
        let words = [base, "no masked-LM head", "bert-base-uncased", "`cls.predictions.bias`"];
        s.refuses(&format!("{train} --base {base}"), USAGE, &words);
    }
    changed(&s, "untied", same, Some(("tie_word_embeddings", json!(false))));
    s.ok("quantize untied -o g");
    assert_eq!(s.json("inspect g --json")["mlm_head"], "untied");
    let words = ["g", "`cls.predictions.decoder.weight`", "tie_word_embeddings"];
    s.refuses(&format!("{train} --base g"), USAGE, &words);
    s.ok("train --base g --data train.tsv --out y.bias --epochs 1 --force");
    // A tensor of the head that is not as the config says.
    changed(&s, "wide", same, Some(("vocab_size", json!(400))));
    s.refuses("quantize wide -o h", USAGE, &["wide"]);
    // A tokenizer that cannot hide anything.
    changed(&s, "bare", same, None);
    let tokenizer = String::from_utf8(s.read("bare/tokenizer.json")).unwrap();
    s.write("bare/tokenizer.json", tokenizer.replace("[MASK]", "[HIDE]"));
    s.ok("quantize bare -o h");
    s.refuses(&format!("{train} --base h"), USAGE, &["h", "no mask token"]);
}

#[test]
fn what_is_no_plain_text_is_refused() {
    let s = sandbox();
    s.write("empty.txt", "");
    s.write("blank.txt", " \n\n\t\n");
    s.write("bytes.txt", b"one\n\ntwo \xff\n");
    s.write("nul.txt", b"one\n\0\n");
    s.write("unknown.txt", "你好\n");
    let train = "train --base f --out y.bias --epochs 1";
    for (line, words) in [
        ("--data x.txt", &["x.txt", "no labels", "--task mlm"][..]),
        ("--data x.txt --task contrastive", &["x.txt:1", "no second text"]),
        ("--data empty.txt --task mlm", &["empty.txt", "the file is empty"]),
        ("--data blank.txt --task mlm", &["blank.txt", "every line is blank"]),
        ("--data bytes.txt --task mlm", &["bytes.txt:3", "not UTF-8 at byte 4"]),
        ("--data nul.txt --task mlm", &["nul.txt:2", "NUL"]),
        ("--data x.txt --dev bytes.txt --task mlm", &["bytes.txt:3"]),
        ("--data unknown.txt --task mlm", &["no word in the texts"]),
        ("--data none.txt --task mlm --format conll", &["none.txt"]),
        ("--data x.txt --task mlm --terms none", &["mlm needs biases"]),
        ("--data x.txt --task mlm --stride 4", &["--stride is for qa"]),
        ("--data x.txt --task mlm --class-weights", &["class weights"]),
        ("--data x.txt --dev x.txt --task mlm --keep mcc", &["mlm has no mcc", "perplexity"]),
        ("--data x.txt --task mlm --max-len 3", &["max-len 3"]),
    ] {
        let code = if line.contains("none.txt") { 1 } else { USAGE };
        s.refuses(&format!("{train} {line}"), code, words);
    }
    s.ok(&format!("{train} --data x.txt --task mlm"));
    s.refuses("predict --base f --bias y.bias alone", USAGE, &["no [MASK]", "`alone`"]);
    s.refuses("predict --base f --bias y.bias --data x.txt", USAGE, &["no [MASK]"]);
    s.refuses("embed --base f --bias y.bias x.txt", USAGE, &["vectors of tokens"]);
    s.refuses("eval --base f --bias y.bias --data bytes.txt", USAGE, &["bytes.txt:3"]);
}

#[test]
fn an_experiment_has_no_row_of_a_head() {
    let s = sandbox();
    let line = "experiment --base f --task mlm --data x.txt --dev x.txt --out lab --seeds 1 --epochs 1 --what subsets --json";
    let found = s.json(line);
    assert_eq!(found["score"], "accuracy");
    let trained: Vec<&Value> = found["rows"].as_array().unwrap().iter().map(|row| &row["trained"]).collect();
    assert!(trained.len() == 7 && !trained.contains(&&json!("head only")), "{trained:?}");
}
