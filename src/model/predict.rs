//! What a model answers.

use super::Model;
use crate::data::{self, Example};
use crate::embeddings;
use crate::error::{Error, Result};
use crate::ops::loss;
use crate::ops::masked_lm::MaskedLm;
use crate::ops::masking::Words;
use crate::task::Task;
use crate::tokenize::Encoded;
use crate::train::{self, Output, answers, masked};
use rayon::prelude::*;
use serde::Serialize;
use std::fmt;

/// Words that may stand behind a mask, as many as an answer names.
const CANDIDATES: usize = 5;

/// A word that may stand behind a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// It, or a piece of a word, as the tokenizer writes it.
    pub word: String,
    /// Its probability among all words.
    pub probability: f64,
}

/// One answer; as text the label, the labels between commas, the tags or words between spaces, the number, or the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// Of [`Task::Classify`].
    Label {
        /// The most probable label.
        label: String,
        /// One probability a label, in the order of [`Model::labels`]; their sum is 1.
        probabilities: Vec<f64>,
    },
    /// Of [`Task::Multilabel`].
    Labels {
        /// The labels of a probability above 1/2.
        labels: Vec<String>,
        /// One probability a label, each by itself.
        probabilities: Vec<f64>,
    },
    /// Of [`Task::Tag`].
    Tags {
        /// The words of the text.
        words: Vec<String>,
        /// One tag a word; of a word that was cut off, or is none to the tokenizer, `O` where that is a tag, else the
        /// first.
        tags: Vec<String>,
        /// The probability of each of these tags; 0 for a word that was not looked at.
        probabilities: Vec<f64>,
    },
    /// Of [`Task::Regress`].
    Value {
        /// The number.
        value: f64,
    },
    /// Of [`Task::Qa`].
    Answer {
        /// The part of the context; empty where no part of it is an answer, or where the model says so, which it can if it
        /// was trained on unanswerable questions.
        answer: String,
        /// Its probability among the best twenty, of which no answer may be one; 0 where there are none.
        score: f64,
        /// Where it begins in the context, in Unicode characters.
        start: usize,
        /// Where it ends, likewise.
        end: usize,
    },
    /// Of [`Task::Mlm`].
    Words {
        /// For each mask of the text the likeliest words, likeliest first.
        masks: Vec<Vec<Candidate>>,
    },
}

impl Prediction {
    /// What `logits` (one a label, or the number) say of a whole text; none for a task of another kind.
    pub(crate) fn of_text(task: &Task, logits: &[f32]) -> Option<Prediction> {
        Some(match task {
            Task::Classify(labels) => Prediction::Label {
                label: labels[train::largest(logits)].clone(),
                probabilities: loss::softmax(logits),
            },
            Task::Multilabel(labels) => Prediction::Labels {
                labels: labels
                    .iter()
                    .zip(logits)
                    .filter(|(_, y)| **y > 0.0)
                    .map(|(l, _)| l.clone())
                    .collect(),
                probabilities: logits.iter().map(|y| loss::sigmoid(*y)).collect(),
            },
            Task::Regress => Prediction::Value { value: f64::from(logits[0]) },
            Task::Tag(_) | Task::Contrastive | Task::Qa | Task::Mlm => return None,
        })
    }

    /// The tags of the example's words. `logits` is `[tokens, labels]`; a word is answered by the row of its first token.
    pub(crate) fn of_words(
        labels: &[String],
        logits: &[f32],
        example: &Example,
        starts: &[Option<usize>],
    ) -> Prediction {
        let outside = labels.iter().position(|l| l == "O").unwrap_or(0);
        let tag = |start: &Option<usize>| match start {
            None => (labels[outside].clone(), 0.0),
            Some(row) => {
                let y = &logits[row * labels.len()..][..labels.len()];
                let best = train::largest(y);
                (labels[best].clone(), loss::softmax(y)[best])
            }
        };
        let (tags, probabilities) = starts.iter().map(tag).unzip();
        let words = example.word_list().into_iter().map(str::to_owned).collect();
        Prediction::Tags { words, tags, probabilities }
    }

