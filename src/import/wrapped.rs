//! Names of tensors that were saved from inside a wrapper: `module.` of DataParallel and DDP, `_orig_mod.` of `torch.compile`,
//! `model.` of a training loop's own class, and what these give together.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// Parts of a name that a wrapper adds, wherever it stands: a model may be compiled as a whole or layer by layer.
const ANYWHERE: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// Parts that only begin a name. `0` is the Transformer of a whole SentenceTransformer.
const FIRST: [&str; 3] = ["model", "auto_model", "0"];

/// A name without what wrappers added.
pub(crate) fn plain(stored: &str) -> String {
    let mut parts: Vec<&str> = stored.split('.').filter(|part| !ANYWHERE.contains(part)).collect();
    while parts.len() > 1 && FIRST.contains(&parts[0]) {
        parts.remove(0);
    }
    parts.join(".")
}

/// Stored names by their names without wrappers.
///
/// Fails with [`Error::Tensor`] on two that differ in wrappers alone: nothing says which one is meant.
pub(super) fn names<'a>(
    path: &Path,
    stored: impl Iterator<Item = &'a String>,
) -> Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    for name in stored {
        match names.entry(plain(name)) {
            Entry::Vacant(entry) => drop(entry.insert(name.clone())),
            Entry::Occupied(entry) if entry.get() == entry.key() => {}
            Entry::Occupied(mut entry) if name == entry.key() => drop(entry.insert(name.clone())),
            Entry::Occupied(entry) => {
                let (other, both) = (entry.get(), entry.key());
                let what =
                    format!("it and `{other}` would both be `{both}`; save the one that is meant alone");
                return Err(Error::tensor(path, name, what));
            }
        }
    }
    Ok(names)
}

/// The name that is most like a `wanted` one: most parts from the end in common; of equals the first in name order.
pub(super) fn most_like<'a>(wanted: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let common = |name: &str| name.rsplit('.').zip(wanted.rsplit('.')).take_while(|(a, b)| a == b).count();
    names.min_by_key(|name| (std::cmp::Reverse(common(name)), name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrappers_add_goes() {
        for (stored, wanted) in [
            ("bert.pooler.dense.bias", "bert.pooler.dense.bias"),
            ("_orig_mod.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
            ("module._orig_mod.model.bert.pooler.dense.bias", "bert.pooler.dense.bias"),
            ("model.module.encoder.layer.0._orig_mod.output.dense.bias", "encoder.layer.0.output.dense.bias"),
            ("0.auto_model.embeddings.LayerNorm.bias", "embeddings.LayerNorm.bias"),
            (
                "_fsdp_wrapped_module.bert.encoder.layer.0._checkpoint_wrapped_module.x",
                "bert.encoder.layer.0.x",
            ),
            ("model", "model"),
            ("student.model.x", "student.model.x"),
        ] {
            assert_eq!(plain(stored), wanted);
        }
    }

    #[test]
    fn two_of_one_name_are_told_from_a_plain_one() {
        let of = |stored: &[&str]| {
            let stored: Vec<String> = stored.iter().map(|s| (*s).to_owned()).collect();
            names(Path::new("w"), stored.iter()).map_err(|e| e.to_string())
        };
        let plain = BTreeMap::from([("a.b".to_owned(), "a.b".to_owned())]);
        assert_eq!(of(&["a.b", "module.a.b"]).unwrap(), plain);
        assert_eq!(of(&["module.a.b", "a.b"]).unwrap(), plain);
        let e = of(&["module.a.b", "model.a.b"]).unwrap_err();
        assert!(e.contains("`model.a.b`") && e.contains("`module.a.b`"), "{e}");
    }

    #[test]
    fn the_nearest_name() {
        let names = ["x.query.weight", "x.key.weight", "a.bias"].map(str::to_owned);
        assert_eq!(most_like("bert.query.weight", names.iter()).unwrap(), "x.query.weight");
        assert_eq!(most_like("nothing", names.iter()).unwrap(), "a.bias");
        assert_eq!(most_like("nothing", [].iter()), None);
    }
}
