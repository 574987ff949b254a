//! What a model is asked: the kind of answer, what its head gives, and how labels of a file become targets.

use crate::data::{self, Example, LabelForm};
use crate::error::{Error, Result};
use crate::ops::loss::Target;
use crate::scores::{self, ScoreName};
use crate::spans::Scheme;
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Outputs of a token of a question's text: that the answer begins there, that it ends there.
pub(crate) const SPAN_OUTPUTS: usize = 2;

/// A kind of question, by the name that `--task` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which of some labels: one for each text.
    Classify,
    /// Which of some labels: any number for each text.
    Multilabel,
    /// How much: a number for each text.
    Regress,
    /// Which of some tags: one for each token, such as parts of speech, or names by BIO tags.
    Tag,
    /// Which texts are near one another: the two of each pair. There is no head, vectors are the answer.
    Contrastive,
    /// Where in a text the answer to a question stands.
    Qa,
    /// Which words are hidden in a text: for the base to get used to texts of a kind, by its own masked-LM head.
    Mlm,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] =
        [Kind::Classify, Kind::Multilabel, Kind::Regress, Kind::Tag, Kind::Qa, Kind::Contrastive, Kind::Mlm];

    /// Its name on the command line and in bias files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Classify => "classify",
            Kind::Multilabel => "multilabel",
            Kind::Regress => "regress",
            Kind::Tag => "tag",
            Kind::Contrastive => "contrastive",
            Kind::Qa => "qa",
            Kind::Mlm => "mlm",
        }
    }

    /// Whether the head reads every token, not one vector a text.
    pub fn reads_tokens(self) -> bool {
        matches!(self, Kind::Tag | Kind::Qa | Kind::Mlm)
    }

    /// Name of the head's weight and bias in `transformers`, before the dot, where it is not the classifier's of the model.
    pub fn head(self) -> Option<&'static str> {
        (self == Kind::Qa).then_some("qa_outputs")
    }

    /// Which labels its examples must have.
    pub fn wanted(self) -> LabelForm {
        match self {
            Kind::Classify => LabelForm::Name,
            Kind::Multilabel => LabelForm::Several,
            Kind::Regress => LabelForm::Number,
            Kind::Tag => LabelForm::Tags,
            Kind::Contrastive | Kind::Mlm => LabelForm::Nothing,
            Kind::Qa => LabelForm::Answers,
        }
    }

    /// Its scores, the one that tells most first.
    pub fn scores(self) -> &'static [ScoreName] {
        match self {
            Kind::Classify => &scores::CLASSIFY,
            Kind::Multilabel => &scores::MULTILABEL,
            Kind::Regress => &scores::REGRESS,
            Kind::Tag => &scores::TAG,
            Kind::Contrastive => &scores::CONTRASTIVE,
            Kind::Qa => &scores::QA,
            Kind::Mlm => &scores::MLM,
        }
    }

    /// The task that these examples are of: with the labels that they carry.
    ///
    /// Errors: `Error::Data` where they cannot be trained on: there is none; one has no label, or none that is a number;
    /// all have the same.
    pub fn of(self, examples: &[Example], path: &Path) -> Result<Task> {
        let task = match self {
            Kind::Classify => {
                data::check_trainable(examples, path)?;
                return Ok(Task::Classify(data::label_set(examples)));
            }
            Kind::Multilabel => Task::Multilabel(data::label_set_of(examples.iter().flat_map(several))),
            Kind::Regress => Task::Regress,
            Kind::Qa => Task::Qa,
            Kind::Tag => Task::Tag(data::label_set_of(examples.iter().flat_map(tags))),
            Kind::Contrastive => Task::Contrastive,
            Kind::Mlm => Task::Mlm,
        };
        if examples.is_empty() {
            return Err(Error::data(path, None, "there are no examples"));
        }
        if self == Kind::Tag {
            // Every sentence is looked at once, before the long work.
            task.targets(examples, path)?;
            if task.labels().len() < 2 {
                let what = "every token has the same tag; there is nothing to learn";
                return Err(Error::data(path, None, what));
            }
            return Ok(task);
        }
        if self == Kind::Multilabel && task.labels().is_empty() {
            return Err(Error::data(path, None, "no example has a label"));
        }
        let targets = task.targets(examples, path)?;
        if self == Kind::Contrastive {
            if examples.iter().all(|e| e.text_b == examples[0].text_b) {
                let what = "every pair has the same second text; there is nothing to learn";
                return Err(Error::data(path, None, what));
            }
            return Ok(task);
        }
        if matches!(self, Kind::Qa | Kind::Mlm) {
            return Ok(task);
        }
        if targets.iter().all(|t| *t == targets[0]) {
            let what =
                format!("every example has the same answer; {self} needs different ones to learn from");
            return Err(Error::data(path, None, what));
        }
        Ok(task)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Kind> {
        Kind::ALL.into_iter().find(|k| k.name() == s).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
            Error::Config(format!("unknown task `{s}`; known: {}", known.join(", ")))
        })
    }
}

