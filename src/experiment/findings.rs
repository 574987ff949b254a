//! Runs as tables and plots: means and standard deviations over the seeds.

use super::{Run, Setup};
use crate::graph::Graph;
use crate::params::Role;
use crate::plots::{self, SizePoint};
use crate::quant::Base;
use crate::scores::Better;
use crate::task::Kind;
use crate::text::count;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Mean and standard deviation of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with Bessel's correction (`n - 1`), as of a sample; one value has none.
    pub deviation: Option<f64>,
}

impl Spread {
    /// `None` of no value.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        (!values.is_empty()).then_some(Spread { mean, deviation })
    }

    /// × 100, as scores stand in tables.
    fn hundredfold(self) -> Spread {
        Spread { mean: 100.0 * self.mean, deviation: self.deviation.map(|d| 100.0 * d) }
    }
}

/// `93.3 ± 1.2`
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.mean)?;
        self.deviation.map_or(Ok(()), |d| write!(f, " ± {d:.1}"))
    }
}

/// A setup and what it gave, a run a seed.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was trained.
    pub setup: Setup,
    /// How many values of biases that is.
    pub biases: usize,
    /// One for each seed, as far as they are done.
    pub runs: Vec<Run>,
}

impl Row {
    /// Seconds of training.
    fn seconds(&self) -> Option<Spread> {
        let scored = self.runs.iter().filter(|run| run.scores.is_some());
        Spread::of(&scored.map(|run| run.train_s).collect::<Vec<_>>())
    }

    /// A score; `None` where every run diverged.
    fn score(&self, name: &str) -> Option<Spread> {
        let scores = self.runs.iter().filter_map(|run| run.scores.as_ref()?.get(name));
        Spread::of(&scores.collect::<Vec<_>>())
    }

    /// Its score as a cell of a table.
    fn cell(&self, name: &str) -> String {
        let diverged = self.runs.iter().filter(|run| run.scores.is_none()).count();
        match (self.score(name).map(Spread::hundredfold), diverged) {
            (None, _) => "diverged".into(),
            (Some(score), 0) => score.to_string(),
            (Some(score), n) => format!("{score} ({n} of {} diverged)", self.runs.len()),
        }
    }
}

/// What is known so far. Its tables hold the rows with at least one finished run.
pub struct Findings {
    kind: Kind,
    layers: usize,
    parameters: usize,
    head: usize,
    rows: Vec<Row>,
}

impl Findings {
    /// Of no run yet; `rows` in the order of tables, each setup once.
    pub fn new(base: &Base, graph: &Graph, kind: Kind, setups: &[Setup]) -> Findings {
        let weights = base.tensors().into_iter().filter(|t| t.dtype != "U8" && !t.name.ends_with(".scale"));
        let head = graph.layout().head_weight().len() + graph.layout().head_bias().len();
        let mut rows: Vec<Row> = Vec::new();
        for setup in setups {
            if rows.iter().all(|row| row.setup != *setup) {
                rows.push(Row { setup: setup.clone(), biases: setup.biases(graph), runs: Vec::new() });
            }
        }
        let parameters = weights.map(|t| t.shape.iter().product::<usize>()).sum();
        Findings { kind, layers: graph.layers(), parameters, head, rows }
    }

    /// The rows, in their order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Adds a run of the setup of row `row`. Panics if there is no such row.
    pub fn add(&mut self, row: usize, run: Run) {
        self.rows[row].runs.push(run);
    }

