//! How examples are read if nobody says: pairs as one sequence or apart, long texts truncated or in windows.

use super::{Model, Options};
use crate::config::Pooling;
use crate::data::Example;
use crate::error::Result;
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::train::folds::PROBE_FOLDS;
use crate::train::{self, FEATURE_ROWS, Head, MANY, TrainConfig};

/// Two ways to read the same examples, by the loss of a linear probe on examples that it has not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// What is chosen between.
    pub choice: Ways,
    /// Loss if they are read as the base asks.
    pub usual: f64,
    /// Loss if they are read the other way.
    pub other: f64,
    /// Number of examples.
    pub examples: usize,
}

/// What is chosen between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Pairs as one sequence (cross-encoder), or apart ([`Pooling::Apart`], bi-encoder).
    Pairs,
    /// Long texts truncated to one sequence, or in windows ([`Pooling::Windows`]).
    LongTexts,
}

/// With [`MANY`] pairs the biases learn to compare two texts within one sequence. The probe cannot show that, because its
/// encoder is frozen. So many pairs are read apart only if the probe's loss is lower than this share of the other.
const FAR_LOWER: f64 = 0.75;
/// Share of truncated texts from which windows are tried, and from which truncation is worth a warning.
pub(crate) const TRUNCATED: f64 = 0.1;
/// Texts that are tokenized to find that share.
pub(crate) const SAMPLE: usize = 500;

impl Reading {
    /// Whether the other way is chosen.
    pub fn is_other(self) -> bool {
        let least = match self.choice {
            Ways::Pairs if self.examples >= MANY => FAR_LOWER,
            _ => 1.0,
        };
        self.other < least * self.usual
    }
}

impl Ways {
    /// What there is to choose for these examples.
    fn of(base: &Base, task: &Task, train: &[Example], options: &Options) -> Result<Option<(Ways, Pooling)>> {
        let is_asked = matches!(task.kind(), Kind::Classify | Kind::Multilabel | Kind::Regress);
        if !is_asked || options.pooling.is_some() {
            return Ok(None);
        }
        if train.iter().all(|e| e.text_b.as_deref().is_some_and(|b| !b.is_empty())) {
            return Ok(Some((Ways::Pairs, Pooling::Apart)));
        }
        if train.iter().any(|e| e.text_b.is_some()) {
            return Ok(None);
        }
        let model = Model::new(base, task.clone(), options)?;
        let seen = model.tokens_of(&sample(train, SAMPLE).collect::<Vec<_>>());
        let long = seen.is_some_and(|seen| seen.truncated as f64 >= TRUNCATED * seen.texts as f64);
        Ok(long.then_some((Ways::LongTexts, Pooling::Windows)))
    }
}

/// At most about `most` examples, taken evenly.
pub(crate) fn sample(train: &[Example], most: usize) -> impl Iterator<Item = &Example> {
    train.iter().step_by(train.len().div_ceil(most).max(1))
}

impl Model {
    /// Chooses `options.pooling`: fits a linear probe to these examples (to some, if there are thousands), read in either
    /// way. `None`, and `options` as they are, if there is nothing to choose: they say how, no text is long, some
    /// examples are pairs and some are not, or the task has no head that reads one vector.
    ///
    /// Errors: those of [`Model::new`]; examples that do not fit the task; less than it takes of `memory`, in bytes, on
    /// which what is chosen does not depend.
    pub fn choose_reading(
        base: &Base,
        task: &Task,
        train: &[Example],
        options: &mut Options,
        memory: Option<usize>,
    ) -> Result<Option<Reading>> {
        let Some((choice, pooling)) = Ways::of(base, task, train, options)? else { return Ok(None) };
        // As many as a head is fitted to, so that no more are tokenized.
        let some: Vec<Example> = sample(train, FEATURE_ROWS).cloned().collect();
        let config = TrainConfig { head: Head::Fitted, ..TrainConfig::default() };
        let loss = |pooling| {
            let model = Model::new(base, task.clone(), &Options { pooling, ..options.clone() })?;
            let cut = match memory {
                Some(_) => Some(model.memory(&some, None, &config, memory)?.cut),
                None => None,
            };
            let (data, config) = (model.in_units(&some, None)?.0, TrainConfig { cut, ..config.clone() });
            let fit = model
                .pool
                .install(|| train::fit(&model.wired.graph, &model.theta, &data, &config, PROBE_FOLDS))?;
            Ok(fit.map(|(probe, _)| probe.loss))
        };
        let (usual, other) = (loss(None)?, loss(Some(pooling))?);
        let examples = train.len();
        let found = usual.zip(other).map(|(usual, other)| Reading { choice, usual, other, examples });
        options.pooling = found.is_some_and(Reading::is_other).then_some(pooling);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pairs_are_read_apart_only_where_a_head_says_so_clearly() {
        let is_other = |choice, examples, other, usual| Reading { choice, usual, other, examples }.is_other();
        assert!(is_other(Ways::Pairs, MANY - 1, 0.59, 0.6));
        assert!(!is_other(Ways::Pairs, MANY - 1, 0.6, 0.6));
        assert!(!is_other(Ways::Pairs, MANY, 0.46, 0.6));
        assert!(is_other(Ways::Pairs, MANY, 0.44, 0.6));
        assert!(is_other(Ways::LongTexts, MANY, 0.59, 0.6));
    }
}