/// What one model answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of these labels, in the order of the head's outputs.
    Classify(Vec<String>),
    /// Any of these labels.
    Multilabel(Vec<String>),
    /// A number.
    Regress,
    /// One of these tags for each token.
    Tag(Vec<String>),
    /// A vector; there is no head.
    Contrastive,
    /// A part of a question's context.
    Qa,
    /// Hidden words.
    Mlm,
}

impl Task {
    /// Tells these labels apart.
    pub fn classify<S: Into<String>>(labels: impl IntoIterator<Item = S>) -> Task {
        Task::Classify(labels.into_iter().map(Into::into).collect())
    }

    /// An example of a text as people write it, to be answered: for tags its words are found.
    pub(crate) fn raw(&self, text: &str) -> Example {
        match self {
            Task::Tag(_) => Example::raw_sentence(text),
            _ => Example { text_a: text.to_owned(), ..Example::default() },
        }
    }

    /// The task of a kind with its labels.
    pub fn new(kind: Kind, labels: Vec<String>) -> Task {
        match kind {
            Kind::Classify => Task::Classify(labels),
            Kind::Multilabel => Task::Multilabel(labels),
            Kind::Regress => Task::Regress,
            Kind::Tag => Task::Tag(labels),
            Kind::Contrastive => Task::Contrastive,
            Kind::Qa => Task::Qa,
            Kind::Mlm => Task::Mlm,
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Task::Classify(_) => Kind::Classify,
            Task::Multilabel(_) => Kind::Multilabel,
            Task::Regress => Kind::Regress,
            Task::Tag(_) => Kind::Tag,
            Task::Contrastive => Kind::Contrastive,
            Task::Qa => Kind::Qa,
            Task::Mlm => Kind::Mlm,
        }
    }

    /// The labels; none where the answer is a number, a part of a text, a word or a vector.
    pub fn labels(&self) -> &[String] {
        match self {
            Task::Classify(labels) | Task::Multilabel(labels) | Task::Tag(labels) => labels,
            Task::Regress | Task::Qa | Task::Contrastive | Task::Mlm => &[],
        }
    }

    /// Outputs of the head that is trained.
    pub fn outputs(&self) -> usize {
        match self {
            Task::Classify(labels) | Task::Multilabel(labels) | Task::Tag(labels) => labels.len(),
            Task::Regress => 1,
            Task::Contrastive | Task::Mlm => 0,
            Task::Qa => SPAN_OUTPUTS,
        }
    }

    /// Whether each text or token has an answer of its own, so that a linear probe can be fitted and answers can be scored
    /// one by one.
    pub fn has_probe(&self) -> bool {
        !matches!(self, Task::Qa | Task::Contrastive | Task::Mlm)
    }