    /// Name of the score that tells most: the task's first, or, where it is 0 in every run (that of spans, for tags which
    /// are none), the next.
    pub fn score_name(&self) -> &'static str {
        // Tables are of fractions.
        let names: Vec<&'static str> =
            self.kind.scores().iter().filter(|s| s.better == Better::Higher).map(|s| s.name).collect();
        let scored = || self.rows.iter().flat_map(|row| &row.runs).filter_map(|run| run.scores.as_ref());
        let tells = |name: &&&'static str| scored().any(|m| m.get(name).is_some_and(|v| v != 0.0));
        names.iter().find(tells).copied().unwrap_or(names[0])
    }

    /// The row of a setup, if it has a run.
    fn done(&self, setup: &Setup) -> Option<&Row> {
        self.rows.iter().find(|row| row.setup == *setup && !row.runs.is_empty())
    }

    /// Markdown: a line for each setup, with what it trained, its score and its time.
    pub fn subsets_table(&self, setups: &[Setup]) -> String {
        let name = self.score_name();
        let mut text = format!(
            "| trained | biases | share of all | {} × 100 | seconds |\n|---|--:|--:|--:|--:|\n",
            spaced(name)
        );
        for row in setups.iter().filter_map(|setup| self.done(setup)) {
            let share = 100.0 * row.biases as f64 / self.parameters.max(1) as f64;
            let seconds = row.seconds().map_or("–".into(), |s| format!("{:.1}", s.mean));
            let (biases, cell) = (count(row.biases), row.cell(name));
            text += &format!("| {} | {biases} | {share:.3} % | {cell} | {seconds} |\n", row.setup);
        }
        text += &format!("\nAll are the {} parameters of the encoder.", count(self.parameters));
        if self.head > 0 {
            text += &format!(" Every row trains the {} values of the head too.", count(self.head));
        }
        text + " Seconds are of training, without evaluation.\n"
    }

    /// Markdown: a line for each number of examples, a column for each thing trained.
    pub fn sizes_table(&self, setups: &[Setup]) -> String {
        let name = self.score_name();
        let (columns, sizes) = columns_and_sizes(setups);
        let names: String = columns.iter().map(|column| format!(" {column} |")).collect();
        let mut text = format!("| examples |{names}\n|--:|{}\n", "--:|".repeat(columns.len()));
        for size in sizes {
            let rows: Vec<_> = columns.iter().map(|column| self.done(&column.with(size))).collect();
            if rows.iter().any(Option::is_some) {
                let cell =
                    |row: &Option<&Row>| format!(" {} |", row.map_or("–".into(), |row| row.cell(name)));
                text += &format!("| {} |{}\n", count(size), rows.iter().map(cell).collect::<String>());
            }
        }
        format!("{text}\n{} × 100.\n", spaced(name))
    }

    /// SVG: the same as lines.
    pub fn sizes_plot(&self, setups: &[Setup]) -> String {
        let name = self.score_name();
        let (columns, sizes) = columns_and_sizes(setups);
        let point = |setup: Setup| {
            let Spread { mean, deviation } = self.done(&setup)?.score(name)?.hundredfold();
            Some(SizePoint { examples: setup.examples, score: mean, deviation: deviation.unwrap_or(0.0) })
        };
        let line = |column: &&Setup| {
            (column.to_string(), sizes.iter().filter_map(|size| point(column.with(*size))).collect())
        };
        let lines: Vec<(String, Vec<SizePoint>)> = columns.iter().map(line).collect();
        plots::score_by_size(&format!("{} × 100", spaced(name)), &lines)
    }

    /// Mean |b - b0| by term and layer, over the runs of `setup` that did not diverge; `None` where there is none.
    pub fn change(&self, setup: &Setup) -> Option<Vec<(String, Vec<Option<f64>>)>> {
        let runs: Vec<&Run> = self.done(setup)?.runs.iter().filter(|run| run.scores.is_some()).collect();
        let one = |(i, (role, _)): (usize, &(Role, f64))| {
            (*role, runs.iter().map(|run| run.change[i].1).sum::<f64>() / runs.len() as f64)
        };
        let mean: Vec<(Role, f64)> = runs.first()?.change.iter().enumerate().map(one).collect();
        Some(plots::by_term(self.layers, &mean))
    }

    /// Markdown: [`Findings::change`] with a column for each layer; empty where there is none.
    pub fn change_table(&self, setup: &Setup) -> String {
        let Some(rows) = self.change(setup) else { return String::new() };
        let layers: String = (0..self.layers).map(|l| format!(" {l} |")).collect();
        let mut text = format!("| layer |{layers}\n|---|{}\n", "--:|".repeat(self.layers));
        for (term, values) in &rows {
            let cells = values.iter().map(|v| v.map_or(" |".into(), |v| format!(" {:.2} |", 1000.0 * v)));
            text += &format!("| {term} |{}\n", cells.collect::<String>());
        }
        text + "\nMean change of a value, × 1000.\n"
    }

    /// SVG: [`Findings::change`] as a heat map.
    pub fn change_plot(&self, setup: &Setup) -> String {
        plots::bias_change(self.layers, &self.change(setup).unwrap_or_default())
    }

    /// The rows with their runs, for programs; scores are fractions, `change` has a number a layer for each term.
    pub fn json(&self) -> Value {
        let name = self.score_name();
        let run = |run: &Run| json!({ "seed": run.seed, "scores": run.scores, "train_s": run.train_s });
        let row = |row: &Row| {
            let score = row.score(name);
            json!({
                "trained": row.setup.to_string(),
                "terms": row.setup.terms.to_string(),
                "examples": row.setup.examples,
                "biases": row.biases,
                "mean": score.map(|s| s.mean),
                "deviation": score.and_then(|s| s.deviation),
                "change": self.change(&row.setup).map(BTreeMap::from_iter),
                "runs": row.runs.iter().map(run).collect::<Vec<_>>(),
            })
        };
        json!({
            "score": name,
            "parameters": self.parameters,
            "head": self.head,
            "rows": self.rows.iter().filter(|row| !row.runs.is_empty()).map(row).collect::<Vec<_>>(),
        })
    }
}

/// What differs but in the number of examples, and the numbers of examples: columns and rows of a table.
fn columns_and_sizes(setups: &[Setup]) -> (Vec<&Setup>, Vec<usize>) {
    let (mut columns, mut sizes): (Vec<&Setup>, Vec<usize>) = (Vec::new(), Vec::new());
    for setup in setups {
        if columns.iter().all(|column| column.with(setup.examples) != *setup) {
            columns.push(setup);
        }
        if !sizes.contains(&setup.examples) {
            sizes.push(setup.examples);
        }
    }
    (columns, sizes)
}

fn spaced(name: &str) -> String {
    name.replace('_', " ")
}
