//! How good a model is, as `train` and `eval` print it.

use super::terminal;
use std::fmt::Write as _;
use trimtab::Model;
use trimtab::data::Example;
use trimtab::recipe::{Assessment, Source, Trained};
use trimtab::train::Interval;
use trimtab::train::metrics::Metrics;

/// Most labels that are shown one by one.
const LABELS_MAX: usize = 20;
/// Characters of a text, and of a label in a table.
const TEXT_MAX: usize = 100;
const LABEL_MAX: usize = 24;
/// Precision whose share of answers is told.
const PRECISION: f64 = 0.95;

/// All of it, for people.
pub fn text(trained: &Trained, mistakes: usize) -> String {
    let Some(assessment) = &trained.assessment else {
        return "no score: with --effort normal (ten examples or more), --dev or --hold-out the model is scored".into();
    };
    let mut out = of(assessment, &trained.scored, mistakes);
    let sure = trained.model.confidence_for(PRECISION);
    if trained.model.knows_confidence() && assessment.source == Source::CrossValidation {
        let _ = match sure {
            Some(p) => write!(
                out,
                "\nOf the {:.0} % of texts that it is most confident of, {:.0} % are right; predict --min-precision {PRECISION} answers \
                 only these",
                100.0 * p.share,
                100.0 * PRECISION
            ),
            None => write!(out, "\nAt no confidence are {:.0} % of the answers right", 100.0 * PRECISION),
        };
    }
    if trained.comparison.is_some() {
        let _ = write!(out, "\n{}", compared(trained));
    }
    out
}

/// The existing file beside the new one; empty if they were not compared.
pub fn compared(trained: &Trained) -> String {
    let Some(c) = &trained.comparison else { return String::new() };
    let lead = match c.lead {
        Some(i) => format!(", 95 % interval {:+.3} to {:+.3}", -i.high, -i.low),
        None => String::new(),
    };
    let [old, new] = [&c.previous, &c.new].map(Metrics::main);
    format!(
        "on {} lines that neither file was trained on: the existing file {old:.3}, the new one {new:.3} ({:+.3}{lead})",
        terminal::count(c.examples),
        new - old
    )
}

/// How good answers are, for people.
pub fn of(a: &Assessment, scored: &[Example], mistakes: usize) -> String {
    let mut out = String::new();
    let examples = terminal::count(a.metrics.examples);
    let (name, percent) = (a.metrics.scores.main_name().name.replace('_', " "), a.is_in_percent());
    let what = match a.source {
        Source::CrossValidation => format!(
            "cross-validation: {examples} training lines, each answered by a model that has not seen it"
        ),
        Source::HeldOut => format!("{examples} held-out lines"),
        Source::Unseen | Source::PartlyTrained => format!("{examples} lines"),
    };
    let _ = write!(out, "{name} on {what}");
    if a.interval.is_some() {
        out += ", with 95 % intervals";
    }
    out.push(':');
    let shown = |v: f64| shown(v, percent);
    let range = |i: Option<Interval>| {
        i.map_or(String::new(), |i| format!("  ({} to {})", shown(i.low), shown(i.high)))
    };
    let main = |m: &Metrics| m.scores.main_value();
    let mut row = |what: &str, value: f64, i: Option<Interval>| {
        let _ = write!(out, "\n  {what:22} {:>8}{}", shown(value), range(i));
    };
    row("this model", main(&a.metrics), a.interval);
    if let Some(probe) = &a.probe {
        let what = if a.interval.is_some() { "linear probe" } else { "base, not trained" };
        row(what, main(&probe.metrics), probe.interval);
    }
    if let Some(biases) = &a.biases {
        row("trained biases", main(&biases.metrics), biases.interval);
    }
    // Of span F1 a most frequent tag has none.
    if let Some(majority) = a.majority.filter(|_| name == "accuracy") {
        row("most frequent label", majority, None);
    }
    let _ = write!(out, "\n  also: {}, loss {:.4}", a.metrics, a.metrics.loss);
    if let Some(error) = a.calibration_error {
        let _ = write!(out, ", calibration error {:.1} %", 100.0 * error);
    }
    for sentence in [a.verdict(), a.sentence()].into_iter().flatten() {
        let _ = write!(out, "\n{sentence}");
    }
    if (1..=LABELS_MAX).contains(&a.labels.len()) {
        out += &labels(a);
    }
    if mistakes > 0 && !a.mistakes.is_empty() {
        out += &mistaken(a, scored, mistakes);
    }
    out
}

