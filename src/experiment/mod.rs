//! The experiments of the BitFit paper (Ben-Zaken et al. 2022) on data of one's own: subsets of biases beside all of them and
//! beside a head alone, fewer examples (figure 2), and which biases changed (figure 1).
//!
//! A [`Setup`] says what one row of a table is; [`Lab::run`] trains it with one seed; [`Findings`] turns runs into tables.

mod findings;

pub use findings::{Findings, Row, Spread};

use crate::data::Example;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::params::{Role, Term, Terms};
use crate::quant::Base;
use crate::task::Task;
use crate::text::count;
use crate::train::backward::Selection;
use crate::train::metrics::Metrics;
use crate::train::{Progress, TrainConfig, batches};
use crate::{Model, Options};
use std::fmt;
use std::ops::ControlFlow;

/// What differs from row to row: what is trained, and on how many examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The biases; none for the head alone.
    pub terms: Terms,
    /// Of their values only so many, drawn by the seed.
    pub values: Option<usize>,
    /// Examples to learn from, drawn by the seed where there are more.
    pub examples: usize,
}

impl Setup {
    /// All biases, learning from `examples`.
    pub fn all(examples: usize) -> Setup {
        Setup { terms: Terms::all(), values: None, examples }
    }

    /// A head above the frozen encoder.
    pub fn head_only(examples: usize) -> Setup {
        Setup { terms: Terms::none(), values: None, examples }
    }

    /// The paper's table of subsets: all biases; the intermediate layer's and the queries', which it found to be enough, together
    /// and alone; as many single values of all biases as these two have. (The paper draws those from all weights, but here the
    /// weights are frozen in int8.) Beside them the values' biases alone (BEFT) and the layer norms', and, where there is a
    /// head, the head alone.
    pub fn subsets(graph: &Graph, examples: usize) -> Vec<Setup> {
        use Term::{EmbLn, Ln1, Ln2, M2, Q, V};
        let of = |terms: &[Term]| Setup { terms: terms.iter().copied().collect(), ..Setup::all(examples) };
        let two = of(&[M2, Q]);
        let random = Setup { values: Some(two.biases(graph)), ..Setup::all(examples) };
        let mut rows =
            vec![Setup::all(examples), two, random, of(&[M2]), of(&[Q]), of(&[V]), of(&[EmbLn, Ln1, Ln2])];
        rows.extend(has_head(graph).then(|| Setup::head_only(examples)));
        rows
    }

    /// All biases and, where there is a head, the head alone, at each number of examples.
    pub fn sizes(graph: &Graph, sizes: &[usize]) -> Vec<Setup> {
        let mut rows = Vec::new();
        for n in sizes {
            rows.push(Setup::all(*n));
            rows.extend(has_head(graph).then(|| Setup::head_only(*n)));
        }
        rows
    }

    /// The same on other numbers of examples.
    fn with(&self, examples: usize) -> Setup {
        Setup { examples, ..self.clone() }
    }

    /// Number of bias values that it trains.
    pub fn biases(&self, graph: &Graph) -> usize {
        let selection = Selection::new(self.terms.clone(), 0..graph.layers(), graph.layers());
        selection.count(graph.layout()).0.min(self.values.unwrap_or(usize::MAX))
    }
}

/// As it is named in tables: `all biases`, `q,m2`, `11,520 random values`, `head only`.
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values {
            Some(values) => write!(f, "{} random values", count(values)),
            None if self.terms == Terms::none() => f.write_str("head only"),
            None if self.terms == Terms::all() => f.write_str("all biases"),
            None => write!(f, "{}", self.terms),
        }
    }
}

fn has_head(graph: &Graph) -> bool {
    graph.labels() > 0
}

/// Numbers of examples to try: 50, twice that, and so on below `examples`, and `examples` itself.
pub fn doubling(examples: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        std::iter::successors(Some(50usize), |n| n.checked_mul(2)).take_while(|n| *n < examples).collect();
    sizes.push(examples);
    sizes
}

/// What stays the same from row to row.
pub struct Lab<'a> {
    /// The frozen encoder.
    pub base: &'a Base,
    /// What is learned.
    pub task: &'a Task,
    /// How models are set up.
    pub options: &'a Options,
    /// How they learn from so many examples; terms, values and seed are each run's own.
    pub config: &'a dyn Fn(usize) -> TrainConfig,
    /// Examples to learn from.
    pub train: &'a [Example],
    /// Held-out examples to score on.
    pub dev: &'a [Example],
}

/// What a row gave with one seed.
#[derive(Clone, Debug)]
pub struct Run {
    /// Decided which examples and values were drawn, the head's first values, the order of the data and the dropout.
    pub seed: u64,
    /// Scores of the kept epoch; `None` where training diverged.
    pub scores: Option<Metrics>,
    /// Seconds spent training, without evaluation.
    pub train_s: f64,
    /// Mean |b - b0| of every bias.
    pub change: Vec<(Role, f64)>,
}

impl Lab<'_> {
    /// Trains a model of its own for `setup`, from the base's biases; `None` where `on_progress` ended it.
    ///
    /// Errors: as [`Model::new`] and [`Model::train`]. A run that diverges is no error: it has no scores.
    pub fn run(
        &self,
        setup: &Setup,
        seed: u64,
        on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send,
    ) -> Result<Option<Run>> {
        let drawn = batches::draw(0..self.train.len(), setup.examples, seed);
        let examples: Vec<Example> = drawn.into_iter().map(|i| self.train[i].clone()).collect();
        let config = TrainConfig {
            terms: setup.terms.clone(),
            values: setup.values,
            seed,
            ..(self.config)(examples.len())
        };
        let mut model = Model::new(self.base, self.task.clone(), self.options)?;
        let run = |scores, train_s, change| Ok(Some(Run { seed, scores, train_s, change }));
        match model.train(&examples, Some(self.dev), &config, on_progress) {
            Ok(report) if report.interrupted => Ok(None),
            Ok(report) => run(report.scores().cloned(), report.train_s, model.bias_change()),
            Err(Error::Diverged(_)) => run(None, 0.0, Vec::new()),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_double_up_to_all() {
        assert_eq!(doubling(300), [50, 100, 200, 300]);
        assert_eq!(doubling(100), [50, 100]);
        assert_eq!(doubling(50), [50]);
        assert_eq!(doubling(7), [7]);
    }
}
