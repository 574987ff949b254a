//! What is wrong with labelled examples, told before a run is spent on them.

use super::lines::Lines;
use crate::bias_file::BiasFile;
use crate::config::Pooling;
use crate::data::{Example, shorten};
use crate::model::{Model, SAMPLE, TRUNCATED, sample};
use crate::task::{Kind, Task};
use crate::text::count;
use crate::tokenize::WINDOWS_MAX;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Examples of a label below which there is little to learn from.
const FEW: usize = 3;
/// Examples in all below which a result is luck.
const EXAMPLES_MIN: usize = 10;
/// Share of unknown tokens above which the model does not know the language.
const UNKNOWN: f64 = 0.05;
/// Lines that a warning names.
const NAMED: usize = 5;

/// Something that a user should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What it is about, for programs.
    pub kind: WarningKind,
    /// The cause and the remedy, for people.
    pub message: String,
}

/// Kinds of [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// Few examples in all.
    FewExamples,
    /// Many labels for few examples.
    ManyLabels,
    /// Labels with a single example.
    RareLabels,
    /// Texts that are there with several labels.
    ConflictingLabels,
    /// Texts without a word.
    EmptyTexts,
    /// Many words that the tokenizer does not know.
    UnknownTokens,
    /// Many texts that are longer than the model reads.
    TruncatedTexts,
    /// The training loss did not fall.
    LossDoesNotFall,
    /// Scored examples that the model was trained on.
    ScoredOnTraining,
    /// Held-out examples with labels that are not learned.
    UnseenLabels,
    /// The run starts from biases that learned from other examples.
    StartForgets,
}

impl Warning {
    pub(crate) fn new(kind: WarningKind, message: impl Into<String>) -> Warning {
        Warning { kind, message: message.into() }
    }
}

/// Looks at training examples. Errors of the data themselves are refused elsewhere.
pub fn examples(model: &Model, train: &[Example]) -> Vec<Warning> {
    let kind = model.task().kind();
    let mut found = Vec::new();
    if train.len() < EXAMPLES_MIN {
        found.push(Warning::new(
            WarningKind::FewExamples,
            format!(
                "{} examples are too few to learn from reliably; give 10 of each label or more",
                train.len()
            ),
        ));
    }
    if kind == Kind::Classify {
        found.extend(labels(train));
        found.extend(conflicts(train));
    }
    found.extend(empty(train));
    found.extend(tokens(model, train));
    found
}

/// Labels of held-out examples that are not among those that are learned.
pub fn unseen(task: &Task, dev: &[Example]) -> Option<Warning> {
    let sentence = task.unseen(dev).sentence(task)?;
    Some(Warning::new(WarningKind::UnseenLabels, format!("held out: {sentence}")))
}

/// That training from a bias file of the same task on other examples forgets what it knows.
pub fn start(start: &Path, kind: Kind, train: &[Example]) -> Option<Warning> {
    BiasFile::open(start).ok().filter(|file| file.task.kind() == kind)?;
    let lines = Lines::read(start)?;
    let (of, known) = (lines.len(), lines.shared(train));
    (known < of).then(|| {
        let message = format!(
            "{} was trained on {} lines, and {} of them are not in this data: the new file will forget much of what it learned \
             from them. To keep it, train on the old and the new lines together",
            start.display(),
            count(of),
            count(of - known)
        );
        Warning::new(WarningKind::StartForgets, message)
    })
}

/// Labels with too few examples.
fn labels(train: &[Example]) -> Option<Warning> {
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    train.iter().filter_map(|e| e.label.as_deref()).for_each(|label| *of.entry(label).or_default() += 1);
    if train.len() < FEW * of.len() {
        return Some(Warning::new(
            WarningKind::ManyLabels,
            format!(
                "{} labels in {} examples: fewer than {FEW} of each on average. Give more, or merge labels",
                count(of.len()),
                count(train.len())
            ),
        ));
    }
    let rare: Vec<&str> = of.iter().filter(|(_, n)| **n == 1).map(|(label, _)| *label).collect();
    (!rare.is_empty()).then(|| {
        let names: Vec<String> = rare.iter().take(NAMED).map(|l| format!("`{}`", shorten(l, 40))).collect();
        let more = rare.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Warning::new(
            WarningKind::RareLabels,
            format!(
                "only one example of {}{more}: hardly learned, and scored as wrong. Give more examples, or merge labels",
                names.join(", ")
            ),
        )
    })
}

