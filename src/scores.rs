//! Scores by name. A task lists the names of its scores, the main one first. Whoever prints, compares or passes scores on goes
//! through that list, so no other code knows which scores a task has.

use serde::de::{Deserializer, Error as _};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which values of a score are the better ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher ones.
    Higher,
    /// The lower ones.
    Lower,
    /// Neither: a number that belongs to the scores, and is not shown beside them.
    Neither,
}

/// How a score is written for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A share, as `97.1 %`.
    Percent,
    /// A number with as many digits after the point.
    Number(usize),
}

/// A score that a task has.
#[derive(Debug)]
pub struct ScoreName {
    /// As programs see it: `macro_f1`.
    pub name: &'static str,
    /// As people see it: `macro F1`. Empty for a score that is only for programs.
    pub title: &'static str,
    /// Which values are the better ones.
    pub better: Better,
    /// How it is written for people.
    pub form: Form,
    /// Whether differences of it are told in points of a percent.
    pub in_points: bool,
    /// The score that decides while this one is 0: some scores stay 0 for a while although the model learns.
    pub while_zero: Option<&'static str>,
}

impl ScoreName {
    /// A share of right answers, the higher the better.
    pub(crate) const fn share(name: &'static str, title: &'static str) -> ScoreName {
        let form = Form::Percent;
        ScoreName { name, title, better: Better::Higher, form, in_points: true, while_zero: None }
    }

    /// An F1 or a rank score: 0 to 1, the higher the better.
    pub(crate) const fn of_one(name: &'static str, title: &'static str) -> ScoreName {
        let form = Form::Number(3);
        ScoreName { name, title, better: Better::Higher, form, in_points: true, while_zero: None }
    }

    /// A correlation, from -1 to 1, the higher the better.
    pub(crate) const fn correlation(name: &'static str, title: &'static str) -> ScoreName {
        ScoreName { in_points: false, ..ScoreName::of_one(name, title) }
    }

    /// A number of examples.
    pub(crate) const fn total(name: &'static str) -> ScoreName {
        let form = Form::Number(0);
        ScoreName { name, title: "", better: Better::Neither, form, in_points: false, while_zero: None }
    }

    /// A value as people read it: `97.1 %`, `0.970`.
    pub fn show(&self, value: f64) -> String {
        match self.form {
            Form::Percent => format!("{:.1} %", 100.0 * value),
            Form::Number(digits) => format!("{value:.digits$}"),
        }
    }
}

/// One label a text. `f1` is the F1 of the second label where there are two labels (`average="binary"`), else `macro_f1`, the
/// mean F1 over the labels that are in the truth or among the predictions (`average="macro"`). `mcc` is Matthews' correlation,
/// with more than two labels Gorodkin's R_K (2004).
pub static CLASSIFY: [ScoreName; 4] = [
    ScoreName::share("accuracy", "accuracy"),
    ScoreName::of_one("f1", ""),
    ScoreName::of_one("macro_f1", "macro F1"),
    ScoreName::correlation("mcc", ""),
];

/// Any number of labels a text. `micro_f1` is over all pairs of a text and a label (`average="micro"`); `macro_f1` as for
/// [`CLASSIFY`]; `accuracy` is the share of texts that have all their labels right.
pub static MULTILABEL: [ScoreName; 3] = [
    ScoreName::of_one("micro_f1", "micro F1"),
    ScoreName::of_one("macro_f1", "macro F1"),
    ScoreName::share("accuracy", "all labels right"),
];

/// A number a text: Pearson's correlation, and Spearman's of ranks.
pub static REGRESS: [ScoreName; 2] =
    [ScoreName::correlation("pearson", "Pearson"), ScoreName::correlation("spearman", "Spearman")];

/// A tag a token. `span_f1` is over the whole spans of all texts, as `seqeval` counts them by default ([`crate::spans`]). It is 0
/// where tags have no prefixes. `accuracy` is the share of tokens with the right tag.
pub static TAG: [ScoreName; 2] = [
    ScoreName { while_zero: Some("accuracy"), ..ScoreName::of_one("span_f1", "span F1") },
    ScoreName::share("accuracy", "accuracy"),
];

/// Pairs of texts: to each first text all second ones are ranked. `recall_at_1` is the share of first texts to which their own
/// second one is the nearest; `mrr` the mean of `1 / rank` of their own second one.
pub static CONTRASTIVE: [ScoreName; 2] =
    [ScoreName::share("recall_at_1", "recall@1"), ScoreName::of_one("mrr", "MRR")];

