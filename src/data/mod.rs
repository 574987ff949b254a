//! Labelled texts: what an example is, which labels there are, and whether they can be trained on.

mod annotated;
mod columns;
mod conll;
mod csv_file;
mod encoding;
mod format;
mod json;
mod label;
mod lines;
mod marked;
mod problems;
mod reading;
#[cfg(test)]
mod reading_tests;
mod squad;
#[cfg(feature = "store")]
mod store;
mod table;
mod words;

pub use columns::{Columns, LabelForm};
pub use encoding::{Encoding, open_text};
pub use format::Format;
#[cfg(any(feature = "capi", feature = "store"))]
pub(crate) use label::clean as clean_label;
pub use lines::Lines;
pub use reading::{Found, Reading, read_examples};
#[cfg(feature = "store")]
pub use store::{Forget, Learned, Store};
pub use table::Delimiter;
pub use words::split_words;

use crate::error::{Error, Result};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// One text or pair of texts, with its label where the file has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The text, or the first of a pair. May be empty.
    pub text_a: String,
    /// The second text of a pair; the context of a question.
    pub text_b: Option<String>,
    /// The label as it stands in the file: a name, several between commas, or a number.
    pub label: Option<String>,
    /// What a file of questions says of this one.
    pub asked: Option<Box<Asked>>,
    /// The words of the text, for a tagger; `None` if they are what stands between white space in `text_a`.
    pub words: Option<Vec<String>>,
    /// Line of the file the example starts on, from 1; of a question its number.
    pub line: usize,
}

/// A question's name, and the answers that count as right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// As it stands in the file.
    pub id: String,
    /// At least one where there is something to learn or to score, unless the question is unanswerable.
    pub answers: Vec<Answer>,
    /// Whether the context has no answer, as in SQuAD 2.0.
    pub unanswerable: bool,
}

/// A part of a question's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Not empty.
    pub text: String,
    /// Byte of the context it begins at.
    pub start: usize,
}

/// The distinct labels, sorted: by value if all are integers, else by bytes.
///
/// The order is the order of the head's outputs, so it depends on the set of labels only and not on the
/// order of the examples.
pub fn label_set(examples: &[Example]) -> Vec<String> {
    label_set_of(examples.iter().filter_map(|e| e.label.as_deref()))
}

/// The same of labels that are at hand.
pub(crate) fn label_set_of<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let set: BTreeSet<&str> = labels.collect();
    let mut labels: Vec<String> = set.into_iter().map(str::to_owned).collect();
    if labels.iter().all(|l| l.parse::<i64>().is_ok()) {
        // Stable: `01` and `1` are two labels, and keep the order of their bytes.
        labels.sort_by_key(|l| l.parse::<i64>().unwrap_or_default());
    }
    labels
}

/// The index into `labels` of each example's label, in the order of `examples`.
///
/// Errors: `Error::Data` for an example without a label, or with one that is not among `labels`.
pub fn label_ids(examples: &[Example], labels: &[String], path: &Path) -> Result<Vec<usize>> {
    let index = Index::new(labels);
    examples
        .iter()
        .map(|e| match e.label.as_deref() {
            None => Err(Error::data(path, Some(e.line), "there is no label")),
            Some(label) => index.of(label, e.line, path),
        })
        .collect()
}

/// Labels by name.
pub(crate) struct Index<'a> {
    labels: &'a [String],
    places: HashMap<&'a str, usize>,
}

impl<'a> Index<'a> {
    pub fn new(labels: &'a [String]) -> Index<'a> {
        Index { labels, places: labels.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect() }
    }

    /// The index of a label of the example at `line`.
    pub fn of(&self, label: &str, line: usize, path: &Path) -> Result<usize> {
        self.places.get(label).copied().ok_or_else(|| {
            let what =
                format!("unknown label `{}`; known labels: {}", shorten(label, 60), list(self.labels, 12));
            Error::data(path, Some(line), what)
        })
    }
}

/// Sets a share of the examples aside to score on; the rest is to learn from, in its order. Neither is empty.
///
/// `seed` decides which. Each label gives its share, and keeps one example to learn from. If `neighbours_belong` together, as
/// questions on one text and paragraphs of one do, the last examples are set aside.
pub fn hold_out(
    examples: Vec<Example>,
    share: f64,
    seed: u64,
    neighbours_belong: bool,
) -> (Vec<Example>, Vec<Example>) {
    let n = examples.len();
    let held = ((n as f64 * share).round() as usize).clamp(1, n.max(2) - 1).min(n);
    let mut aside = vec![false; n];
    if neighbours_belong {
        aside[n - held..].fill(true);
    } else {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut rng);
        order.sort_by(|&a, &b| examples[a].label.cmp(&examples[b].label));
        // Evenly over the labels: the i-th of n in this order, if (i · held + offset) / n passes a whole number.
        let offset = if n > 0 { rng.random_range(0..n as u64) as usize } else { 0 };
        for (i, &example) in order.iter().enumerate() {
            aside[example] = ((i + 1) * held + offset) / n > (i * held + offset) / n;
        }
        for of_label in order.chunk_by(|&a, &b| examples[a].label == examples[b].label) {
            let lost = of_label.len() < n && of_label.iter().all(|&i| aside[i]);
            if lost && has_labels(&examples) {
                aside[of_label[0]] = false;
            }
        }
        if n > 1 && !aside.contains(&true) {
            aside[order[n - 1]] = true;
        }
    }
    let (mut learned, mut scored) = (Vec::new(), Vec::new());
    for (example, aside) in examples.into_iter().zip(aside) {
        if aside { scored.push(example) } else { learned.push(example) }
    }
    (learned, scored)
}

