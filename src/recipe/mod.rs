//! What a run without settings does, from examples to the saved file. The command line, the C library and every binding
//! train through [`Trainer`], so that the same examples give the same bias file everywhere.
//!
//! 1. Look at the examples, and say what is wrong with them ([`checks`]).
//! 2. Choose how to read pairs, and the settings by the amount of data ([`settings`]).
//! 3. Cross-validate (`crossval`): each example is answered by a model that was trained on the other folds. These answers
//!    decide between biases and the linear probe, give the score and its interval ([`assessment`]), calibrate probabilities
//!    ([`calibration`]), and are compared with the bias file that is there ([`previous`]). No line is set aside for good.
//! 4. Train on all examples, save, and keep the hashes of the lines beside the file ([`lines`]).
//!
//! With held-out examples (`dev`, or [`Settings::hold_out`]) these are scored after each epoch instead, and the best epoch is
//! kept.

pub mod assessment;
pub mod calibration;
mod candidate;
pub mod checks;
mod crossval;
pub mod lines;
pub mod previous;
pub mod settings;

pub use assessment::{Assessment, Baseline, LabelScore, Mistake, Source};
pub use checks::{Warning, WarningKind};
pub use previous::Comparison;
pub use settings::{Effort, Settings};

use crate::data::Example;
use crate::error::{Error, Result};
use crate::model::{Options, Pairing, Personal};
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::text::count;
use crate::train::{self, Head, HeldOut, Progress, Report};
use candidate::{Candidate, Method, Tell};
use crossval::{Folds, OutOfFold};
use lines::Lines;
use previous::Previous;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A training step takes about this many times as long as a forward pass over the same texts.
const STEP_PER_FORWARD: f64 = 3.2;
/// Prior of the lead of trained biases over the linear probe, in points of the main score: mean and deviation over the
/// development sets. A measured lead counts against it by its own uncertainty.
const PRIOR_LEAD: (f64, f64) = (0.03, 0.03);

type OnProgress<'a> = Box<dyn FnMut(Progress) -> ControlFlow<()> + Send + 'a>;

/// Trains a model on labelled examples.
///
/// ```no_run
/// use trimtab::data::{self, Columns, Wanted};
/// use trimtab::{Base, Trainer, task::Kind};
///
/// # fn main() -> trimtab::Result<()> {
/// let base = Base::open("minilm.q8.safetensors")?;
/// let examples = data::read_examples("mine.tsv".as_ref(), &Columns::default(), Wanted::Name)?;
/// let trained = Trainer::new(&base, Kind::Classify).examples(examples).train()?;
/// trained.save("me.bias.safetensors".as_ref(), false)?;
/// println!("{}", trained.model.predict("Your parcel arrives today", None)?);
/// # Ok(())
/// # }
/// ```
pub struct Trainer<'a> {
    base: Base,
    kind: Kind,
    labels: Option<Vec<String>>,
    examples: Vec<Example>,
    dev: Option<Vec<Example>>,
    names: [PathBuf; 2],
    options: Options,
    settings: Settings,
    replaces: Option<PathBuf>,
    force: bool,
    on_progress: OnProgress<'a>,
}

/// What a run gave.
pub struct Trained {
    /// The model, trained on all examples.
    pub model: Personal,
    /// How its training went.
    pub report: Report,
    /// How good it is; `None` if nothing could be scored.
    pub assessment: Option<Assessment>,
    /// The examples that [`Assessment`] counts, in their order.
    pub scored: Vec<Example>,
    /// The file that is there, beside the new one.
    pub comparison: Option<Comparison>,
    /// How the model was chosen.
    pub choice: Choice,
    /// What is wrong with the examples or the run.
    pub warnings: Vec<Warning>,
    /// Why the run ended, if training diverged after an epoch whose biases the model holds.
    pub diverged: Option<String>,
    learned: usize,
    lines: Lines,
    force: bool,
}

