//! What a run without settings chooses by its examples, on the command line and in the C library alike.

use super::{Head, TrainConfig};
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::task::{Kind, Task};
use std::path::Path;

/// Share of the examples that is set aside to score on.
const HOLD_OUT: f64 = 0.1;
/// Fewest examples of which some are set aside unasked: the score of less than 20 would say little.
const HOLD_OUT_FROM: usize = 200;
/// So many examples that a head fitted to them is a good start, and the peak learning rate from there.
pub(crate) const MANY: usize = 2000;
const MANY_LR: f64 = 2e-3;
/// Pairs a step where the texts of a batch are compared with one another, so that it decides more than how large a step is.
const PAIRS: usize = 16;
/// Fewest texts a step where the texts of a batch are compared by their labels.
const COMPARED: usize = 8;
/// Peak learning rate where the texts of a pair are read apart.
const APART_LR: f64 = 1e-3;

/// Passes over so many examples that give both the few and the many enough steps.
pub fn epochs_for(examples: usize) -> usize {
    (4000 / examples.max(1)).clamp(3, 20)
}

/// Texts a step for so many examples, so that [`epochs_for`] makes some 500 steps or more of them: few large steps learn
/// less from few examples.
pub fn batch_for(examples: usize) -> usize {
    examples.saturating_mul(epochs_for(examples)).div_ceil(500).clamp(4, 16)
}

/// Epochs without a better score on dev after which a run ends: behind so many few found a better one in what was measured,
/// and about half of 20 epochs over 100 examples are saved.
const PATIENCE: usize = 5;

/// So many labels that each row of the head learns from the examples of its own above all.
const MANY_LABELS: usize = 10;

/// Peak learning rate for so many examples: twice as high where there are many labels and fewer than ten examples of each.
/// With as few examples of two or four labels such a rate learns less: now and then a run then goes astray.
pub fn lr_for(examples: usize, labels: usize) -> f64 {
    if has_few_of_many_labels(examples, labels) { 6e-3 } else { 3e-3 }
}

/// Whether there are many labels and fewer than ten examples of each.
pub fn has_few_of_many_labels(examples: usize, labels: usize) -> bool {
    labels >= MANY_LABELS && examples < 10 * labels
}

/// How a run goes through its examples, which decides what is chosen for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Each by itself.
    Single,
    /// Each token by itself.
    Tokens,
    /// The pairs of a batch are compared with one another (contrastive).
    Batches,
    /// Each is a pair whose texts are read apart ([`Pooling::Apart`]).
    Apart,
    /// The texts of a batch are compared by their labels (SetFit).
    Compared,
}

impl Schedule {
    /// Of a task and how its texts become vectors.
    pub fn of(task: &Task, pooling: Pooling) -> Schedule {
        match task.kind() {
            Kind::Contrastive => Schedule::Batches,
            kind if kind.reads_tokens() => Schedule::Tokens,
            _ if pooling == Pooling::Apart => Schedule::Apart,
            _ => Schedule::Single,
        }
    }
}

impl TrainConfig {
    /// Epochs, batch, learning rate and where the head begins, for so many examples of `labels` labels; 0 where there are
    /// none.
    pub fn chosen(examples: usize, labels: usize, course: Schedule) -> TrainConfig {
        let chosen = TrainConfig {
            epochs: epochs_for(examples),
            lr: lr_for(examples, labels),
            batch: batch_for(examples),
            patience: Some(PATIENCE),
            ..TrainConfig::default()
        };
        let fitted = |lr| TrainConfig { lr, head: Head::Fitted, ..chosen.clone() };
        let are_many = examples >= MANY && !has_few_of_many_labels(examples, labels);
        match course {
            Schedule::Single if are_many => fitted(MANY_LR),
            Schedule::Single | Schedule::Tokens => chosen,
            Schedule::Batches => TrainConfig { batch: PAIRS, ..chosen },
            Schedule::Compared => TrainConfig { batch: chosen.batch.max(COMPARED), ..chosen },
            // A head above frozen texts compares them well already: smaller steps from there lose less of it.
            Schedule::Apart => fitted(APART_LR),
        }
    }