    /// The probabilities of the labels, in the order of [`Model::labels`]; for tags, the probability of each word's tag. Empty for
    /// other answers.
    pub fn probabilities(&self) -> &[f64] {
        match self {
            Prediction::Label { probabilities, .. }
            | Prediction::Labels { probabilities, .. }
            | Prediction::Tags { probabilities, .. } => probabilities,
            Prediction::Value { .. } | Prediction::Answer { .. } | Prediction::Words { .. } => &[],
        }
    }

    /// As a JSON object; the probabilities of labels by their names, which are `labels`, the model's.
    pub fn json(&self, labels: &[String]) -> serde_json::Value {
        let mut object = serde_json::to_value(self).expect("plain data");
        if let Prediction::Label { probabilities, .. } | Prediction::Labels { probabilities, .. } = self {
            let named = labels.iter().cloned().zip(probabilities.iter().map(|&v| v.into()));
            object["probabilities"] = named.collect::<serde_json::Map<_, _>>().into();
        }
        object
    }

    /// Whether it is made of numbers: a broken bias file gives others.
    pub fn is_finite(&self) -> bool {
        match self {
            Prediction::Value { value } => value.is_finite(),
            Prediction::Answer { score, .. } => score.is_finite(),
            Prediction::Words { masks } => masks.iter().flatten().all(|word| word.probability.is_finite()),
            _ => self.probabilities().iter().all(|p| p.is_finite()),
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prediction::Label { label, .. } => f.pad(label),
            Prediction::Labels { labels, .. } => f.pad(&labels.join(",")),
            Prediction::Tags { tags, .. } => f.pad(&tags.join(" ")),
            Prediction::Value { value } => fmt::Display::fmt(value, f),
            Prediction::Answer { answer, .. } => f.pad(answer),
            Prediction::Words { masks } => {
                let best: Vec<&str> = masks.iter().filter_map(|m| Some(m.first()?.word.trim())).collect();
                f.pad(&best.join(" "))
            }
        }
    }
}

impl Model {
    /// The answer to a text as people write it, or to a pair. A tagger splits it into words ([`data::split_words`]).
    pub fn predict(&self, text_a: &str, text_b: Option<&str>) -> Result<Prediction> {
        let example = Example { text_b: text_b.map(str::to_owned), ..self.raw(text_a) };
        Ok(self.predict_all(&[example])?.remove(0))
    }

    /// An example of a text as people write it, to be answered.
    pub fn raw(&self, text: &str) -> Example {
        self.task.raw(text)
    }

    /// The answers to many texts, in their order; unlike single calls it fills the machine. A tagger tags the words of
    /// [`Example::word_list`]; for texts as people write them, see [`Model::raw`].
    pub fn predict_all(&self, examples: &[Example]) -> Result<Vec<Prediction>> {
        if self.task == Task::Qa {
            return self.answer_all(examples);
        }
        if let Some(head) = self.wired.graph.mlm_head() {
            return self.fill_all(head, examples);
        }
        let texts = self.encode_texts(examples)?;
        let out = self.forward(texts.iter().map(|(text, _)| text))?;
        let all = out.iter().zip(examples).zip(&texts);
        all.map(|(((logits, _), e), (_, starts))| self.prediction(logits, e, starts)).collect()
    }

