//! The public face: a base, made personal by trained biases and a head.

mod encode;
mod memory;
mod predict;
mod probe;
mod reading;
mod setfit;
mod shared;
mod standardization;

pub use predict::{Candidate, Prediction};
pub use reading::{Reading, Ways};
pub(crate) use reading::{SAMPLE, TRUNCATED, sample};
pub(crate) use setfit::setfit_phases;

use crate::bias_file::BiasFile;
use crate::config::{DEFAULT_MAX_LEN, Module, Pooling};
use crate::data::Example;
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::kernels;
use crate::ops::Numerics;
use crate::params::{Role, Terms};
use crate::quant::Base;
use crate::task::Task;
use crate::train::calibration::{Curve, Point};
use crate::train::metrics::Metrics;
use crate::train::{self, HeldOut, Labelled, Progress, Report, TrainConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use shared::{Texts, Wired};
use standardization::Standardization;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The setting in a bias file that says that unanswerable questions were learned.
const UNANSWERABLE: &str = "unanswerable";

/// How a model is set up, apart from its training.
#[derive(Clone, Debug)]
pub struct Options {
    /// How a text becomes one vector; `None` takes what the base asks for.
    pub pooling: Option<Pooling>,
    /// Longest text in tokens; longer ones are cut. More than the base's positions is an error; the default is then as many
    /// as there are. For embeddings take [`Base::max_seq_length`].
    pub max_len: usize,
    /// Tokens that two windows of a question's context share; `None` takes a third of `max_len`. For [`Task::Qa`].
    pub stride: Option<usize>,
    /// Threads; `None` takes one for each performance core ([`crate::sys::cores::performance`]). Results do not depend on it.
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
            max_len: DEFAULT_MAX_LEN,
            stride: None,
            threads: None,
            exact: false,
            kernel: None,
            head_dropout: 0.1,
            encoder_dropout: 0.0,
        }
    }
}

/// A base with biases and a head of its own.
///
/// Models of one base share all else as long as any of them lives: graph, tokenizer and threads. Another one costs its biases
/// and a fraction of a millisecond. A model is `Sync`: any number of threads may ask it, and different models train and answer
/// side by side.
pub struct Model {
    base: Base,
    wired: Arc<Wired>,
    texts: Arc<Texts>,
    task: Task,
    pooling: Pooling,
    stride: usize,
    /// Whether it may answer that there is no answer: it has learned that from unanswerable questions.
    answers_nothing: bool,
    theta: Vec<f32>,
    /// All parameters as they were with a fitted head, before the biases were trained.
    head_alone: Option<Vec<f32>>,
    /// Terms and layers of the last training, as the bias file states them.
    trained: Option<TrainConfig>,
    settings: serde_json::Value,
    metrics: serde_json::Value,
    finished_epoch: bool,
    /// How precise answers of a given confidence are, if known.
    curve: Option<Curve>,
    pool: Arc<rayon::ThreadPool>,
}

impl Model {
    /// A model for a task, with the base's own biases and a head that knows nothing yet.
    ///
    /// Errors: too few labels; `cls` pooling on a base without a pooler; settings out of range.
    pub fn new(base: &Base, task: Task, options: &Options) -> Result<Model> {
        task.check().map_err(Error::Config)?;
        let rates = [options.head_dropout, options.encoder_dropout];
        if rates.iter().any(|p| !(0.0..1.0).contains(p)) {
            return Err(Error::Config("a dropout rate lies in [0, 1)".into()));
        }
        let max_len = match options.max_len {
            DEFAULT_MAX_LEN => DEFAULT_MAX_LEN.min(base.config().seq_max()),
            asked => asked,
        };
        base.check_max_len(max_len)?;
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
        if matches!(pooling, Pooling::Apart | Pooling::Windows) && task.outputs() == 0 {
            return Err(Error::Config(format!(
                "{} compares single sequences itself: pool cls or mean",
                task.kind()
            )));
        }
        let numerics = match options.exact {
            true => Numerics::Reference,
            false => Numerics::Int8(kernels::select(options.kernel.as_deref())?),
        };
        let rates = DropoutRates { head: options.head_dropout, encoder: options.encoder_dropout };
        let wired = Wired::get(base, &task, numerics, pooling, rates)?;
        let texts = Texts::get(base, max_len)?;
        let pool = shared::threads(base, options.threads.unwrap_or_else(crate::sys::cores::performance))?;
        Ok(Model {
            base: base.clone(),
            texts,
            task,
            pooling,
            stride: options.stride.unwrap_or(max_len / 3),
            answers_nothing: false,
            theta: wired.initial.clone(),
            wired,
            head_alone: None,
            trained: None,
            settings: serde_json::Value::Null,
            metrics: serde_json::Value::Null,
            finished_epoch: false,
            curve: None,
            pool,
        })
    }