    /// The same with so many epochs, where they are given: none of them is saved then.
    pub fn with_epochs(self, epochs: Option<usize>) -> TrainConfig {
        match epochs {
            Some(epochs) => TrainConfig { epochs, patience: None, ..self },
            None => self,
        }
    }
}

/// What is learned from, and what is scored on, where both come from the same examples: `share` of them, by custom a
/// tenth of 200 or more.
///
/// `None` where nothing is set aside: so few examples, a share of 0, or none left to learn some answer from.
pub fn hold_out(
    kind: Kind,
    examples: Vec<Example>,
    share: Option<f64>,
    seed: u64,
) -> (Vec<Example>, Option<Vec<Example>>) {
    let n = examples.len();
    let share = share.unwrap_or(if n < HOLD_OUT_FROM { 0.0 } else { HOLD_OUT });
    if share == 0.0 || n < 2 {
        return (examples, None);
    }
    let neighbours = matches!(kind, Kind::Qa | Kind::Mlm);
    let (learned, scored) = data::hold_out(examples.clone(), share, seed, neighbours);
    match kind.of(&learned, Path::new("the examples")) {
        Ok(_) => (learned, Some(scored)),
        Err(_) => (examples, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(n: usize, label: impl Fn(usize) -> &'static str) -> Vec<Example> {
        let one = |i: usize| Example {
            text_a: i.to_string(),
            label: Some(label(i).into()),
            line: i + 2,
            ..Example::default()
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn every_tenth_of_many_is_set_aside() {
        let of = |n, share| {
            let (learned, scored) = hold_out(Kind::Classify, examples(n, |i| ["a", "b"][i % 2]), share, 0);
            (learned.len(), scored.map(|s| s.len()))
        };
        assert_eq!(of(199, None), (199, None));
        assert_eq!(of(200, None), (180, Some(20)));
        assert_eq!(of(200, Some(0.0)), (200, None));
        assert_eq!(of(20, Some(0.25)), (15, Some(5)));
    }

    #[test]
    fn nothing_is_set_aside_where_an_answer_would_be_lost() {
        // Whichever it is: with one of two left there is nothing to tell apart.
        let (learned, scored) = hold_out(Kind::Classify, examples(2, |i| ["a", "b"][i]), Some(0.5), 0);
        assert_eq!((learned.len(), scored), (2, None));
    }

    #[test]
    fn each_course_has_its_own_choice() {
        let of = |examples, labels, course| {
            let chosen = TrainConfig::chosen(examples, labels, course);
            (chosen.batch, chosen.epochs, chosen.lr, chosen.head)
        };
        assert_eq!(of(29, 3, Schedule::Single), (4, 20, 3e-3, Head::Random));
        assert_eq!(of(99, 10, Schedule::Single), (4, 20, 6e-3, Head::Random));
        assert_eq!(of(100, 10, Schedule::Single).2, 3e-3);
        assert_eq!(of(1000, 3, Schedule::Single), (8, 4, 3e-3, Head::Random));
        assert_eq!(of(2000, 3, Schedule::Single), (12, 3, 2e-3, Head::Fitted));
        assert_eq!(of(2000, 300, Schedule::Single).2, 6e-3);
        assert_eq!(of(5000, 9, Schedule::Tokens).2, 3e-3);
        assert_eq!(of(5, 0, Schedule::Single).2, 3e-3);
        assert_eq!(of(100, 0, Schedule::Batches), (PAIRS, 20, 3e-3, Head::Random));
        assert_eq!(of(5000, 0, Schedule::Batches), (PAIRS, 3, 3e-3, Head::Random));
        assert_eq!(of(29, 3, Schedule::Apart), (4, 20, 1e-3, Head::Fitted));
        assert_eq!(Schedule::of(&Task::Regress, Pooling::Apart), Schedule::Apart);
        assert_eq!(Schedule::of(&Task::Contrastive, Pooling::Mean), Schedule::Batches);
        assert_eq!(Schedule::of(&Task::Qa, Pooling::Mean), Schedule::Tokens);
    }
}
