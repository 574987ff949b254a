//! Runs that are cut off and go on: to the same bytes as without.
#![cfg(unix)]

use crate::interrupt::{end, signal, started};
use crate::sandbox::{Done, INTERRUPTED, IO, Sandbox, USAGE, emulated};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use trimtab::data::Example;
use trimtab::params::Terms;
use trimtab::train::{Checkpoints, Head, Progress};
use trimtab::{Base, Model, Options, Task, TrainConfig};

const RUN: &str = "train --base base --data train.tsv --epochs 15 --batch 2 --lr 1e-3 --out";
const KEEP: &str = "--checkpoint ck --every 3 --resume";

/// A run with checkpoints, killed by `kill -9` at random moments and gone on from until it ends: some times unless
/// `TRIMTAB_KILLS` says how many.
#[test]
fn kill_9_at_any_moment() {
    let kills: u32 = std::env::var("TRIMTAB_KILLS")
        .map_or(if emulated() { 2 } else { 8 }, |n| n.parse().expect("TRIMTAB_KILLS is a number"));
    let mut random = 1u64;
    let mut below = |n: u128| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        u128::from(random >> 33) % n.max(1)
    };
    let s = Sandbox::new();
    let (mut killed, mut runs) = (0, 0);
    for extra in ["", " --dev dev.tsv", " --layers 1..2 --encoder-dropout 0.1"].iter().cycle() {
        if killed >= kills {
            break;
        }
        let start = Instant::now();
        s.ok(&format!("{RUN} whole{extra} {KEEP}"));
        let whole = start.elapsed();
        assert!(!s.path("ck").exists(), "a run that is over leaves no checkpoint");
        let line = format!("{RUN} cut{extra} {KEEP}");
        // Cut off about twice a run: then it ends before a kill would come.
        let last = loop {
            let mut child = s.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(below(whole.as_micros()) as u64));
            child.kill().unwrap();
            let done = child.wait_with_output().unwrap();
            match done.status.code() {
                Some(0) => break done,
                code => assert_eq!(code, None, "{}", String::from_utf8_lossy(&done.stderr)),
            }
            killed += 1;
            if s.path("cut").exists() {
                s.ok("predict --base base --bias cut hello");
            }
        };
        assert!(s.read("cut") == s.read("whole"), "{extra}: {}", String::from_utf8_lossy(&last.stderr));
        std::fs::remove_file(s.path("cut")).unwrap();
        runs += 1;
    }
    println!("{killed} times kill -9 in {runs} runs, each of them to the same bytes");
}

const NEVER: usize = usize::MAX;

