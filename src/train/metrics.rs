//! Scores of each task, with scikit-learn's and scipy's definitions.

use crate::ops::loss::Target;
use crate::scores::{Better, CLASSIFY, MULTILABEL, REGRESS, ScoreName, Scores, TAG};
use crate::spans;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How well answers agree with the truth. Scores that are undefined are 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Number of examples.
    pub examples: usize,
    /// Mean loss, see [`crate::ops::loss`].
    pub loss: f64,
    /// The task's scores.
    #[serde(flatten)]
    pub scores: Scores,
}

impl Metrics {
    /// The scores by name, the one that tells most first.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let told = |(name, _): &(&ScoreName, f64)| name.better != Better::Neither;
        self.scores.iter().filter(told).map(|(name, value)| (name.name, value)).collect()
    }

    /// What models are compared by, the higher the better ([`Scores::main`]).
    pub fn main(&self) -> f64 {
        self.scores.main()
    }

    /// A score by its name in `--json`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.scores.get(name)
    }
}

impl fmt::Display for Metrics {
    /// `accuracy 97.1 %, macro F1 0.970`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scores.fmt(f)
    }
}

/// Scores of texts' logits against targets, which are all of one kind. `names` are those of the outputs, of which tags'
/// spans are made, and behind them of labels that the model does not know and that targets name. These count as wrong.
/// Spans in a text are scored by [`super::answers`], not here.
pub fn of<'a>(
    answers: impl IntoIterator<Item = (&'a [f32], &'a Target)>,
    outputs: usize,
    names: &[String],
    loss: f64,
) -> Metrics {
    let (mut classes, mut labels, mut values, mut tags) = (vec![], vec![], vec![], vec![]);
    for (y, target) in answers {
        match target {
            Target::Class(t) => classes.push((*t, super::largest(y))),
            // An output says yes or no to its label; to a label that has none it says no.
            Target::Labels(t) => {
                labels.extend(t.iter().enumerate().map(|(l, t)| (*t, y.get(l).is_some_and(|y| *y > 0.0))));
            }
            Target::Value(t) => values.push((f64::from(*t), f64::from(y[0]))),
            Target::Span(..) | Target::Partner | Target::Cloze(_) => {}
            Target::Tags(t) => {
                tags.push(
                    t.iter().map(|(row, t)| (*t, super::largest(&y[row * outputs..][..outputs]))).collect(),
                );
            }
        }
    }
    if !tags.is_empty() {
        return tagging(&tags, names, loss);
    }
    let known = outputs.max(names.len());
    if !labels.is_empty() {
        multilabel(&labels, known, loss)
    } else if !values.is_empty() {
        regression(&values, loss)
    } else {
        let (truth, predicted): (Vec<_>, Vec<_>) = classes.into_iter().unzip();
        classification(&truth, &predicted, known, loss)
    }
}

/// Scores of `(truth, predicted)` for each of `labels` of each text.
pub fn multilabel(pairs: &[(bool, bool)], labels: usize, loss: f64) -> Metrics {
    let f1 = |pairs: &mut dyn Iterator<Item = (bool, bool)>| {
        let (mut right, mut all) = (0.0, 0.0);
        for (t, p) in pairs {
            right += f64::from(u8::from(t && p));
            all += f64::from(u8::from(t)) + f64::from(u8::from(p));
        }
        (ratio(2.0 * right, all), all > 0.0)
    };
    let texts = pairs.chunks_exact(labels.max(1));
    let examples = texts.len();
    let by_label = (0..labels).map(|l| f1(&mut texts.clone().map(|text| text[l])));
    let present: Vec<f64> = by_label.filter(|(_, present)| *present).map(|(f1, _)| f1).collect();
    let exact = texts.filter(|text| text.iter().all(|(t, p)| t == p)).count();
    Metrics {
        examples,
        scores: Scores::all(
            &MULTILABEL,
            [
                f1(&mut pairs.iter().copied()).0,
                ratio(present.iter().sum(), present.len() as f64),
                ratio(exact as f64, examples as f64),
            ],
        ),
        loss,
    }
}

/// Scores of `(truth, predicted)`.
pub fn regression(pairs: &[(f64, f64)], loss: f64) -> Metrics {
    let (truth, predicted): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let spearman = pearson(&ranks(&truth), &ranks(&predicted));
    Metrics {
        examples: pairs.len(),
        scores: Scores::all(&REGRESS, [pearson(&truth, &predicted), spearman]),
        loss,
    }
}

/// Scores of `(truth, predicted)`, indices into `names`, of the tokens of each text.
pub fn tagging(texts: &[Vec<(usize, usize)>], names: &[String], loss: f64) -> Metrics {
    let (mut right, mut tokens) = (0.0, 0.0);
    for text in texts {
        tokens += text.len() as f64;
        right += text.iter().filter(|(t, p)| t == p).count() as f64;
    }
    let scores = Scores::all(&TAG, [spans::f1(texts, names), ratio(right, tokens)]);
    Metrics { examples: texts.len(), scores, loss }
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    ratio(ab, (aa * bb).sqrt())
}