/// How a model was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// What was trained: `biases`, `linear probe`, `SetFit pairs`, or a variant of the first.
    pub name: String,
    /// Folds that were scored; 0 without cross-validation.
    pub folds: usize,
    /// How pairs are read, if that was chosen.
    pub bi_encoder: Option<bool>,
    /// Temperature that was folded into the head.
    pub temperature: Option<f64>,
}

impl<'a> Trainer<'a> {
    /// A run for a task of this kind, with the settings that the examples ask for.
    pub fn new(base: &Base, kind: Kind) -> Trainer<'a> {
        Trainer {
            base: base.clone(),
            kind,
            labels: None,
            examples: Vec::new(),
            dev: None,
            names: ["the examples".into(), "the held-out examples".into()],
            options: Options::default(),
            settings: Settings::default(),
            replaces: None,
            force: false,
            on_progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// What to learn from.
    pub fn examples(self, examples: Vec<Example>) -> Self {
        Trainer { examples, ..self }
    }

    /// Examples to score every epoch on.
    pub fn dev(self, dev: Option<Vec<Example>>) -> Self {
        Trainer { dev, ..self }
    }

    /// The labels, in the order of the head's outputs; without them those of the examples, sorted.
    pub fn labels(self, labels: Option<Vec<String>>) -> Self {
        Trainer { labels, ..self }
    }

    /// Names of the examples and of the held-out ones, for errors.
    pub fn named(mut self, examples: &Path, dev: Option<&Path>) -> Self {
        self.names[0] = examples.to_owned();
        if let Some(dev) = dev {
            self.names[1] = dev.to_owned();
        }
        self
    }

    /// How the model runs. [`Options::encoder_dropout`] is the settings'.
    pub fn options(self, options: Options) -> Self {
        Trainer { options, ..self }
    }

    /// Settings that are not left to the run.
    pub fn settings(self, settings: Settings) -> Self {
        Trainer { settings, ..self }
    }

    /// The bias file that [`Trained::save`] would replace. `force` replaces it whatever it is.
    pub fn replaces(self, path: Option<&Path>, force: bool) -> Self {
        Trainer { replaces: path.map(Path::to_owned), force, ..self }
    }

    /// Is told how the run goes, on a thread of the run; `Break` ends it.
    pub fn on_progress(self, tell: impl FnMut(Progress) -> ControlFlow<()> + Send + 'a) -> Self {
        Trainer { on_progress: Box::new(tell), ..self }
    }

    /// The task with the labels of all examples.
    fn task(&self) -> Result<Task> {
        let [examples, dev] = &self.names;
        let mut task = self.kind.of(&self.examples, examples)?;
        if let Some(labels) = &self.labels {
            task = Task::new(self.kind, labels.clone());
            task.targets(&self.examples, examples)?;
        }
        if let Some(held_out) = &self.dev {
            if held_out.is_empty() {
                return Err(Error::Config(format!("{}: there are no held-out examples", dev.display())));
            }
            task = if self.labels.is_none() { task.with_tags_of(held_out) } else { task };
            task.targets(held_out, dev)?;
        }
        Ok(task)
    }

    /// Runs. Errors: examples that do not fit the task; settings out of range; what training says; [`Error::Interrupted`]
    /// if it was ended before there was a model; a file in the way ([`previous::check_replaceable`]).
    pub fn train(mut self) -> Result<Trained> {
        if let Some(path) = self.replaces.as_deref().filter(|_| !self.force) {
            previous::check_replaceable(&self.base, path, self.kind)?;
        }
        let task = self.task()?;
        let (train, dev) = self.divide();
        let settings = self.settings.clone();
        if dev.is_none() && settings.patience.is_some_and(|n| n > 0) {
            let what = "patience goes by held-out examples: give some, or a share to hold out";
            return Err(Error::Config(what.into()));
        }
        let mut options = self.options.clone();
        options.encoder_dropout = settings.encoder_dropout.unwrap_or(0.0);
        let pairing = match settings.setfit {
            true => None,
            false => Personal::choose_pairing(&self.base, &task, &train, &mut options, settings.memory)?,
        };
        let mut first = Candidate::of(&settings, &task, &self.base, &options, train.len());
        let mut model = first.model(&self.base, &task, &settings)?;
        let lowest = first.config.selection(model.graph().layers())?.lowest_layer();
        // Frozen layers give a text the same each time, and are cached, as long as nothing is dropped in them. Contrastive and
        // mlm keep no dropout: with it was not measured.
        let drops = !matches!(self.kind, Kind::Contrastive | Kind::Mlm) && first.method != Method::Probe;
        if settings.encoder_dropout.is_none() && lowest == 0 && drops {
            first.options.encoder_dropout = settings::ENCODER_DROPOUT;
            model = first.model(&self.base, &task, &settings)?;
        }
        let mut run = Run {
            base: &self.base,
            task: &task,
            settings: &settings,
            train: &train,
            tell: &mut self.on_progress,
            done: 0,
            total: 0,
            warnings: Vec::new(),
            diverged: None,
        };
        for warning in checks::examples(&model, &train) {
            run.warn(warning);
        }
        run.introduce(&model, pairing);
        run.fit_memory(&model, &mut first, dev.as_deref())?;
        if first.method == Method::Steps && settings.effort != Effort::Thorough {
            model.check_checkpoints(&train, dev.as_deref(), &first.config)?;
        }
        let previous =
            self.replaces.as_deref().and_then(|path| Previous::open(&self.base, path, &task, &first.options));
        drop(model);
        let mut trained = match &dev {
            Some(dev) => run.with_dev(first, dev, previous.as_ref())?,
            None => run.on_all(first, previous.as_ref())?,
        };
        trained.choice.bi_encoder = pairing.map(Pairing::is_apart);
        trained.force = self.force;
        Ok(trained)
    }

    /// What is learned from, and what is held out.
    fn divide(&mut self) -> (Vec<Example>, Option<Vec<Example>>) {
        let examples = std::mem::take(&mut self.examples);
        match self.dev.take() {
            Some(dev) => (examples, Some(dev)),
            None => {
                let share = self.settings.hold_out.unwrap_or(0.0);
                train::hold_out(self.kind, examples, Some(share), self.settings.seed)
            }
        }
    }
}

/// A run, once it is clear what is learned.
struct Run<'r, 'a> {
    base: &'r Base,
    task: &'r Task,
    settings: &'r Settings,
    train: &'r [Example],
    tell: &'r mut OnProgress<'a>,
    /// Steps of all parts: done, and planned.
    done: usize,
    total: usize,
    warnings: Vec<Warning>,
    diverged: Option<String>,
}

impl Run<'_, '_> {
    fn note(&mut self, text: &str) {
        let _ = (self.tell)(Progress::Note(text));
    }