/// What cross-validation said of the model when it was trained; empty if it was not cross-validated.
pub fn when_trained(model: &Model, a: &Assessment) -> String {
    let main = |m: &Metrics| shown(m.scores.main_value(), a.is_in_percent());
    match model.cross_validated() {
        [Some(then), Some(probe)] => format!(
            "\n\nin training, by cross-validation: this model {}, a linear probe {}",
            main(&then),
            main(&probe)
        ),
        [Some(then), None] => format!("\n\nin training, by cross-validation: {}", main(&then)),
        _ => String::new(),
    }
}

fn shown(v: f64, in_percent: bool) -> String {
    if in_percent { format!("{:.1} %", 100.0 * v) } else { format!("{v:.3}") }
}

/// A table of the labels, with the confusion matrix beside it.
fn labels(a: &Assessment) -> String {
    let mut out = format!("\n\n{:LABEL_MAX$} lines  precision  recall     F1", "label");
    let matrix = !a.confusion.is_empty();
    if matrix {
        out += "   answered as (columns in the order of the rows)";
    }
    for (i, l) in a.labels.iter().enumerate() {
        let _ = write!(
            out,
            "\n{:LABEL_MAX$} {:>5}  {:>9.3}  {:>6.3}  {:>5.3}",
            short(&l.label, LABEL_MAX),
            l.examples,
            l.precision,
            l.recall,
            l.f1
        );
        if matrix {
            let cells: Vec<String> = a.confusion[i].iter().map(|n| format!("{n:>4}")).collect();
            let _ = write!(out, "  {}", cells.concat());
        }
    }
    out
}

fn mistaken(a: &Assessment, scored: &[Example], mistakes: usize) -> String {
    let mut out = format!(
        "\n\n{} of {} wrong answers, most confident first. Is the label in the file right? (--mistakes N shows more):",
        mistakes.min(a.mistakes.len()),
        terminal::count(a.mistakes.len())
    );
    for m in a.mistakes.iter().take(mistakes) {
        let Some(e) = scored.get(m.example) else { continue };
        let text = e.text_b.as_ref().map_or(e.text_a.clone(), |b| format!("{} | {b}", e.text_a));
        let _ = write!(
            out,
            "\n  line {}: the file says `{}`, the model `{}` ({:.2}): {}",
            e.line,
            short(&m.wanted, LABEL_MAX),
            short(&m.answered, LABEL_MAX),
            m.confidence,
            short(&text, TEXT_MAX)
        );
    }
    out
}

/// On one line, at most `max` characters.
fn short(text: &str, max: usize) -> String {
    let line = terminal::one_line(text);
    match line.chars().nth(max) {
        None => line,
        Some(_) => line.chars().take(max - 1).chain(['…']).collect(),
    }
}

/// The same for programs.
pub fn json(trained: &Trained, mistakes: usize) -> serde_json::Value {
    let mut object = match &trained.assessment {
        Some(a) => assessment_json(a, &trained.scored, mistakes),
        None => serde_json::json!({}),
    };
    let sure = trained.model.confidence_for(PRECISION);
    object["unseen_labels"] = serde_json::json!(trained.model.task().unseen(&trained.scored));
    object["choice"] = serde_json::json!(trained.choice);
    object["comparison"] = serde_json::json!(trained.comparison);
    object["warnings"] = serde_json::json!(trained.warnings);
    object["at_precision_0.95"] = serde_json::json!(sure);
    object
}

/// How good answers are, for programs: with the line and the texts of each mistake.
pub fn assessment_json(a: &Assessment, scored: &[Example], mistakes: usize) -> serde_json::Value {
    let mut object = serde_json::to_value(a).expect("plain data");
    let shown: Vec<serde_json::Value> = a
        .mistakes
        .iter()
        .take(mistakes)
        .filter_map(|m| {
            let e = scored.get(m.example)?;
            Some(serde_json::json!({
                "line": e.line, "text_a": e.text_a, "text_b": e.text_b,
                "wanted": m.wanted, "answered": m.answered, "confidence": m.confidence,
            }))
        })
        .collect();
    object["wrong"] = a.mistakes.len().into();
    object["mistakes"] = shown.into();
    object["verdict"] = a.verdict().into();
    object["sentence"] = a.sentence().into();
    object
}
