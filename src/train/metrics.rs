//! Scores of a classifier, with scikit-learn's definitions.

use serde::Serialize;

/// How well predictions agree with the truth. Scores that are undefined are 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Number of examples.
    pub examples: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// F1 of the second label where there are two labels (`average="binary"`), else `macro_f1`.
    pub f1: f64,
    /// Mean F1 over the labels that are in the truth or among the predictions (`average="macro"`).
    pub macro_f1: f64,
    /// Matthews correlation, from -1 to 1; with more than two labels Gorodkin's R_K (2004).
    pub mcc: f64,
    /// Mean negative log-likelihood of the right label, in nats.
    pub loss: f64,
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

    Metrics {
        examples,
        accuracy: ratio(total_right, n),
        f1: if labels == 2 { f1_of(1) } else { macro_f1 },
        macro_f1,
        mcc: ratio(covariance, spread.max(0.0).sqrt()),
        loss,
    }
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
            let got = [m.accuracy, m.f1, m.macro_f1, m.mcc];
            for (g, w) in got.iter().zip(want) {
                assert!((g - w).abs() <= 1e-12, "{truth:?} {predicted:?}: {got:?} {want:?}");
            }
            assert_eq!((m.examples, m.loss), (truth.len(), 0.5));
        }
    }

    #[test]
    fn nothing_and_the_worst() {
        let m = classification(&[], &[], 2, 0.0);
        assert_eq!((m.examples, m.accuracy, m.f1, m.macro_f1, m.mcc), (0, 0.0, 0.0, 0.0, 0.0));
        let m = classification(&[0, 1, 0, 1], &[1, 0, 1, 0], 2, 9.0);
        assert_eq!((m.accuracy, m.f1, m.mcc), (0.0, 0.0, -1.0));
    }
}
