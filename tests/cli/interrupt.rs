//! Ctrl-C and kill -9 in the middle of the work.
#![cfg(unix)]

use crate::sandbox::{Done, INTERRUPTED, Sandbox, TINY, emulated};
use std::io::{BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Far more epochs than any test waits for: the most there can be.
const TRAIN: &str = "train --base base --data train.tsv --effort quick --epochs 18446744073709551615";

/// A running command that has said `word` on stderr.
pub fn started(s: &Sandbox, line: &str, word: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child =
        s.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(word) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{line} ended early:\n{said}");
    }
    (child, stderr)
}

pub fn signal(name: &str, child: &Child) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

pub fn end(child: Child, mut stderr: BufReader<ChildStderr>) -> Done {
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    let mut done = Done::of(child.wait_with_output().unwrap());
    done.stderr = rest;
    done
}

#[test]
fn ctrl_c_keeps_what_was_learned() {
    let s = Sandbox::new();
    for dev in ["", " --dev dev.tsv"] {
        let line = format!("{TRAIN} --out new --json{dev}");
        let (child, stderr) = started(&s, &line, "epoch 2/");
        signal("INT", &child);
        let done = end(child, stderr);
        done.failed(&line, INTERRUPTED, &["stopping", "interrupted: new holds"]);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["interrupted"], true);
        assert!(report["epochs"].as_array().unwrap().len() >= 2);
        s.ok("predict --base base --bias new hello");
        s.no_leftovers();
    }
}

#[test]
fn ctrl_c_in_the_first_epoch() {
    let s = Sandbox::new();
    let lines = if emulated() { 3_000 } else { 60_000 }; // a step each: seconds
    let many: String = (0..lines).map(|i| ["good\ta good movie\n", "bad\ta bad movie\n"][i % 2]).collect();
    s.write("many.tsv", format!("label\ttext\n{many}"));
    let line = "train --base base --data many.tsv --out new --epochs 1000 --batch 1 --effort quick";
    let (child, stderr) = started(&s, line, "examples");
    signal("INT", &child);
    end(child, stderr).failed(line, INTERRUPTED, &["new holds", "step"]);
    s.ok("predict --base base --bias new hello");
}

/// Cross-validation has nothing to keep yet.
#[test]
fn ctrl_c_in_a_fold_leaves_nothing() {
    let s = Sandbox::new();
    let before = s.files();
    let line = format!("{} --out new", TRAIN.replace("--effort quick ", "--effort normal "));
    let (child, stderr) = started(&s, &line, "fold 1 of 3");
    signal("INT", &child);
    end(child, stderr).failed(&line, INTERRUPTED, &["stopping", "nothing was written"]);
    s.unchanged_since(&before, &line);
}

#[test]
fn ctrl_c_in_quantize_leaves_nothing() {
    let s = Sandbox::new();
    let checkpoint = trimtab::import::Checkpoint::open(std::path::Path::new(TINY)).unwrap();
    let before = s.files();
    for name in ["base", "new"] {
        for ticks in 1..20 {
            let mut left = ticks;
            let stopped = trimtab::quant::quantize(&checkpoint, &s.path(name), &mut |_, _| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(stopped.unwrap_err().exit_code(), INTERRUPTED as u8);
            s.unchanged_since(&before, "quantize");
        }
    }
}

#[test]
fn kill_leaves_the_old_file() {
    let s = Sandbox::new();
    let before = s.files();
    let (child, stderr) = started(&s, &format!("{TRAIN} --out me.bias --plots ."), "epoch 3/");
    signal("KILL", &child);
    assert_eq!(end(child, stderr).code, None, "ended by the signal");
    s.unchanged_since(&before, "kill -9");
    s.ok("predict --base base --bias me.bias hello");
}

#[test]
fn ctrl_c_in_predict_ends_it() {
    let s = Sandbox::new();
    let mut child = s
        .command("predict --base base --bias me.bias")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"hello\n").unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.ends_with("\thello\n"), "{answer}");
    signal("INT", &child);
    assert!(!child.wait().unwrap().success());
}
