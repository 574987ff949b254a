//! Files that are written: mode, owner and links of what is replaced; streams; targets that cannot be written.
#![cfg(unix)]

use crate::sandbox::{Done, IO, Sandbox, TINY, USAGE};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

const TRAIN: &str = "train --base base --data train.tsv --epochs 1 --effort quick";

/// A command that writes the file OUT, for every kind of file. `--force` where an existing file asks for it.
fn writers() -> Vec<(&'static str, String)> {
    vec![
        ("base", format!("quantize {TINY} --output OUT")),
        ("bias file", format!("{TRAIN} --force --out OUT")),
        ("half", format!("{TRAIN} --force --half --out OUT")),
        ("vectors", "embed --base base texts --out OUT".into()),
        ("onnx", "export --base base --bias me.bias --format onnx --force --output OUT".into()),
        ("onnx-int8", "export --base base --bias me.bias --format onnx-int8 --force --output OUT".into()),
        ("imported", "import-bias me.bias --base base --labels bad,good --output OUT".into()),
    ]
}

fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    s.write("texts", "a good movie\nit was bad\n");
    s
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_new_file_gets_the_mode_of_the_umask() {
    let s = sandbox();
    for (umask, wanted) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        for (what, line) in writers() {
            let line = line.replace("OUT", "new");
            let done = s.shell(&format!("umask {umask}; exec \"$@\" {line}")).output().unwrap();
            assert_eq!(Done::of(done).code, Some(0), "{line}");
            assert_eq!(mode(&s.path("new")), wanted, "{what}, umask {umask}");
            fs::remove_file(s.path("new")).unwrap();
        }
    }
    // Hashes of private lines are for their owner alone, whatever the umask.
    assert_eq!(mode(&s.path("new.lines")), 0o600);
}

#[test]
fn mode_and_owner_of_a_file_that_is_replaced_stay() {
    let s = sandbox();
    for (what, line) in writers() {
        let line = line.replace("OUT", "new");
        s.ok(&line);
        let whole = s.read("new");
        for wanted in [0o600, 0o640, 0o664, 0o755] {
            s.write("new", "");
            chmod(&s.path("new"), wanted);
            // Only root may give files away.
            let given = std::os::unix::fs::chown(s.path("new"), Some(12345), Some(23456)).is_ok();
            let before = fs::metadata(s.path("new")).unwrap();
            s.ok(&line);
            let after = fs::metadata(s.path("new")).unwrap();
            assert!(s.read("new") == whole, "{what}");
            assert_eq!(mode(&s.path("new")), wanted, "{what}");
            assert_ne!(after.ino(), before.ino(), "{what} is replaced, not overwritten");
            assert_eq!(
                (after.uid(), after.gid()),
                (before.uid(), before.gid()),
                "{what}, given away: {given}"
            );
            fs::remove_file(s.path("new")).unwrap();
        }
    }
    s.no_leftovers();
}

#[test]
fn what_stands_beside_a_bias_file_keeps_its_mode_too() {
    let s = sandbox();
    fs::create_dir(s.path("plots")).unwrap();
    let line = format!("{TRAIN} --force --out me.bias --plots plots");
    s.ok(&line);
    for name in ["me.bias.lines", "plots/bias-change.svg", "plots/learning-curve.svg"] {
        chmod(&s.path(name), 0o640);
        s.ok(&line);
        assert_eq!(mode(&s.path(name)), 0o640, "{name}");
    }
}

#[test]
fn a_symbolic_link_stays_one() {
    let s = sandbox();
    fs::create_dir(s.path("store")).unwrap();
    for (what, line) in writers() {
        let line = line.replace("OUT", "link");
        // First there is nothing where the link points to, then there is.
        for target in ["store/real", "store/second"] {
            symlink(target, s.path("middle")).unwrap();
            symlink(s.path("middle"), s.path("link")).unwrap();
            for _ in 0..2 {
                s.ok(&line);
                assert_eq!(fs::read_link(s.path("link")).unwrap(), s.path("middle"), "{what}");
                assert_eq!(fs::read_link(s.path("middle")).unwrap(), Path::new(target), "{what}");
                assert!(fs::symlink_metadata(s.path(target)).unwrap().is_file(), "{what}");
                chmod(&s.path(target), 0o640);
            }
            assert_eq!(mode(&s.path(target)), 0o640, "{what}");
            ["link", "middle", target].iter().for_each(|name| fs::remove_file(s.path(name)).unwrap());
        }
    }
    s.no_leftovers();
    symlink("nowhere/x", s.path("link")).unwrap();
    let line = format!("{TRAIN} --out link");
    s.run(&line).failed(&line, USAGE, &["link", "no directory", "nowhere"]);
    symlink("loop", s.path("loop")).unwrap();
    let line = format!("{TRAIN} --out loop");
    s.run(&line).failed(&line, IO, &["loop", "symbolic link"]);
}