    /// The likeliest words behind each mask of each text. Errors: a text without a mask.
    fn fill_all(&self, head: &MaskedLm, examples: &[Example]) -> Result<Vec<Prediction>> {
        let (mask, id, ordinary) = self.texts.encoder.words()?;
        let words = Words::new(id, ordinary);
        let masked = |e: &Example| {
            let text = self.texts.encoder.encode(&e.text_a, e.text_b.as_deref())?;
            let rows = text.ids.iter().enumerate().filter(|(_, id)| **id == words.mask());
            let rows: Vec<usize> = rows.map(|(row, _)| row).collect();
            match rows.is_empty() {
                true => Err(Error::Config(format!(
                    "there is no {mask} among the first {} tokens of `{}`; write it in the place of a word",
                    self.texts.encoder.max_len(),
                    data::shorten(&e.text_a, 60)
                ))),
                false => Ok((text, rows)),
            }
        };
        let texts: Vec<(Encoded, Vec<usize>)> =
            self.pool.install(|| examples.par_iter().map(masked).collect::<Result<_>>())?;
        let filled =
            self.pool.install(|| masked::fill(&self.wired.graph, head, &self.theta, &texts, CANDIDATES))?;
        let candidate = |(word, probability): (usize, f64)| {
            Ok(Candidate { word: self.texts.encoder.decode(word)?, probability })
        };
        let candidates = |mask: Vec<_>| mask.into_iter().map(candidate).collect::<Result<Vec<_>>>();
        filled
            .into_iter()
            .map(|masks| {
                Ok(Prediction::Words { masks: masks.into_iter().map(candidates).collect::<Result<_>>()? })
            })
            .collect()
    }

    /// The answers to questions, each the best over all windows of its context.
    fn answer_all(&self, examples: &[Example]) -> Result<Vec<Prediction>> {
        let windows = self.windows(examples)?;
        let out = self.forward(windows.iter().flatten().map(|window| &window.text))?;
        let mut out = out.iter().map(|(logits, _)| &logits[..]);
        let all = examples.iter().zip(&windows).map(|(e, windows)| {
            let logits = out.by_ref().take(windows.len());
            let windows = logits.zip(windows.iter().map(|window| &window.places[..]));
            let span = answers::best(windows, self.answers_nothing);
            let context = e.text_b.as_deref().unwrap_or_default();
            let (bytes, score) = span.map_or((0..0, 0.0), |span| (span.within(context), span.probability));
            let (start, answer) = (context[..bytes.start].chars().count(), &context[bytes]);
            let end = start + answer.chars().count();
            Prediction::Answer { answer: answer.to_owned(), score, start, end }
        });
        Ok(all.collect())
    }

    /// The vectors of many texts, each `[embedding_width]`: sentence embeddings. They are the pooled vectors, behind the
    /// modules of the base ([`Base::modules`](crate::Base::modules)) unless the model pools in a way that
    /// sentence-transformers does not have. Empty where every token has its own, and of pairs, `[2 hidden]`, where the model
    /// compares two texts.
    pub fn embed_all(&self, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
        let texts = self.encode_texts(examples)?;
        let pooled = self.forward(texts.iter().map(|(text, _)| text))?.into_iter().map(|(_, pooled)| pooled);
        if !self.uses_modules() || self.base.modules().is_empty() {
            return Ok(pooled.collect());
        }
        let pooled: Vec<Vec<f32>> = pooled.collect();
        self.pool.install(|| pooled.into_par_iter().map(|v| embeddings::apply(&self.base, v)).collect())
    }

    fn forward<'a>(&self, texts: impl Iterator<Item = &'a Encoded>) -> Result<Vec<Output>> {
        let texts: Vec<&Encoded> = texts.collect();
        self.pool.install(|| train::forward_all(&self.wired.graph, &self.theta, &texts))
    }

    /// `logits: [labels]`, or `[tokens, labels]` with the rows where the words of the example begin.
    ///
    /// Errors: there is no head.
    fn prediction(&self, logits: &[f32], example: &Example, starts: &[Option<usize>]) -> Result<Prediction> {
        if let Some(prediction) = Prediction::of_text(&self.task, logits) {
            return Ok(prediction);
        }
        Ok(match &self.task {
            Task::Classify(_) | Task::Multilabel(_) | Task::Regress => unreachable!("of one text"),
            Task::Tag(labels) => Prediction::of_words(labels, logits, example, starts),
            Task::Qa | Task::Mlm => unreachable!("questions are answered by windows, masks by another head"),
            Task::Contrastive => {
                let what = "a contrastive model has no head and predicts nothing; use `embed` or `search`";
                return Err(Error::Config(what.into()));
            }
        })
    }
}
