//! `trimtab predict`: the answer to each text given, of a file, or of each line on stdin as it comes.

use super::{args, print, stream, terminal};
use std::path::{Path, PathBuf};
use trimtab::data::{Example, LabelForm};
#[cfg(feature = "onnx")]
use trimtab::onnx_model::{OnnxModel, OnnxOptions};
use trimtab::quant::Base;
use trimtab::{Candidate, Error, Model, Prediction, Result, Task};

/// Predict the label of texts, given as arguments or one a line on stdin
///
/// A tab separates the two texts of a pair. Prints `label<TAB>probability<TAB>text` a line; with a multilabel model both
/// are lists between commas, of the labels above 0.5; with a regress model `value<TAB>text`; with a tag model
/// `word<TAB>tag` a line and a blank line behind each text; with a qa model, which takes `question<TAB>context`,
/// `answer<TAB>probability<TAB>question`, where an empty answer says that there is none; with an mlm model, for each `[MASK]` (RoBERTa: `<mask>`) of the text a line of the
/// five likeliest words, `word probability, ...<TAB>text`. Lines on stdin are answered as they come.
///
/// A tag model splits a text into words as BERT does: at white space, and punctuation marks and CJK characters are words of
/// their own. An apostrophe or a hyphen inside a word and `.`, `,` or `:` between digits do not split it. The tokens of .conll
/// and .jsonl files are taken as they are; in .tsv and .csv, words stand between spaces.
///
/// With --min-precision the answer is `not sure` where the model is not confident enough to be right that often.
///
/// With --onnx an ONNX classifier of texts or tokens answers as it is: one that was trained elsewhere, or one that `export`
/// wrote of a classify, multilabel, regress or tag model. Exports of others need their base and bias file.
#[derive(clap::Args)]
pub struct Args {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE", required_unless_present = "onnx")]
    base: Option<PathBuf>,
    /// Bias file, made by `train`
    #[arg(long, value_name = "FILE", required_unless_present = "onnx")]
    bias: Option<PathBuf>,
    /// An ONNX classifier instead of base and bias: token ids to one row of logits for each text, or for each token to tag it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["base", "bias", "exact"])]
    onnx: Option<PathBuf>,
    /// Its tokenizer.json [default: beside the ONNX file, NAME.tokenizer.json first, or one folder up]
    #[arg(long, value_name = "FILE", requires = "onnx")]
    tokenizer: Option<PathBuf>,
    /// Its config.json, whose `id2label` names the outputs [default: beside the ONNX file, NAME.config.json first, or one folder
    /// up, if there]
    #[arg(long, value_name = "FILE", requires = "onnx")]
    config: Option<PathBuf>,
    /// Names of its outputs, in their order, between commas
    #[arg(long, value_name = "LABELS", requires = "onnx", value_delimiter = ',')]
    labels: Option<Vec<String>>,
    /// Longest text in tokens for an ONNX classifier; longer ones are cut [default: what `export` wrote into the file, else 128]
    #[arg(long, value_name = "N", requires = "onnx")]
    max_len: Option<usize>,
    /// Answer `not sure` below the confidence from which answers were right with this share in cross-validation, such as 0.95;
    /// for classify. `train` prints the share of texts that still get an answer
    #[arg(long, value_name = "P", conflicts_with = "onnx", value_parser = precision)]
    min_precision: Option<f64>,
    #[command(flatten)]
    run: args::Run,
    /// Print one JSON object a line: the `text` (`text_b` of a pair; `question` and `context` for qa), then `label` or `labels` and the probability of each label, `words`, `tags` and the
    /// probability of each tag, `value`, or `answer`, its `score` and where it stands, `start` and `end`, in characters; or
    /// `masks`, for each the likeliest words, each a `word` and its `probability`
    #[arg(long)]
    json: bool,
    /// Answer the examples of a file instead: .tsv, .csv, .jsonl, .conll, .txt or SQuAD's .json, whose `id` goes with --json
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    data: Option<PathBuf>,
    #[command(flatten)]
    columns: args::Data,
    /// Texts; without any, lines are read from stdin
    text: Vec<String>,
}

