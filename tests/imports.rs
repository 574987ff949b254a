//! Imports point one way. A room is a file or a folder of `src`; it imports from the rooms below it only. No two files import
//! each other, also by way of others. So each room can be read and tested without those above it.
//!
//! What counts is a path that begins with `crate::` or `super::`. A folder's own `mod.rs` may name the files of its folder: it is
//! their face. Unit tests may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the library, from the bottom up. The command line stands above all of them, as a crate of its own.
const ROOMS: [&str; 31] = [
    "error",
    "text",
    "spans",
    "scores",
    "guard",
    "protobuf",
    "container",
    "sys",
    "config",
    "data",
    "kernels",
    "params",
    "tokenize",
    "output",
    "import",
    "plots",
    "quant",
    "ops",
    "task",
    "graph",
    "embeddings",
    "bias_file",
    "train",
    "model",
    "experiment",
    "export",
    "recipe",
    "bias_import",
    "onnx_model",
    "capi",
    "lib",
];

/// Each module's imports, by paths such as `train/lanes`.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules of the library and their files. Unit tests in files of their own are left out.
fn modules(folder: &Path, prefix: &str, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let below = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if path.is_dir() {
            if !["cli", "tests"].contains(&&name[..]) {
                modules(&path, &below, found);
            }
        } else if name == "mod" {
            found.insert(prefix.to_owned(), path);
        } else if path.extension().is_some_and(|e| e == "rs")
            && name != "main"
            && name != "tests"
            && !name.ends_with("_tests")
        {
            found.insert(below, path);
        }
    }
}

/// The source without comments and without the unit tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The paths that begin behind a `crate::` or `super::`, as lists of names. Of `a::{b, c::d}` these are `a b` and `a c d`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name: String = text.chars().take_while(|c| is_name(*c)).collect();
    let rest = &text[name.len()..];
    let with_name = |paths: Vec<Vec<String>>| {
        paths.into_iter().map(|path| std::iter::once(name.clone()).chain(path).collect()).collect()
    };
    if !name.is_empty() {
        return match rest.strip_prefix("::") {
            Some(rest) => with_name(paths(rest)),
            None => vec![vec![name]],
        };
    }
    let Some(group) = rest.strip_prefix('{') else { return vec![vec![]] };
    let (mut depth, mut at) = (0, Some(0));
    let mut all = Vec::new();
    for (i, c) in group.char_indices() {
        if let Some(start) = at.filter(|_| !c.is_whitespace()) {
            all.extend(paths(&group[start.max(i)..]));
            at = None;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at = Some(i + 1),
            _ => {}
        }
    }
    all
}

/// What a module imports.
fn imports(module: &str, path: &Path, known: &BTreeMap<String, PathBuf>) -> BTreeSet<String> {
    let code = code(path);
    let is_face = path.file_name().is_some_and(|name| name == "mod.rs");
    let mut found = BTreeSet::new();
    for start in ["crate::", "super::"] {
        for (i, _) in code.match_indices(start) {
            let before = code[..i].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "_$:".contains(c)) {
                continue;
            }
            for mut names in paths(&code[i + start.len()..]) {
                let mut at: Vec<String> = Vec::new();
                if start == "super::" {
                    at = module.split('/').map(String::from).collect();
                    at.pop();
                    while names.first().is_some_and(|name| name == "super") {
                        names.remove(0);
                        at.pop();
                    }
                }
                at.extend(names);
                while !at.is_empty() && !known.contains_key(&at.join("/")) {
                    at.pop();
                }
                let target = at.join("/");
                let is_own = is_face && target.starts_with(&format!("{module}/"));
                if !target.is_empty() && target != module && !is_own {
                    found.insert(target);
                }
            }
        }
    }
    found
}

fn all() -> Imports {
    let mut known = BTreeMap::new();
    modules(&source(), "", &mut known);
    known.iter().map(|(module, path)| (module.clone(), imports(module, path, &known))).collect()
}

/// A circle of imports, if there is one, as the modules along it.
fn circle(all: &Imports) -> Option<Vec<String>> {
    fn walk<'a>(
        at: &'a str,
        all: &'a Imports,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(i) = way.iter().position(|m| *m == at) {
            return Some(way[i..].iter().map(ToString::to_string).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = all.get(at)?.iter().find_map(|next| walk(next, all, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    all.keys().find_map(|module| walk(module, all, &mut Vec::new(), &mut done))
}

#[test]
fn rooms_import_from_below() {
    let place = |module: &str| {
        let room = module.split('/').next().unwrap();
        ROOMS.iter().position(|r| *r == room).unwrap_or_else(|| panic!("`{room}` has no place in ROOMS"))
    };
    let mut upward = Vec::new();
    for (module, imports) in all() {
        let from = place(&module);
        upward
            .extend(imports.iter().filter(|to| place(to) > from).map(|to| format!("{module} imports {to}")));
    }
    assert!(upward.is_empty(), "these imports point upwards:\n{}", upward.join("\n"));
}

#[test]
fn no_two_files_import_each_other() {
    let all = all();
    assert!(
        all.len() > 100 && all["train/step"].contains("train/gradients"),
        "the sources are read: {all:?}"
    );
    assert_eq!(circle(&all), None);
}

#[test]
fn circles_and_groups_are_seen() {
    let text = "{a, b::{c, super::d}, e::f as g}; use super::h";
    let found: Vec<String> = paths(text).into_iter().map(|path| path.join("/")).collect();
    assert_eq!(found, ["a", "b/c", "b/super/d", "e/f"]);
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let of =
        |pairs: &[(&str, &[&str])]| pairs.iter().map(|(m, to)| (m.to_string(), set(to))).collect::<Imports>();
    assert_eq!(circle(&of(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), None);
    assert_eq!(circle(&of(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])).unwrap(), ["b", "c"]);
}
