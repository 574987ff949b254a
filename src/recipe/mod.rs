//! What a run without settings does, from examples to the saved file. The command line, the C library and every binding
//! train through [`Trainer`], so that the same examples give the same bias file everywhere.
//!
//! 1. Look at the examples, and say what is wrong with them ([`checks`]).
//! 2. Choose how to read pairs, and the settings by the amount of data ([`settings`]).
//! 3. Cross-validate (`crossval`): each example is answered by a model that was trained on the other folds. These answers
//!    decide between biases and the linear probe, give the score and its interval ([`assessment`]), calibrate probabilities
//!    ([`crate::train::calibration`]), and are compared with the bias file that is there ([`previous`]). No line is set aside for good.
//! 4. Train on all examples, save, and keep the hashes of the lines beside the file ([`lines`]).
//!
//! With held-out examples (`dev`, or [`Settings::hold_out`]) these are scored after each epoch instead, and the best epoch is
//! kept.

pub mod assessment;
mod candidate;
pub mod checks;
mod crossval;
pub mod lines;
pub mod previous;
mod run;
pub mod settings;

pub use assessment::{Assessment, Baseline, LabelScore, Mistake, Source};
pub use checks::{Warning, WarningKind};
pub use previous::Comparison;
pub use settings::{Effort, Settings};

use crate::data::Example;
use crate::error::{Error, Result};
use crate::model::{Model, Options, Reading, Ways};
use crate::output::{self, Room};
use crate::quant::Base;
use crate::task::{Kind, Task};
use crate::text::count;
use crate::train::{self, Progress, Report};
use candidate::{Candidate, Method};
use lines::Lines;
use previous::Previous;
use run::Run;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

type OnProgress<'a> = Box<dyn FnMut(Progress) -> ControlFlow<()> + Send + 'a>;

/// Trains a model on labelled examples.
///
/// ```no_run
/// use trimtab::data::{self, Columns, LabelForm};
/// use trimtab::{Base, Trainer, task::Kind};
///
/// # fn main() -> trimtab::Result<()> {
/// let base = Base::open("minilm.q8.safetensors")?;
/// let examples = data::read_examples("mine.tsv".as_ref(), &Columns::default(), LabelForm::Name)?;
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
    pub model: Model,
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
    /// Kept for the file to be saved.
    room: Room,
}

/// How a model was chosen.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// What was trained: `biases`, `linear probe`, `SetFit`, or a variant of the first.
    pub name: String,
    /// Folds that were scored; 0 without cross-validation.
    pub folds: usize,
    /// How pairs are read, if that was chosen.
    pub bi_encoder: Option<bool>,
    /// Whether long texts are read in windows, if that was chosen.
    pub windows: Option<bool>,
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

    /// The bias file that [`Trained::save`] would replace. `force` replaces it whatever it is. The run begins only if the file
    /// can be written, and keeps room for it on the disk.
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
            task.scored_targets(held_out, &task.unseen(held_out), dev)?;
        }
        Ok(task)
    }

    /// Runs. Errors: examples that do not fit the task; settings out of range; what training says; [`Error::Interrupted`]
    /// if it was ended before there was a model; a file in the way ([`previous::check_replaceable`]), or one that cannot be
    /// written ([`output::reserve`]).
    pub fn train(mut self) -> Result<Trained> {
        if let Some(path) = &self.replaces {
            output::check(path)?;
        }
        // What was written to a stream is not there any more.
        let replaces = self.replaces.clone().filter(|path| !output::is_stream(path));
        if let Some(path) = replaces.as_deref().filter(|_| !self.force) {
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
        let reading = match settings.setfit {
            true => None,
            false => Model::choose_reading(&self.base, &task, &train, &mut options, settings.memory)?,
        };
        let mut first = Candidate::of(&settings, &task, &self.base, &options, &train);
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
        let unseen = dev.as_deref().and_then(|dev| checks::unseen(&task, dev));
        for warning in checks::examples(&model, &train).into_iter().chain(unseen) {
            run.warn(warning);
        }
        if let Some(start) = &settings.start {
            checks::start(start, self.kind, &train).into_iter().for_each(|warning| run.warn(warning));
        }
        run.introduce(&model, reading);
        run.fit_memory(&model, &mut first, dev.as_deref())?;
        let room = match &replaces {
            Some(path) => {
                let bytes = model.file_bytes(&first.config)? + Lines::bytes(train.len());
                output::reserve(path, bytes)?
            }
            None => Room::default(),
        };
        if let Some(checkpoints) = &settings.checkpoints {
            checkpoints.check_room(model.theta().len())?;
        }
        if first.method == Method::Steps && settings.effort != Effort::Thorough {
            model.check_checkpoints(&train, dev.as_deref(), &first.config)?;
        }
        let previous =
            replaces.as_deref().and_then(|path| Previous::open(&self.base, path, &task, &first.options));
        drop(model);
        let mut trained = match &dev {
            Some(dev) => run.with_dev(first, dev, previous.as_ref())?,
            None => run.on_all(first, previous.as_ref())?,
        };
        let other = |choice| reading.filter(|r| r.choice == choice).map(Reading::is_other);
        (trained.choice.bi_encoder, trained.choice.windows) = (other(Ways::Pairs), other(Ways::LongTexts));
        trained.force = self.force;
        trained.room = room;
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

/// What is learned, and how: one line for people.
pub fn introduction(model: &Model, examples: usize) -> String {
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
        self.room.release();
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
