//! How good a model is, in terms that people understand: its score with an interval, the scores that a simpler answer
//! would have, scores per label, and the mistakes it was most confident of.

use crate::data::shorten;
use crate::ops::loss::{self, Target};
use crate::train::metrics::Metrics;
use crate::train::{HeldOut, Interval, largest};
use serde::{Deserialize, Serialize};

/// Most labels that a confusion matrix is made for.
const CONFUSION_MAX: usize = 20;
/// Bins of the expected calibration error.
const BINS: usize = 10;

/// What the scored examples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Each training example, answered by a model that was trained on the other folds.
    CrossValidation,
    /// Examples that were held out from training. They chose the epoch.
    HeldOut,
    /// Examples that played no part in training.
    Unseen,
    /// The model was trained on some of these examples.
    PartlyTrained,
}

/// The score of a simpler answer on the same examples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Baseline {
    /// Its scores.
    pub metrics: Metrics,
    /// Where its main score lies.
    pub interval: Option<Interval>,
    /// Where the model's lead over it lies.
    pub lead: Option<Interval>,
}

/// How good answers are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assessment {
    /// What was scored.
    pub source: Source,
    /// The scores.
    pub metrics: Metrics,
    /// Where the main score lies.
    pub interval: Option<Interval>,
    /// A linear probe, or for a head that is not trained (contrastive, mlm) the base.
    pub probe: Option<Baseline>,
    /// Trained biases, if the linear probe was kept instead of them.
    pub biases: Option<Baseline>,
    /// The share of the most frequent label.
    pub majority: Option<f64>,
    /// Scores of each label, in the order of the labels; empty if answers have no labels.
    pub labels: Vec<LabelScore>,
    /// `[wanted][answered]`, for up to 20 labels.
    pub confusion: Vec<Vec<usize>>,
    /// Wrong answers, most confident first.
    pub mistakes: Vec<Mistake>,
    /// Expected calibration error (Guo et al. 2017): the mean gap between confidence and accuracy, over ten bins.
    pub calibration_error: Option<f64>,
}

/// Scores of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Share of the answers with this label that are right.
    pub precision: f64,
    /// Share of the examples (or tokens) of this label that are answered so.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples, or tokens, of this label.
    pub examples: usize,
}

/// A wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mistake {
    /// Index of the example among those that were scored.
    pub example: usize,
    /// The label in the file.
    pub wanted: String,
    /// The answer.
    pub answered: String,
    /// Its probability.
    pub confidence: f64,
}

/// `(wanted, answered, probability of the answer)` of each answer that is one of several labels; `example` is its index.
fn answers(scored: &HeldOut) -> impl Iterator<Item = (usize, usize, usize, f64)> + '_ {
    let width = scored.width();
    let of = move |y: &[f32]| {
        let best = largest(y);
        (best, loss::softmax(y)[best])
    };
    scored.logits.iter().zip(&scored.targets).enumerate().flat_map(move |(i, (y, target))| {
        let rows: Vec<(usize, usize, usize, f64)> = match target {
            Target::Class(wanted) => {
                let (best, p) = of(y);
                vec![(i, *wanted, best, p)]
            }
            Target::Tags(tags) => tags
                .iter()
                .map(|(row, wanted)| {
                    let (best, p) = of(&y[row * width..][..width]);
                    (i, *wanted, best, p)
                })
                .collect(),
            _ => Vec::new(),
        };
        rows
    })
}

impl Baseline {
    /// Of `other` beside `model`, which answer the same examples.
    pub fn of(model: &HeldOut, other: &HeldOut) -> Baseline {
        Baseline { metrics: other.metrics(), interval: Some(other.interval()), lead: Some(model.lead(other)) }
    }
}

impl Assessment {
    /// Scores without answers to look into: of questions, pairs and masked tokens.
    pub fn of_metrics(source: Source, metrics: Metrics, base: Option<Metrics>) -> Assessment {
        let probe = base.map(|metrics| Baseline { metrics, interval: None, lead: None });
        Assessment {
            source,
            metrics,
            interval: None,
            probe,
            biases: None,
            majority: None,
            labels: Vec::new(),
            confusion: Vec::new(),
            mistakes: Vec::new(),
            calibration_error: None,
        }
    }

