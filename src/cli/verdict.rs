//! What a run was worth: beside the head alone, and beside the bias file it would replace.

use super::terminal;
use std::path::{Path, PathBuf};
use trimtab::data::Example;
use trimtab::quant::Base;
use trimtab::train::metrics::{Metrics, Scores};
use trimtab::train::{HeldOut, Interval};
use trimtab::{Error, Options, Personal, Result};

/// One model's score on the held-out examples.
pub struct Score {
    metrics: Metrics,
    interval: Option<Interval>,
    /// How far the trained model is ahead of it.
    lead: Option<Interval>,
}

/// The trained model beside others, on held-out examples that none of them was trained on.
pub struct Verdict {
    metrics: Metrics,
    interval: Option<Interval>,
    head_alone: Option<Score>,
    previous: Option<Score>,
}

impl Verdict {
    /// Scores all of them on `dev`. `previous` is the model that the new one would replace.
    pub fn of(model: &Personal, previous: Option<&Personal>, dev: &[Example]) -> Result<Verdict> {
        let data = model.encode(dev)?;
        let Some(now) = model.answers(&data)? else {
            let metrics = |m: &Personal| Ok(Score { metrics: m.evaluate(dev)?, interval: None, lead: None });
            let previous: Option<Score> = previous.map(metrics).transpose()?;
            let alone = |metrics| Score { metrics, interval: None, lead: None };
            let head_alone = model.evaluate_untrained(&data)?.map(alone);
            return Ok(Verdict { metrics: model.evaluate(dev)?, interval: None, head_alone, previous });
        };
        let score = |other: &HeldOut| Score {
            metrics: other.metrics(),
            interval: Some(other.interval()),
            lead: Some(now.lead(other)),
        };
        let head_alone = model.answers_of_head_alone(&data)?.map(|a| score(&a));
        let previous = match previous {
            None => None,
            Some(previous) => {
                let data = previous.encode(dev)?;
                previous.answers(&data)?.map(|a| score(&a))
            }
        };
        Ok(Verdict { metrics: now.metrics(), interval: Some(now.interval()), head_alone, previous })
    }

    /// Whether the model that was there answers more of the held-out examples rightly.
    pub fn is_worse_than_previous(&self) -> bool {
        self.previous.as_ref().is_some_and(|p| p.metrics.main() > self.metrics.main())
    }

    /// One line for each model.
    pub fn lines(&self) -> String {
        if matches!(self.metrics.scores, Scores::Mlm { .. }) {
            return self.hidden_words();
        }
        let (name, _) = self.metrics.named()[0];
        let name = name.replace('_', " ");
        let how = if self.interval.is_some() { ", with 95 % intervals" } else { "" };
        let mut out = format!("{name} on {} held-out examples{how}:", self.metrics.examples);
        let range =
            |i: &Option<Interval>| i.map_or(String::new(), |i| format!(" ({:.3} to {:.3})", i.low, i.high));
        let mut line = |what: &str, m: &Metrics, i: &Option<Interval>, lead: Option<&Option<Interval>>| {
            out += &format!("\n  {what:15} {:.3}{}", m.main(), range(i));
            if let Some(lead) = lead {
                out += &format!("; now {:+.3}{}", self.metrics.main() - m.main(), range(lead));
            }
        };
        for (what, score) in [("head alone", &self.head_alone), ("the file before", &self.previous)] {
            if let Some(s) = score {
                line(what, &s.metrics, &s.interval, Some(&s.lead));
            }
        }
        line("now", &self.metrics, &self.interval, None);
        out
    }

    /// Of hidden words: the head is the base's, so what there was before is the base, or what --start named.
    fn hidden_words(&self) -> String {
        let mut out = format!("hidden words of {} held-out texts:", self.metrics.examples);
        let before = |score: &Option<Score>| score.as_ref().map(|s| s.metrics.to_string());
        for (what, metrics) in [
            ("as it began", before(&self.head_alone)),
            ("the file before", before(&self.previous)),
            ("now", Some(self.metrics.to_string())),
        ] {
            out += &metrics.map_or(String::new(), |m| format!("\n  {what:15} {m}"));
        }
        out
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let one =
            |s: &Score| serde_json::json!({ "scores": s.metrics, "interval": s.interval, "lead": s.lead });
        serde_json::json!({
            "scores": self.metrics,
            "interval": self.interval,
            "head_alone": self.head_alone.as_ref().map(one),
            "previous": self.previous.as_ref().map(one),
        })
    }
}

/// The model that stands where the new one should: one of this base that answers the same. `None` where there is none,
/// for what is there cannot be compared.
pub fn previous(base: &Base, path: &Path, model: &Personal, options: &Options) -> Option<Personal> {
    let previous = Personal::open(base, path, options).ok()?;
    let mut labels = [previous.labels().to_vec(), model.labels().to_vec()];
    labels.iter_mut().for_each(|l| l.sort());
    (previous.task().kind() == model.task().kind() && labels[0] == labels[1]).then_some(previous)
}

/// Where a model goes that is not better than what is at `path`: `me.bias.safetensors` to `me.new.bias.safetensors`.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (stem, ending) = name.split_once('.').unwrap_or((&name, "bias.safetensors"));
    path.with_file_name(format!("{stem}.new.{ending}"))
}

/// Saves the model at `path`, or, where the one that is there is better, beside it.
///
/// Errors: [`Error::NotBetter`] where it went beside, naming both.
pub fn save(model: &Personal, path: &Path, half: bool, verdict: Option<&Verdict>, force: bool) -> Result<()> {
    match verdict {
        Some(verdict) if verdict.is_worse_than_previous() && !force => {
            let beside = beside(path);
            model.save(&beside, half)?;
            terminal::say(verdict.lines());
            Err(Error::NotBetter(format!(
                "{} scores better on the held-out examples and stays; the new one is in {}. Use --force to replace it",
                path.display(),
                beside.display()
            )))
        }
        _ => model.save(path, half),
    }
}