    fn warn(&mut self, warning: Warning) {
        let _ = (self.tell)(Progress::Warning(&warning.message));
        self.warnings.push(warning);
    }

    /// Says what is learned, and how.
    fn introduce(&mut self, model: &Personal, pairing: Option<Pairing>) {
        self.note(&introduction(model, self.train.len()));
        if let Some(pairing @ Pairing { together, apart, .. }) = pairing {
            let name = if pairing.is_apart() { "bi-encoder" } else { "cross-encoder" };
            self.note(&format!(
                "pairs: {name}; the probe's loss on unseen pairs is {apart:.3} with a bi-encoder, {together:.3} with a cross-encoder"
            ));
        }
    }

    /// Predicts what the run takes, and cuts batches so that it fits the budget.
    fn fit_memory(&mut self, model: &Personal, first: &mut Candidate, dev: Option<&[Example]>) -> Result<()> {
        let budget = self.settings.memory;
        if first.options.exact && budget.is_none() {
            return Ok(());
        }
        // SetFit runs two texts of each pair.
        let texts = if first.method == Method::Setfit { 2 } else { 1 };
        let batch = first.config.batch.saturating_mul(texts);
        let of_texts = train::TrainConfig { batch, ..first.config.clone() };
        let scored = dev.or((self.is_cross_validated(first)).then_some(&[][..]));
        let memory = model.memory(self.train, scored, &of_texts, budget)?;
        self.note(&format!("memory: {memory}"));
        if budget.is_some() {
            (first.config.cut, first.config.prefix_cache) = (Some(memory.cut), memory.prefix_cache);
        }
        Ok(())
    }