    /// What is wrong with it, if anything: too few labels, or one twice.
    pub fn check(&self) -> std::result::Result<(), String> {
        let labels = self.labels();
        let least = match self {
            Task::Classify(_) | Task::Tag(_) => 2,
            Task::Multilabel(_) => 1,
            Task::Regress | Task::Qa | Task::Contrastive | Task::Mlm => 0,
        };
        if labels.len() < least {
            return Err(format!("{} needs {least} labels or more, not {}", self.kind(), labels.len()));
        }
        let mut sorted: Vec<&String> = labels.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|w| w[0] == w[1]) {
            Some(w) => Err(format!("the label `{}` is there twice", w[0])),
            None => Ok(()),
        }
    }

    /// What each example's label asks of the head; of tags by the number of the token, of answers
    /// by the bytes of the context, not yet of their rows (none for an unanswerable question), and of hidden words nothing:
    /// they are in the text.
    ///
    /// Errors: `Error::Data` naming the line: no label, one that the model does not know, no number.
    pub fn targets(&self, examples: &[Example], path: &Path) -> Result<Vec<Target>> {
        self.targets_among(examples, self.labels(), path)
    }

    /// As [`Task::targets`], to score answers: labels that the model does not know are numbered behind those that it knows,
    /// as `unseen` names them.
    ///
    /// Errors: as of [`Task::targets`], but for labels that are in `unseen`.
    pub fn scored_targets(&self, examples: &[Example], unseen: &Unseen, path: &Path) -> Result<Vec<Target>> {
        match unseen.names.is_empty() {
            true => self.targets(examples, path),
            false => self.targets_among(examples, &unseen.all_names(self), path),
        }
    }

    /// The labels of these examples that the model does not know.
    pub fn unseen(&self, examples: &[Example]) -> Unseen {
        let known: HashSet<&str> = self.labels().iter().map(String::as_str).collect();
        let mut unseen = Unseen::default();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for e in examples {
            let labels: Box<dyn Iterator<Item = &str>> = match self {
                Task::Classify(_) => Box::new(e.label.as_deref().into_iter()),
                Task::Multilabel(_) => Box::new(several(e)),
                Task::Tag(_) => Box::new(tags(e)),
                Task::Regress | Task::Contrastive | Task::Qa | Task::Mlm => return unseen,
            };
            let before = unseen.occurrences;
            for label in labels.filter(|label| !known.contains(label)) {
                names.insert(label);
                unseen.occurrences += 1;
            }
            unseen.examples += usize::from(unseen.occurrences > before);
        }
        unseen.names = names.into_iter().map(str::to_owned).collect();
        unseen
    }

    fn targets_among(&self, examples: &[Example], labels: &[String], path: &Path) -> Result<Vec<Target>> {
        match self {
            Task::Classify(_) => {
                Ok(data::label_ids(examples, labels, path)?.into_iter().map(Target::Class).collect())
            }
            Task::Multilabel(_) => {
                let index = data::Index::new(labels);
                let target = |e: &Example| {
                    let mut wanted = vec![false; labels.len()];
                    e.label.as_ref().ok_or_else(|| Error::data(path, Some(e.line), "there is no label"))?;
                    for label in several(e) {
                        wanted[index.of(label, e.line, path)?] = true;
                    }
                    Ok(Target::Labels(wanted))
                };
                examples.iter().map(target).collect()
            }
            Task::Tag(_) => {
                let index = data::Index::new(labels);
                let target = |e: &Example| {
                    let ids =
                        tags(e).map(|tag| index.of(tag, e.line, path)).collect::<Result<Vec<usize>>>()?;
                    let tokens = e.word_list().len();
                    if ids.len() != tokens || tokens == 0 {
                        let what = format!("{} tags for {tokens} tokens", ids.len());
                        return Err(Error::data(path, Some(e.line), what));
                    }
                    Ok(Target::Tags(ids.into_iter().enumerate().collect()))
                };
                examples.iter().map(target).collect()
            }
            Task::Contrastive => {
                let target = |e: &Example| match e.text_b {
                    Some(_) => Ok(Target::Partner),
                    None => {
                        let what = "there is no second text; contrastive learns from pairs, in columns text_a and text_b";
                        Err(Error::data(path, Some(e.line), what))
                    }
                };
                examples.iter().map(target).collect()
            }
            Task::Qa => {
                let target = |e: &Example| match e.asked.as_ref().map(|asked| (asked.answers.first(), asked))
                {
                    Some((Some(answer), _)) => {
                        Ok(Target::Span(answer.start, answer.start + answer.text.len()))
                    }
                    Some((None, asked)) if asked.unanswerable => Ok(Target::Span(0, 0)),
                    _ => Err(Error::data(path, None, format!("question {} has no answer", e.line))),
                };
                examples.iter().map(target).collect()
            }
            Task::Mlm => Ok(vec![Target::Tags(Vec::new()); examples.len()]),
            Task::Regress => {
                let target = |e: &Example| {
                    let label = e.label.as_deref().unwrap_or_default().trim();
                    match label.parse::<f32>() {
                        Ok(v) if v.is_finite() => Ok(Target::Value(v)),
                        _ => {
                            let what = format!(
                                "`{}` is not a number, which regress asks for",
                                data::shorten(label, 60)
                            );
                            Err(Error::data(path, Some(e.line), what))
                        }
                    }
                };
                examples.iter().map(target).collect()
            }
        }
    }
}