    /// Of answers; `probe` are the probe's answers to some of the same examples, and which these are.
    pub fn of(source: Source, scored: &HeldOut, probe: Option<(&HeldOut, &[usize])>) -> Assessment {
        let names = &scored.names;
        let label = |i: usize| names.get(i).cloned().unwrap_or_default();
        let rows: Vec<(usize, usize, usize, f64)> = answers(scored).collect();
        let mut confusion = vec![vec![0usize; names.len()]; names.len()];
        rows.iter().for_each(|(_, wanted, answered, _)| confusion[*wanted][*answered] += 1);
        let ratio = |a: usize, b: usize| if b > 0 { a as f64 / b as f64 } else { 0.0 };
        let labels: Vec<LabelScore> = match rows.is_empty() {
            true => Vec::new(),
            false => (0..names.len())
                .map(|l| {
                    let (right, wanted) = (confusion[l][l], confusion[l].iter().sum());
                    let answered = confusion.iter().map(|row| row[l]).sum::<usize>();
                    LabelScore {
                        label: label(l),
                        precision: ratio(right, answered),
                        recall: ratio(right, wanted),
                        f1: ratio(2 * right, wanted + answered),
                        examples: wanted,
                    }
                })
                .collect(),
        };
        let majority = labels.iter().map(|l| l.examples).max().map(|most| ratio(most, rows.len()));
        let mut mistakes: Vec<Mistake> = rows
            .iter()
            .filter(|(_, wanted, answered, _)| wanted != answered)
            .map(|(example, wanted, answered, confidence)| Mistake {
                example: *example,
                wanted: label(*wanted),
                answered: label(*answered),
                confidence: *confidence,
            })
            .collect();
        mistakes.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then(a.example.cmp(&b.example)));
        let probe = probe.map(|(probe, which)| Baseline::of(&scored.some(which), probe));
        Assessment {
            source,
            metrics: scored.metrics(),
            interval: Some(scored.interval()),
            probe,
            biases: None,
            majority,
            confusion: if names.len() <= CONFUSION_MAX && !rows.is_empty() { confusion } else { Vec::new() },
            mistakes,
            calibration_error: (!rows.is_empty()).then(|| {
                calibration_error(rows.iter().map(|(_, wanted, answered, p)| (*p, wanted == answered)))
            }),
            labels,
        }
    }

    /// One sentence that says how often answers are right, and whether that is more than the most frequent label alone
    /// would be. `None` if answers are not one label each.
    pub fn verdict(&self) -> Option<String> {
        let (majority, i) = (self.majority?, self.interval?);
        if self.metrics.named()[0].0 != "accuracy" {
            return None;
        }
        if self.source == Source::PartlyTrained {
            return Some(
                "It was trained on these lines, so this does not say how good it is on new ones.".into(),
            );
        }
        if let Some(only) = self.only_answer() {
            let only = shorten(&only.label, 40);
            return Some(format!(
                "It answers `{only}` to every line: it has learned nothing useful. Do not rely on it."
            ));
        }
        let most = self.labels.iter().max_by_key(|l| l.examples)?;
        let right = format!("{:.0} of 100 answers are right", 100.0 * self.metrics.main());
        let always = format!("always answering `{}`", shorten(&most.label, 40));
        let points = self.shown(self.metrics.main() - majority);
        Some(match i.low > majority {
            true => format!("{right}: {points} over {always}."),
            false => {
                format!("{right}, which is not clearly better than {always} ({points}). Do not rely on it.")
            }
        })
    }

    /// The label of all answers, if it is one.
    fn only_answer(&self) -> Option<&LabelScore> {
        let answered = |l: usize| self.confusion.iter().any(|row| row[l] > 0);
        let mut all = (0..self.confusion.len()).filter(|&l| answered(l));
        match (all.next(), all.next()) {
            (Some(only), None) => self.labels.get(only),
            _ => None,
        }
    }

    /// One sentence that says whether training the biases was worth it. `None` if there is nothing to compare with.
    pub fn sentence(&self) -> Option<String> {
        let between = |lead: Option<Interval>| match lead {
            Some(i) => {
                format!(
                    " (95 % interval of the difference: {} to {})",
                    self.number(i.low),
                    self.number(i.high)
                )
            }
            None => String::new(),
        };
        if let Some(biases) = &self.biases {
            let lead = self.metrics.main() - biases.metrics.main();
            let (by, between) = (self.shown(lead), between(biases.lead));
            return Some(match lead > 0.0 {
                true => format!("The linear probe is kept: {by} over trained biases{between}."),
                false => {
                    format!("The linear probe is kept: trained biases gain nothing to speak of{between}.")
                }
            });
        }
        let Baseline { metrics, lead, .. } = self.probe.as_ref()?;
        let (name, points) = (self.baseline_name(), self.metrics.main() - metrics.main());
        let (by, between) = (self.shown(points), between(*lead));
        let (low, high) = lead.map_or((points, points), |i| (i.low, i.high));
        Some(match () {
            _ if points == 0.0 => format!("The biases change nothing: the score is that of {name}."),
            _ if low > 0.0 => format!("The biases help: {by} over {name}{between}."),
            _ if high < 0.0 && lead.is_some() => {
                format!("The biases hurt: {by} against {name}{between}. To keep the probe: --terms none.")
            }
            _ if points > 0.0 => {
                format!(
                    "The biases seem to help: {by} over {name}{between}; more lines are needed to be sure."
                )
            }
            _ if lead.is_some() => format!(
                "The biases do not help: {by} against {name}{between}. They are kept, since on most data they gain a few points."
            ),
            () => format!("The biases do not help: {by} against {name}."),
        })
    }

    /// A difference of main scores.
    fn shown(&self, difference: f64) -> String {
        let unit = if self.is_in_percent() { " points" } else { "" };
        self.number(difference) + unit
    }

    fn number(&self, difference: f64) -> String {
        match self.is_in_percent() {
            true => format!("{:+.1}", 100.0 * difference),
            false => format!("{difference:+.3}"),
        }
    }

    /// What [`Assessment::probe`] is.
    pub fn baseline_name(&self) -> &'static str {
        if self.interval.is_some() { "the linear probe" } else { "the base" }
    }

    /// Whether the main score is a share, shown in percent.
    pub fn is_in_percent(&self) -> bool {
        self.metrics.scores.main_name().in_points
    }
}