    /// Whether out-of-fold answers are made of it.
    fn is_cross_validated(&self, candidate: &Candidate) -> bool {
        candidate.method != Method::Probe
            && self.settings.effort != Effort::Quick
            && self.train.len() >= crossval::EXAMPLES_MIN
    }

    /// A candidate's settings, for people.
    fn describe(&self, candidate: &Candidate) -> String {
        let c = &candidate.config;
        match candidate.method {
            Method::Probe => "linear probe: the head alone".into(),
            Method::Setfit => format!("SetFit pairs in batches of {}, learning rate {}", c.batch, c.lr),
            Method::Steps => {
                let head = match c.head {
                    Head::Fitted => ", head from the linear probe",
                    Head::Random => "",
                };
                let dropout = match candidate.options.encoder_dropout {
                    0.0 => String::new(),
                    p => format!(", encoder dropout {p}"),
                };
                format!(
                    "{} epochs in batches of {}, learning rate {}{head}{dropout}",
                    c.epochs, c.batch, c.lr
                )
            }
        }
    }

    /// Scores held-out examples after each epoch and keeps the best one.
    fn with_dev(
        mut self,
        candidate: Candidate,
        dev: &[Example],
        previous: Option<&Previous>,
    ) -> Result<Trained> {
        let mut about = self.describe(&candidate);
        if let Some(patience) = candidate.config.patience.filter(|n| *n < candidate.config.epochs) {
            about += &format!("; early stopping, patience {patience}");
        }
        self.note(&format!("chosen: {about}"));
        let mut model = candidate.model(self.base, self.task, self.settings)?;
        let report = self.final_run(&candidate, &mut model, Some(dev))?;
        let answers = crossval::answers(&model, dev)?;
        let data = model.encode(dev)?;
        let (assessment, comparison) = match &answers {
            Some(answers) => {
                let probe = model.answers_of_head_alone(&data)?;
                let all: Vec<usize> = (0..dev.len()).collect();
                let assessment =
                    Assessment::of(Source::HeldOut, answers, probe.as_ref().map(|p| (p, &all[..])));
                let compared = previous.map(|p| p.compare(dev, answers, true)).transpose()?.flatten();
                (assessment, compared)
            }
            None => {
                let metrics = model.evaluate(dev)?;
                let base = model.evaluate_untrained(&data)?;
                let compared = previous.map(|p| p.compare_scores(dev, &metrics)).transpose()?.flatten();
                (Assessment::of_metrics(Source::HeldOut, metrics, base), compared)
            }
        };
        self.say_if_not_compared(previous, comparison.as_ref());
        let choice = Choice { name: candidate.name, folds: 0, bi_encoder: None, temperature: None };
        Ok(self.trained(model, report, Some(assessment), dev.to_vec(), comparison, choice))
    }

