//! Which files of a repository a checkpoint needs.

use crate::container::MAX_HEADER;
use crate::error::{Error, Result};
use crate::import::safetensors::{plain_name, read_index};
use crate::import::{MAX_CONFIG, read_small};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Lists the modules of a sentence-transformers model.
pub(super) const MODULES: &str = "modules.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Small files that are fetched where the repository has them.
const OPTIONAL: [&str; 4] =
    ["tokenizer_config.json", "special_tokens_map.json", "config_sentence_transformers.json", MODULES];

/// Names of the files needed, the weights last. Says what is missing before anything large is fetched.
///
/// `names` are the files of the repository; `fetch` returns the path of one of them on disk.
pub(super) fn choose(
    repo: &str,
    names: &BTreeSet<String>,
    fetch: &mut dyn FnMut(&str) -> Result<PathBuf>,
) -> Result<Vec<String>> {
    let has = |name: &str| names.contains(name);
    let lacks = |what: String| Error::Unsupported { path: repo.into(), what };
    for (name, hint) in [
        ("config.json", "it is not a model of the transformers library"),
        ("tokenizer.json", "make one in Python: `AutoTokenizer.from_pretrained(…).save_pretrained(DIR)`"),
    ] {
        if !has(name) {
            return Err(lacks(format!("the repository has no {name}; {hint}")));
        }
    }
    let mut chosen = vec!["config.json".to_owned(), "tokenizer.json".to_owned()];
    chosen.extend(OPTIONAL.into_iter().filter(|n| has(n)).map(str::to_owned));
    // `sentence_bert_config.json`, `sentence_roberta_config.json` and their like.
    let of_family = |n: &&String| n.starts_with("sentence_") && n.ends_with("_config.json") && plain_name(n);
    chosen.extend(names.iter().filter(of_family).cloned());
    let mut weights = Vec::new();
    if has(MODULES) {
        let path = fetch(MODULES)?;
        for folder in module_folders(&read_small(&path, MAX_CONFIG)?) {
            chosen.push(format!("{folder}/config.json"));
            weights.push(format!("{folder}/{SINGLE}"));
        }
        chosen.retain(|n| has(n));
        weights.retain(|n| has(n));
    }
    if has(SINGLE) {
        weights.push(SINGLE.to_owned());
    } else if has(INDEX) {
        let path = fetch(INDEX)?;
        let map = read_index(&path, &read_small(&path, MAX_HEADER)?)?;
        let shards: BTreeSet<String> = map.into_values().collect();
        if let Some(bad) = shards.iter().find(|s| !plain_name(s) || !has(s)) {
            return Err(Error::format(&path, format!("shard {bad:?} is not a file of the repository")));
        }
        chosen.push(INDEX.to_owned());
        weights.extend(shards);
    } else {
        let hint = "pickled weights are not read, they can run code; look for a revision with safetensors";
        return Err(lacks(format!("the repository has no {SINGLE}; {hint}")));
    }
    chosen.extend(weights);
    Ok(chosen)
}

/// Folders of the modules in the text of `modules.json`, without those that are no plain name. Whoever opens the
/// checkpoint says what is wrong with such a file.
fn module_folders(text: &[u8]) -> BTreeSet<String> {
    let modules: Vec<serde_json::Value> = serde_json::from_slice(text).unwrap_or_default();
    let paths = modules.iter().filter_map(|m| m.get("path")?.as_str());
    paths.filter(|p| plain_name(p)).map(str::to_owned).collect()
}