/// The mean over ten bins of confidence of |confidence − accuracy|, weighted by the answers in each.
pub fn calibration_error(answers: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut bins = [(0.0, 0.0, 0usize); BINS];
    let mut n = 0;
    for (p, right) in answers {
        let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + p, bin.1 + f64::from(u8::from(right)), bin.2 + 1);
        n += 1;
    }
    bins.iter().map(|(p, right, _)| (p - right).abs()).sum::<f64>() / n.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored() -> HeldOut {
        // wanted 0 0 1 1 1, answered 0 1 1 1 0 with rising confidence
        let logits = vec![vec![1.0, 0.0], vec![0.0, 1.5], vec![0.0, 2.0], vec![0.0, 2.5], vec![3.0, 0.0]];
        let targets = [0, 0, 1, 1, 1].map(Target::Class).to_vec();
        HeldOut::new(logits, targets, &["no".into(), "yes".into()], 2)
    }

    #[test]
    fn labels_mistakes_and_confusion() {
        let a = Assessment::of(Source::Unseen, &scored(), None);
        assert_eq!(a.confusion, [[1, 1], [1, 2]]);
        assert_eq!(a.majority, Some(0.6));
        let yes = &a.labels[1];
        assert_eq!((yes.examples, yes.precision, yes.recall, yes.f1), (3, 2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0));
        let mistakes: Vec<_> =
            a.mistakes.iter().map(|m| (m.example, &m.wanted[..], &m.answered[..])).collect();
        assert_eq!(mistakes, [(4, "yes", "no"), (1, "no", "yes")], "the most confident first");
        assert!((a.metrics.main() - 0.6).abs() < 1e-12);
        assert_eq!(a.sentence(), None);
        assert!(
            a.verdict().unwrap().starts_with("60 of 100 answers are right, which is not clearly better than")
        );
    }

    #[test]
    fn the_sentence_says_whether_the_biases_help() {
        let n = 200;
        let names = ["a".to_owned(), "b".to_owned()];
        let answers = |every: usize| {
            let logit = |i: usize| {
                let says = (i + usize::from(i.is_multiple_of(every))) % 2;
                vec![f32::from(says == 0), f32::from(says == 1)]
            };
            let targets = (0..n).map(|i| Target::Class(i % 2)).collect();
            HeldOut::new((0..n).map(logit).collect(), targets, &names, 2)
        };
        let all: Vec<usize> = (0..n).collect();
        let sentence = |model: usize, probe: usize| {
            let probe = answers(probe);
            Assessment::of(Source::CrossValidation, &answers(model), Some((&probe, &all))).sentence().unwrap()
        };
        let helps = sentence(10, 5);
        assert!(
            helps.starts_with("The biases help: +10.0 points over the linear probe (95 % interval"),
            "{helps}"
        );
        let verdict = Assessment::of(Source::Unseen, &answers(10), None).verdict();
        assert_eq!(verdict.unwrap(), "90 of 100 answers are right: +40.0 points over always answering `b`.");
        assert!(sentence(5, 10).starts_with("The biases hurt: -10.0 points against the linear probe"));
        assert!(sentence(50, 40).contains("seem to help: +0.5 points"), "{}", sentence(50, 40));
        assert!(sentence(10, 10).contains("change nothing"));
        let constant =
            HeldOut::new(vec![vec![1.0, 0.0]; 4], [0, 0, 0, 1].map(Target::Class).to_vec(), &names, 2);
        let verdict = Assessment::of(Source::Unseen, &constant, None).verdict().unwrap();
        assert!(verdict.starts_with("It answers `a` to every line"), "{verdict}");
    }

    #[test]
    fn calibration() {
        let even = (0..100).map(|i| (0.75, i % 4 != 0));
        assert!(calibration_error(even) < 1e-12);
        let sure = (0..100).map(|i| (1.0, i % 2 == 0));
        assert!((calibration_error(sure) - 0.5).abs() < 1e-12);
        assert_eq!(calibration_error(std::iter::empty()), 0.0);
    }
}