/// Labels of examples that a model does not know: they were not in training. Answers to these count as wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// Their names, sorted.
    pub names: Vec<String>,
    /// Examples that have one.
    pub examples: usize,
    /// How often they are there, in all examples: of tags more than once in a sentence.
    pub occurrences: usize,
}

impl Unseen {
    /// The labels that the model knows, in their order, and behind them these.
    pub fn all_names(&self, task: &Task) -> Vec<String> {
        task.labels().iter().chain(&self.names).cloned().collect()
    }

    /// What is to be said of them; `None` if there are none.
    pub fn sentence(&self, task: &Task) -> Option<String> {
        if self.names.is_empty() {
            return None;
        }
        let (what, n) = match task {
            Task::Tag(_) => ("tokens have tags", self.occurrences),
            _ => ("lines have labels", self.examples),
        };
        let (n, names) = (crate::text::count(n), data::list(&self.names, 12));
        Some(format!("{n} {what} that were not in training ({names}); they count as wrong"))
    }
}

/// The tags of an example, one a word.
fn tags(e: &Example) -> impl Iterator<Item = &str> {
    e.label.as_deref().unwrap_or_default().split_whitespace()
}

/// The scheme of the tags of these examples; `None` if they are not of spans.
pub fn scheme(examples: &[Example]) -> Option<Scheme> {
    let sentences: Vec<Vec<&str>> = examples.iter().map(|e| tags(e).collect()).collect();
    Scheme::of(sentences.iter().map(|tags| &tags[..]))
}

