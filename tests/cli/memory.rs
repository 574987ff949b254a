//! `train --memory`: the process stays within its budget, and the result does not depend on it.

use crate::common::{Sizes, Tiny};
use crate::sandbox::{Sandbox, USAGE, emulated};

const MIB: u64 = 1 << 20;

/// A base whose micro-batches of the usual size take some ten megabytes, and texts longer than the 64 tokens that
/// every command here cuts them to.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    let sizes = Sizes { hidden: 256, heads: 4, layers: 4, intermediate: 1024, positions: 128 };
    let base = Tiny::of_sizes(1, sizes).write_base(&s.path(""));
    s.write("big", std::fs::read(base).unwrap());
    let text =
        |i: usize| format!("{}\t{}\n", ["good", "bad"][i % 2], "we love it and you ".repeat(13 + i % 3));
    // Two steps an epoch; emulated, where each takes a quarter of a minute, half a one.
    let lines = if emulated() { 8 } else { 32 };
    s.write("long.tsv", format!("label\ttext\n{}", (0..lines).map(text).collect::<String>()));
    s
}

const TRAIN: &str = "train --base big --data long.tsv --dev long.tsv --out x.bias --batch 16 --max-len 64 --epochs 2 --threads 2";

#[test]
fn a_budget_holds_and_changes_no_result() {
    holds("mean", &["1.0 MiB is too small", "64 tokens", "MiB; a smaller --max-len"]);
}

#[test]
fn a_budget_holds_for_windows() {
    if !emulated() {
        holds("windows", &["1.0 MiB is too small", "--pool mean, which truncates"]);
    }
}

fn holds(pool: &str, refused: &[&str]) {
    let s = sandbox();
    let train = format!("{TRAIN} --pool {pool}");
    s.refuses(&format!("{train} --memory 1MiB"), USAGE, refused);
    let smallest = s.smallest_budget(&train);
    let mut peaks = Vec::new();
    let mut files = Vec::new();
    for budget in [Some(smallest), Some(smallest + 4), None] {
        let memory = budget.map_or(String::new(), |mib| format!("--memory {mib}MiB"));
        let done = s.ok(&format!("{train} --json {memory}"));
        assert!(done.stderr.contains("memory: about "), "{}", done.stderr);
        let peak =
            serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap()["peak_memory_bytes"].as_u64();
        println!("budget {budget:?} MiB, peak {peak:?} bytes: {}", done.stderr);
        peaks.push((budget, peak));
        files.push(s.read("x.bias"));
    }
    assert!(files.windows(2).all(|f| f[0] == f[1]), "the budget changed the result");
    if emulated() {
        return println!("skipped: the peak is the emulator's");
    }
    let [(_, Some(least)), .., (_, Some(usual))] = peaks[..] else {
        return println!("skipped: this system does not tell the peak memory of a process");
    };
    for (budget, peak) in &peaks {
        if let (Some(budget), Some(peak)) = (budget, peak) {
            assert!(*peak <= budget * MIB, "{peak} bytes, {budget} MiB allowed");
        }
    }
    assert!(least + 2 * MIB <= usual, "the smallest budget saves nothing: {least} and {usual} bytes");
}

#[test]
fn a_budget_wants_a_unit_and_int8() {
    let s = sandbox();
    s.refuses(&format!("{TRAIN} --memory 96"), USAGE, &["--memory", "with its unit", "96MiB"]);
    s.refuses(&format!("{TRAIN} --memory 1GiB --exact"), USAGE, &["--exact"]);
}