    /// Learns from all examples, after cross-validation.
    fn on_all(mut self, first: Candidate, previous: Option<&Previous>) -> Result<Trained> {
        let start = Instant::now();
        let folds = Folds::of(self.task, self.train, self.settings.effort);
        let probe_model = Candidate { method: Method::Probe, ..first.clone() };
        let probe = match self.task.has_probe() && self.train.len() >= crossval::EXAMPLES_MIN {
            true => {
                let model = probe_model.model(self.base, self.task, self.settings)?;
                // As many folds as the biases get: each is to learn from the same share of the examples.
                model.probe_answers(self.train, &first.config, folds.all)?
            }
            false => None,
        };
        let probed_s = start.elapsed().as_secs_f64();
        let mut chosen = first.clone();
        let mut crossed = None;
        let mut rejected = None;
        if self.is_cross_validated(&first) {
            let mut candidates = vec![first.clone()];
            if self.settings.effort == Effort::Thorough {
                candidates.extend(first.variants(self.settings));
            }
            self.plan(&candidates, &folds, probe.as_ref().map(|_| probed_s));
            let (index, out_of_fold) = self.cross_validate(&candidates, &folds)?;
            chosen = candidates.swap_remove(index);
            crossed = Some(out_of_fold);
        } else {
            self.total = first.steps(self.train.len());
        }
        if let (Some(out_of_fold), Some((answers, which))) = (&crossed, &probe)
            && self.settings.may_keep_probe()
            && probe_is_better(out_of_fold, answers, which)
        {
            chosen = Candidate { name: "linear probe".into(), method: Method::Probe, ..first.clone() };
            self.note("the linear probe answers unseen lines better than trained biases: it is kept");
            self.total = self.done;
        }
        let about = self.describe(&chosen);
        self.note(&format!("chosen: {about}"));
        let mut model = chosen.model(self.base, self.task, self.settings)?;
        let report = self.final_run(&chosen, &mut model, None)?;

        // The probe's own answers stand for a probe.
        let scored_folds = crossed.as_ref().map_or(0, |_| folds.scored);
        if chosen.method == Method::Probe
            && let Some((answers, which)) = &probe
        {
            rejected = crossed.take();
            crossed = Some(OutOfFold {
                which: which.clone(),
                metrics: answers.metrics(),
                answers: Some(answers.clone()),
                before: None,
            });
        }
        let mut temperature = None;
        if let Some(answers) = crossed.as_mut().and_then(|c| c.answers.as_mut()) {
            temperature = calibration::temperature(&calibration::learnable(answers));
            if let Some(t) = temperature {
                calibration::divide(answers, t);
                model.soften(t);
            }
            model.set_curve(calibration::Curve::of(&calibration::learnable(answers)));
        }
        let scored: Vec<Example> = match &crossed {
            Some(crossed) => crossed.which.iter().map(|&i| self.train[i].clone()).collect(),
            None => Vec::new(),
        };
        let mut assessment = crossed.as_ref().map(|crossed| match &crossed.answers {
            Some(answers) => {
                let beside = (chosen.method != Method::Probe)
                    .then(|| shared(&crossed.which, probe.as_ref()))
                    .flatten();
                let beside = beside.as_ref().map(|(probe, places)| (probe, &places[..]));
                Assessment::of(Source::CrossValidation, answers, beside)
            }
            None => Assessment::of_metrics(
                Source::CrossValidation,
                crossed.metrics.clone(),
                crossed.before.clone(),
            ),
        });
        if let (Some(assessment), Some(rejected), Some((probe, which))) = (&mut assessment, rejected, &probe)
            && let Some((probe, places)) = shared(&rejected.which, Some(&(probe.clone(), which.clone())))
            && let Some(answers) = &rejected.answers
        {
            assessment.biases = Some(Baseline::of(&probe, &answers.some(&places)));
        }
        if let Some(assessment) = &assessment {
            model.set_metrics(&assessment.metrics, report.epochs.last().map(|e| e.train_loss));
        }
        let comparison = match (previous, crossed.as_ref().and_then(|c| c.answers.as_ref())) {
            (Some(previous), Some(answers)) => previous.compare(&scored, answers, false)?,
            _ => None,
        };
        self.say_if_not_compared(previous, comparison.as_ref());
        let choice = Choice { name: chosen.name, folds: scored_folds, bi_encoder: None, temperature };
        Ok(self.trained(model, report, assessment, scored, comparison, choice))
    }

