//! `bench`: every figure is there, finite and above zero; with a base and without one.

use crate::sandbox::{IO, Sandbox, USAGE};
use serde_json::Value;

fn positive(value: &Value, what: &str) {
    let number = value.as_f64().unwrap_or_else(|| panic!("{what} is {value}"));
    assert!(number.is_finite() && number > 0.0, "{what} is {number}");
}

/// The facts and the products, which need no base.
fn machine_and_products(report: &Value, sets: &[&str]) {
    assert_eq!(report["trimtab"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["machine"]["arch"], std::env::consts::ARCH);
    positive(&report["machine"]["cpus"], "cpus");
    positive(&report["seconds"], "seconds");
    for key in ["before", "after"] {
        assert!(report[key]["celsius"].is_array(), "{report}");
    }
    let products = report["products"].as_array().unwrap();
    assert_eq!(products.iter().map(|p| p["kernel"].as_str().unwrap()).collect::<Vec<_>>(), sets);
    for set in products {
        assert_eq!(set["shapes"].as_array().unwrap().len(), 3);
        for shape in set["shapes"].as_array().unwrap() {
            positive(&shape["per_s"], "a product's rate");
        }
        // portable has no instruction of its own; whoever has one has its peak
        assert_eq!(set["instruction"].is_null(), set["kernel"] == "portable", "{set}");
        if !set["instruction"].is_null() {
            positive(&set["peak_per_s"], "an instruction's peak");
        }
    }
}

fn kernels(s: &Sandbox) -> (Vec<String>, String) {
    let machine = s.json("inspect --json");
    let names = machine["kernels"].as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned());
    (names.collect(), machine["kernel"].as_str().unwrap().to_owned())
}

#[test]
fn with_a_base() {
    let s = Sandbox::new();
    let before = s.files();
    let report = s.json("bench --quick --json --threads 2 --base base");
    let (sets, chosen) = kernels(&s);
    machine_and_products(&report, &sets.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(report["kernel"], chosen);
    positive(&report["base"]["file_bytes"], "file_bytes");
    let rows = report["base"]["texts"].as_array().unwrap();
    let shape = |row: &Value| ["texts", "tokens", "threads"].map(|key| row[key].as_u64().unwrap());
    // the tiny model has 64 positions
    let wanted = [[1, 16, 1], [1, 64, 1], [8, 64, 1], [1, 16, 2], [1, 64, 2], [8, 64, 2]];
    assert_eq!(rows.iter().map(shape).collect::<Vec<_>>(), wanted);
    for row in rows {
        positive(&row["forward_texts_per_s"], "forward_texts_per_s");
        positive(&row["step_s"], "step_s");
    }
    if cfg!(target_os = "linux") {
        positive(&report["peak_memory_bytes"], "peak_memory_bytes");
        positive(&report["machine"]["memory_bytes"], "memory_bytes");
    }
    s.unchanged_since(&before, "bench");
}

#[test]
fn without_a_base_one_set() {
    let s = Sandbox::new();
    let report = s.json("bench --quick --json --kernel portable");
    machine_and_products(&report, &["portable"]);
    assert_eq!((&report["kernel"], &report["base"]), (&"portable".into(), &Value::Null));
    let text = s.ok("bench --quick --kernel portable").stdout;
    for word in ["trimtab", "cpu", "portable (chosen)", "128×768×3072", "no --base", "peak memory"] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
}

#[test]
fn a_table_for_people() {
    let text = Sandbox::new().ok("bench --quick --threads 1 --base base").stdout;
    let row = text.lines().find(|l| l.starts_with("8 × 64")).unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = row.split_whitespace().collect();
    assert!(matches!(words[..], ["8", "×", "64", "1", _, "texts/s", _, "ms"]), "{row}");
}

#[test]
fn refusals() {
    let s = Sandbox::new();
    s.refuses("bench --quick --kernel quantum", USAGE, &["`quantum`", "portable"]);
    s.refuses("bench --quick --threads 0", USAGE, &["--threads"]);
    s.refuses("bench --quick --base none", IO, &["none"]);
    s.refuses("bench --quick --base train.tsv", USAGE, &["train.tsv"]);
}