/// As every rename does: the other names keep what they had.
#[test]
fn a_hard_link_is_cut() {
    let s = sandbox();
    let old = s.read("me.bias");
    fs::hard_link(s.path("me.bias"), s.path("other")).unwrap();
    s.ok(&format!("{TRAIN} --force --seed 7 --out me.bias"));
    assert!(s.read("other") == old && s.read("me.bias") != old);
}

#[test]
fn a_folder_behind_a_link_is_exported_to() {
    let s = sandbox();
    let line = "export --base base --bias me.bias --format hf --output link";
    symlink("real", s.path("link")).unwrap();
    s.ok(line);
    chmod(&s.path("real"), 0o750);
    s.refuses(line, USAGE, &["not empty", "--force"]);
    s.ok(&format!("{line} --force"));
    assert_eq!(fs::read_link(s.path("link")).unwrap(), Path::new("real"));
    assert_eq!(mode(&s.path("real")), 0o750);
    s.no_leftovers();
}

#[test]
fn standard_output_takes_what_is_written_from_start_to_end() {
    let s = sandbox();
    for (what, line) in writers().into_iter().filter(|(what, _)| *what != "base") {
        s.ok(&line.replace("OUT", "new"));
        let whole = s.read("new");
        let before = s.files();
        for to in ["-", "/dev/stdout", "/proc/self/fd/1"] {
            let line = line.replace("OUT", to);
            // A pipe, a file that the shell opened, and one that already has something in it.
            for script in
                [format!("\"$@\" {line} | cat >piped"), format!("{{ printf ''; \"$@\" {line}; }} >piped")]
            {
                let done = Done::of(s.shell(&script).output().unwrap());
                assert_eq!(done.code, Some(0), "{script}\n{}", done.stderr);
                assert!(s.read("piped") == whole, "{what}: {script}");
            }
            let done =
                Done::of(s.shell(&format!("{{ echo first; \"$@\" {line}; }} >piped")).output().unwrap());
            assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
            assert!(s.read("piped") == [b"first\n", &whole[..]].concat(), "{what}: {line}");
            assert!(!done.stderr.is_empty(), "the result is on stderr");
            fs::remove_file(s.path("piped")).unwrap();
        }
        s.unchanged_since(&before, &line);
        fs::remove_file(s.path("new")).unwrap();
    }
}

#[test]
fn pipes_and_devices() {
    let s = sandbox();
    assert!(s.program("mkfifo", &["pipe"]).status().unwrap().success());
    for (what, line) in writers().into_iter().filter(|(what, _)| *what != "base") {
        s.ok(&line.replace("OUT", "new"));
        let script =
            format!("cat pipe >piped & \"$@\" {}; code=$?; wait; exit $code", line.replace("OUT", "pipe"));
        let done = Done::of(s.shell(&script).output().unwrap());
        assert_eq!(done.code, Some(0), "{what}: {}", done.stderr);
        assert!(s.read("piped") == s.read("new"), "{what}");
        fs::remove_file(s.path("piped")).unwrap();
        fs::remove_file(s.path("new")).unwrap();
        s.ok(&line.replace("OUT", "/dev/null"));
        #[cfg(target_os = "linux")]
        {
            let line = line.replace("OUT", "/dev/full");
            s.run(&line).failed(&line, IO, &["/dev/full", "No space left"]);
        }
        // Half a file is a failure, unlike half a listing.
        let script = format!("{{ sleep 0.2; \"$@\" {}; echo $? >code; }} | true", line.replace("OUT", "-"));
        s.shell(&script).output().unwrap();
        assert_eq!(s.read("code"), b"1\n", "{what}");
        fs::remove_file(s.path("code")).unwrap();
    }
    let pipes = fs::symlink_metadata(s.path("pipe")).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&pipes), "the pipe is not replaced");
    fs::remove_file(s.path("pipe")).unwrap();
    s.no_leftovers();
}

#[test]
fn what_a_stream_cannot_take_is_refused() {
    let s = sandbox();
    for to in ["-", "/dev/stdout", "/dev/null"] {
        s.refuses(&format!("quantize {TINY} --output {to}"), USAGE, &["pipe or a device", "name a file"]);
    }
    for (line, words) in [
        (format!("{TRAIN} --out - --json"), ["--json", "standard output"]),
        (
            "export --base base --bias me.bias --format onnx --output - --json".into(),
            ["--json", "standard output"],
        ),
        ("export --base base --bias me.bias --format hf --output -".into(), ["/dev/stdout", "directory"]),
        (format!("{TRAIN} --out x --checkpoint /dev/null"), ["--checkpoint", "directory"]),
        (format!("{TRAIN} --out x --plots /dev/null"), ["--plots", "directory"]),
        (
            "experiment --base base --data train.tsv --dev dev.tsv --out /dev/null".into(),
            ["--out", "directory"],
        ),
    ] {
        s.refuses(&line, USAGE, &words);
    }
}