/// A run with checkpoints, stopped behind its `stop`th step or epoch if it gets that far; whether it did.
fn run(base: &Base, case: &(Task, TrainConfig), dir: &Path, stop: usize, out: &Path) -> bool {
    let number = |i: usize| (i % 5).to_string();
    let example = |(i, (label, text_a)): (usize, (&str, String))| {
        let label = if case.0.labels().is_empty() { number(i) } else { label.to_owned() };
        Example { text_a, label: Some(label), ..Example::default() }
    };
    let examples: Vec<_> = crate::sandbox::examples().into_iter().enumerate().map(example).collect();
    let checkpoints = Some(Checkpoints { dir: dir.to_owned(), every: 3, resume: true });
    let config = TrainConfig { batch: 4, epochs: 3, checkpoints, ..case.1.clone() };
    let mut model = Model::new(base, case.0.clone(), &Options::default()).unwrap();
    let mut events = 0;
    let report = model
        .train(&examples, Some(&examples[..6]), &config, |p| {
            events += usize::from(matches!(p, Progress::Step { .. } | Progress::Epoch(_)));
            if events == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    model.save(out, false).unwrap();
    report.interrupted
}

/// Stopped behind every step and every epoch in turn, of every kind of run that keeps something of its own between steps.
#[test]
fn a_stop_behind_any_step() {
    let s = Sandbox::new();
    let base = Base::open(s.path("base")).unwrap();
    let labels = || Task::classify(["bad", "good"]);
    let default = TrainConfig::default;
    let cases = [
        ("best epoch", (labels(), default())),
        ("patience", (labels(), TrainConfig { patience: Some(1), ..default() })),
        ("fitted head", (labels(), TrainConfig { head: Head::Fitted, class_weights: true, ..default() })),
        ("frozen layers", (labels(), TrainConfig { layers: Some(1..2), ..default() })),
        ("head alone", (labels(), TrainConfig { terms: Terms::none(), weight_decay: 0.1, ..default() })),
        ("some values", (labels(), TrainConfig { values: Some(9), ..default() })),
        ("numbers", (Task::Regress, default())),
    ];
    let (whole, cut) = (s.path("whole"), s.path("cut"));
    for (name, case) in &cases[..if emulated() { 1 } else { cases.len() }] {
        assert!(!run(&base, case, &s.path("ck"), NEVER, &whole));
        std::fs::remove_dir_all(s.path("ck")).unwrap();
        let mut stops = 0;
        while run(&base, case, &s.path("ck"), stops + 1, &cut) {
            stops += 1;
            assert!(!run(&base, case, &s.path("ck"), NEVER, &cut));
            assert!(s.read("cut") == s.read("whole"), "{name}, stopped at {stops}");
            std::fs::remove_dir_all(s.path("ck")).unwrap();
        }
        assert!(stops >= 5, "{name}: {stops}");
        // Gone on from where it ended there is nothing left to do.
        assert!(!run(&base, case, &s.path("ck"), NEVER, &cut));
        assert!(s.read("cut") == s.read("whole"), "{name}, ended");
        std::fs::remove_dir_all(s.path("ck")).unwrap();
    }
}

#[test]
fn a_clean_stop_leaves_a_checkpoint() {
    let s = Sandbox::new();
    s.ok(&format!("{RUN} whole"));
    for name in ["INT", "TERM"] {
        let slow = format!("{RUN} cut --checkpoint ck --every 1000000 --resume");
        let (child, stderr) = started(&s, &slow, "epoch 2/");
        signal(name, &child);
        let done = end(child, stderr);
        if done.code != Some(0) {
            done.failed(&slow, INTERRUPTED, &["cut holds", "--resume goes on from ck"]);
            assert_eq!(checkpoints(&s).len(), 2, "the first, and that of the stop");
            let on = s.ok(&slow);
            assert!(on.stderr.contains("going on from step"), "{}", on.stderr);
        }
        assert!(s.read("cut") == s.read("whole"));
        std::fs::remove_file(s.path("cut")).unwrap();
    }
}

#[test]
fn nothing_to_go_on_from() {
    let s = Sandbox::new();
    let line = format!("{RUN} new {KEEP}");
    let done = s.ok(&line);
    assert!(done.stderr.contains("ck has no checkpoint: beginning anew"), "{}", done.stderr);
    s.ok(&format!("{RUN} plain"));
    assert!(s.read("new") == s.read("plain"), "checkpoints change no result");
}

/// The names of the checkpoints that are there, without the scored folds of cross-validation.
fn checkpoints(s: &Sandbox) -> Vec<PathBuf> {
    let is_step = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("step-");
    let all = std::fs::read_dir(s.path("ck")).unwrap().map(|e| e.unwrap().path());
    let mut names: Vec<_> = all.filter(is_step).collect();
    names.sort();
    names
}

/// Leaves checkpoints in `ck`, as a run that was killed does.
fn cut_off(s: &Sandbox) {
    let line = format!("{RUN} cut --checkpoint ck --every 3");
    let (mut child, stderr) = started(s, &line, "epoch 3/");
    child.kill().unwrap();
    end(child, stderr);
    assert_eq!(checkpoints(s).len(), 2, "the last two are kept");
}

#[test]
fn refuses_what_it_cannot_go_on_from() {
    let s = Sandbox::new();
    cut_off(&s);
    s.refuses(
        &format!("{RUN} cut --checkpoint ck"),
        USAGE,
        &["ck has checkpoints of an earlier run", "--resume"],
    );
    for (line, what) in [
        (format!("{RUN} cut {KEEP} --seed 1"), "other settings"),
        (format!("{RUN} cut {KEEP} --dropout 0.2"), "other settings"),
        (format!("{RUN} cut {KEEP} --limit 10"), "other examples"),
        (format!("{RUN} cut {KEEP} --dev dev.tsv"), "other held-out examples"),
        (format!("{RUN} cut {KEEP} --start me.bias"), "another base, or other biases"),
    ] {
        s.refuses(&line, USAGE, &["ck/step-", what]);
    }
    s.refuses(&format!("{RUN} cut --every 3"), USAGE, &["--checkpoint"]);
    s.refuses(&format!("{RUN} cut --resume"), USAGE, &["--checkpoint"]);
    s.refuses(&format!("{RUN} cut --checkpoint ck --every 0"), USAGE, &["--every"]);
    s.refuses(&format!("{RUN} cut --checkpoint train.tsv"), USAGE, &["--checkpoint train.tsv", "directory"]);

    let line = format!("{} cut {KEEP}", RUN.replace("--epochs 15", "--effort quick --epochs 1000000"));
    std::fs::remove_dir_all(s.path("ck")).unwrap();
    let (mut child, stderr) = started(&s, &line, "epoch 1/");
    let second = s.run(&line);
    child.kill().unwrap();
    end(child, stderr);
    second.failed(&line, USAGE, &["ck: another run keeps its checkpoints there"]);
}

#[test]
fn damaged_checkpoints() {
    let s = Sandbox::new();
    s.ok(&format!("{RUN} whole"));
    cut_off(&s);
    let [older, newer] = checkpoints(&s).try_into().unwrap();
    let good = [std::fs::read(&older).unwrap(), std::fs::read(&newer).unwrap()];
    let line = format!("{RUN} cut {KEEP}");
    let mut flipped = good[1].clone();
    *flipped.last_mut().unwrap() ^= 1;
    let version = br#""version":"1""#;
    let at = good[1].windows(version.len()).position(|bytes| bytes == version).unwrap();
    let mut other_version = good[1].clone();
    other_version[at + version.len() - 2] = b'9';
    let cases = [
        (flipped, "SHA-256"),
        (good[1][..good[1].len() - 1].to_vec(), "truncated"),
        (vec![], "too short"),
        (s.read("me.bias"), "not a checkpoint"),
        (other_version, "of another version"),
    ];
    for (bytes, word) in cases {
        std::fs::write(&older, &good[0]).unwrap();
        std::fs::write(&newer, &bytes).unwrap();
        let done = s.ok(&line);
        assert!(
            done.stderr.contains("not from the newest one") && done.stderr.contains(word),
            "{}",
            done.stderr
        );
        assert!(done.stderr.contains("going on from step"), "{}", done.stderr);
        assert!(s.read("cut") == s.read("whole"), "the older one leads to the same");
        std::fs::remove_file(s.path("cut")).unwrap();
        std::fs::create_dir(s.path("ck")).unwrap();
        std::fs::write(&older, &bytes).unwrap();
        s.refuses(&line, USAGE, &["ck/step-", word, "to begin anew, remove it"]);
    }
}

/// Where checkpoints can no longer be written the run says so, goes on, and ends as ever.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up() {
    let s = Sandbox::new();
    s.ok(&format!("{RUN} whole --effort quick"));
    // The room is not enough for the bias file: refused at the start, and nothing is left.
    let line = format!("{RUN} cut --checkpoint ck --every 3 --effort quick");
    let limited = |blocks: u32| s.shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\" {line}"));
    let done = Done::of(limited(1).output().unwrap());
    done.failed(&line, IO, &["cut", "are needed", "File too large"]);
    assert!(!s.path("ck").exists());

    let Some(shim) = Shim::new(&s) else { return };
    // The first checkpoint is the first two writes to a file; the tenth write and all after it find the disk full.
    let mut command = s.command(&line);
    let done = Done::of(shim.on(&mut command, 10, "full").output().unwrap());
    assert!(
        done.stderr.contains("no checkpoint at step") && done.stderr.contains("the run goes on"),
        "{done:?}"
    );
    done.failed(&line, IO, &["cut", "No space left"]);
    assert!(!s.path("cut").exists());
    // With room again, it goes on from what there was.
    s.ok(&format!("{line} --resume"));
    assert!(s.read("cut") == s.read("whole"));
}

