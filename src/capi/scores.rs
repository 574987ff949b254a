//! Scores as plain numbers.

use crate::train::metrics::Metrics;

/// How well answers agree with the truth. Scores that a task does not have are NaN.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trimtab_scores {
    /// Number of examples they are of; 0 where nothing was scored.
    pub examples: usize,
    /// Mean loss.
    pub loss: f64,
    /// The score that tells most of the task, the higher the better; by it the best epoch is kept.
    pub main: f64,
    /// Share of right answers (classify); of texts with every label right (multilabel); of tokens (tag); of hidden
    /// words (mlm).
    pub accuracy: f64,
    /// F1 of the second of two labels (classify), or of words (qa).
    pub f1: f64,
    /// Mean over the labels of their F1 (classify, multilabel).
    pub macro_f1: f64,
    /// Matthews correlation (classify).
    pub mcc: f64,
    /// F1 over all pairs of a text and a label (multilabel).
    pub micro_f1: f64,
    /// Pearson's correlation (regress).
    pub pearson: f64,
    /// Spearman's rank correlation (regress).
    pub spearman: f64,
    /// F1 of spans of BIO tags (tag).
    pub span_f1: f64,
    /// Share of answers that are right but for articles, punctuation, spaces and case (qa).
    pub exact_match: f64,
    /// Share of texts to which their own partner is the nearest of all (contrastive).
    pub recall_at_1: f64,
    /// Mean of 1 / rank of their own partner (contrastive).
    pub mrr: f64,
    /// e to the loss, the lower the better (mlm).
    pub perplexity: f64,
}

impl trimtab_scores {
    /// Of nothing where there are none.
    pub(super) fn of(metrics: Option<&Metrics>) -> trimtab_scores {
        let get = |name| metrics.and_then(|m| m.get(name)).unwrap_or(f64::NAN);
        trimtab_scores {
            examples: metrics.map_or(0, |m| m.examples),
            loss: metrics.map_or(f64::NAN, |m| m.loss),
            main: metrics.map_or(f64::NAN, Metrics::main),
            accuracy: get("accuracy"),
            f1: get("f1"),
            macro_f1: get("macro_f1"),
            mcc: get("mcc"),
            micro_f1: get("micro_f1"),
            pearson: get("pearson"),
            spearman: get("spearman"),
            span_f1: get("span_f1"),
            exact_match: get("exact_match"),
            recall_at_1: get("recall_at_1"),
            mrr: get("mrr"),
            perplexity: get("perplexity"),
        }
    }
}
