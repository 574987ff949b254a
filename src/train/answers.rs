//! Answers to questions: which part of the context the logits name, and how SQuAD scores it.
//!
//! The best span is found as by `run_qa.py` of `transformers`, the scores are those of `evaluate-v1.1.py`, and where a question
//! may have no answer those of `evaluate-v2.0.py`.

use super::Labelled;
use super::forward::Output;
use super::metrics::Metrics;
use crate::data::Example;
use crate::ops::loss::{self, Target};
use crate::scores::{self, Scores};
use crate::task::SPAN_OUTPUTS;
use crate::tokenize::Window;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Starts and ends of a window that are looked at, and spans of a question whose probabilities sum to 1.
const BEST: usize = 20;
/// Longest answer, in tokens.
const TOKENS_MAX: usize = 30;

/// What a span is scored by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The text that the answer is a part of.
    pub context: String,
    /// Answers that count as right; none if the question is unanswerable.
    pub golds: Vec<String>,
    /// Whether the model may say that there is no answer.
    pub may_be_empty: bool,
}

impl Question {
    /// Of an example with a context and with answers; see [`Question::may_be_empty`].
    pub fn of(e: &Example, may_be_empty: bool) -> Question {
        let golds = e.asked.iter().flat_map(|asked| &asked.answers).map(|answer| answer.text.clone());
        Question { context: e.text_b.clone().unwrap_or_default(), golds: golds.collect(), may_be_empty }
    }
}

/// Where the tokens of a window stand in its question's context.
#[derive(Clone, Debug)]
pub struct Part {
    /// The same for all windows of a question, which follow one another.
    pub question: Arc<Question>,
    /// As in [`Window::places`].
    pub places: Vec<Option<(u32, u32)>>,
}

/// The best span of a question's context.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its bytes in the context; none where the answer is that there is no answer.
    pub bytes: Range<usize>,
    /// Its probability among the best twenty.
    pub probability: f64,
}

impl Span {
    /// Its bytes as they can be taken out of `context`: whole characters, in order and not beyond its end.
    pub fn within(&self, context: &str) -> Range<usize> {
        let end = context.ceil_char_boundary(self.bytes.end);
        context.floor_char_boundary(self.bytes.start).min(end)..end
    }
}

/// The rows of the tokens in which the bytes `span` begin and end; both 0, the row of `[CLS]`, where the window does not
/// hold all of them, or where there are none: the question is unanswerable.
pub fn rows(window: &Window, span: Range<usize>) -> Target {
    if span.is_empty() {
        return Target::Span(0, 0);
    }
    let places = || window.places.iter().enumerate().filter_map(|(row, place)| Some((row, (*place)?)));
    let start = places().rfind(|(_, (from, _))| *from as usize <= span.start);
    let end = places().find(|(_, (_, to))| *to as usize >= span.end);
    match (start, end) {
        (Some((start, _)), Some((end, _))) if start <= end => Target::Span(start, end),
        _ => Target::Span(0, 0),
    }
}

/// The best span over the windows of a question, `logits: [tokens, 2]` each; none where nothing good lies in the context.
///
/// If `may_be_empty`, the answer is an empty span where no answer scores higher than the best span. It scores what the start
/// and the end give the first row, in the window where that is least.
pub fn best<'a>(
    windows: impl IntoIterator<Item = (&'a [f32], &'a [Option<(u32, u32)>])>,
    may_be_empty: bool,
) -> Option<Span> {
    let mut spans: Vec<(f32, Range<usize>)> = Vec::new();
    let mut no_answer: Option<f32> = None;
    for (logits, places) in windows {
        let [starts, ends] = [0, 1].map(|output| loss::column(logits, SPAN_OUTPUTS, output));
        if let (true, Some(start), Some(end)) = (may_be_empty, starts.first(), ends.first()) {
            let score = start + end;
            no_answer = Some(no_answer.filter(|least| *least <= score).unwrap_or(score));
        }
        for start in largest(&starts) {
            for end in largest(&ends) {
                let (Some(Some(from)), Some(Some(to))) = (places.get(start), places.get(end)) else {
                    continue;
                };
                if (start..start + TOKENS_MAX).contains(&end) {
                    spans.push((starts[start] + ends[end], from.0 as usize..to.1 as usize));
                }
            }
        }
    }
    // Stable: of equal spans the one that was found first, and a span before no answer.
    spans.extend(no_answer.map(|score| (score, 0..0)));
    spans.sort_by(|a, b| downwards(a.0, b.0));
    spans.truncate(BEST);
    let scores: Vec<f32> = spans.iter().map(|(score, _)| *score).collect();
    let (_, bytes) = spans.into_iter().next()?;
    Some(Span { bytes, probability: loss::softmax(&scores)[0] })
}

/// The rows of the largest values, largest first; of equal ones the first.
fn largest(values: &[f32]) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..values.len()).collect();
    rows.sort_by(|&a, &b| downwards(values[a], values[b]));
    rows.truncate(BEST);
    rows
}

fn downwards(a: f32, b: f32) -> Ordering {
    b.total_cmp(&a)
}

