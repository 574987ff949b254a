//! A directory of its own for each test, the command run in it, and what a refusal must look like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

const TRIMTAB: &str = env!("CARGO_BIN_EXE_trimtab");
/// The checkpoint every base here is made from.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tiny-bert");

/// Exit codes, as the README states them.
pub const IO: i32 = 1;
pub const USAGE: i32 = 2;
pub const DIVERGED: i32 = 3;
pub const INTERRUPTED: i32 = 130;

/// A temporary directory that holds `base`, `me.bias`, `train.tsv` and `dev.tsv`; commands run in it.
pub struct Sandbox(tempfile::TempDir);

impl Sandbox {
    pub fn new() -> Sandbox {
        let sandbox = Sandbox::without_files();
        for (name, bytes) in model_files() {
            sandbox.write(name, bytes);
        }
        sandbox.write("train.tsv", tsv(&examples()));
        sandbox.write("dev.tsv", tsv(&examples()[..6]));
        sandbox
    }

    fn without_files() -> Sandbox {
        Sandbox(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes a file and the directories above it.
    pub fn write_below(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        self.write(name, bytes);
    }

    /// A JSON file.
    pub fn json_file(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The command, to be run in the sandbox. Words are separated by spaces.
    pub fn command(&self, line: &str) -> Command {
        let (command, mut words) = (command_words(), line.split_whitespace().collect::<Vec<_>>());
        // Emulated, every run is trained once, unless a test says how much work it is to do.
        if emulated() && words.first() == Some(&"train") && !words.contains(&"--effort") {
            words.extend(["--effort", "quick"]);
        }
        self.program(&command[0], &command[1..].iter().map(String::as_str).chain(words).collect::<Vec<_>>())
    }

    /// A shell script, to be run in the sandbox; in it `"$@"` is the command.
    pub fn shell(&self, script: &str) -> Command {
        let mut shell = self.program("sh", &["-c", script, "sh"]);
        shell.args(command_words());
        shell
    }

    /// Any program, to be run in the sandbox.
    pub fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).env_remove("TRIMTAB_KERNEL").stdin(Stdio::null());
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, line: &str) -> Done {
        Done::of(self.command(line).output().unwrap())
    }

    /// Runs a command line that must succeed.
    pub fn ok(&self, line: &str) -> Done {
        let done = self.run(line);
        assert_eq!(done.code, Some(0), "{line}\n{}", done.stderr);
        done
    }

    /// The one JSON object that a command line prints.
    pub fn json(&self, line: &str) -> serde_json::Value {
        let done = self.ok(line);
        serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{line}\n{e}\n{}", done.stdout))
    }

    /// The smallest `--memory` in MiB that this training accepts, by its own refusal of 1 MiB.
    pub fn smallest_budget(&self, train: &str) -> u64 {
        let refusal = self.run(&format!("{train} --memory 1MiB")).stderr;
        let mib = refusal.split_once("need --memory ").and_then(|(_, rest)| rest.split_once("MiB"));
        let mib: u64 = mib.unwrap_or_else(|| panic!("{train}\n{refusal}")).0.parse().unwrap();
        // What the process has at the start counts, and an emulator's share of that differs from run to run.
        if emulated() { mib + 16 } else { mib }
    }

    /// A command line that must fail with `code`, say all of `words`, print no result, and leave every file of the
    /// sandbox as it was, with none besides.
    pub fn refuses(&self, line: &str, code: i32, words: &[&str]) {
        self.refuses_with(self.command(line), line, code, words);
    }

    /// As [`Sandbox::refuses`], of a command made by hand; `line` is for messages.
    pub fn refuses_with(&self, mut command: Command, line: &str, code: i32, words: &[&str]) {
        let before = self.files();
        let done = Done::of(command.output().unwrap());
        done.failed(line, code, words);
        assert_eq!(done.stdout, "", "{line}");
        self.unchanged_since(&before, line);
    }

    /// Every file of the sandbox.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, files);
                } else {
                    files.insert(path.clone(), std::fs::read(path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        collect(self.0.path(), &mut files);
        files
    }

    pub fn unchanged_since(&self, before: &BTreeMap<PathBuf, Vec<u8>>, line: &str) {
        let after = self.files();
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&after), names(before), "{line}: files came or went");
        for (path, bytes) in &after {
            assert!(*bytes == before[path], "{line}: {} was changed", path.display());
        }
    }

    /// No temporary file may outlive a command.
    pub fn no_leftovers(&self) {
        let names: Vec<_> = self.files().into_keys().map(|p| p.display().to_string()).collect();
        assert!(names.iter().all(|n| !n.contains(".trimtab-")), "{names:?}");
    }
}

/// Whether an emulator runs all this, a hundred times as slowly: what knows no CPU is then tried less often.
pub fn emulated() -> bool {
    std::env::var("TRIMTAB_RUNNER").is_ok_and(|runner| !runner.is_empty())
}

/// The binary, behind the program that `TRIMTAB_RUNNER` names: an emulator, where it was built for another CPU.
fn command_words() -> Vec<String> {
    let runner = std::env::var("TRIMTAB_RUNNER").ok().filter(|r| !r.is_empty());
    runner.into_iter().chain([TRIMTAB.to_owned()]).collect()
}

/// What a finished command said.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    pub fn of(output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let done =
            Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        done
    }

    /// Checks exit code and message of a failure.
    pub fn failed(&self, line: &str, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{line}\n{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{line}: no {word:?} in\n{}", self.stderr);
        }
    }
}

/// The base and a bias file trained on it, made once a run of the tests.
fn model_files() -> &'static [(&'static str, Vec<u8>); 2] {
    static FILES: OnceLock<[(&str, Vec<u8>); 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        let sandbox = Sandbox::without_files();
        sandbox.ok(&format!("quantize {TINY} --output base"));
        sandbox.write("train.tsv", tsv(&examples()));
        sandbox.ok("train --base base --data train.tsv --out me.bias --epochs 2");
        ["base", "me.bias"].map(|name| (name, sandbox.read(name)))
    })
}

/// Labelled texts of words the tiny model knows, of different lengths, two labels in turn.
pub fn examples() -> Vec<(&'static str, String)> {
    let text = |(i, word): (usize, &str)| {
        let label = if i % 2 == 0 { "good" } else { "bad" };
        (label, format!("{word} was a very {label} movie{}", " and we love it".repeat(i % 4)))
    };
    "it this that he she we they you sunday station box time mile day restaurant anyone"
        .split(' ')
        .enumerate()
        .map(text)
        .collect()
}

pub fn tsv(examples: &[(&str, String)]) -> String {
    let rows = examples.iter().map(|(label, text)| format!("{label}\t{text}\n"));
    std::iter::once("label\ttext\n".to_owned()).chain(rows).collect()
}
