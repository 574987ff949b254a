//! Bases and bias files that are damaged, hostile, or not each other's.

use crate::sandbox::{IO, Sandbox, TINY, USAGE};
use serde_json::{Value, json};

/// Every command that takes a base refuses this one, which is none for `inspect` either.
fn base_refused(bytes: impl AsRef<[u8]>, words: &[&str]) {
    let s = Sandbox::new();
    s.write("broken", bytes);
    not_a_base(&s, "broken", words);
    s.refuses("inspect broken", USAGE, words);
}

fn not_a_base(s: &Sandbox, name: &str, words: &[&str]) {
    for line in [
        "train --base NAME --data train.tsv --out new",
        "eval --base NAME --bias me.bias --data dev.tsv",
        "predict --base NAME --bias me.bias hello",
    ] {
        s.refuses(&line.replace("NAME", name), USAGE, &[words, &[name]].concat());
    }
}

/// Every command that takes a bias file refuses this one.
fn bias_refused(bytes: impl AsRef<[u8]>, words: &[&str]) {
    let s = Sandbox::new();
    s.write("broken", bytes);
    for line in ["eval --base base --bias broken --data dev.tsv", "predict --base base --bias broken hello"] {
        s.refuses(line, USAGE, &[words, &["broken"]].concat());
    }
}

/// The header of a safetensors file, and where its data starts.
fn header(bytes: &[u8]) -> (Value, usize) {
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..start]).unwrap(), start)
}

/// A safetensors file with its header changed.
fn changed(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut header, start) = header(bytes);
    change(&mut header);
    let mut text = header.to_string();
    while !(text.len() + 8).is_multiple_of(64) {
        text.push(' '); // the data stays as aligned as it was
    }
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[start..]].concat()
}

/// The sandbox's file of that name, its header changed.
fn with_header(name: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    changed(&Sandbox::new().read(name), change)
}

/// Where in a file a tensor's bytes start.
fn place(bytes: &[u8], tensor: &str) -> usize {
    let (header, start) = header(bytes);
    start + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

const WEIGHT: &str = "bert.encoder.layer.0.output.dense.weight";
const BIAS: &str = "bert.encoder.layer.0.output.dense.bias";

#[test]
fn truncated_base() {
    let bytes = Sandbox::new().read("base");
    for keep in [1, 7, 8, 9, 500, 5_000, bytes.len() / 2, bytes.len() - 1] {
        base_refused(&bytes[..keep], &[]);
    }
    base_refused(&bytes[..bytes.len() - 1], &["truncated"]);
    base_refused([&bytes[..], b"x"].concat(), &["1 bytes after the last tensor"]);
}

#[test]
fn empty_file() {
    base_refused("", &["the file is empty"]);
    bias_refused("", &["too short"]);
}

#[test]
fn text_file() {
    base_refused("label\ttext\ngood\tmovie\n".repeat(99), &["not a safetensors file"]);
    bias_refused("label\ttext\ngood\tmovie\n".repeat(99), &["not a safetensors file"]);
}

#[test]
fn header_beyond_the_file() {
    for length in [1u64 << 20, 1 << 40, u64::MAX, u64::MAX - 7] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        base_refused(&bytes, &["does not fit"]);
        bias_refused(&bytes, &["does not fit"]);
    }
}

#[test]
fn overlapping_tensors() {
    let bytes = with_header("base", |h| h[WEIGHT]["data_offsets"] = h[BIAS]["data_offsets"].clone());
    base_refused(bytes, &["tensor `bert."]);
    let bytes = with_header("me.bias", |h| {
        h[BIAS]["data_offsets"] = h["classifier.bias"]["data_offsets"].clone();
    });
    bias_refused(bytes, &["tensor `"]);
}

#[test]
fn huge_shapes() {
    for shape in [json!([u64::MAX, u64::MAX]), json!([1u64 << 62, 4]), json!([1u64 << 40])] {
        base_refused(with_header("base", |h| h[WEIGHT]["shape"] = shape.clone()), &[WEIGHT]);
        bias_refused(with_header("me.bias", |h| h[BIAS]["shape"] = shape), &[BIAS]);
    }
    let config = |h: &mut Value| {
        let text =
            h["__metadata__"]["config"].as_str().unwrap().replace("\"hidden\":64", "\"hidden\":6400000");
        h["__metadata__"]["config"] = text.into();
    };
    base_refused(with_header("base", config), &["hidden_size", "6400000"]);
}

#[test]
fn one_taken_for_the_other() {
    let s = Sandbox::new();
    not_a_base(&s, "me.bias", &["trimtab-bias", "not a base"]);
    bias_refused(s.read("base"), &["not a bias file", "trimtab-base"]);
    let checkpoint = std::fs::read(format!("{TINY}/model.safetensors")).unwrap();
    base_refused(&checkpoint, &["not a trimtab base", "trimtab quantize"]);
    bias_refused(&checkpoint, &["not a bias file"]);
}