/// Ranks from 1, equal values sharing the mean of theirs. NaNs rank highest.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut done = 0;
    for equal in order.chunk_by(|&a, &b| x[a] == x[b]) {
        let rank = done as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        done += equal.len();
    }
    ranks
}

/// Scores of `predicted` against `truth`, both indices below `labels` and of equal length.
///
/// Pairs with an index out of range are wrong answers and count for no label's F1. Panics: never.
pub fn classification(truth: &[usize], predicted: &[usize], labels: usize, loss: f64) -> Metrics {
    // Per label: times right, times true, times predicted.
    let (mut right, mut true_n, mut predicted_n) = (vec![0.0; labels], vec![0.0; labels], vec![0.0; labels]);
    let examples = truth.len().min(predicted.len());
    for (&t, &p) in truth.iter().zip(predicted).filter(|(t, p)| **t < labels && **p < labels) {
        true_n[t] += 1.0;
        predicted_n[p] += 1.0;
        right[t] += if t == p { 1.0 } else { 0.0 };
    }
    let n = examples as f64;
    let total_right: f64 = right.iter().sum();

    // F1 = 2 right / (true + predicted): the harmonic mean of precision and recall.
    let f1_of = |l: usize| ratio(2.0 * right[l], true_n[l] + predicted_n[l]);
    let present: Vec<usize> = (0..labels).filter(|&l| true_n[l] + predicted_n[l] > 0.0).collect();
    let macro_f1 = ratio(present.iter().map(|&l| f1_of(l)).sum(), present.len() as f64);

    // R_K = (c n - Σ t_k p_k) / sqrt((n² - Σ p_k²)(n² - Σ t_k²)), with c right answers of n.
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let covariance = total_right * n - dot(&true_n, &predicted_n);
    let spread = (n * n - dot(&predicted_n, &predicted_n)) * (n * n - dot(&true_n, &true_n));

    let f1 = if labels == 2 { f1_of(1) } else { macro_f1 };
    let mcc = ratio(covariance, spread.max(0.0).sqrt());
    let scores = Scores::all(&CLASSIFY, [ratio(total_right, n), f1, macro_f1, mcc]);
    Metrics { examples, scores, loss }
}