/// Each call of `write`, `fsync` and `rename` fails once, or writes half of what it should: the run ends in the right bytes, or
/// with an error and does so when it is repeated.
#[cfg(target_os = "linux")]
#[test]
fn a_failure_at_every_write() {
    let s = Sandbox::new();
    s.ok("train --base base --data train.tsv --epochs 2 --batch 4 --lr 1e-3 --out whole");
    let line = "train --base base --data train.tsv --epochs 2 --batch 4 --lr 1e-3 --out cut --checkpoint ck --every 4 --resume";
    let Some(shim) = Shim::new(&s) else { return };
    let (mut failed, mut calls) = (0, 0);
    for how in ["fail", "short"] {
        for call in 1.. {
            let mut command = s.command(line);
            let done = Done::of(shim.on(&mut command, call, how).output().unwrap());
            let reached = std::fs::remove_file(s.path("reached")).is_ok();
            if done.code != Some(0) {
                failed += 1;
                done.failed(line, IO, &["No space left"]);
                if s.path("cut").exists() {
                    s.ok("predict --base base --bias cut hello");
                }
                s.ok(line);
            }
            assert!(s.read("cut") == s.read("whole"), "{how} {call}");
            s.no_leftovers();
            std::fs::remove_file(s.path("cut")).unwrap();
            if !reached {
                break;
            }
            calls += 1;
        }
    }
    assert!(calls >= 20 && failed >= 2, "{calls} calls, {failed} failed runs");
    println!("{calls} calls that failed or fell short, {failed} runs that ended by it");
}

/// A library under the program that lets one call fail, or all from one on.
struct Shim(PathBuf);

impl Shim {
    /// `None`, saying so, where there is no C compiler or the program runs in an emulator.
    fn new(s: &Sandbox) -> Option<Shim> {
        let path = s.path("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/failing_writes.c");
        let compiled = !emulated()
            && Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&path)
                .args([source, "-ldl"])
                .status()
                .is_ok_and(|status| status.success());
        if !compiled {
            eprintln!("skipped: no C compiler, or emulated");
        }
        compiled.then_some(Shim(path))
    }

    fn on<'c>(&self, command: &'c mut Command, call: u32, how: &str) -> &'c mut Command {
        command
            .env("LD_PRELOAD", &self.0)
            .env("FAIL_AT", call.to_string())
            .env("FAIL_HOW", how)
            .env("FAIL_SAY", "reached")
    }
}
