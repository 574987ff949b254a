//! How pairs of texts are read where nobody says: together, as one sequence, or apart and then compared.

use super::{Options, Personal};
use crate::config::Pooling;
use crate::data::Example;
use crate::error::Result;
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::train::folds::PROBE_FOLDS;
use crate::train::{self, FEATURE_ROWS, Head, MANY, TrainConfig};

/// What a head makes of pairs, by the loss of each answer by a head that has not seen it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairing {
    /// Loss of a head above pairs that are read together.
    pub together: f64,
    /// The same of pairs that are read apart ([`Pooling::Apart`]).
    pub apart: f64,
    /// How many pairs there are.
    pub examples: usize,
}

/// Where there are [`MANY`] pairs, biases learn to compare the texts within one sequence, which a head above frozen ones
/// knows nothing of: they are read apart only if its loss is lower than this share of the other.
const FAR_LOWER: f64 = 0.75;

impl Pairing {
    /// Whether pairs are best read apart; otherwise as the base asks for.
    pub fn is_apart(self) -> bool {
        let least = if self.examples < MANY { 1.0 } else { FAR_LOWER };
        self.apart < least * self.together
    }
}

impl Personal {
    /// Chooses `options.pooling` for pairs: fits a head to these examples (of thousands to some), read in either way, and tells
    /// what it makes of them. `None`, and `options` as they are, where there is nothing to choose: they say how, an example
    /// is no pair or its second text is empty, or the task has no head that reads a pair.
    ///
    /// Errors: those of [`Personal::new`]; examples that do not fit the task; less than it takes of `memory`, in bytes, on
    /// which what is chosen does not depend.
    pub fn choose_pairing(
        base: &Base,
        task: &Task,
        train: &[Example],
        options: &mut Options,
        memory: Option<usize>,
    ) -> Result<Option<Pairing>> {
        let is_asked = matches!(task.kind(), Kind::Classify | Kind::Multilabel | Kind::Regress);
        if !is_asked
            || options.pooling.is_some()
            || train.iter().any(|e| e.text_b.as_deref().is_none_or(str::is_empty))
        {
            return Ok(None);
        }
        // As many as a head is fitted to, so that no more are tokenized.
        let every = train.len().div_ceil(FEATURE_ROWS).max(1);
        let some: Vec<Example> = train.iter().step_by(every).cloned().collect();
        let config = TrainConfig { head: Head::Fitted, ..TrainConfig::default() };
        let loss = |pooling| {
            let model = Personal::new(base, task.clone(), &Options { pooling, ..options.clone() })?;
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
        let (together, apart) = (loss(None)?, loss(Some(Pooling::Apart))?);
        let examples = train.len();
        let found = together.zip(apart).map(|(together, apart)| Pairing { together, apart, examples });
        options.pooling = found.is_some_and(Pairing::is_apart).then_some(Pooling::Apart);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pairs_are_read_apart_only_where_a_head_says_so_clearly() {
        let is_apart = |examples, apart, together| Pairing { together, apart, examples }.is_apart();
        assert!(is_apart(MANY - 1, 0.59, 0.6));
        assert!(!is_apart(MANY - 1, 0.6, 0.6));
        assert!(!is_apart(MANY, 0.46, 0.6));
        assert!(is_apart(MANY, 0.44, 0.6));
    }
}