/// Equal texts with different labels.
fn conflicts(train: &[Example]) -> Option<Warning> {
    let mut first: BTreeMap<(&str, Option<&str>), &Example> = BTreeMap::new();
    let mut lines = Vec::new();
    for e in train {
        let seen = *first.entry((&e.text_a, e.text_b.as_deref())).or_insert(e);
        if seen.label != e.label {
            lines.push(format!("{} and {}", seen.line, e.line));
        }
    }
    (!lines.is_empty()).then(|| {
        let n = lines.len();
        let example = &lines[..n.min(NAMED)].join(", ");
        Warning::new(
            WarningKind::ConflictingLabels,
            format!("{} texts have two labels (lines {example}): the model cannot learn both", count(n)),
        )
    })
}

/// Examples without text.
fn empty(train: &[Example]) -> Option<Warning> {
    let is_empty =
        |e: &&Example| e.text_a.trim().is_empty() && e.text_b.as_deref().unwrap_or("").trim().is_empty();
    let lines: Vec<String> = train.iter().filter(is_empty).map(|e| e.line.to_string()).collect();
    (!lines.is_empty()).then(|| {
        let (n, some) = (lines.len(), lines[..lines.len().min(NAMED)].join(", "));
        Warning::new(
            WarningKind::EmptyTexts,
            format!(
                "{} examples have no text (lines {some}): remove them, or check the text column",
                count(n)
            ),
        )
    })
}

/// What the tokenizer makes of a sample.
fn tokens(model: &Model, train: &[Example]) -> Vec<Warning> {
    let Some(seen) = model.tokens_of(&sample(train, SAMPLE).collect::<Vec<_>>()) else { return Vec::new() };
    let mut found = Vec::new();
    let unknown = seen.unknown as f64 / seen.tokens.max(1) as f64;
    if unknown > UNKNOWN {
        found.push(Warning::new(
            WarningKind::UnknownTokens,
            format!(
                "{:.0} % of the tokens are unknown to this model's vocabulary: it was made for another language or \
                 script. Use a multilingual checkpoint",
                100.0 * unknown
            ),
        ));
    }
    let truncated = seen.truncated as f64 / seen.texts.max(1) as f64;
    if truncated >= TRUNCATED {
        let share = 100.0 * truncated;
        let most = model.max_len() * if model.pooling() == Pooling::Windows { WINDOWS_MAX } else { 1 };
        found.push(Warning::new(
            WarningKind::TruncatedTexts,
            format!(
                "{share:.0} % of the texts are longer than {most} tokens and are truncated. If what matters stands further \
                 back, raise the maximum length (max_len), up to {} for this model, or read windows (pool)",
                model.base().config().seq_max()
            ),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(label: &str, text: &str, line: usize) -> Example {
        Example { text_a: text.into(), label: Some(label.into()), line, ..Example::default() }
    }

    #[test]
    fn labels_with_few_examples() {
        let of = |labels: &[&str]| {
            let all: Vec<Example> =
                labels.iter().enumerate().map(|(i, l)| example(l, &i.to_string(), i)).collect();
            super::labels(&all)
        };
        assert_eq!(of(&["a", "b", "a", "b", "a", "b"]), None);
        let rare =
            of(&["a", "a", "a", "b", "b", "b", "b", "c"]).unwrap_or_else(|| panic!("`c` is there once"));
        assert_eq!(rare.kind, WarningKind::ManyLabels, "8 lines of 3 labels: {}", rare.message);
        let rare = of(&["a", "a", "a", "a", "b", "b", "b", "b", "c"]).unwrap();
        assert_eq!(rare.kind, WarningKind::RareLabels);
        assert!(rare.message.starts_with("only one example of `c`:"), "{}", rare.message);
    }

    #[test]
    fn conflicting_and_empty_texts_are_named_by_line() {
        let all = [
            example("a", "same", 2),
            example("b", "other", 3),
            example("b", "same", 4),
            example("a", " ", 5),
        ];
        assert!(conflicts(&all).unwrap().message.contains("(lines 2 and 4)"));
        assert!(conflicts(&all[..2]).is_none());
        assert!(empty(&all).unwrap().message.contains("(lines 5)"));
        assert!(empty(&all[..3]).is_none());
    }
}