/// Scores of the questions whose windows are among `data`.
pub(super) fn scores(outputs: &[Output], data: &[Labelled], loss: f64) -> Metrics {
    let parts: Vec<(&[f32], &Part)> = outputs
        .iter()
        .zip(data)
        .filter_map(|((logits, _), d)| Some((&logits[..], d.part.as_ref()?)))
        .collect();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let by_question = || parts.chunk_by(|(_, a), (_, b)| Arc::ptr_eq(&a.question, &b.question));
    let is_2 = by_question().any(|w| w[0].1.question.may_be_empty || w[0].1.question.golds.is_empty());
    for windows in by_question() {
        let question = &windows[0].1.question;
        let windows = windows.iter().map(|(logits, part)| (*logits, &part.places[..]));
        let span = best(windows, question.may_be_empty);
        let answer = span.map_or("", |span| &question.context[span.within(&question.context)]);
        let score = match is_2 {
            true => squad_2(answer, &question.golds),
            false => [exact_match, token_f1].map(|score| over_golds(answer, &question.golds, score)),
        };
        let all = if question.golds.is_empty() { &mut without } else { &mut with };
        all.push(score);
    }
    let questions = with.len() + without.len();
    let sum = |scores: &[[f64; 2]], which: usize| scores.iter().map(|s| s[which]).sum::<f64>();
    let mean =
        |scores: &[[f64; 2]], which| (!scores.is_empty()).then(|| sum(scores, which) / scores.len() as f64);
    let [exact_match, f1] =
        [0, 1].map(|which| (sum(&with, which) + sum(&without, which)) / questions.max(1) as f64);
    let of_all = [Some(f1), Some(exact_match)];
    let of_squad_2 = [
        Some(exact_match),
        mean(&with, 0),
        mean(&with, 1),
        Some(with.len() as f64),
        mean(&without, 0),
        mean(&without, 1),
        Some(without.len() as f64),
    ];
    let also = if is_2 { &of_squad_2[..] } else { &[] };
    let scores = Scores::new(&scores::QA, of_all.iter().chain(also).copied());
    Metrics { examples: questions, scores, loss }
}

/// The best score of an answer against any of several.
pub fn over_golds(answer: &str, golds: &[String], score: impl Fn(&str, &str) -> f64) -> f64 {
    golds.iter().map(|gold| score(answer, gold)).fold(0.0, f64::max)
}

/// Exact match and F1 as SQuAD 2.0's script has them: an answer without words is right where no gold answer has any, and
/// wrong elsewhere.
pub fn squad_2(answer: &str, golds: &[String]) -> [f64; 2] {
    let is_empty = words(answer).is_empty();
    let mut golds = golds.iter().filter(|gold| !words(gold).is_empty()).peekable();
    if golds.peek().is_none() {
        return [f64::from(u8::from(is_empty)); 2];
    }
    golds.fold([0.0; 2], |best, gold| {
        [best[0].max(exact_match(answer, gold)), best[1].max(token_f1(answer, gold))]
    })
}

/// 1 where two answers have the same words in the same order, else 0.
pub fn exact_match(answer: &str, gold: &str) -> f64 {
    f64::from(u8::from(words(answer) == words(gold)))
}

