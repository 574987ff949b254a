//! The same seed, data and base give the same file, byte for byte, however they come and wherever they run.

use crate::sandbox::{Done, Sandbox, emulated, examples, tsv};
use serde_json::json;
use sha2::{Digest, Sha256};

/// SHA-256 of what [`one_hash_for_every_machine`] trains. A change of the numerics changes it: put here what the
/// failing test prints, the same on x86-64 and on ARM (`cross/test`).
const TRAINED_SHA256: &str = "67fe1297ed348fac17aad4ded7639b7348b6d03eba6631ce50ecc3626eeec844";

/// The bias file that these flags give.
pub fn trained(s: &Sandbox, data: &str, flags: &str, kernel: &str) -> Vec<u8> {
    let epochs = if flags.contains("--epochs") { "" } else { "--epochs 2" };
    let line = format!("train --base base --data {data} --out x.bias --batch 5 {epochs} {flags}");
    let output = s.command(&line).env("TRIMTAB_KERNEL", kernel).output().unwrap();
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    s.read("x.bias")
}

#[test]
fn formats() {
    let s = Sandbox::new();
    let pairs: Vec<_> = examples().into_iter().enumerate().collect();
    let second = |i: usize| ["", "we love it", "a \"quoted\" box, never open"][i % 3];
    let tsv: String = pairs.iter().map(|(i, (l, t))| format!("{t}\t{l}\t{}\n", second(*i))).collect();
    let quoted = |t: &str| format!("\"{}\"", t.replace('"', "\"\""));
    let csv: String =
        pairs.iter().map(|(i, (l, t))| format!("{},{l},{}\r\n", quoted(t), quoted(second(*i)))).collect();
    let jsonl: String = pairs
        .iter()
        .map(|(i, (l, t))| json!({ "label": l, "text_a": t, "text_b": second(*i) }).to_string() + "\n")
        .collect();
    s.write("x.tsv", format!("text_a\tlabel\ttext_b\n{tsv}"));
    s.write("x.csv", format!("\u{feff}text_a,label,text_b\r\n{csv}"));
    s.write("x.jsonl", jsonl);
    let first = trained(&s, "x.tsv", "", "");
    assert!(first == trained(&s, "x.csv", "", ""), "csv");
    assert!(first == trained(&s, "x.jsonl", "", ""), "jsonl");
}

#[test]
fn threads_and_kernels() {
    let s = Sandbox::new();
    let first = trained(&s, "train.tsv", "--threads 1", "");
    assert!(first == trained(&s, "train.tsv", "--threads 1", ""), "again");
    for threads in [2, 3] {
        assert!(first == trained(&s, "train.tsv", &format!("--threads {threads}"), ""), "{threads} threads");
    }
    let machine = s.json("inspect --json");
    let kernels: Vec<&str> =
        machine["kernels"].as_array().unwrap().iter().filter_map(|k| k.as_str()).collect();
    assert!(kernels.contains(&"portable"), "{machine}");
    for kernel in kernels {
        println!("kernel set {kernel}");
        assert!(first == trained(&s, "train.tsv", "--threads 2", kernel), "{kernel}");
    }
}

/// Fifty steps that go through everything that is summed, dropped or scaled: pairs, both dropouts, decay, every bias.
/// Each kernel set, with one thread and with two, gives the one hash of [`TRAINED_SHA256`]: so do any two machines.
#[test]
fn one_hash_for_every_machine() {
    let s = Sandbox::new();
    let rows = examples().into_iter().enumerate();
    let rows: String = rows.map(|(i, (l, t))| format!("{l}\t{t}\t{}\n", ["", "we love it"][i % 2])).collect();
    s.write("pairs.tsv", format!("label\ttext_a\ttext_b\n{rows}"));
    let machine = s.json("inspect --json");
    let mut hashes = Vec::new();
    for kernel in machine["kernels"].as_array().unwrap().iter().filter_map(|k| k.as_str()) {
        for threads in [1, 2] {
            let line = format!(
                "train --base base --data pairs.tsv --out x.bias --epochs 50 --batch 16 --lr 0.003 --max-len 64 \
                 --seed 7 --terms all,k --pool cls --warmup 0.1 --clip 1 --weight-decay 0.01 --dropout 0.1 \
                 --encoder-dropout 0.1 --class-weights --threads {threads}"
            );
            let done = Done::of(s.command(&line).env("TRIMTAB_KERNEL", kernel).output().unwrap());
            assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
            let sha256 = tensors_sha256(&s.read("x.bias"));
            println!("{sha256} {} {kernel}, {threads} threads", std::env::consts::ARCH);
            hashes.push(sha256);
        }
    }
    assert!(hashes.iter().all(|h| *h == hashes[0]), "kernel sets or threads differ: {hashes:#?}");
    assert_eq!(hashes[0], TRAINED_SHA256, "a new hash, the same for all sets here; see TRAINED_SHA256");
}

