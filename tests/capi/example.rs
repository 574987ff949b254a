//! examples/c/learn.c, compiled without a warning and run; in the bits of the command line.

use crate::sandbox::Sandbox;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Where the static library is: `TRIMTAB_LIBRARY` (cross/test, for another CPU), or built now, with the features of this
/// test, so that nothing has to be compiled again.
fn library() -> PathBuf {
    if let Some(library) = std::env::var_os("TRIMTAB_LIBRARY") {
        return library.into();
    }
    let features = [
        ("default", cfg!(feature = "default")),
        ("cli", cfg!(feature = "cli")),
        ("hub", cfg!(feature = "hub")),
        ("onnx", cfg!(feature = "onnx")),
        ("store", cfg!(feature = "store")),
    ];
    let features = features.into_iter().filter_map(|(name, on)| on.then_some(name));
    let features = features.chain(["capi"]).collect::<Vec<_>>().join(",");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--example", "c_library", "--message-format", "json"]);
    cargo.args(["--no-default-features", "--features", &features]);
    // What cargo tells a test of its crate: build scripts that look at the same names (ring's) would all run again for it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    let output = run(cargo.current_dir(ROOT));
    let messages = String::from_utf8(output.stdout).unwrap();
    let mut archives = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let files = message["filenames"].as_array()?.clone();
        files.iter().filter_map(|f| f.as_str()).find(|f| f.ends_with("libc_library.a")).map(PathBuf::from)
    });
    archives.next_back().expect("cargo names the archive it built")
}

/// The C compiler: `TRIMTAB_CC`, for another CPU, or `cc`.
fn compiler() -> String {
    std::env::var("TRIMTAB_CC").unwrap_or("cc".into())
}

fn compile(out: &Path) {
    let mut cc = Command::new(compiler());
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Iinclude", "examples/c/learn.c"]);
    cc.arg(library()).arg("-o").arg(out).args(["-lpthread", "-lm", "-ldl", "-Wl,-z,noexecstack"]);
    run(cc.current_dir(ROOT));
}

#[test]
fn learns_and_finds_it_again() {
    if let Err(e) = Command::new(compiler()).arg("--version").output() {
        println!("skipped: no C compiler: {}: {e}", compiler());
        assert!(std::env::var_os("TRIMTAB_EXPECT_CC").is_none(), "a C compiler must be there");
        return;
    }
    let s = Sandbox::new();
    let program = s.path("learn");
    compile(&program);
    let text = "sunday was a very good movie";
    let learn = |args: &[&str]| {
        let program = program.to_str().unwrap();
        match std::env::var("TRIMTAB_RUNNER").ok().filter(|r| !r.is_empty()) {
            None => s.program(program, args).output().unwrap(),
            Some(runner) => s.program(&runner, &[&[program], args].concat()).output().unwrap(),
        }
    };
    let done = learn(&["base", "train.tsv", "c.bias", text]);
    let (stdout, stderr) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap());
    assert!(done.status.success(), "{stderr}");
    // the answer with both labels, twice the same: learned, and from the file
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{stdout}");
    assert_eq!(lines[..3], lines[3..]);
    assert!(lines[1].ends_with("  bad") && lines[2].ends_with("  good"), "{stdout}");
    assert!(stderr.contains("epoch 10 of 10: loss ") && stderr.contains("16 examples, "), "{stderr}");

    s.ok("train --base base --data train.tsv --out cli.bias --seed 7 --effort normal");
    assert!(s.read("c.bias") == s.read("cli.bias"), "the bias files differ");
    let cli = s.command("predict --base base --bias c.bias").arg(text).output().unwrap();
    assert!(String::from_utf8(cli.stdout).unwrap().starts_with(&format!("{}\t", lines[0])));

    for (args, word) in [
        (["nowhere", "train.tsv", "x.bias", text], "learn: base: nowhere: "),
        (["base", "nowhere.tsv", "x.bias", text], "learn: data: nowhere.tsv: "),
        (["base", "train.tsv", "no/x.bias", text], "learn: save: no/x.bias: "),
    ] {
        let done = learn(&args);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}