/// The labels of an example that may have several: between commas, without the spaces around them.
fn several(e: &Example) -> impl Iterator<Item = &str> {
    e.label.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(labels: &[&str]) -> Vec<Example> {
        let one = |(i, l): (usize, &&str)| Example {
            text_a: "x".into(),
            label: Some((*l).to_owned()),
            line: i + 2,
            ..Example::default()
        };
        labels.iter().enumerate().map(one).collect()
    }

    #[test]
    fn several_labels_and_none() {
        let path = Path::new("t.tsv");
        let some = examples(&["b, a", "", "c,,a "]);
        let task = Kind::Multilabel.of(&some, path).unwrap();
        assert_eq!(task.labels(), ["a", "b", "c"]);
        let wanted = [[true, true, false], [false; 3], [true, false, true]];
        let targets = task.targets(&some, path).unwrap();
        assert_eq!(targets, wanted.map(|w| Target::Labels(w.to_vec())));
        let e = task.targets(&examples(&["a", "d"]), path).unwrap_err().to_string();
        assert!(e.starts_with("t.tsv:3: unknown label `d`; known labels: `a`, `b`, `c`"), "{e}");
        assert!(Kind::Multilabel.of(&examples(&["", " "]), path).is_err(), "no label at all");
        assert!(Kind::Multilabel.of(&examples(&["a", "a"]), path).is_err(), "all the same");
        assert!(Kind::Multilabel.of(&[], path).is_err());
    }

    #[test]
    fn labels_that_were_not_in_training() {
        let path = Path::new("t.tsv");
        let task = Task::classify(["a", "b"]);
        let some = examples(&["b", "z", "a", "y", "z"]);
        let unseen = task.unseen(&some);
        assert_eq!(
            (&unseen.names[..], unseen.examples, unseen.occurrences),
            (&["y".into(), "z".into()][..], 3, 3)
        );
        assert_eq!(task.scored_targets(&some, &unseen, path).unwrap(), [1, 3, 0, 2, 3].map(Target::Class));
        let said = "3 lines have labels that were not in training (`y`, `z`); they count as wrong";
        assert_eq!(unseen.sentence(&task).unwrap(), said);
        assert!(task.targets(&some, path).is_err(), "they cannot be learned");
        assert_eq!(task.unseen(&some[..1]).sentence(&task), None);

        let task = Task::Multilabel(vec!["a".into(), "b".into()]);
        let some = examples(&["a, z", "", "z,y"]);
        let unseen = task.unseen(&some);
        assert_eq!((unseen.examples, unseen.occurrences), (2, 3));
        let wanted = [[true, false, false, true], [false; 4], [false, false, true, true]];
        assert_eq!(
            task.scored_targets(&some, &unseen, path).unwrap(),
            wanted.map(|w| Target::Labels(w.to_vec()))
        );

        let task = Task::Tag(vec!["B-x".into(), "O".into()]);
        let mut some = examples(&["O I-x I-x", "B-x O O"]);
        some.iter_mut().for_each(|e| e.text_a = "a b c".into());
        let unseen = task.unseen(&some);
        assert_eq!((unseen.examples, unseen.occurrences), (1, 2));
        assert!(
            unseen
                .sentence(&task)
                .unwrap()
                .starts_with("2 tokens have tags that were not in training (`I-x`)")
        );
        let Target::Tags(tags) = &task.scored_targets(&some, &unseen, path).unwrap()[0] else { panic!() };
        assert_eq!(tags[..], [(0, 1), (1, 2), (2, 2)]);
        assert_eq!(Task::Regress.unseen(&examples(&["x"])), Unseen::default());
    }

    #[test]
    fn an_unanswerable_question_has_no_span() {
        let asked = |unanswerable| crate::data::Asked { id: "1".into(), answers: vec![], unanswerable };
        let e = |unanswerable| Example { asked: Some(Box::new(asked(unanswerable))), ..Example::default() };
        assert_eq!(Task::Qa.targets(&[e(true)], Path::new("f")).unwrap(), [Target::Span(0, 0)]);
        assert!(Task::Qa.targets(&[e(false)], Path::new("f")).is_err());
    }

    #[test]
    fn numbers() {
        let path = Path::new("t.tsv");
        let some = examples(&["1", "-2.5", " 3e1 "]);
        let task = Kind::Regress.of(&some, path).unwrap();
        assert_eq!((task.outputs(), task.labels().len()), (1, 0));
        assert_eq!(task.targets(&some, path).unwrap(), [1.0, -2.5, 30.0].map(Target::Value));
        for bad in ["", "one", "nan", "inf", "1e99"] {
            let e = task.targets(&examples(&["1", bad]), path).unwrap_err().to_string();
            assert_eq!(e, format!("t.tsv:3: `{bad}` is not a number, which regress asks for"));
        }
        assert!(Kind::Regress.of(&examples(&["2", "2.0"]), path).is_err(), "all the same");
    }

    #[test]
    fn names_and_labels() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        assert!(
            "guess"
                .parse::<Kind>()
                .unwrap_err()
                .to_string()
                .contains("known: classify, multilabel, regress, tag, qa")
        );
        assert!(Task::classify(["a"]).check().is_err());
        assert!(Task::classify(["a", "b"]).check().is_ok());
        assert!(Task::classify(["a", "b", "a"]).check().unwrap_err().contains("`a` is there twice"));
        assert!(Task::Regress.check().is_ok());
    }
}
