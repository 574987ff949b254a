//! Examples as a model reads them.

use super::Model;
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::ops::loss::Target;
use crate::ops::masking::Words;
use crate::task::{Task, Unseen};
use crate::tokenize::{Encoded, Survey, WINDOWS_MAX, Window};
use crate::train::Labelled;
use crate::train::answers::{self, Part, Question};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

impl Model {
    /// Examples as the model reads them, to be answered and scored. Labels that it does not know count as wrong: their
    /// targets are numbered behind those of the labels that it knows, in the order of [`Unseen::names`].
    pub fn encode(&self, examples: &[Example]) -> Result<Vec<Labelled>> {
        self.encoded(examples, Some(&self.task.unseen(examples)))
    }

    /// What these examples' texts are made of. `None` if the task does not truncate texts, or if they cannot be tokenized.
    pub(crate) fn tokens_of(&self, examples: &[&Example]) -> Option<Survey> {
        let is_apart = self.pooling == Pooling::Apart || self.task == Task::Contrastive;
        let windows = if self.pooling == Pooling::Windows { WINDOWS_MAX } else { 1 };
        let one = |e: &&Example| {
            let encoder = &self.texts.encoder;
            match (&e.text_b, is_apart) {
                (Some(b), true) => Ok(encoder.survey(&e.text_a, None, 1)?.and(encoder.survey(b, None, 1)?)),
                (Some(b), false) => encoder.survey(&e.text_a, Some(b), 1),
                (None, _) => encoder.survey(&e.text_a, None, windows),
            }
        };
        let all: Result<Vec<Survey>> = self.pool.install(|| examples.par_iter().map(one).collect());
        let all = all.ok()?.into_iter().reduce(Survey::and)?;
        // Questions and plain texts are read whole, in windows.
        let truncated = if matches!(self.task, Task::Qa | Task::Mlm) { 0 } else { all.truncated };
        Some(Survey { truncated, ..all })
    }

    /// To be learned, or, with the labels that the model does not know, to be scored.
    pub(super) fn encoded(&self, examples: &[Example], scored: Option<&Unseen>) -> Result<Vec<Labelled>> {
        let path = Path::new("the examples");
        let targets = match scored {
            Some(unseen) => self.task.scored_targets(examples, unseen, path)?,
            None => self.task.targets(examples, path)?,
        };
        if self.task == Task::Contrastive {
            return self.encode_pairs(examples, targets);
        }
        if self.task == Task::Qa {
            return self.encode_questions(examples, &targets, scored.is_some());
        }
        if self.task == Task::Mlm {
            return self.encode_plain(examples);
        }
        let texts = self.encode_texts(examples)?;
        let labelled = texts.into_iter().zip(targets).map(|((text, starts), target)| Labelled {
            text,
            target: match target {
                Target::Tags(tags) => Target::Tags(
                    tags.into_iter().filter_map(|(word, tag)| Some(((*starts.get(word)?)?, tag))).collect(),
                ),
                target => target,
            },
            partner: None,
            part: None,
        });
        Ok(labelled.collect())
    }

    /// Every text whole, in windows where it is longer; those without a word that could be hidden are left out.
    fn encode_plain(&self, examples: &[Example]) -> Result<Vec<Labelled>> {
        let (_, mask, ordinary) = self.texts.encoder.words()?;
        let words = Words::new(mask, ordinary);
        let words = Arc::new(words);
        let windows = |text: &str| self.texts.encoder.encode_parts(text);
        let texts: Vec<&str> = examples
            .iter()
            .flat_map(|e| [Some(&e.text_a[..]), e.text_b.as_deref()].into_iter().flatten())
            .collect();
        let encoded: Vec<Vec<Encoded>> =
            self.pool.install(|| texts.par_iter().map(|text| windows(text)).collect::<Result<_>>())?;
        let some = encoded.into_iter().flatten().filter(|text| text.ids.iter().any(|id| words.has(*id)));
        let labelled: Vec<Labelled> = some
            .map(|text| Labelled { text, target: Target::Cloze(words.clone()), partner: None, part: None })
            .collect();
        match labelled.is_empty() {
            true => Err(Error::Config("there is no word in the texts that the tokenizer knows".into())),
            false => Ok(labelled),
        }
    }

    /// The two texts of each example by themselves.
    fn encode_pairs(&self, pairs: &[Example], targets: Vec<Target>) -> Result<Vec<Labelled>> {
        let one = |(e, target): (&Example, Target)| {
            let partner = e.text_b.as_deref().map(|b| self.texts.encoder.encode(b, None)).transpose()?;
            Ok(Labelled { text: self.texts.encoder.encode(&e.text_a, None)?, target, partner, part: None })
        };
        self.pool.install(|| pairs.par_iter().zip(targets).map(one).collect())
    }

    /// The windows of every question's context.
    fn encode_questions(
        &self,
        examples: &[Example],
        answers: &[Target],
        scored: bool,
    ) -> Result<Vec<Labelled>> {
        let mut labelled = Vec::new();
        for ((e, windows), answer) in examples.iter().zip(self.windows(examples)?).zip(answers) {
            let question = scored.then(|| Arc::new(Question::of(e, self.answers_nothing)));
            for window in windows {
                let target = match answer {
                    Target::Span(start, end) => answers::rows(&window, *start..*end),
                    other => other.clone(),
                };
                let part = |question| Part { question, places: window.places };
                labelled.push(Labelled {
                    text: window.text,
                    target,
                    partner: None,
                    part: question.clone().map(part),
                });
            }
        }
        Ok(labelled)
    }

    /// What the model reads of every question. Errors: an example without a context.
    pub(super) fn windows(&self, examples: &[Example]) -> Result<Vec<Vec<Window>>> {
        let of = |e: &Example| match &e.text_b {
            Some(context) => self.texts.encoder.encode_windows(&e.text_a, context, self.stride),
            None => Err(Error::Config("qa needs a pair: a question, and the text with its answer".into())),
        };
        self.pool.install(|| examples.par_iter().map(of).collect())
    }

    /// The tokens of every example, and for tags the row of each word's first.
    pub(super) fn encode_texts(&self, examples: &[Example]) -> Result<Vec<(Encoded, Vec<Option<usize>>)>> {
        self.pool.install(|| match self.task {
            Task::Tag(_) => {
                examples.par_iter().map(|e| self.texts.encoder.encode_words(&e.word_list())).collect()
            }
            _ if self.pooling == Pooling::Apart => {
                examples.par_iter().map(|e| Ok((self.encode_apart(e)?, Vec::new()))).collect()
            }
            _ if self.pooling == Pooling::Windows => {
                let one = |e: &Example| match &e.text_b {
                    // A pair is one sequence.
                    Some(b) => self.texts.encoder.encode(&e.text_a, Some(b)),
                    None => self.texts.encoder.encode_long(&e.text_a),
                };
                examples.par_iter().map(|e| Ok((one(e)?, Vec::new()))).collect()
            }
            _ => {
                let texts = self.texts.encoder.encode_all(examples)?;
                Ok(texts.into_iter().map(|text| (text, Vec::new())).collect())
            }
        })
    }

    fn encode_apart(&self, e: &Example) -> Result<Encoded> {
        match &e.text_b {
            Some(b) => self.texts.encoder.encode_apart(&e.text_a, b),
            None => {
                let text = data::shorten(&e.text_a, 60);
                Err(Error::Config(format!("the model compares two texts, and `{text}` is but one")))
            }
        }
    }
}
