//! `learn`, `forget`, `examples`, and training on what they keep.

use crate::sandbox::{Done, IO, Sandbox, USAGE, emulated};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

/// The lines that `examples` prints.
fn kept(s: &Sandbox) -> Vec<String> {
    s.ok("examples --store me.store").stdout.lines().map(str::to_owned).collect()
}

#[test]
fn learn_train_forget() {
    let s = Sandbox::new();
    let done = s.ok("learn --store me.store --data train.tsv");
    assert_eq!(done.stdout, "16 new; 16 examples of 2 labels in me.store\n");
    assert_eq!(s.json("learn --store me.store --data train.tsv --json")["known"], 16);
    let line = |label: &str, text: &str| {
        let mut command = s.command(&format!("learn --store me.store --label {label}"));
        command.arg(text);
        Done::of(command.output().unwrap())
    };
    assert!(line("good", "we love this movie").stdout.starts_with("1 new;"));
    assert!(line("bad", "we love this movie").stdout.starts_with("0 new, 1 corrected;"));
    assert_eq!(kept(&s).last().unwrap(), "18\tbad\twe love this movie");
    assert_eq!(s.ok("examples --store me.store --count").stdout, "9\tbad\n8\tgood\n");
    assert_eq!(s.json("examples --store me.store --label bad --count --json")["examples"], 9);

    // A store is a data file like any other, and gives the bytes that the same lines in another give.
    s.ok("forget --store me.store --number 18");
    s.ok("train --base base --data me.store --epochs 2 --out of-store");
    s.ok("train --base base --data train.tsv --epochs 2 --out of-tsv");
    assert!(s.read("of-store") == s.read("of-tsv"));
    s.ok("eval --base base --bias of-store --data me.store");

    // What is forgotten is forgotten by the bias file too: it is as if it had never been learned.
    line("bad", "a most telling secret about time");
    s.ok("train --base base --data me.store --out me.bias --force --effort normal");
    let knew = s.read("me.bias");
    let mut command = s.command("forget --store me.store --base base --bias me.bias");
    let done = Done::of(command.arg("a most telling secret about time").output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.starts_with("1 forgotten; 16 examples left"), "{}", done.stdout);
    s.ok("train --base base --data train.tsv --out never --effort normal");
    assert!(s.read("me.bias") == s.read("never") && s.read("me.bias") != knew);
    for (path, bytes) in s.files() {
        assert!(!bytes.windows(7).any(|w| w == b"telling"), "{} still has it", path.display());
    }
    let done = s.ok("forget --store me.store --label good");
    assert!(done.stderr.contains("train them anew"), "{}", done.stderr);
    let line = "forget --store me.store --label bad --base base --bias me.bias";
    s.run(line).failed(line, USAGE, &["there are no examples", "me.bias still has what was forgotten"]);
    assert_eq!(kept(&s), [""; 0]);
}

#[test]
fn from_stdin_and_pairs() {
    let s = Sandbox::new();
    let mut child = s
        .command("learn --store me.store --label good")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("one\n\n two \na\tb\n".as_bytes()).unwrap();
    assert_eq!(Done::of(child.wait_with_output().unwrap()).code, Some(0));
    assert_eq!(kept(&s), ["1\tgood\tone", "2\tgood\ttwo", "3\tgood\ta\tb"]);
    s.ok("learn --store me.store --cap 2");
    assert_eq!(kept(&s), ["2\tgood\ttwo", "3\tgood\ta\tb"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(s.path("me.store")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "for its owner alone");
    }
}

#[test]
fn refusals() {
    let s = Sandbox::new();
    s.refuses("learn --store train.tsv --label x text", USAGE, &["train.tsv", "not a store"]);
    s.refuses("learn --store me.bias --label x text", USAGE, &["me.bias", "not a store"]);
    s.refuses("examples --store none.store", IO, &["none.store"]);
    s.refuses("forget --store none.store --all", IO, &["none.store"]);
    s.refuses("learn --store no/such/folder.store --label x text", IO, &["no/such/folder.store"]);
    s.refuses("learn --store me.store", USAGE, &["--label"]);
    s.refuses("learn --store me.store --label x --data train.tsv", USAGE, &["--data"]);
    s.refuses("learn --store me.store --cap 0", USAGE, &["--cap"]);
    s.refuses("learn --store me.store --data none.tsv", IO, &["none.tsv"]);
    s.refuses("forget --store me.store", USAGE, &["TEXT"]);
    s.write("empty.store", "");
    s.refuses("train --base base --data empty.store --out new", USAGE, &["empty.store"]);
    s.ok("learn --store me.store --label x text");
    s.refuses("train --base base --data me.store --out new", USAGE, &["me.store", "at least two labels"]);
    s.refuses("train --base base --data me.store --out new --task tag", USAGE, &["me.store", "whole texts"]);
    s.refuses("forget --store me.store --all --base base", USAGE, &["--bias"]);
    s.refuses("forget --store me.store --all --base base --bias none", IO, &["none"]);
    assert_eq!(kept(&s), ["1\tx\ttext"]);
    let mut bytes = s.read("me.store");
    bytes[4096..].fill(0xff);
    s.write("broken.store", bytes);
    s.refuses("examples --store broken.store", USAGE, &["broken.store"]);
}

/// Calls of `learn`, some of them killed at a random moment and then repeated: what was acknowledged is there, nothing twice.
/// A few unless `TRIMTAB_LEARNS` says how many; one of 200 is killed, or more of few.
#[cfg(unix)]
#[test]
fn killed_while_learning() {
    let calls: u32 = std::env::var("TRIMTAB_LEARNS")
        .map_or(if emulated() { 10 } else { 60 }, |n| n.parse().expect("a number"));
    let s = Sandbox::new();
    let (mut random, mut killed) = (9u64, 0);
    for i in 0..calls {
        let line = format!("learn --store me.store --label l{} text-{i}", i % 3);
        if i % (calls / 50).clamp(5, 200) == 3 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mut child = s.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros((random >> 33) % 12_000));
            child.kill().unwrap();
            killed += u32::from(!child.wait().unwrap().success());
        }
        s.ok(&line);
    }
    let mut texts: Vec<_> =
        kept(&s).iter().map(|line| line.rsplit_once("text-").unwrap().1.parse::<u32>().unwrap()).collect();
    texts.sort_unstable();
    assert!(texts.iter().copied().eq(0..calls), "{calls} calls, {} examples", texts.len());
    println!("{calls} calls, {killed} of them killed and repeated: every example is there once");
}