/// F1 of the words that two answers share.
pub fn token_f1(answer: &str, gold: &str) -> f64 {
    let (answer, gold) = (words(answer), words(gold));
    let mut left: HashMap<&str, usize> = HashMap::new();
    gold.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let mut same = 0usize;
    for word in &answer {
        if let Some(n) = left.get_mut(&word[..]).filter(|n| **n > 0) {
            *n -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (same as f64 / answer.len() as f64, same as f64 / gold.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The words of an answer as SQuAD's script normalizes it: lower case, without ASCII punctuation, articles as whole words
/// and spaces.
fn words(text: &str) -> Vec<String> {
    let text: Vec<char> = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut without = String::new();
    for run in text.chunk_by(|a, b| a.is_alphanumeric() == b.is_alphanumeric()) {
        let run: String = run.iter().collect();
        without += if matches!(&run[..], "a" | "an" | "the") { " " } else { &run };
    }
    // Python splits at these too.
    let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    without.split(space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenize::Encoded;

    #[test]
    fn words_of_answers() {
        let of = |text: &str| words(text).join("|");
        assert_eq!(of("The  U.S. Army's\ta-10, an"), "us|armys|a10");
        assert_eq!(of("“the end” – Theatre\u{1f}İ"), "“|end”|–|theatre|i\u{307}");
        assert_eq!(of("a the?!"), "");
        assert_eq!((exact_match("the!", "an"), token_f1("the!", "an")), (1.0, 0.0), "as the script has it");
        assert_eq!(token_f1("to be or to", "to be to to"), 0.75);
    }

    fn places() -> Vec<Option<(u32, u32)>> {
        // [CLS] question [SEP] ab cd ef [SEP]
        vec![None, None, None, Some((0, 2)), Some((3, 5)), Some((6, 8)), None]
    }

    #[test]
    fn rows_of_a_span() {
        let window = Window { text: Encoded::plain(vec![]), places: places() };
        for (span, rows_of) in
            [(0..2, (3, 3)), (3..8, (4, 5)), (1..4, (3, 4)), (3..9, (0, 0)), (4..5, (4, 4))]
        {
            assert_eq!(rows(&window, span.clone()), Target::Span(rows_of.0, rows_of.1), "{span:?}");
        }
        let upper =
            Window { places: places()[..3].iter().chain(&places()[4..]).copied().collect(), ..window };
        assert_eq!(rows(&upper, 0..5), Target::Span(0, 0), "it begins before the window");
    }

    /// Logits of a window from those of its starts and ends.
    fn logits(starts: [f32; 7], ends: [f32; 7]) -> Vec<f32> {
        starts.into_iter().zip(ends).flat_map(|(s, e)| [s, e]).collect()
    }

    #[test]
    fn best_span_lies_in_the_context_and_runs_forwards() {
        let places = places();
        // The best start and end of all are no places, the next ones would run backwards.
        let one = logits([9.0, 0.0, 0.0, 1.0, 3.0, 2.0, 0.0], [0.0, 9.0, 0.0, 4.0, 1.0, 2.0, 0.0]);
        let two = logits([0.0; 7], [0.0; 7]);
        let span = best([(&two[..], &places[..]), (&one[..], &places[..])], false).unwrap();
        assert_eq!((span.bytes.clone(), span.within("ab cd ef")), (3..8, 3..8));
        // Six spans of `one`, with 5, 2, 3, 4, 5 and 4, and six of 0.
        let sum: f64 = [5.0f64, 5.0, 4.0, 4.0, 3.0, 2.0].iter().map(|v| v.exp()).sum::<f64>() + 6.0;
        assert!((span.probability - 5f64.exp() / sum).abs() < 1e-12, "{}", span.probability);
        assert_eq!(best([(&one[..], &[None; 7][..])], false), None);
    }

    /// As by `postprocess_qa_predictions` with `version_2_with_negative=True`.
    #[test]
    fn no_answer_is_given_where_it_scores_higher() {
        let places = places();
        let window = |none: f32, span: f32| {
            logits([none, 0.0, 0.0, span, 0.0, 0.0, 0.0], [none, 0.0, 0.0, span, 0.0, 0.0, 0.0])
        };
        let of = |windows: &[Vec<f32>], may_be_empty| {
            best(windows.iter().map(|y| (&y[..], &places[..])), may_be_empty).unwrap()
        };
        assert_eq!(of(&[window(2.0, 1.0)], true).bytes, 0..0);
        assert_eq!(of(&[window(2.0, 1.0)], false).bytes, 0..2, "a model that has not learned it");
        assert_eq!(of(&[window(1.0, 2.0)], true).bytes, 0..2);
        assert_eq!(of(&[window(1.0, 1.0)], true).bytes, 0..2, "on a tie the span");
        // Every window must say so: the least counts.
        assert_eq!(of(&[window(9.0, 2.0), window(1.0, 0.0)], true).bytes, 0..2);
        assert_eq!(of(&[window(9.0, 2.0), window(3.0, 0.0)], true).bytes, 0..0);
        let one = of(&[window(2.0, 1.0)], true);
        let sum = 4f64.exp() + 2f64.exp() + 2.0 * 1f64.exp() + 3.0;
        assert!((one.probability - 4f64.exp() / sum).abs() < 1e-9, "{}", one.probability);
        let none = window(0.0, 0.0);
        assert_eq!(best([(&none[..], &[None; 7][..])], true).unwrap().bytes, 0..0, "no context");
    }

    /// The figures of evaluate-v2.0.py for these predictions are in `tests/metrics/squad2.json`.
    #[test]
    fn answers_without_words() {
        let golds = |golds: &[&str]| golds.iter().map(|g| g.to_string()).collect::<Vec<_>>();
        assert_eq!(squad_2("", &[]), [1.0, 1.0]);
        assert_eq!(squad_2("the", &[]), [1.0, 1.0], "it has no words");
        assert_eq!(squad_2("x", &[]), [0.0, 0.0]);
        assert_eq!(squad_2("", &golds(&["x"])), [0.0, 0.0]);
        assert_eq!(squad_2("a", &golds(&["the"])), [1.0, 1.0]);
        assert_eq!(squad_2("x y", &golds(&["the", "x"])), [0.0, 2.0 / 3.0]);
    }

    #[test]
    fn an_answer_has_thirty_tokens_at_most() {
        let places: Vec<_> = (0..40).map(|i| Some((i, i + 1))).collect();
        let mut y = vec![0.0; 80];
        (y[0], y[2 * 30 + 1], y[2 * 29 + 1]) = (9.0, 9.0, 8.0);
        assert_eq!(best([(&y[..], &places[..])], false).unwrap().bytes, 0..30);
    }

    #[test]
    fn bytes_inside_a_character() {
        let span = Span { bytes: 1..4, probability: 1.0 };
        assert_eq!(span.within("öäü"), 0..4);
        assert_eq!(Span { bytes: 5..12, ..span }.within("öäü"), 4..6);
    }
}