#[test]
fn bias_file_of_another_base() {
    let s = Sandbox::new();
    let mut bytes = std::fs::read(format!("{TINY}/model.safetensors")).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 0x40; // one weight by half or so
    std::fs::create_dir(s.path("model")).unwrap();
    s.write("model/model.safetensors", bytes);
    for name in ["config.json", "tokenizer.json"] {
        s.write(&format!("model/{name}"), std::fs::read(format!("{TINY}/{name}")).unwrap());
    }
    s.ok("quantize model --output other");
    let fingerprint = |name: &str| s.json(&format!("inspect {name} --json"))["fingerprint"].to_string();
    let (mine, other) = (fingerprint("base"), fingerprint("other"));
    assert_ne!(mine, other);
    let words = ["me.bias", "other", mine.trim_matches('"'), other.trim_matches('"')];
    s.refuses("predict --base other --bias me.bias hello", USAGE, &words);
    s.refuses("eval --base other --bias me.bias --data dev.tsv", USAGE, &words);
}

#[test]
fn missing_tensor() {
    // from the header and, as holes are refused too, with its bytes given to a stranger
    let rename = |name: &'static str| {
        move |h: &mut Value| {
            let info = h.as_object_mut().unwrap().remove(name).unwrap();
            h["stranger"] = info;
        }
    };
    base_refused(with_header("base", rename(WEIGHT)), &[WEIGHT, "missing"]);
    bias_refused(with_header("me.bias", rename("classifier.weight")), &["classifier.weight", "missing"]);
    bias_refused(with_header("me.bias", rename(BIAS)), &["stranger"]);
    let drop = |h: &mut Value| drop(h.as_object_mut().unwrap().remove(BIAS));
    bias_refused(with_header("me.bias", drop), &["hole"]);
}

#[test]
fn bias_file_that_lost_what_it_says_it_trained() {
    let s = Sandbox::new();
    s.ok("train --base base --data train.tsv --out x.bias --epochs 1 --terms none");
    let claims = changed(&s.read("x.bias"), |h| h["__metadata__"]["terms"] = "q,ln2".into());
    bias_refused(claims, &["bert.encoder.layer.0.attention.self.query.bias", "missing"]);
}

#[test]
fn wrong_shape_and_type() {
    bias_refused(with_header("me.bias", |h| h[BIAS]["shape"] = json!([8, 8])), &[BIAS, "[64]", "[8, 8]"]);
    bias_refused(with_header("me.bias", |h| h[BIAS]["dtype"] = "I32".into()), &[BIAS, "I32"]);
    base_refused(with_header("base", |h| h[WEIGHT]["dtype"] = "U8".into()), &[WEIGHT, "U8"]);
    base_refused(with_header("base", |h| h[WEIGHT]["shape"] = json!([128, 64])), &[WEIGHT, "[128, 64]"]);
}

#[test]
fn not_a_number() {
    for name in ["base", "me.bias"] {
        let mut bytes = Sandbox::new().read(name);
        let at = place(&bytes, BIAS);
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        match name {
            "base" => base_refused(bytes, &[BIAS, "NaN", "[0]"]),
            _ => bias_refused(bytes, &[BIAS, "NaN", "value 0"]),
        }
    }
}

#[test]
fn wrong_labels() {
    let labels = |text: &'static str| move |h: &mut Value| h["__metadata__"]["labels"] = text.into();
    for text in ["[]", "[\"good\"]", "[\"good\",\"good\"]", "[\"a\",\"b\",\"c\"]", "[1,2]", "good", ""] {
        bias_refused(with_header("me.bias", labels(text)), &["labels"]);
    }
}

#[test]
fn wrong_facts() {
    let fact = |key: &'static str, value: &'static str| {
        with_header("me.bias", move |h| h["__metadata__"][key] = value.into())
    };
    bias_refused(fact("version", "2"), &["version \"2\""]);
    bias_refused(fact("task", "regress"), &["labels"]);
    bias_refused(fact("pooling", "max"), &["pooling"]);
    bias_refused(fact("terms", "bogus"), &["terms", "bogus"]);
    bias_refused(fact("layers", "2..1"), &["layers"]);
    bias_refused(fact("max_len", "0"), &["max_len"]);
    bias_refused(fact("max_len", "-3"), &["max_len"]);
    bias_refused(fact("metrics", "{"), &["metrics"]);
}

#[test]
fn missing_file_and_directory() {
    let s = Sandbox::new();
    s.refuses("train --base none --data train.tsv --out x.bias", IO, &["none", "No such file"]);
    s.refuses("predict --base base --bias none hello", IO, &["none", "No such file"]);
    s.refuses("inspect none", IO, &["none", "No such file"]);
    not_a_base(&s, TINY, &["a directory", "trimtab quantize"]);
    s.refuses("predict --base base --bias . hello", IO, &[".", "directory"]);
    s.refuses("quantize none --output x", IO, &["none"]);
    s.refuses("quantize base --output x", USAGE, &["base", "directory"]);
}

#[test]
fn a_changed_weight_is_found_by_verify() {
    let s = Sandbox::new();
    s.ok("inspect base --verify");
    let mut bytes = s.read("base");
    let at = place(&bytes, WEIGHT);
    bytes[at] ^= 2;
    s.write("changed", bytes);
    s.refuses("inspect changed --verify", USAGE, &["changed", "fingerprint"]);
}