    /// Says what is coming, and how long it takes: known from how long the probe's forward passes took.
    fn plan(&mut self, candidates: &[Candidate], folds: &Folds, probed_s: Option<f64>) {
        let n = self.train.len();
        let part = n - n / folds.all;
        let mut steps = 0;
        let mut left = candidates.len();
        for _ in 0..folds.scored {
            // Each fold halves the candidates.
            let fold = candidates.iter().take(left).map(|c| c.steps(part));
            steps = fold.fold(steps, usize::saturating_add);
            left = left.div_ceil(2);
        }
        self.total = candidates[0].steps(n).saturating_add(steps);
        let passes = self.total as f64 * candidates[0].config.batch as f64 / n as f64;
        let rows = n.min(train::FEATURE_ROWS) as f64 / n as f64;
        let seconds = probed_s.map(|s| passes * STEP_PER_FORWARD * s / rows);
        let time = match seconds {
            Some(s) if s >= 90.0 => format!("; about {:.0} minutes in all", (s / 60.0).ceil()),
            Some(s) => format!("; about {:.0} s in all", s.ceil()),
            None => String::new(),
        };
        let what = match (folds.scored, candidates.len()) {
            (1, 1) => format!("every {}th line is scored by a model that has not seen it", folds.all),
            (folds, 1) => format!("cross-validation on {folds} folds"),
            (folds, n) => format!("cross-validation of {n} candidates on {folds} folds"),
        };
        self.note(&format!("plan: {what}, then training on all lines{time}"));
    }

    /// Out-of-fold answers of the best candidate, and which it is: successive halving, a fold a round.
    fn cross_validate(&mut self, candidates: &[Candidate], folds: &Folds) -> Result<(usize, OutOfFold)> {
        let mut alive: Vec<(usize, Vec<OutOfFold>)> =
            (0..candidates.len()).map(|i| (i, Vec::new())).collect();
        for fold in 0..folds.scored {
            for (i, parts) in &mut alive {
                let at = Progress::Fold { name: &candidates[*i].name, fold: fold + 1, folds: folds.scored };
                if (self.tell)(at).is_break() {
                    return Err(Error::Interrupted("nothing was written".into()));
                }
                let (base, task, settings, train) = (self.base, self.task, self.settings, self.train);
                let part = self.counted(|tell| {
                    OutOfFold::fold(&candidates[*i], (base, task, settings), train, folds, fold, tell)
                })?;
                parts.push(part);
            }
            // The lower loss; a loss after the best temperature would need more answers than a fold has.
            let loss = |parts: &Vec<OutOfFold>| parts.iter().map(|p| p.metrics.loss).sum::<f64>();
            alive.sort_by(|a, b| loss(&a.1).total_cmp(&loss(&b.1)).then(a.0.cmp(&b.0)));
            alive.truncate(alive.len().div_ceil(2));
        }
        let (index, parts) = alive.swap_remove(0);
        let joined = OutOfFold::join(parts).ok_or_else(|| Error::Internal("no fold was scored".into()))?;
        Ok((index, joined))
    }

    /// The run whose model is kept.
    fn final_run(
        &mut self,
        candidate: &Candidate,
        model: &mut Personal,
        dev: Option<&[Example]>,
    ) -> Result<Report> {
        let train = self.train;
        if self.total == 0 {
            self.total = candidate.steps(train.len());
        }
        let report = match self.counted(|tell| candidate.train(model, train, dev, tell)) {
            Err(Error::Diverged(what)) if model.has_finished_epoch() => {
                self.diverged = Some(what);
                return Ok(Report::default());
            }
            result => result?,
        };
        let losses: Vec<f64> = report.epochs.iter().map(|e| e.train_loss).collect();
        if let [first, .., last] = losses[..]
            && last > 0.98 * first
            && !report.interrupted
        {
            let what = format!(
                "the training loss did not fall ({first:.3} in the first epoch, {last:.3} in the last): the model found \
                 nothing in these texts that tells the answer"
            );
            self.warn(Warning::new(WarningKind::LossDoesNotFall, what));
        }
        Ok(report)
    }

    /// Runs a part whose steps count as part of the whole.
    fn counted<T>(&mut self, part: impl FnOnce(Tell) -> Result<T>) -> Result<T> {
        let (tell, done) = (&mut *self.tell, &mut self.done);
        let planned = self.total;
        part(&mut |p| match p {
            Progress::Step { loss, texts, .. } => {
                *done += 1;
                tell(Progress::Step { done: *done, total: planned.max(*done), loss, texts })
            }
            other => tell(other),
        })
    }