/// A command for somebody who is not root, for whom folders are closed.
fn unprivileged(s: &Sandbox, line: &str) -> Option<std::process::Command> {
    let is_root = fs::metadata(s.path("base")).unwrap().uid() == 0;
    if !is_root {
        return Some(s.shell(&format!("exec \"$@\" {line}")));
    }
    let drop = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    // The binary may lie in a folder that is closed for others.
    let can = s.shell(&format!("{drop} \"$@\" --version")).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: runs as root, and cannot run as somebody else");
    }
    can.then(|| s.shell(&format!("exec {drop} \"$@\" {line}")))
}

#[test]
fn a_folder_that_cannot_be_written_to() {
    let s = sandbox();
    chmod(&s.path(""), 0o755);
    fs::create_dir(s.path("closed")).unwrap();
    for name in ["base", "me.bias", "train.tsv", "dev.tsv", "texts"] {
        chmod(&s.path(name), 0o644);
    }
    chmod(&s.path("closed"), 0o555);
    for (line, folder) in [
        (format!("{TRAIN} --out me.bias --force --plots closed/new"), "closed/new"),
        (format!("{TRAIN} --out me.bias --force --checkpoint closed"), "closed"),
        ("experiment --base base --data train.tsv --dev dev.tsv --out closed/a/b".into(), "closed/a/b"),
    ] {
        // The bias file's own folder is open.
        chmod(&s.path(""), 0o777);
        let Some(command) = unprivileged(&s, &line) else { return };
        s.refuses_with(command, &line, IO, &[folder, "no file can be made", "Permission denied"]);
        chmod(&s.path(""), 0o755);
    }
    chmod(&s.path("closed"), 0o755);
    for (there, words) in [(false, "no file can be made"), (true, "replaced by a new one beside it")] {
        if there {
            s.write("closed/new", "old");
            chmod(&s.path("closed/new"), 0o666);
        }
        chmod(&s.path("closed"), 0o555);
        for (what, line) in writers() {
            let line = line.replace("OUT", "closed/new").replace(TINY, "model");
            if what == "base" {
                continue; // the same code; the checkpoint may be out of this user's reach
            }
            let Some(command) = unprivileged(&s, &line) else { return };
            s.refuses_with(command, &line, IO, &["closed/new", words, "Permission denied"]);
        }
        chmod(&s.path("closed"), 0o755);
    }
}

/// What is needed and what is free is known before the first step.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_noticed_before_training() {
    let s = sandbox();
    for (line, file) in [
        (format!("{TRAIN} --out new"), "new"),
        (format!("{TRAIN} --force --out me.bias"), "me.bias"),
        (format!("{TRAIN} --out new --terms none --checkpoint kept"), "kept"),
        (format!("{TRAIN} --out new --terms none --plots drawn"), "drawn"),
        (
            "experiment --base base --data train.tsv --dev dev.tsv --seeds 1 --out new/tables".into(),
            "new/tables",
        ),
        (format!("quantize {TINY} --output new"), "new"),
        ("export --base base --bias me.bias --format onnx --output new".into(), "new"),
        ("export --base base --bias me.bias --format hf --output new".into(), "new/model.safetensors"),
    ] {
        let mut limited = s.shell(&format!("trap '' XFSZ; ulimit -f 12; exec \"$@\" {line}"));
        let before = s.files();
        let done = Done::of(limited.output().unwrap());
        done.failed(&line, IO, &[file, "are needed", "are free", "File too large"]);
        assert!(!done.stderr.contains("chosen:") && !done.stderr.contains("step"), "{}", done.stderr);
        s.unchanged_since(&before, &line);
    }
}

#[cfg(feature = "store")]
#[test]
fn nothing_is_forgotten_where_the_bias_file_cannot_be_written() {
    let s = sandbox();
    s.ok("learn --store mine.store --data train.tsv");
    let before = s.ok("examples --store mine.store --json").stdout;
    fs::create_dir(s.path("closed")).unwrap();
    fs::rename(s.path("me.bias"), s.path("closed/me.bias")).unwrap();
    for (name, mode) in [("", 0o777), ("base", 0o644), ("mine.store", 0o666), ("closed/me.bias", 0o666)] {
        chmod(&s.path(name), mode);
    }
    chmod(&s.path("closed"), 0o555);
    let line = "forget --store mine.store --base base --bias closed/me.bias --label good";
    let Some(mut command) = unprivileged(&s, line) else { return };
    Done::of(command.output().unwrap()).failed(line, IO, &["closed/me.bias", "Permission denied"]);
    assert_eq!(s.ok("examples --store mine.store --json").stdout, before);
    chmod(&s.path("closed"), 0o755);
}
