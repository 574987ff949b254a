//! The public face: a base, made personal by trained biases and a head.

mod setfit;

use crate::bias_file::BiasFile;
use crate::config::Pooling;
use crate::data::{self, Example};
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::kernels;
use crate::ops::Numerics;
use crate::ops::loss::{self, Target};
use crate::ops::masked_lm::{self, MaskedLm};
use crate::params::{Role, Terms};
use crate::quant::Base;
use crate::task::Task;
use crate::tokenize::{Encoded, TextEncoder, Window};
use crate::train::answers::{self, Part, Question};
use crate::train::masked;
use crate::train::memory::{self, Prediction as MemoryPrediction};
use crate::train::metrics::Metrics;
use crate::train::{self, Cut, FEATURE_ROWS, Head, HeldOut, Labelled, Output, Progress, Report, TrainConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// How a model is set up, apart from its training.
#[derive(Clone, Debug)]
pub struct Options {
    /// How a text becomes one vector; `None` takes what the base asks for.
    pub pooling: Option<Pooling>,
    /// Longest text in tokens; longer ones are cut. Never more than the base's positions.
    pub max_len: usize,
    /// Tokens that two windows of a question's context share; `None` takes a third of `max_len`. For [`Task::Qa`].
    pub stride: Option<usize>,
    /// Threads; `None` takes one for each performance core ([`crate::cores::performance`]). Results do not depend on it.
    pub threads: Option<usize>,
    /// f32 activations instead of int8: slow, the yardstick.
    pub exact: bool,
    /// Kernel set by name; `None` takes `TRIMTAB_KERNEL` or the best this CPU has.
    pub kernel: Option<String>,
    /// Dropout before the head while training.
    pub head_dropout: f32,
    /// Dropout inside the encoder while training.
    pub encoder_dropout: f32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            pooling: None,
            max_len: 128,
            stride: None,
            threads: None,
            exact: false,
            kernel: None,
            head_dropout: 0.1,
            encoder_dropout: 0.0,
        }
    }
}

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
        /// One probability a label, in the order of [`Personal::labels`]; their sum is 1.
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
        /// The words of the text: what stands between spaces.
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
        /// The part of the context; empty where no part of it is an answer.
        answer: String,
        /// Its probability among the best twenty; 0 where there is none.
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
    /// One probability a label, in the order of [`Personal::labels`], or one a tag; none where there are neither.
    pub fn probabilities(&self) -> &[f64] {
        match self {
            Prediction::Label { probabilities, .. }
            | Prediction::Labels { probabilities, .. }
            | Prediction::Tags { probabilities, .. } => probabilities,
            Prediction::Value { .. } | Prediction::Answer { .. } | Prediction::Words { .. } => &[],
        }
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

/// A base with biases and a head of its own.
pub struct Personal {
    base: Base,
    graph: Graph,
    encoder: TextEncoder,
    task: Task,
    pooling: Pooling,
    stride: usize,
    theta: Vec<f32>,
    /// The base's own biases, to tell what training changed.
    initial: Vec<f32>,
    /// All parameters as they were with a fitted head, before the biases were trained.
    head_alone: Option<Vec<f32>>,
    /// Terms and layers of the last training, as the bias file states them.
    trained: Option<TrainConfig>,
    settings: serde_json::Value,
    metrics: serde_json::Value,
    finished_epoch: bool,
    pool: rayon::ThreadPool,
}

impl Personal {
    /// A model for a task, with the base's own biases and a head that knows nothing yet.
    ///
    /// Errors: too few labels; `cls` pooling on a base without a pooler; settings out of range.
    pub fn new(base: &Base, task: Task, options: &Options) -> Result<Personal> {
        task.check().map_err(Error::Config)?;
        let rates = [options.head_dropout, options.encoder_dropout];
        if rates.iter().any(|p| !(0.0..1.0).contains(p)) {
            return Err(Error::Config("a dropout rate lies in [0, 1)".into()));
        }
        let max_len = options.max_len.min(base.config().seq_max());
        if max_len < 4 {
            return Err(Error::Config(format!("max-len {max_len} leaves no room for a text; use 4 or more")));
        }
        let pooling = match (&task, options.pooling.unwrap_or(base.pooling())) {
            (Task::Tag(_) | Task::Qa | Task::Mlm, _) => Pooling::Tokens,
            (Task::Contrastive, Pooling::Cls) => Pooling::First,
            (_, pooling) => pooling,
        };
        if pooling == Pooling::Tokens && !task.kind().reads_tokens() {
            return Err(Error::Config(format!("{} needs one vector a text: pool cls or mean", task.kind())));
        }
        let numerics = match options.exact {
            true => Numerics::Reference,
            false => Numerics::Int8(kernels::select(options.kernel.as_deref())?),
        };
        let rates = DropoutRates { head: options.head_dropout, encoder: options.encoder_dropout };
        let mut graph = Graph::new(base, numerics, pooling, task.outputs(), rates)?;
        if let Some(head) = task.kind().head() {
            graph = graph.with_head(head);
        }
        if task == Task::Mlm {
            graph = graph.with_mlm_head(base)?;
        }
        let config = base.config();
        let encoder = TextEncoder::from_bytes(
            base.tokenizer_bytes(),
            base.path(),
            max_len,
            config.vocab,
            config.types_told(),
        )?;
        let theta = graph.initial_theta(base)?;
        let threads = options.threads.unwrap_or_else(crate::cores::performance);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|e| Error::Config(format!("cannot start {threads} threads: {e}")))?;
        Ok(Personal {
            base: base.clone(),
            graph,
            encoder,
            task,
            pooling,
            stride: options.stride.unwrap_or(max_len / 3),
            initial: theta.clone(),
            theta,
            head_alone: None,
            trained: None,
            settings: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
            finished_epoch: false,
            pool,
        })
    }

    /// A model from a bias file, which must have been trained on this base.
    ///
    /// `options.pooling`, `options.max_len` and `options.stride` are the file's, whatever is given.
    pub fn open(base: &Base, path: &Path, options: &Options) -> Result<Personal> {
        let file = BiasFile::open(path)?;
        file.check_base(path, base.path(), base.fingerprint())?;
        let (pooling, max_len, stride) = (Some(file.pooling), file.max_len, file.stride);
        let options = Options { pooling, max_len, stride, ..options.clone() };
        let mut model = Personal::new(base, file.task.clone(), &options)?;
        file.apply(path, model.graph.layout(), &mut model.theta)?;
        let depth = base.config().layers;
        let claims =
            train::backward::Selection::new(file.terms.parse()?, file.layers.0..file.layers.1, depth);
        for p in model.graph.layout().iter().filter(|p| claims.wants_role(p.role) && !p.range.is_empty()) {
            if !file.tensors.contains_key(&p.name) {
                return Err(Error::tensor(path, &p.name, "is missing, though it was trained"));
            }
        }
        model.settings = file.settings;
        model.metrics = file.metrics;
        Ok(model)
    }

    /// Takes the encoder's biases of another model of this base, whatever its task, to begin training from there. Its head
    /// stays where it is.
    ///
    /// Errors: as of [`BiasFile::open`]; `Error::WrongBase`; `Error::Tensor` for a bias of another shape.
    pub fn start_from(&mut self, path: &Path) -> Result<()> {
        let file = BiasFile::open(path)?;
        file.check_base(path, self.base.path(), self.base.fingerprint())?;
        for p in self.graph.layout().iter().filter(|p| matches!(p.role, Role::Bias(..))) {
            let Some((shape, values)) = file.tensors.get(&p.name) else { continue };
            if *shape != p.shape {
                let what = format!("expected shape {:?}, found {shape:?}", p.shape);
                return Err(Error::tensor(path, &p.name, what));
            }
            self.theta[p.range.clone()].copy_from_slice(values);
        }
        Ok(())
    }

    /// What it answers.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The labels, in the order of probabilities; none where the answer is a number, a part of a text or a word.
    pub fn labels(&self) -> &[String] {
        self.task.labels()
    }

    /// How a text becomes one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The graph, for those who want its parts.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// All parameters, with the layout of [`Graph::layout`].
    pub fn theta(&self) -> &[f32] {
        &self.theta
    }

    /// Number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Trains the biases and the head. The head starts anew from the seed; the biases from where they are.
    ///
    /// `train` and `dev` carry labels out of [`Personal::labels`], or numbers, or are pairs. Numbers are learned in units
    /// of their standard deviation, and so are their losses. See [`train::train`] for how it ends.
    pub fn train(
        &mut self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
        mut on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send,
    ) -> Result<Report> {
        let mut data = self.encoded(train, false)?;
        let mut dev = dev.map(|d| self.encoded(d, true)).transpose()?;
        if config.class_weights && !matches!(self.task, Task::Classify(_)) {
            let what = format!("class weights are for classify, not for {}", self.task.kind());
            return Err(Error::Config(what));
        }
        if self.task == Task::Mlm && config.terms == Terms::none() {
            return Err(Error::Config("mlm needs biases to train: its head is frozen".into()));
        }
        if self.task == Task::Contrastive && (config.batch < 2 || config.terms == Terms::none()) {
            let what = "contrastive needs 2 pairs or more in a batch, and biases to train: there is no head";
            return Err(Error::Config(what.into()));
        }
        let unit = Unit::of(&data);
        data.iter_mut().chain(dev.iter_mut().flatten()).for_each(|d| unit.enter(&mut d.target));
        self.init_head(config.seed);
        self.finished_epoch = false;
        let (graph, theta, finished) = (&self.graph, &mut self.theta, &mut self.finished_epoch);
        let names = self.task.labels();
        let mut watch = |p: Progress| {
            *finished |= matches!(p, Progress::Epoch(_));
            on_progress(p)
        };
        let mut result = self
            .pool
            .install(|| train::train(graph, theta, &data, dev.as_deref(), names, config, &mut watch));
        self.head_alone = result.as_mut().ok().and_then(|r| r.head_alone.take());
        let head = [self.graph.layout().head_weight(), self.graph.layout().head_bias()];
        for theta in [Some(&mut self.theta), self.head_alone.as_mut()].into_iter().flatten() {
            let [weight, bias] = theta.get_disjoint_mut(head.clone()).expect("the layout has both apart");
            unit.leave(weight, bias);
        }
        self.trained = Some(config.clone());
        if let Ok(report) = &result {
            let kept = report.epochs.iter().find(|e| e.epoch == report.kept);
            // no times: the same seed, data and base give the same file
            self.metrics = match kept {
                Some(e) => {
                    serde_json::json!({ "epoch": e.epoch, "train_loss": e.train_loss, "dev": e.dev })
                }
                None => serde_json::json!(
                    report.before.as_ref().map(|dev| serde_json::json!({ "epoch": 0, "dev": dev }))
                ),
            };
        }
        self.settings = serde_json::json!({
            "epochs": config.epochs, "lr": config.lr, "batch": config.batch, "seed": config.seed,
            "warmup": config.warmup, "clip": config.clip, "weight_decay": config.weight_decay,
            "class_weights": config.class_weights, "head": config.head, "head_rate": config.head_rate, "examples": train.len(),
        });
        if let Some(values) = config.values {
            self.settings["values"] = values.into();
        }
        result
    }

    /// What training on these examples takes at its peak: at most `budget` bytes, or as the number of threads gives.
    /// The cut and the size of the cache of the prediction are for [`TrainConfig`].
    ///
    /// Errors: a budget in which not one text fits; `exact`, of which nothing is known.
    pub fn memory(
        &self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
        budget: Option<usize>,
    ) -> Result<MemoryPrediction> {
        // Two i32 a token, of about four bytes of text, and the vectors' own sizes. Of a context every token is there, some
        // twice, and where it stands.
        let encoded = |text: usize| 8 * (text / 4 + 8).min(self.encoder.max_len()) + 160;
        let pairs = self.task == Task::Contrastive;
        let bytes = |e: &Example| {
            let (a, b) = (e.text_a.len(), e.text_b.as_ref().map_or(0, String::len));
            match self.task {
                Task::Qa => 32 * ((a + b) / 4 + 8) + a + b + 320,
                Task::Contrastive => encoded(a) + encoded(b),
                // All of the text, in windows, which are copied where they are scored.
                Task::Mlm => {
                    let tokens = (a + b) / 4 + 8;
                    16 * tokens + 200 * (1 + tokens / self.encoder.max_len())
                }
                _ => encoded(a + b),
            }
        };
        // Of pairs two texts go through, and the vectors of a batch and of all dev are there at once: as they came, as
        // units and, while training, their gradients.
        let texts = if pairs { 2 } else { 1 };
        let vectors = config.batch.saturating_mul(32).max(dev.map_or(0, <[Example]>::len) * 16);
        let vectors = vectors.saturating_mul((texts - 1) * 2 * self.graph.hidden());
        // For each thread some rows of logits, in f32 and quantized, a row of probabilities, and what the product back from
        // so many columns packs: a strip of 64, and the rows. The last term is what runs were measured to take beyond that.
        let per_word = 6 * (masked_lm::ROWS + 1) + 2 * (masked_lm::ROWS + 64) + 512;
        let logits = self.graph.mlm_head().map_or(0, |head| per_word * head.vocab() * self.threads());
        let config = &TrainConfig { batch: config.batch.saturating_mul(texts), ..config.clone() };
        let rows = |e: &Example| match self.task {
            Task::Tag(_) => e.text_a.split_whitespace().count(),
            _ => 1,
        };
        let fits = dev.is_some() || config.head == Head::Fitted;
        let fitted = fits && !matches!(self.task, Task::Qa | Task::Contrastive | Task::Mlm);
        let setting = memory::Setting {
            fitted_rows: if fitted { train.iter().map(rows).sum::<usize>().min(FEATURE_ROWS) } else { 0 },
            base: &self.base,
            graph: &self.graph,
            config,
            threads: self.threads(),
            longest: self.encoder.max_len(),
            data_bytes: train.iter().chain(dev.unwrap_or_default()).map(bytes).sum::<usize>()
                + vectors
                + logits,
        };
        match budget {
            Some(budget) => memory::fit(&setting, budget),
            None => memory::predict(&setting, Cut::of_threads(self.threads())),
        }
    }

    /// Small uniform weights (standard deviation 0.02, as BERT's) and zero biases.
    fn init_head(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bound = 0.02 * 3f32.sqrt();
        for w in &mut self.theta[self.graph.layout().head_weight()] {
            // 24 random bits over [-1, 1): exact in f32 on every platform
            let unit = (rng.random::<u32>() >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
            *w = unit * bound;
        }
        self.theta[self.graph.layout().head_bias()].fill(0.0);
    }

    /// Examples as the model reads them, to be answered and scored. Errors: a label that it does not know.
    pub fn encode(&self, examples: &[Example]) -> Result<Vec<Labelled>> {
        self.encoded(examples, true)
    }

    /// `scored`: with what only scores need.
    fn encoded(&self, examples: &[Example], scored: bool) -> Result<Vec<Labelled>> {
        let targets = self.task.targets(examples, Path::new("the examples"))?;
        if self.task == Task::Contrastive {
            return self.encode_pairs(examples, targets);
        }
        if self.task == Task::Qa {
            return self.encode_questions(examples, &targets, scored);
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
        let (_, words) = self.encoder.words()?;
        let words = Arc::new(words);
        let windows = |text: &str| self.encoder.encode_parts(text);
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
            let partner = e.text_b.as_deref().map(|b| self.encoder.encode(b, None)).transpose()?;
            Ok(Labelled { text: self.encoder.encode(&e.text_a, None)?, target, partner, part: None })
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
            let question = scored.then(|| Arc::new(Question::of(e)));
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
    fn windows(&self, examples: &[Example]) -> Result<Vec<Vec<Window>>> {
        let of = |e: &Example| match &e.text_b {
            Some(context) => self.encoder.encode_windows(&e.text_a, context, self.stride),
            None => Err(Error::Config("qa needs a pair: a question, and the text with its answer".into())),
        };
        self.pool.install(|| examples.par_iter().map(of).collect())
    }

    /// The tokens of every example, and for tags the row of each word's first.
    fn encode_texts(&self, examples: &[Example]) -> Result<Vec<(Encoded, Vec<Option<usize>>)>> {
        self.pool.install(|| match self.task {
            Task::Tag(_) => examples
                .par_iter()
                .map(|e| self.encoder.encode_words(&e.text_a.split_whitespace().collect::<Vec<_>>()))
                .collect(),
            _ => {
                let texts = self.encoder.encode_all(examples)?;
                Ok(texts.into_iter().map(|text| (text, Vec::new())).collect())
            }
        })
    }

    /// Scores on labelled texts.
    pub fn evaluate(&self, examples: &[Example]) -> Result<Metrics> {
        let data = self.encode(examples)?;
        self.pool.install(|| train::evaluate(&self.graph, &self.theta, &data, self.task.labels()))
    }

    /// Its answers to examples that it encoded, to compare them with another's; `None` for questions and for pairs.
    pub fn answers<'a>(&'a self, data: &'a [Labelled]) -> Result<Option<HeldOut<'a>>> {
        self.answers_of(&self.theta, data)
    }

    /// Scores of what the last training began with, where that had a masked-LM head.
    pub fn evaluate_untrained(&self, data: &[Labelled]) -> Result<Option<Metrics>> {
        let before = self.head_alone.as_ref().filter(|_| self.graph.mlm_head().is_some());
        let evaluate = |theta: &Vec<f32>| train::evaluate(&self.graph, theta, data, &[]);
        self.pool.install(|| before.map(evaluate).transpose())
    }

    /// What a head alone would have answered: the one fitted before the last training, above the biases from before it.
    /// `None` where none was fitted.
    pub fn answers_of_head_alone<'a>(&'a self, data: &'a [Labelled]) -> Result<Option<HeldOut<'a>>> {
        Ok(self.head_alone.as_ref().map(|theta| self.answers_of(theta, data)).transpose()?.flatten())
    }

    fn answers_of<'a>(&'a self, theta: &[f32], data: &'a [Labelled]) -> Result<Option<HeldOut<'a>>> {
        let cut = self.trained.as_ref().and_then(|config| config.cut);
        self.pool.install(|| HeldOut::of(&self.graph, theta, data, self.task.labels(), cut))
    }

    /// The answer to a text, or to a pair.
    pub fn predict(&self, text_a: &str, text_b: Option<&str>) -> Result<Prediction> {
        let (text_a, text_b) = (text_a.to_owned(), text_b.map(str::to_owned));
        let example = Example { text_a, text_b, ..Example::default() };
        Ok(self.predict_all(&[example])?.remove(0))
    }

    /// The answers to many texts, in their order; unlike single calls it fills the machine.
    pub fn predict_all(&self, examples: &[Example]) -> Result<Vec<Prediction>> {
        if self.task == Task::Qa {
            return self.answer_all(examples);
        }
        if let Some(head) = self.graph.mlm_head() {
            return self.fill_all(head, examples);
        }
        let texts = self.encode_texts(examples)?;
        let out = self.forward(texts.iter().map(|(text, _)| text))?;
        let all = out.iter().zip(examples).zip(&texts);
        all.map(|(((logits, _), e), (_, starts))| self.prediction(logits, e, starts)).collect()
    }

    /// The likeliest words behind each mask of each text. Errors: a text without a mask.
    fn fill_all(&self, head: &MaskedLm, examples: &[Example]) -> Result<Vec<Prediction>> {
        let (mask, words) = self.encoder.words()?;
        let masked = |e: &Example| {
            let text = self.encoder.encode(&e.text_a, e.text_b.as_deref())?;
            let rows = text.ids.iter().enumerate().filter(|(_, id)| **id == words.mask());
            let rows: Vec<usize> = rows.map(|(row, _)| row).collect();
            match rows.is_empty() {
                true => Err(Error::Config(format!(
                    "there is no {mask} among the first {} tokens of `{}`; write it in the place of a word",
                    self.encoder.max_len(),
                    data::shorten(&e.text_a, 60)
                ))),
                false => Ok((text, rows)),
            }
        };
        let texts: Vec<(Encoded, Vec<usize>)> =
            self.pool.install(|| examples.par_iter().map(masked).collect::<Result<_>>())?;
        let filled =
            self.pool.install(|| masked::fill(&self.graph, head, &self.theta, &texts, CANDIDATES))?;
        let candidate = |(word, probability): (usize, f64)| {
            Ok(Candidate { word: self.encoder.decode(word)?, probability })
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
            let span = answers::best(logits.zip(windows.iter().map(|window| &window.places[..])));
            let context = e.text_b.as_deref().unwrap_or_default();
            let (bytes, score) = span.map_or((0..0, 0.0), |span| (span.within(context), span.probability));
            let (start, answer) = (context[..bytes.start].chars().count(), &context[bytes]);
            let end = start + answer.chars().count();
            Prediction::Answer { answer: answer.to_owned(), score, start, end }
        });
        Ok(all.collect())
    }

    /// The pooled vectors `[hidden]` of many texts: sentence embeddings. Empty where every token has its own.
    pub fn embed_all(&self, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
        let texts = self.encode_texts(examples)?;
        Ok(self.forward(texts.iter().map(|(text, _)| text))?.into_iter().map(|(_, pooled)| pooled).collect())
    }

    fn forward<'a>(&self, texts: impl Iterator<Item = &'a Encoded>) -> Result<Vec<Output>> {
        let texts: Vec<&Encoded> = texts.collect();
        self.pool.install(|| train::forward_all(&self.graph, &self.theta, &texts))
    }

    /// `logits: [labels]`, or `[tokens, labels]` with the rows where the words of the example begin.
    ///
    /// Errors: there is no head.
    fn prediction(&self, logits: &[f32], example: &Example, starts: &[Option<usize>]) -> Result<Prediction> {
        Ok(match &self.task {
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
            Task::Tag(labels) => {
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
                let words = example.text_a.split_whitespace().map(str::to_owned).collect();
                Prediction::Tags { words, tags, probabilities }
            }
            Task::Regress => Prediction::Value { value: f64::from(logits[0]) },
            Task::Qa | Task::Mlm => unreachable!("questions are answered by windows, masks by another head"),
            Task::Contrastive => {
                let what = "a contrastive model has no head and predicts nothing; use `embed` or `search`";
                return Err(Error::Config(what.into()));
            }
        })
    }

    /// Whether the last training finished an epoch, so that there is something worth keeping.
    pub fn has_finished_epoch(&self) -> bool {
        self.finished_epoch
    }

    /// Mean |b − b₀| of every bias, by parameter: the paper's figure 1.
    pub fn bias_change(&self) -> Vec<(Role, f64)> {
        let biases = self.graph.layout().iter().filter(|p| matches!(p.role, Role::Bias(..)));
        biases
            .map(|p| {
                let now = &self.theta[p.range.clone()];
                let then = &self.initial[p.range.clone()];
                let sum: f64 = now.iter().zip(then).map(|(a, b)| f64::from((a - b).abs())).sum();
                (p.role, sum / p.range.len() as f64)
            })
            .collect()
    }

    /// Writes the trained biases and the head, in f32 or, with `half`, in f16.
    ///
    /// The file is written beside `path` and renamed, so that nothing that exists is ever half overwritten.
    pub fn save(&self, path: &Path, half: bool) -> Result<()> {
        let config = self.trained.clone().unwrap_or_default();
        let depth = self.base.config().layers;
        let layers = config.layers.clone().unwrap_or(0..depth);
        let selection = train::backward::Selection::new(config.terms.clone(), layers.clone(), depth);
        let params = self.graph.layout().iter().filter(|p| {
            // a model opened from a file keeps what that file changed
            let changed = self.theta[p.range.clone()] != self.initial[p.range.clone()];
            !p.range.is_empty() && (selection.wants_role(p.role) || changed)
        });
        let file = BiasFile {
            task: self.task.clone(),
            pooling: self.pooling,
            terms: config.terms.of(self.base.config()).to_string(),
            layers: (layers.start, layers.end),
            max_len: self.encoder.max_len(),
            stride: (self.task == Task::Qa).then_some(self.stride),
            base_fingerprint: self.base.fingerprint().to_owned(),
            base_name: self.base.name().to_owned(),
            metrics: self.metrics.clone(),
            settings: self.settings.clone(),
            tensors: params
                .map(|p| (p.name.clone(), (p.shape.clone(), self.theta[p.range.clone()].to_vec())))
                .collect(),
        };
        file.save(path, half)
    }
}

/// What numbers are measured in while they are learned: mean 0, standard deviation 1.
struct Unit {
    mean: f64,
    deviation: f64,
}

impl Unit {
    /// Of the numbers among the targets; 0 and 1 where there is none.
    fn of(data: &[Labelled]) -> Unit {
        let values = || {
            data.iter().filter_map(|d| match d.target {
                Target::Value(v) => Some(f64::from(v)),
                _ => None,
            })
        };
        let n = values().count().max(1) as f64;
        let mean = values().sum::<f64>() / n;
        let deviation = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        Unit { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    fn enter(&self, target: &mut Target) {
        if let Target::Value(v) = target {
            *v = ((f64::from(*v) - self.mean) / self.deviation) as f32;
        }
    }

    /// Has the head give what it gave in this unit in the numbers' own.
    fn leave(&self, weight: &mut [f32], bias: &mut [f32]) {
        if (self.mean, self.deviation) != (0.0, 1.0) {
            weight.iter_mut().for_each(|w| *w = (f64::from(*w) * self.deviation) as f32);
            bias.iter_mut().for_each(|b| *b = (f64::from(*b) * self.deviation + self.mean) as f32);
        }
    }
}