/// Hidden words. `perplexity` is `e^loss`: among as many words, each as likely as the others, the guess would be as hard. It is
/// the main score, since most words improve without becoming the likeliest of all; `accuracy` is the share that is guessed.
pub static MLM: [ScoreName; 2] = [
    ScoreName {
        better: Better::Lower,
        form: Form::Number(2),
        ..ScoreName::correlation("perplexity", "perplexity")
    },
    ScoreName::share("accuracy", "accuracy"),
];

/// One answer to each question ([`crate::train::answers`]). `exact_match` is the share of answers that are right but for articles,
/// punctuation, spaces and case; `f1` the mean F1 of the words shared with the answer that is nearest. The others are those
/// of SQuAD 2.0's script, by its names: of the questions that have an answer, and of those that have none.
pub static QA: [ScoreName; 9] = [
    ScoreName::of_one("f1", "F1"),
    ScoreName::share("exact_match", "exact match"),
    ScoreName::share("exact", ""),
    ScoreName::share("HasAns_exact", "exact match where there is an answer"),
    ScoreName::of_one("HasAns_f1", "F1 where there is an answer"),
    ScoreName::total("HasAns_total"),
    ScoreName::share("NoAns_exact", "unanswerable and right"),
    ScoreName::of_one("NoAns_f1", ""),
    ScoreName::total("NoAns_total"),
];

/// The scores of all tasks.
static ALL: [&[ScoreName]; 7] = [&CLASSIFY, &MULTILABEL, &REGRESS, &TAG, &CONTRASTIVE, &MLM, &QA];

/// The scores of a task, the main one first. A score of nothing, such as that of unanswerable questions where there are none,
/// is left out.
#[derive(Clone, Debug)]
pub struct Scores {
    names: &'static [ScoreName],
    values: Vec<Option<f64>>,
}

impl Scores {
    /// Values in the order of `names`, and `None` for those that are missing at the end.
    pub(crate) fn new(names: &'static [ScoreName], values: impl IntoIterator<Item = Option<f64>>) -> Scores {
        let mut values: Vec<Option<f64>> = values.into_iter().collect();
        values.resize(names.len(), None);
        Scores { names, values }
    }

    /// The same where there is a value for each.
    pub(crate) fn all(names: &'static [ScoreName], values: impl IntoIterator<Item = f64>) -> Scores {
        Scores::new(names, values.into_iter().map(Some))
    }

    /// Each score with its name, the main one first.
    pub fn iter(&self) -> impl Iterator<Item = (&'static ScoreName, f64)> {
        self.names.iter().zip(&self.values).filter_map(|(name, value)| Some((name, (*value)?)))
    }

    /// A score by its name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(n, _)| n.name == name).map(|(_, value)| value)
    }

    /// The name of the main score.
    pub fn main_name(&self) -> &'static ScoreName {
        &self.names[0]
    }

    /// The main score as it is shown.
    pub fn main_value(&self) -> f64 {
        self.values[0].unwrap_or(0.0)
    }

    /// What models are compared by, the higher the better: the main score; its inverse if lower is better; while it is 0, how
    /// far the score that decides then is from 1, below 0.
    pub fn main(&self) -> f64 {
        let (name, value) = (self.main_name(), self.main_value());
        match (name.better, name.while_zero) {
            (Better::Lower, _) => 1.0 / value,
            (_, Some(other)) if value == 0.0 => self.get(other).unwrap_or(1.0) - 1.0,
            _ => value,
        }
    }
}

impl PartialEq for Scores {
    fn eq(&self, other: &Scores) -> bool {
        std::ptr::eq(self.names, other.names) && self.values == other.values
    }
}

/// `accuracy 97.1 %, macro F1 0.970`
impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A main score that is 0 while another one decides is not told: it may not apply to this data at all.
        let told = |(name, value): &(&ScoreName, f64)| {
            !name.title.is_empty() && (name.while_zero.is_none() || *value != 0.0)
        };
        for (i, (name, value)) in self.iter().filter(told).enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", name.title, name.show(value))?;
        }
        Ok(())
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, value) in self.iter() {
            match name.better {
                Better::Neither => map.serialize_entry(name.name, &(value as u64))?,
                _ => map.serialize_entry(name.name, &value)?,
            }
        }
        map.end()
    }
}

/// Finds the task by the names: it is the one that has them all, the main one among them.
impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scores, D::Error> {
        let mut values = BTreeMap::<String, f64>::deserialize(from)?;
        let has = |names: &[ScoreName]| {
            let known = values.keys().all(|key| names.iter().any(|name| name.name == key));
            known && values.contains_key(names[0].name)
        };
        let found = ALL.iter().copied().find(|names| has(names));
        let names = found.ok_or_else(|| D::Error::custom("scores of no known task"))?;
        Ok(Scores::new(names, names.iter().map(|name| values.remove(name.name))))
    }
}