/// `a / b`, and 0 where that is undefined.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scikit-learn 1.9.1:
    /// ```python
    /// from sklearn.metrics import *
    /// for t, p, n in [...]:
    ///     print(accuracy_score(t, p),
    ///           f1_score(t, p, average="binary" if n == 2 else "macro", zero_division=0),
    ///           f1_score(t, p, average="macro", zero_division=0), matthews_corrcoef(t, p))
    /// ```
    #[test]
    fn equals_scikit_learn() {
        type Case<'a> = (&'a [usize], &'a [usize], usize, [f64; 4]);
        let cases: [Case; 5] = [
            (
                &[1, 0, 1, 1, 0, 1, 0, 0, 1, 1],
                &[1, 0, 0, 1, 1, 1, 0, 0, 1, 0],
                2,
                [0.7, 0.7272727272727273, 0.696969696969697, 0.408248290463863],
            ),
            (
                &[0, 1, 2, 2, 1, 0, 2, 1, 2, 0],
                &[0, 2, 2, 1, 1, 0, 2, 1, 2, 1],
                3,
                [0.7, 0.7071428571428572, 0.7071428571428572, 0.5539117094069973],
            ),
            // Labels 2 and 4 nowhere, label 1 only in the truth, label 3 in both.
            (
                &[0, 0, 1, 3],
                &[0, 3, 0, 3],
                5,
                [0.5, 0.38888888888888884, 0.38888888888888884, 0.22360679774997896],
            ),
            (&[1, 1, 1], &[1, 1, 1], 2, [1.0, 1.0, 1.0, 0.0]),
            (&[0, 1, 0], &[0, 0, 0], 2, [0.6666666666666666, 0.0, 0.4, 0.0]),
        ];
        for (truth, predicted, labels, want) in cases {
            let m = classification(truth, predicted, labels, 0.5);
            let got: Vec<f64> = m.named().iter().map(|(_, v)| *v).collect();
            for (g, w) in got.iter().zip(want) {
                assert!((g - w).abs() <= 1e-12, "{truth:?} {predicted:?}: {got:?} {want:?}");
            }
            assert_eq!((m.examples, m.loss), (truth.len(), 0.5));
        }
    }

    #[test]
    fn nothing_and_the_worst() {
        let m = classification(&[], &[], 2, 0.0);
        assert!(m.examples == 0 && m.named().iter().all(|(_, v)| *v == 0.0), "{m:?}");
        let m = classification(&[0, 1, 0, 1], &[1, 0, 1, 0], 2, 9.0);
        assert_eq!(["accuracy", "f1", "mcc"].map(|name| m.get(name)), [Some(0.0), Some(0.0), Some(-1.0)]);
    }

    #[test]
    fn spans_and_tokens() {
        let names = ["O", "B-a", "I-a"].map(String::from);
        let texts = vec![vec![(1, 1), (2, 2), (0, 0)], vec![(1, 0), (0, 0), (1, 1), (2, 0)]];
        // 3 true spans, 2 predicted, 1 in both; 5 of 7 tokens
        assert_eq!(tagging(&texts, &names, 0.0).named(), [("span_f1", 0.4), ("accuracy", 5.0 / 7.0)]);
    }

    /// scikit-learn 1.9.1, labels 0 and 1 known, 2 in the truth only:
    /// ```python
    /// t, p = [0, 1, 2, 1, 2], [0, 1, 1, 0, 0]
    /// print(accuracy_score(t, p), f1_score(t, p, average="macro", zero_division=0), matthews_corrcoef(t, p))
    /// T, P = [[1, 0, 1], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    /// print(f1_score(T, P, average="micro"), f1_score(T, P, average="macro", zero_division=0), accuracy_score(T, P))
    /// ```
    #[test]
    fn labels_that_are_not_known() {
        let said = [[1f32, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]];
        let targets = [0, 1, 2, 1, 2].map(Target::Class);
        let names = ["a", "b", "new"].map(String::from);
        let m = of(said.iter().map(|y| &y[..]).zip(&targets), 2, &names, 0.0);
        for (name, want) in
            [("accuracy", 0.4), ("macro_f1", 1.0 / 3.0), ("f1", 1.0 / 3.0), ("mcc", 0.21650635094610968)]
        {
            assert!((m.get(name).unwrap() - want).abs() <= 1e-12, "{name}: {m:?}");
        }
        let said = [[1f32, -1.0], [-1.0, 1.0], [-1.0, 1.0]];
        let targets = [[true, false, true], [false, true, false], [false, false, true]]
            .map(|t| Target::Labels(t.to_vec()));
        let m = of(said.iter().map(|y| &y[..]).zip(&targets), 2, &names, 0.0);
        for (name, want) in [("micro_f1", 4.0 / 7.0), ("macro_f1", 5.0 / 9.0), ("accuracy", 1.0 / 3.0)] {
            assert!((m.get(name).unwrap() - want).abs() <= 1e-12, "{name}: {m:?}");
        }
        let tags = Target::Tags(vec![(0, 0), (1, 2)]);
        let names = ["O", "B-a", "B-new"].map(String::from);
        let m = of([(&[1.0, 0.0, 0.0, 1.0][..], &tags)], 2, &names, 0.0);
        assert_eq!(m.named(), [("span_f1", 0.0), ("accuracy", 0.5)]);
    }

    /// scipy 1.16, scikit-learn 1.9.1:
    /// ```python
    /// t, p = [1, 2, 2, 4.5, 0], [0.5, 2.5, 1, 3, 1]
    /// print(scipy.stats.pearsonr(t, p)[0], scipy.stats.spearmanr(t, p)[0])
    /// T, P = [[1, 0, 1], [0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    /// print(f1_score(T, P, average="micro"), f1_score(T, P, average="macro", zero_division=0), accuracy_score(T, P))
    /// ```
    #[test]
    fn correlations_and_several_labels() {
        let m = regression(&[(1.0, 0.5), (2.0, 2.5), (2.0, 1.0), (4.5, 3.0), (0.0, 1.0)], 0.0);
        for ((name, got), want) in m.named().iter().zip([0.7994108773089585, 0.7631578947368421]) {
            assert!((got - want).abs() <= 1e-12, "{name}: {got} is not {want}");
        }
        let truth = [true, false, true, false, false, false, false, true, false];
        let predicted = [true, false, false, false, false, false, true, true, false];
        let pairs: Vec<_> = truth.into_iter().zip(predicted).collect();
        let m = multilabel(&pairs, 3, 0.0);
        for ((name, got), want) in m.named().iter().zip([2.0 / 3.0, 5.0 / 9.0, 1.0 / 3.0]) {
            assert!((got - want).abs() <= 1e-12, "{name}: {got} is not {want}");
        }
        assert_eq!(m.examples, 3);
        let flat = regression(&[(1.0, 2.0), (1.0, 3.0)], 0.0);
        assert_eq!(flat.named(), [("pearson", 0.0), ("spearman", 0.0)], "undefined");
        assert_eq!(ranks(&[3.0, 1.0, 3.0, f64::NAN]), [2.5, 1.0, 2.5, 4.0]);
    }
}