/// Over names and bytes of a file's tensors, in the order of their names; not over its metadata.
fn tensors_sha256(file: &[u8]) -> String {
    let file = safetensors::SafeTensors::deserialize(file).unwrap();
    let mut all = file.tensors();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hash = Sha256::new();
    for (name, tensor) in all {
        hash.update(name);
        hash.update(tensor.data());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Cross-validation and what it chooses: the same on each kernel set and any number of threads.
#[test]
fn selection_is_the_same_everywhere() {
    let s = Sandbox::new();
    let lines: Vec<(&str, String)> =
        (0..4).flat_map(|i| examples().into_iter().map(move |(l, t)| (l, format!("{t} {i}")))).collect();
    s.write("many.tsv", tsv(&lines));
    let run = |flags: &str, kernel: &str| {
        let line = format!("train --base base --data many.tsv --out x.bias --json --effort {flags}");
        let done = Done::of(s.command(&line).env("TRIMTAB_KERNEL", kernel).output().unwrap());
        assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        (s.read("x.bias"), report["result"]["choice"].clone(), report["result"]["metrics"].clone())
    };
    for effort in if emulated() { &["normal --epochs 2"][..] } else { &["normal", "thorough --epochs 4"] } {
        let first = run(&format!("{effort} --threads 1"), "");
        assert!(first == run(&format!("{effort} --threads 2"), ""), "{effort}");
        assert!(first == run(effort, "portable"), "{effort}");
    }
}

/// Layers below the trained ones: kept or computed again, on one thread or two, and where only some of them fit.
#[test]
fn frozen_layers() {
    let s = Sandbox::new();
    let some = "--epochs 3 --dev dev.tsv --keep last";
    for trained_part in
        ["--layers 1..2", "--terms none", "--layers 1..2 --terms m2,ln2", "--terms pooler --pool cls"]
    {
        let run = |flags: &str| trained(&s, "train.tsv", &format!("{some} {trained_part} {flags}"), "");
        let first = run("--threads 1");
        assert!(first == run("--threads 2"), "{trained_part}: 2 threads");
        // some kept and some not is both ways at once
        for cache in if emulated() { &["4KiB"][..] } else { &["0", "4KiB", "1GiB"] } {
            for threads in [1, 2] {
                let flags = format!("--prefix-cache {cache} --threads {threads}");
                assert!(first == run(&flags), "{trained_part} {flags}");
            }
        }
        assert!(first == trained(&s, "train.tsv", &format!("{some} {trained_part}"), "portable"), "portable");
    }
}

#[test]
fn where_it_is_written_and_what_stood_there() {
    let s = Sandbox::new();
    let first = trained(&s, "train.tsv", "", "");
    std::fs::create_dir(s.path("folder")).unwrap();
    s.ok("train --base ./base --data ./train.tsv --out folder/y.bias --epochs 2 --batch 5 --dev dev.tsv --keep last");
    let tensors = |bytes: &[u8]| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut all: Vec<_> = file.tensors().into_iter().map(|(n, t)| (n, t.data().to_vec())).collect();
        all.sort();
        all
    };
    assert!(tensors(&first) == tensors(&s.read("folder/y.bias")), "scoring on dev changes nothing");
}

#[test]
fn what_should_change_the_file_does() {
    let s = Sandbox::new();
    let first = trained(&s, "train.tsv", "", "");
    for flags in
        ["--seed 1", "--lr 0.001", "--dropout 0", "--encoder-dropout 0", "--class-weights --dropout 0.2"]
    {
        assert!(first != trained(&s, "train.tsv", flags, ""), "{flags}");
    }
    s.write("other.tsv", tsv(&examples()[1..]));
    assert!(first != trained(&s, "other.tsv", "", ""), "one example less");
}

#[test]
fn seeds_up_to_the_largest() {
    let s = Sandbox::new();
    let largest = trained(&s, "train.tsv", "--seed 18446744073709551615", "");
    assert!(largest != trained(&s, "train.tsv", "--seed 18446744073709551614", ""));
}

/// Two runs of `quantize` give one base.
#[test]
fn quantize() {
    let s = Sandbox::new();
    s.ok(&format!("quantize {} --output again", crate::sandbox::TINY));
    assert!(s.read("base") == s.read("again"));
}
