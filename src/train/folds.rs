//! Folds for cross-validation: which examples are left out together.
//!
//! An example's fold follows from its content alone, through a hash, so that the order of a file, the seed and the machine
//! do not change it. Each label is dealt out evenly over the folds, and equal texts go to the same fold.

use super::Labelled;
use crate::ops::loss::Target;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Folds that a probe is cross-validated with.
pub const PROBE_FOLDS: usize = 5;

/// Hash of an example's content.
pub type Key = [u8; 32];

/// What folds are balanced over: the label's number, or a rank of a number.
pub type Stratum = usize;

/// Deals examples into `folds` folds, `[examples]`, from 0. Examples of one key are together.
pub fn deal(examples: &[(Key, Stratum)], folds: usize) -> Vec<usize> {
    let mut strata: BTreeMap<Stratum, BTreeMap<Key, ()>> = BTreeMap::new();
    let mut first: BTreeMap<Key, Stratum> = BTreeMap::new();
    for (key, stratum) in examples {
        // A text with two labels is dealt once, with the first.
        let stratum = *first.entry(*key).or_insert(*stratum);
        strata.entry(stratum).or_default().insert(*key, ());
    }
    // Round-robin through all strata, so that small labels do not all begin at fold 0.
    let keys = strata.values().flat_map(BTreeMap::keys);
    let fold_of: BTreeMap<&Key, usize> = keys.enumerate().map(|(i, key)| (key, i % folds.max(1))).collect();
    examples.iter().map(|(key, _)| fold_of[key]).collect()
}

/// Deals encoded texts, by their tokens and targets.
pub(super) fn of_encoded(data: &[&Labelled], folds: usize) -> Vec<usize> {
    let one = |d: &&Labelled| {
        let mut sha = Sha256::new();
        for text in [Some(&d.text), d.partner.as_ref()].into_iter().flatten() {
            sha.update((text.ids.len() as u64).to_le_bytes());
            text.ids.iter().for_each(|id| sha.update(id.to_le_bytes()));
        }
        let stratum = if let Target::Class(label) = d.target { label } else { 0 };
        (sha.finalize().into(), stratum)
    };
    deal(&data.iter().map(one).collect::<Vec<_>>(), folds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> Key {
        Sha256::digest(i.to_le_bytes()).into()
    }

    #[test]
    fn labels_are_spread_and_order_does_not_matter() {
        let examples: Vec<(Key, Stratum)> = (0..103).map(|i| (key(i), if i < 7 { 0 } else { 1 })).collect();
        let folds = deal(&examples, 5);
        for label in [0, 1] {
            let count =
                |fold| examples.iter().zip(&folds).filter(|(e, f)| e.1 == label && **f == fold).count();
            let counts: Vec<usize> = (0..5).map(count).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "label {label}: {counts:?}");
        }
        let mut turned = examples.clone();
        turned.reverse();
        let mut again = deal(&turned, 5);
        again.reverse();
        assert_eq!(again, folds);
    }

    #[test]
    fn equal_texts_are_together_whatever_their_labels() {
        let examples = [(key(1), 0), (key(2), 0), (key(1), 1), (key(3), 1), (key(1), 0)];
        let folds = deal(&examples, 3);
        assert!(folds[0] == folds[2] && folds[0] == folds[4], "{folds:?}");
        assert!(deal(&[], 5).is_empty());
    }
}