    /// A model from a bias file, which must have been trained on this base.
    ///
    /// `options.pooling`, `options.max_len` and `options.stride` are the file's, whatever is given.
    pub fn open(base: &Base, path: &Path, options: &Options) -> Result<Model> {
        let file = BiasFile::open(path)?;
        file.check_base(path, base.path(), base.fingerprint())?;
        let (pooling, max_len, stride) = (Some(file.pooling), file.max_len, file.stride);
        let options = Options { pooling, max_len, stride, ..options.clone() };
        let mut model = Model::new(base, file.task.clone(), &options)?;
        file.apply(path, model.wired.graph.layout(), &mut model.theta)?;
        let depth = base.config().layers;
        let claims =
            train::backward::Selection::new(file.terms.parse()?, file.layers.0..file.layers.1, depth);
        for p in
            model.wired.graph.layout().iter().filter(|p| claims.wants_role(p.role) && !p.range.is_empty())
        {
            if !file.tensors.contains_key(&p.name) {
                return Err(Error::tensor(path, &p.name, "is missing, though it was trained"));
            }
        }
        model.answers_nothing = file.settings.get(UNANSWERABLE).is_some_and(|v| *v == true);
        model.settings = file.settings;
        model.curve = file.metrics.get("confidence").and_then(|c| Curve::deserialize(c).ok());
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
        for p in self.wired.graph.layout().iter().filter(|p| matches!(p.role, Role::Bias(..))) {
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

    /// The base it stands on.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Tokens that texts are cut to.
    pub fn max_len(&self) -> usize {
        self.texts.encoder.max_len()
    }

    /// The graph, for those who want its parts.
    pub fn graph(&self) -> &Graph {
        &self.wired.graph
    }

    /// All parameters, with the layout of [`Graph::layout`].
    pub fn theta(&self) -> &[f32] {
        &self.theta
    }

    /// Whether its embeddings go through the base's modules: where it pools as sentence-transformers does, by the mean or
    /// the first token.
    fn uses_modules(&self) -> bool {
        matches!(self.pooling, Pooling::Mean | Pooling::First | Pooling::Windows)
    }

    /// Width of the vectors that [`Model::embed_all`] gives.
    pub fn embedding_width(&self) -> usize {
        let pooled = self.pooling.features(self.base.config().hidden);
        if self.uses_modules() { Module::width(self.base.modules(), pooled) } else { pooled }
    }

    /// Number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Trains the biases and the head. The head starts anew from the seed; the biases from where they are.
    ///
    /// `train` and `dev` carry labels out of [`Model::labels`], or numbers, or are pairs. Numbers are learned in units
    /// of their standard deviation, and so are their losses. It runs on threads of its own: on those that models share it
    /// would keep the answers of others waiting. See [`train::train`] for how it ends.
    pub fn train(
        &mut self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
        mut on_progress: impl FnMut(Progress) -> ControlFlow<()> + Send,
    ) -> Result<Report> {
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
        let is_unanswerable = |e: &Example| e.asked.as_ref().is_some_and(|asked| asked.unanswerable);
        self.answers_nothing = train.iter().any(is_unanswerable);
        // Labels of `dev` that are not learned have names, too.
        let names = self.task.unseen(dev.unwrap_or_default()).all_names(&self.task);
        let is_dense = |module: &Module| matches!(module, Module::Dense { .. });
        if self.task == Task::Contrastive && self.base.modules().iter().any(is_dense) {
            return Err(Error::Config(format!(
                "contrastive does not train through a Dense module, and the embeddings of {} come out of one; train \
                 another task, or use a base without Dense",
                self.base.path().display()
            )));
        }
        let (data, dev, unit) = self.in_units(train, dev)?;
        self.init_head(config.seed);
        self.finished_epoch = false;
        let (graph, theta, finished) = (&self.wired.graph, &mut self.theta, &mut self.finished_epoch);
        let mut watch = |p: Progress| {
            *finished |= matches!(p, Progress::Epoch(_));
            on_progress(p)
        };
        let threads = shared::new_threads(self.pool.current_num_threads())?;
        let mut result =
            threads.install(|| train::train(graph, theta, &data, dev.as_deref(), &names, config, &mut watch));
        self.head_alone = result.as_mut().ok().and_then(|r| r.head_alone.take());
        let head = [self.wired.graph.layout().head_weight(), self.wired.graph.layout().head_bias()];
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
        self.note_pairs(train);
        if self.answers_nothing {
            self.settings[UNANSWERABLE] = true.into();
        }
        result
    }

    /// Keeps in mind that it learned from pairs, for those who ask it later with single texts.
    fn note_pairs(&mut self, train: &[Example]) {
        if self.task.has_probe() && train.iter().any(|e| e.text_b.is_some()) {
            self.settings["pairs"] = true.into();
        }
    }

    /// Whether it learned from pairs of texts; false also for files that do not say.
    pub fn learned_from_pairs(&self) -> bool {
        self.settings["pairs"] == true
    }

    /// Refuses checkpoints that [`Model::train`] would refuse, before any work is spent.
    pub(crate) fn check_checkpoints(
        &mut self,
        train: &[Example],
        dev: Option<&[Example]>,
        config: &TrainConfig,
    ) -> Result<()> {
        if config.checkpoints.is_none() {
            return Ok(());
        }
        let (data, dev, _) = self.in_units(train, dev)?;
        self.init_head(config.seed);
        train::check_checkpoints(&self.wired.graph, &self.theta, &data, dev.as_deref(), config)
    }

    /// Examples to learn from and to score on, encoded, their numbers in the unit that is told.
    fn in_units(
        &self,
        train: &[Example],
        dev: Option<&[Example]>,
    ) -> Result<(Vec<Labelled>, Option<Vec<Labelled>>, Standardization)> {
        let mut data = self.encoded(train, None)?;
        let mut dev = dev.map(|d| self.encode(d)).transpose()?;
        let unit = Standardization::of(&data);
        data.iter_mut().chain(dev.iter_mut().flatten()).for_each(|d| unit.enter(&mut d.target));
        Ok((data, dev, unit))
    }

    /// Small uniform weights (standard deviation 0.02, as BERT's) and zero biases.
    fn init_head(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bound = 0.02 * 3f32.sqrt();
        for w in &mut self.theta[self.wired.graph.layout().head_weight()] {
            // 24 random bits over [-1, 1): exact in f32 on every platform
            let unit = (rng.random::<u32>() >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
            *w = unit * bound;
        }
        self.theta[self.wired.graph.layout().head_bias()].fill(0.0);
    }

    /// Scores on labelled texts. Labels that it does not know count as wrong ([`Task::unseen`] tells which).
    pub fn evaluate(&self, examples: &[Example]) -> Result<Metrics> {
        let data = self.encode(examples)?;
        let names = self.task.unseen(examples).all_names(&self.task);
        self.pool.install(|| train::evaluate(&self.wired.graph, &self.theta, &data, &names))
    }

    /// Its answers to labelled examples, to compare them with another's; `None` for questions and for pairs. Labels that it
    /// does not know are named behind those that it knows, and count as wrong.
    pub fn answers(&self, examples: &[Example]) -> Result<Option<HeldOut>> {
        self.answers_of(&self.theta, examples)
    }

    /// Scores of what the last training began with, where that had a masked-LM head.
    pub fn evaluate_untrained(&self, data: &[Labelled]) -> Result<Option<Metrics>> {
        let before = self.head_alone.as_ref().filter(|_| self.wired.graph.mlm_head().is_some());
        let evaluate = |theta: &Vec<f32>| train::evaluate(&self.wired.graph, theta, data, &[]);
        self.pool.install(|| before.map(evaluate).transpose())
    }

    /// What a head alone would have answered: the one fitted before the last training, above the biases from before it.
    /// `None` where none was fitted.
    pub fn answers_of_head_alone(&self, examples: &[Example]) -> Result<Option<HeldOut>> {
        Ok(self.head_alone.as_ref().map(|theta| self.answers_of(theta, examples)).transpose()?.flatten())
    }

    fn answers_of(&self, theta: &[f32], examples: &[Example]) -> Result<Option<HeldOut>> {
        let (data, names) = (self.encode(examples)?, self.task.unseen(examples).all_names(&self.task));
        let cut = self.trained.as_ref().and_then(|config| config.cut);
        self.pool.install(|| HeldOut::of(&self.wired.graph, theta, &data, &names, cut))
    }

    /// Divides the logits of all answers to come by a temperature, in the head itself, so that exports give the same
    /// probabilities.
    pub(crate) fn soften(&mut self, temperature: f64) {
        let layout = self.wired.graph.layout();
        for range in [layout.head_weight(), layout.head_bias()] {
            self.theta[range].iter_mut().for_each(|v| *v = (f64::from(*v) / temperature) as f32);
        }
    }

    /// Keeps what cross-validation found, for the bias file.
    pub(crate) fn set_metrics(
        &mut self,
        crossed: &Metrics,
        probe: Option<&Metrics>,
        train_loss: Option<f64>,
    ) {
        self.metrics = serde_json::json!({ "cross_validation": crossed, "train_loss": train_loss });
        if let Some(probe) = probe {
            self.metrics["linear_probe"] = serde_json::json!(probe);
        }
        if let Some(curve) = &self.curve {
            self.metrics["confidence"] = serde_json::json!(curve);
        }
    }

    /// Scores by cross-validation when it was trained: its own, and those of a linear probe beside it.
    pub fn cross_validated(&self) -> [Option<Metrics>; 2] {
        ["cross_validation", "linear_probe"]
            .map(|name| self.metrics.get(name).and_then(|m| Metrics::deserialize(m).ok()))
    }

    /// Keeps how precise answers are by their confidence.
    pub(crate) fn set_curve(&mut self, curve: Option<Curve>) {
        self.curve = curve;
    }

    /// From which confidence on answers are right with at least this share, and how many texts get one, by the answers of
    /// cross-validation. `None` if the bias file does not know, or if no confidence is enough.
    pub fn confidence_for(&self, precision: f64) -> Option<Point> {
        self.curve.as_ref()?.at(precision)
    }

    /// Whether the bias file knows how precise its answers are by their confidence.
    pub fn knows_confidence(&self) -> bool {
        self.curve.is_some()
    }

    /// Whether the last training finished an epoch, so that there is something worth keeping.
    pub fn has_finished_epoch(&self) -> bool {
        self.finished_epoch
    }

    /// Mean |b − b₀| of every bias, by parameter: the paper's figure 1.
    pub fn bias_change(&self) -> Vec<(Role, f64)> {
        let biases = self.wired.graph.layout().iter().filter(|p| matches!(p.role, Role::Bias(..)));
        biases
            .map(|p| {
                let now = &self.theta[p.range.clone()];
                let then = &self.wired.initial[p.range.clone()];
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
        let params = self.wired.graph.layout().iter().filter(|p| {
            // a model opened from a file keeps what that file changed
            let changed = self.theta[p.range.clone()] != self.wired.initial[p.range.clone()];
            !p.range.is_empty() && (selection.wants_role(p.role) || changed)
        });
        let file = BiasFile {
            task: self.task.clone(),
            pooling: self.pooling,
            terms: config.terms.of(self.base.config()).to_string(),
            layers: (layers.start, layers.end),
            max_len: self.texts.encoder.max_len(),
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

    /// About as many bytes as [`Model::save`] will write in f32, after it was trained so; never many more.
    pub(crate) fn file_bytes(&self, config: &TrainConfig) -> Result<u64> {
        let selection = config.selection(self.graph().layers())?;
        let layout = self.wired.graph.layout();
        let tensors = layout.iter().filter(|p| selection.wants_role(p.role) && !p.range.is_empty());
        // A tensor's type, shape and place take some 60 bytes of the header, and what else it says some 500.
        let tensors: usize = tensors.map(|p| 4 * p.range.len() + p.name.len() + 60).sum();
        let labels: usize = self.labels().iter().map(|l| l.len() + 4).sum();
        Ok((tensors + labels + 500) as u64)
    }
}