/// Whether labels are names that come again, not a number or a list of tags for each example.
fn has_labels(examples: &[Example]) -> bool {
    let labels: BTreeSet<_> = examples.iter().map(|e| &e.label).collect();
    2 * labels.len() <= examples.len()
}

/// Refuses examples a classifier cannot be trained on: none, unlabelled ones, or a single class.
pub fn check_trainable(examples: &[Example], path: &Path) -> Result<()> {
    if examples.is_empty() {
        return Err(Error::data(path, None, "there are no examples"));
    }
    if let Some(e) = examples.iter().find(|e| e.label.is_none()) {
        return Err(Error::data(path, Some(e.line), "there is no label"));
    }
    let labels = label_set(examples);
    if let [only] = labels.as_slice() {
        let what = format!(
            "every example is labelled `{}`; a classifier needs examples of at least two labels",
            shorten(only, 60)
        );
        return Err(Error::data(path, None, what));
    }
    Ok(())
}

/// At most `max` names in backquotes, then how many more there are.
pub(crate) fn list<S: AsRef<str>>(names: &[S], max: usize) -> String {
    let shown: Vec<String> =
        names.iter().take(max).map(|n| format!("`{}`", shorten(n.as_ref(), 40))).collect();
    let rest = names.len().saturating_sub(max);
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// `text` on one line and at most `max` characters long, for messages.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    let mut short: String =
        text.chars().take(max).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(labels: &[&str]) -> Vec<Example> {
        let one = |(i, l): (usize, &&str)| Example {
            text_a: "x".into(),
            label: Some(l.to_string()),
            line: i + 2,
            ..Example::default()
        };
        labels.iter().enumerate().map(one).collect()
    }

    #[test]
    fn labels_sort_by_value_when_all_are_integers() {
        assert_eq!(label_set(&examples(&["10", "9", "-1", "9"])), ["-1", "9", "10"]);
        assert_eq!(label_set(&examples(&["10", "9", "x"])), ["10", "9", "x"]);
        assert_eq!(label_set(&examples(&["1", "01"])), ["01", "1"]);
        assert!(label_set(&[]).is_empty());
    }

    #[test]
    fn ids_follow_the_labels() {
        let labels = vec!["a".to_string(), "b".to_string()];
        assert_eq!(label_ids(&examples(&["b", "a", "b"]), &labels, Path::new("f")).unwrap(), [1, 0, 1]);
    }

    #[test]
    fn unseen_label_names_line_and_known_labels() {
        let labels: Vec<String> = (0..20).map(|i| format!("l{i}")).collect();
        let e = label_ids(&examples(&["l3", "zzz"]), &labels, Path::new("dev.tsv")).unwrap_err();
        let text = e.to_string();
        assert!(text.starts_with("dev.tsv:3: unknown label `zzz`; known labels: `l0`, `l1`"), "{text}");
        assert!(text.ends_with("`l11` and 8 more"), "{text}");
    }

    #[test]
    fn some_are_set_aside() {
        let all: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let all = examples(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let (learned, scored) = hold_out(all.clone(), 0.1, 1, false);
        assert_eq!((learned.len(), scored.len()), (45, 5));
        let mut again: Vec<Example> = learned.iter().chain(&scored).cloned().collect();
        again.sort_by_key(|e| e.line);
        assert_eq!(again, all, "each is in one of them");
        assert!(learned.is_sorted_by_key(|e| e.line) && scored.is_sorted_by_key(|e| e.line));
        assert_eq!(hold_out(all.clone(), 0.1, 1, false).1, scored, "the seed decides");
        assert_ne!(hold_out(all.clone(), 0.1, 2, false).1, scored);
        assert_eq!(hold_out(all.clone(), 0.1, 1, true).1, all[45..]);
        for (share, sizes) in [(1e-9, (49, 1)), (1.0, (1, 49))] {
            let (learned, scored) = hold_out(all.clone(), share, 0, false);
            assert_eq!((learned.len(), scored.len()), sizes);
        }
        assert_eq!(hold_out(vec![], 0.5, 0, false), (vec![], vec![]));
        assert_eq!(hold_out(all[..1].to_vec(), 0.5, 0, false).1.len(), 1);
    }

    #[test]
    fn a_rare_label_stays_to_learn_from() {
        let mut labels = vec!["often"; 40];
        labels.extend(["once", "twice", "twice"]);
        for seed in 0..100 {
            for share in [0.02, 0.1, 0.5] {
                let (learned, scored) = hold_out(examples(&labels), share, seed, false);
                assert_eq!(label_set(&learned), ["often", "once", "twice"], "seed {seed}, share {share}");
                assert!(!scored.is_empty());
            }
        }
    }

    #[test]
    fn one_class_no_label_and_no_example_are_not_trainable() {
        let path = Path::new("t.tsv");
        let e = check_trainable(&examples(&["a", "a"]), path).unwrap_err().to_string();
        assert!(e.contains("every example is labelled `a`"), "{e}");
        assert!(check_trainable(&[], path).is_err());
        let mut some = examples(&["a", "b"]);
        assert!(check_trainable(&some, path).is_ok());
        some[1].label = None;
        assert_eq!(check_trainable(&some, path).unwrap_err().to_string(), "t.tsv:3: there is no label");
    }
}