fn precision(s: &str) -> std::result::Result<f64, String> {
    match s.parse() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("a precision lies between 0 and 1".to_owned()),
    }
}

/// How answers are printed.
struct Style {
    json: bool,
    /// Least confidence of an answer; below it the answer is `not sure`.
    least: Option<f64>,
}

impl Style {
    /// Errors: a bias file that does not know how precise its answers are.
    fn of(args: &Args, model: &Answerer) -> Result<Style> {
        let least = match (args.min_precision, model) {
            (Some(precision), Answerer::Base(model)) => {
                if !model.knows_confidence() {
                    let what = "this bias file does not know how precise its answers are: only cross-validation of a \
                                classify task tells (`train` without --dev, --hold-out and --effort quick)";
                    return Err(Error::Config(what.into()));
                }
                // No confidence is enough if there is no such point.
                Some(model.confidence_for(precision).map_or(f64::INFINITY, |p| p.confidence))
            }
            _ => None,
        };
        Ok(Style { json: args.json, least })
    }

    /// Whether the model is confident enough of an answer.
    fn is_sure(&self, p: &Prediction) -> bool {
        let best = p.probabilities().iter().copied().fold(0.0, f64::max);
        self.least.is_none_or(|least| best >= least)
    }
}

/// Who answers.
enum Answerer {
    Base(Box<Model>),
    #[cfg(feature = "onnx")]
    Onnx(Box<OnnxModel>),
}

impl Answerer {
    fn open(args: &Args) -> Result<Answerer> {
        if let Some(file) = &args.onnx {
            return open_onnx(file, args);
        }
        let (Some(base), Some(bias)) = (&args.base, &args.bias) else {
            return Err(Error::Config("name --base and --bias, or --onnx".into()));
        };
        open_personal(base, bias, &args.run).map(|model| Answerer::Base(Box::new(model)))
    }

    fn predict_all(&self, examples: &[Example]) -> Result<Vec<Prediction>> {
        match self {
            Answerer::Base(model) => model.predict_all(examples),
            #[cfg(feature = "onnx")]
            Answerer::Onnx(model) => model.predict_all(examples),
        }
    }

    /// The model of a base and a bias file.
    fn of_base(&self) -> Option<&Model> {
        match self {
            Answerer::Base(model) => Some(model),
            #[cfg(feature = "onnx")]
            Answerer::Onnx(_) => None,
        }
    }

    /// An example of a text as people write it.
    fn example(&self, text: &str) -> Example {
        match self {
            Answerer::Base(model) => model.raw(text),
            #[cfg(feature = "onnx")]
            Answerer::Onnx(model) => model.raw(text),
        }
    }

    fn task(&self) -> &Task {
        match self {
            Answerer::Base(model) => model.task(),
            #[cfg(feature = "onnx")]
            Answerer::Onnx(model) => model.task(),
        }
    }
}

#[cfg(feature = "onnx")]
fn open_onnx(file: &Path, args: &Args) -> Result<Answerer> {
    let options = OnnxOptions {
        tokenizer: args.tokenizer.clone(),
        config: args.config.clone(),
        labels: args.labels.clone(),
        max_len: args.max_len,
        threads: args.run.options().threads,
    };
    OnnxModel::open(file, &options).map(|model| Answerer::Onnx(Box::new(model)))
}

#[cfg(not(feature = "onnx"))]
fn open_onnx(file: &Path, _: &Args) -> Result<Answerer> {
    let what = "ONNX files are not read by this build; build it with the feature `onnx`".into();
    Err(Error::Unsupported { path: file.to_owned(), what })
}

fn open_personal(base: &Path, bias: &Path, run: &args::Run) -> Result<Model> {
    let base = Base::open(base)?;
    let model = Model::open(&base, bias, &run.options())?;
    if model.graph().labels() == 0 && model.graph().mlm_head().is_none() {
        let what =
            "a contrastive model has no head and predicts nothing; use `trimtab embed` or `trimtab search`";
        return Err(Error::Config(what.into()));
    }
    Ok(model)
}