    fn say_if_not_compared(&mut self, previous: Option<&Previous>, comparison: Option<&Comparison>) {
        if let (Some(previous), None) = (previous, comparison) {
            let why = match previous.knows_lines() {
                true => "there are too few lines that it was not trained on",
                false => "it is not known which lines it was trained on",
            };
            self.note(&format!("the existing bias file is replaced without a comparison: {why}"));
        }
    }

    fn trained(
        self,
        model: Personal,
        report: Report,
        assessment: Option<Assessment>,
        scored: Vec<Example>,
        comparison: Option<Comparison>,
        choice: Choice,
    ) -> Trained {
        let (learned, lines) = (self.train.len(), Lines::of(self.train));
        let Run { warnings, diverged, .. } = self;
        Trained {
            model,
            report,
            assessment,
            scored,
            comparison,
            choice,
            warnings,
            diverged,
            learned,
            lines,
            force: false,
        }
    }
}

/// What is learned, and how: one line for people.
pub fn introduction(model: &Personal, examples: usize) -> String {
    let answers = match (model.task().kind(), model.labels().len()) {
        (Kind::Contrastive, _) => "a positive pair each".into(),
        (Kind::Qa, _) => "an answer span each".into(),
        (Kind::Mlm, _) => "15 % of the tokens masked".into(),
        (_, 0) => "a number each".into(),
        (_, n) => format!("{} labels", count(n)),
    };
    let (numerics, threads) = (model.graph().numerics().describe(), model.threads());
    format!("{} examples, {answers}, {numerics}, {threads} threads", count(examples))
}

/// Whether the probe is to be kept in the place of trained biases: the lead of the biases, drawn towards what is usual by as
/// much as the examples leave it uncertain, is below zero.
fn probe_is_better(biases: &OutOfFold, probe: &HeldOut, which: &[usize]) -> bool {
    let Some((probe, places)) = shared(&biases.which, Some(&(probe.clone(), which.to_vec()))) else {
        return false;
    };
    let Some(answers) = &biases.answers else { return false };
    let answers = answers.some(&places);
    let lead = answers.metrics().main() - probe.metrics().main();
    let interval = answers.lead(&probe);
    // 95 % of a normal distribution lie within 1.96 deviations on either side.
    let variance = ((interval.high - interval.low) / (2.0 * 1.96)).powi(2);
    let (mean, deviation) = PRIOR_LEAD;
    mean * variance + lead * deviation * deviation < 0.0
}

/// The probe's answers to those of the examples `which` that it answered, and their places in `which`.
fn shared(which: &[usize], probe: Option<&(HeldOut, Vec<usize>)>) -> Option<(HeldOut, Vec<usize>)> {
    let (probe, answered) = probe?;
    let mut of_probe = Vec::new();
    let mut places = Vec::new();
    for (place, i) in which.iter().enumerate() {
        if let Ok(at) = answered.binary_search(i) {
            of_probe.push(at);
            places.push(place);
        }
    }
    (!places.is_empty()).then(|| (probe.some(&of_probe), places))
}

impl Trained {
    /// Number of examples that it was trained on.
    pub fn learned(&self) -> usize {
        self.learned
    }

    /// Saves the model at `path`, in f16 if `half`, and the hashes of its training lines beside it. If the file that is
    /// there is better, it stays, and the new one goes to `NAME.new.…`.
    ///
    /// Errors: [`Error::NotBetter`] if it went beside, naming both; [`Error::Io`].
    pub fn save(&self, path: &Path, half: bool) -> Result<()> {
        let keeps = self.comparison.as_ref().is_some_and(Comparison::keeps_previous) && !self.force;
        let place = if keeps { previous::beside(path) } else { path.to_owned() };
        self.model.save(&place, half)?;
        self.lines.write(&place)?;
        match keeps {
            false => Ok(()),
            true => Err(Error::NotBetter(format!(
                "{} is better on lines that neither file was trained on, and stays; the new one is in {}",
                path.display(),
                place.display()
            ))),
        }
    }
}
