//! Disks and pipes that are full or closed. What stood at the target still stands there.
#![cfg(unix)]

use crate::sandbox::{Done, IO, Sandbox, TINY};
use std::process::{Command, Stdio};

/// The command under a limit on the length of files, in the shell's blocks of 512 or 1024 bytes, which the system
/// answers as a full disk does: by an error of the write.
fn limited(s: &Sandbox, blocks: u32, line: &str) -> Command {
    s.shell(&format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\" {line}"))
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk() {
    let s = Sandbox::new();
    s.write("plots", "a file, to see that it stays");
    for (blocks, line) in [
        (0, format!("quantize {TINY} --output base")),
        (8, format!("quantize {TINY} --output base")),
        (8, format!("quantize {TINY} --output new")),
        (0, "train --base base --data train.tsv --out me.bias --epochs 1".to_owned()),
        (2, "train --base base --data train.tsv --out me.bias --epochs 1".to_owned()),
        (2, "train --base base --data train.tsv --out new --epochs 1 --half".to_owned()),
    ] {
        s.refuses_with(limited(&s, blocks, &line), &line, IO, &["File too large"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_at_the_plots() {
    let s = Sandbox::new();
    std::fs::create_dir(s.path("plots")).unwrap();
    s.write("plots/bias-change.svg", "old");
    // The bias file has but a head and fits; the plots would not, so nothing is trained.
    let line = "train --base base --data train.tsv --out new --epochs 1 --terms none --plots plots";
    s.refuses_with(limited(&s, 4, line), line, IO, &["plots", "are needed", "File too large"]);
}

#[cfg(target_os = "linux")]
#[test]
fn full_standard_output() {
    let s = Sandbox::new();
    for line in [
        "predict --base base --bias me.bias hello",
        "eval --base base --bias me.bias --data dev.tsv",
        "inspect base",
        "train --base base --data train.tsv --out new --epochs 1",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let done = Done::of(s.command(line).stdout(full).output().unwrap());
        done.failed(line, IO, &["standard output", "No space left"]);
    }
    s.ok("predict --base base --bias new hello");
}

/// A log that cannot be written is no reason to lose what was learned.
#[cfg(target_os = "linux")]
#[test]
fn full_or_closed_standard_error() {
    let s = Sandbox::new();
    let line = "train --base base --data train.tsv --out new --epochs 2 --effort quick";
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(s.command(line).stderr(full).status().unwrap().code(), Some(0));
    s.ok("predict --base base --bias new hello");
    let closed = s.shell(&format!("\"$@\" {line} 2>&1 >/dev/null | true; true")).output();
    assert!(closed.unwrap().status.success());
    let mut child = s.command(&line.replace("new", "newer")).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(s.read("new"), s.read("newer"));
}

/// `trimtab predict … | head -1`
#[test]
fn reader_that_has_had_enough() {
    let s = Sandbox::new();
    s.write("lines", "a very good movie\n".repeat(20_000));
    let script = r#"{ "$@" predict --base base --bias me.bias <lines; echo $? >code; } | head -1"#;
    let done = Done::of(s.shell(script).output().unwrap());
    assert_eq!(done.stdout.lines().count(), 1);
    assert_eq!(done.stderr, "");
    assert_eq!(s.read("code"), b"0\n");
}