pub fn run(args: Args) -> Result<()> {
    let model = Answerer::open(&args)?;
    let style = Style::of(&args, &model)?;
    if let Some(path) = &args.data {
        let mut examples = args.columns.read(path, LabelForm::Nothing)?;
        if let Some(model) = model.of_base() {
            args::warn_of_single_texts(model, &examples);
        }
        if args.columns.is_text(path) {
            for e in &mut examples {
                e.words = model.example(&e.text_a).words;
            }
        }
        return examples.chunks(stream::TOGETHER).try_for_each(|some| answer(&model, some, &style));
    }
    if !args.text.is_empty() {
        let examples: Vec<Example> = args.text.iter().map(|text| of_line(&model, text)).collect();
        return answer(&model, &examples, &style);
    }
    stream::stdin_lines(|lines| {
        let examples: Vec<Example> = lines.iter().map(|e| of_line(&model, &e.text_a)).collect();
        answer(&model, &examples, &style)
    })
}

/// A text, or a pair with a tab between.
fn of_line(model: &Answerer, line: &str) -> Example {
    let (a, b) = line.split_once('\t').map_or((line, None), |(a, b)| (a, Some(b)));
    Example { text_b: b.map(str::to_owned), ..model.example(a) }
}

fn answer(model: &Answerer, examples: &[Example], style: &Style) -> Result<()> {
    let answers = model.predict_all(examples)?;
    let lines: Vec<String> =
        examples.iter().zip(&answers).map(|(e, p)| line(model.task(), e, p, style)).collect::<Result<_>>()?;
    print(&lines.join("\n"))
}

fn line(task: &Task, e: &Example, p: &Prediction, style: &Style) -> Result<String> {
    if !p.is_finite() {
        return Err(Error::Diverged("the model's answer is not a number: its file is broken".into()));
    }
    if style.json {
        let mut object = p.json(task.labels());
        let [a, b] = if matches!(task, Task::Qa) { ["question", "context"] } else { ["text", "text_b"] };
        object[a] = e.text_a.as_str().into();
        if let Some(text_b) = &e.text_b {
            object[b] = text_b.as_str().into();
        }
        if style.least.is_some() {
            object["sure"] = style.is_sure(p).into();
        }
        if let Some(asked) = &e.asked {
            object["id"] = asked.id.clone().into();
        }
        return Ok(object.to_string());
    }
    let text = e.text_b.as_ref().map_or(e.text_a.clone(), |b| format!("{}\t{b}", e.text_a));
    let line = match p {
        Prediction::Label { label, probabilities } => {
            let best = probabilities.iter().copied().fold(0.0, f64::max);
            let label = if style.is_sure(p) { label } else { "not sure" };
            format!("{label}\t{best:.3}\t{text}")
        }
        Prediction::Labels { probabilities, .. } => {
            let sure: Vec<String> =
                probabilities.iter().filter(|v| **v > 0.5).map(|v| format!("{v:.3}")).collect();
            format!("{p}\t{}\t{text}", sure.join(","))
        }
        Prediction::Value { value } => format!("{value:.3}\t{text}"),
        Prediction::Answer { answer, score, .. } => format!("{answer}\t{score:.3}\t{}", e.text_a),
        Prediction::Words { masks } => {
            let mask = |words: &Vec<Candidate>| {
                let words: Vec<String> =
                    words.iter().map(|c| format!("{} {:.3}", c.word.trim(), c.probability)).collect();
                terminal::one_line(&format!("{}\t{text}", words.join(", ")))
            };
            return Ok(masks.iter().map(mask).collect::<Vec<_>>().join("\n"));
        }
        Prediction::Tags { words, tags, .. } => {
            let lines = words.iter().zip(tags);
            return Ok(lines
                .map(|(word, tag)| terminal::one_line(&format!("{word}\t{tag}")) + "\n")
                .collect());
        }
    };
    Ok(terminal::one_line(&line))
}
