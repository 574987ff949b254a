//! Training, with a callback on the caller's own thread.

use super::border::{given, guard, panicked, text_or_null, trimtab_status};
use super::examples::trimtab_examples;
use super::model::trimtab_model;
use super::scores::trimtab_scores;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::model::{Options, Personal};
use crate::task::Task;
use crate::train::{self, Course, Progress, Report, TrainConfig};
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// How to train. All zero, or NULL in its place, chooses from the examples as `trimtab train` without flags does: the
/// same examples give the same bias file, byte for byte.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trimtab_train_options {
    /// Decides the order of the examples, the head's first values and the dropout.
    pub seed: u64,
    /// Passes over the examples; 0 chooses by their number.
    pub epochs: usize,
    /// Texts a step; 0 chooses by their number.
    pub batch: usize,
    /// Peak learning rate; 0 chooses by their number and that of labels.
    pub lr: f64,
    /// Share of the examples to score on instead of learning from it, where none are given for that; 0 takes a tenth of
    /// 200 or more, below 0 none.
    pub hold_out: f64,
    /// Ends after so many epochs without a better score; 0 is 5 where `epochs` is 0, else never.
    pub patience: usize,
    /// Which biases, such as "q,m2"; NULL for all. `trimtab train --help` has them.
    pub terms: *const c_char,
    /// The first layer that is trained.
    pub layers_from: usize,
    /// The layer behind the last one that is trained; 0 for all layers from the first on.
    pub layers_to: usize,
    /// Bias file of this base, of whatever task, whose biases training begins with; NULL begins with the base's.
    pub start: *const c_char,
    /// Most bytes for the whole process, kept by smaller steps of work; 0 for no limit. No result depends on it.
    pub memory: usize,
}

/// What a progress callback is told of.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum trimtab_event {
    /// The first step is next; `scores` are those of a head alone, fitted to the frozen encoder.
    Begin = 0,
    /// A step is done.
    Step = 1,
    /// An epoch is done; `scores` are those of the model on what is held out.
    Epoch = 2,
}

/// Where a run is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trimtab_progress {
    /// What happened.
    pub event: trimtab_event,
    /// Steps done.
    pub step: usize,
    /// Steps of the whole run; 0 before the first.
    pub steps: usize,
    /// Epochs done.
    pub epoch: usize,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Loss of the step, mean loss of the epoch; NaN before the first.
    pub loss: f64,
    /// Scores on what is held out; `examples` is 0 where there are none.
    pub scores: trimtab_scores,
}

/// What a progress callback returns.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum trimtab_reply {
    /// Go on.
    Continue = 0,
    /// End, and use what was learned so far: the best epoch, or the last step where none is done yet.
    Stop = 1,
    /// End, and leave the model as it was; the call returns `TRIMTAB_STATUS_CANCELLED`. So does any other number.
    Cancel = 2,
}

/// Called while a model trains, on the thread that called `trimtab_model_train`, with its `user`; returns a
/// `trimtab_reply`. `progress` is valid during the call. It must return: no longjmp, no C++ exception out of it. It may
/// use any function of this library, but for freeing what the run uses.
pub type trimtab_progress_fn =
    Option<unsafe extern "C" fn(progress: *const trimtab_progress, user: *mut c_void) -> i32>;

/// How a run ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trimtab_report {
    /// Examples learned from.
    pub examples: usize,
    /// Epochs done.
    pub epochs: usize,
    /// The epoch that the model has now, from 1; 0 where none was done, or none better than the head alone.
    pub kept: usize,
    /// Steps done.
    pub steps: usize,
    /// Trained values of biases.
    pub biases: usize,
    /// Seconds spent training, without scoring.
    pub seconds: f64,
    /// 1 where the callback stopped it, else 0.
    pub stopped: i32,
    /// Scores of what is kept on what was held out; `examples` is 0 where nothing was.
    pub scores: trimtab_scores,
    /// Scores of a head alone on the same; what training the biases must beat.
    pub head_alone: trimtab_scores,
}

/// Trains the model on `examples`: head and biases begin anew, so that a model learns the same from the same examples
/// whatever it learned before. When all is done the new biases replace the old ones at once; until then other threads get
/// answers from the old ones. Where this fails or is cancelled, the old ones stay.
///
/// `held_out` are examples to score each epoch on, or NULL (see `trimtab_train_options`); `options`, `progress` and
/// `report` may be NULL. Blocks until the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_train(
    model: *mut trimtab_model,
    examples: *const trimtab_examples,
    held_out: *const trimtab_examples,
    options: *const trimtab_train_options,
    progress: trimtab_progress_fn,
    user: *mut c_void,
    report: *mut trimtab_report,
) -> trimtab_status {
    guard(|| {
        // SAFETY: handles and options, the last two or NULL (the header's rule)
        let (model, examples, held_out, wishes) = unsafe {
            let held_out = held_out.as_ref().map(trimtab_examples::copy);
            (given(model, "model")?, given(examples, "examples")?.copy(), held_out, Wishes::of(options)?)
        };
        let lesson = Lesson::of(model, examples, held_out, &wishes)?;
        let mut cancelled = false;
        let result = match progress {
            None => lesson.learn(|_| ControlFlow::Continue(())),
            Some(progress) => {
                // SAFETY: the caller's function, on its own thread, with the pointer it gave
                let mut ask = |p: &trimtab_progress| unsafe { progress(p, user) };
                relayed(&mut ask, &mut cancelled, |tell| lesson.learn(tell))
            }
        };
        let (new, found) = result?;
        // Stopped before the first step there is nothing to use.
        if cancelled || (found.interrupted && found.steps == 0) {
            return Err(Error::Interrupted("the model is as it was".into()));
        }
        let told = trimtab_report {
            examples: lesson.train.len(),
            epochs: found.epochs.len(),
            kept: found.kept,
            steps: found.steps,
            biases: found.trained_biases,
            seconds: found.train_s,
            stopped: found.interrupted.into(),
            scores: trimtab_scores::of(found.scores()),
            head_alone: trimtab_scores::of(found.before.as_ref()),
        };
        model.put(new);
        if !report.is_null() {
            // SAFETY: not NULL, so it may be written (the header's rule)
            unsafe { report.write(told) };
        }
        Ok(())
    })
}

/// [`trimtab_train_options`] without its pointers and zeros.
#[derive(Default)]
struct Wishes {
    seed: u64,
    epochs: Option<usize>,
    batch: Option<usize>,
    lr: Option<f64>,
    hold_out: Option<f64>,
    patience: Option<usize>,
    terms: Option<String>,
    layers: Option<(usize, usize)>,
    start: Option<PathBuf>,
    memory: Option<usize>,
}

impl Wishes {
    /// # Safety
    /// `options` is NULL, or valid with its texts during the call.
    unsafe fn of(options: *const trimtab_train_options) -> Result<Wishes> {
        // SAFETY: the caller's promise
        let Some(o) = (unsafe { options.as_ref() }) else { return Ok(Wishes::default()) };
        // SAFETY: the same
        let (terms, start) = unsafe { (text_or_null(o.terms, "terms")?, text_or_null(o.start, "start")?) };
        let some = |n: usize| (n > 0).then_some(n);
        if o.hold_out.is_nan() || o.hold_out >= 1.0 {
            return Err(Error::Config(format!("hold_out is a share below 1, not {}", o.hold_out)));
        }
        Ok(Wishes {
            seed: o.seed,
            epochs: some(o.epochs),
            batch: some(o.batch),
            lr: (o.lr != 0.0).then_some(o.lr),
            hold_out: (o.hold_out != 0.0).then_some(o.hold_out.max(0.0)),
            patience: some(o.patience),
            terms: terms.map(str::to_owned),
            layers: (o.layers_from > 0 || o.layers_to > 0).then_some((o.layers_from, o.layers_to)),
            start: start.map(PathBuf::from),
            memory: some(o.memory),
        })
    }
}

/// What is learned, from what, and how.
struct Lesson<'a> {
    model: &'a trimtab_model,
    /// With how pairs are read.
    options: Options,
    task: Task,
    train: Vec<Example>,
    dev: Option<Vec<Example>>,
    config: TrainConfig,
    start: Option<&'a Path>,
    memory: Option<usize>,
}

impl<'a> Lesson<'a> {
    /// The same choices as the command line's.
    fn of(
        model: &'a trimtab_model,
        examples: Vec<Example>,
        held_out: Option<Vec<Example>>,
        wishes: &'a Wishes,
    ) -> Result<Lesson<'a>> {
        let path = Path::new("the examples");
        let mut task = model.kind.of(&examples, path)?;
        if let Some(labels) = &model.labels {
            task = Task::new(model.kind, labels.clone());
            task.targets(&examples, path)?;
        }
        let (train, dev) = match held_out {
            None => train::hold_out(model.kind, examples, wishes.hold_out, wishes.seed),
            Some(held_out) if held_out.is_empty() => {
                return Err(Error::Config("there are no held-out examples; give NULL for none".into()));
            }
            Some(held_out) => {
                task = if model.labels.is_none() { task.with_tags_of(&held_out) } else { task };
                task.targets(&held_out, Path::new("the held-out examples"))?;
                (examples, Some(held_out))
            }
        };
        if dev.is_none() && wishes.patience.is_some() {
            let what = "patience goes by held-out examples: give some, or a share to hold out";
            return Err(Error::Config(what.into()));
        }
        let (base, mut options) = (&model.base, model.options.clone());
        Personal::choose_pairing(base, &task, &train, &mut options, wishes.memory)?;
        let course = Course::of(&task, options.pooling.unwrap_or(base.pooling()));
        let chosen = TrainConfig::chosen(train.len(), task.labels().len(), course).with_epochs(wishes.epochs);
        let depth = model.base.config().layers;
        let layers = |(from, to)| from..if to == 0 { depth } else { to };
        let config = TrainConfig {
            seed: wishes.seed,
            batch: wishes.batch.unwrap_or(chosen.batch),
            lr: wishes.lr.unwrap_or(chosen.lr),
            patience: wishes.patience.or(chosen.patience),
            terms: wishes.terms.as_deref().map_or(Ok(chosen.terms.clone()), str::parse)?,
            layers: wishes.layers.map(layers),
            ..chosen
        };
        let (start, memory) = (wishes.start.as_deref(), wishes.memory);
        Ok(Lesson { model, options, task, train, dev, config, start, memory })
    }

    /// A new model, trained; `tell` may end the run.
    fn learn(
        &self,
        mut tell: impl FnMut(&trimtab_progress) -> ControlFlow<()> + Send,
    ) -> Result<(Personal, Report)> {
        let mut config = self.config.clone();
        let mut new = Personal::new(&self.model.base, self.task.clone(), &self.options)?;
        if let Some(start) = self.start {
            new.start_from(start)?;
        }
        if self.memory.is_some() {
            let memory = new.memory(&self.train, self.dev.as_deref(), &config, self.memory)?;
            (config.cut, config.prefix_cache) = (Some(memory.cut), memory.prefix_cache);
        }
        let mut at = trimtab_progress {
            event: trimtab_event::Begin,
            step: 0,
            steps: 0,
            epoch: 0,
            epochs: config.epochs,
            loss: f64::NAN,
            scores: trimtab_scores::of(None),
        };
        let watch = |p: Progress| {
            at.scores = trimtab_scores::of(None);
            match p {
                // of checkpoints, which this run has none of
                Progress::Note(_) => return ControlFlow::Continue(()),
                Progress::Begin(before) => at.scores = trimtab_scores::of(before),
                Progress::Step { done, total, loss, .. } => {
                    (at.event, at.step, at.steps, at.loss) = (trimtab_event::Step, done, total, loss);
                }
                Progress::Epoch(epoch) => {
                    (at.event, at.epoch, at.loss) = (trimtab_event::Epoch, epoch.epoch, epoch.train_loss);
                    at.scores = trimtab_scores::of(epoch.dev.as_ref());
                }
            }
            tell(&at)
        };
        let report = new.train(&self.train, self.dev.as_deref(), &config, watch)?;
        Ok((new, report))
    }
}

/// Runs `learn` on a thread of its own and asks on this one: a Java or Python callback is at home on the thread that
/// called, not on one of our pool's. The hand-over takes microseconds, a step milliseconds.
fn relayed<R: Send>(
    ask: &mut dyn FnMut(&trimtab_progress) -> i32,
    cancelled: &mut bool,
    learn: impl FnOnce(Box<dyn FnMut(&trimtab_progress) -> ControlFlow<()> + Send>) -> Result<R> + Send,
) -> Result<R> {
    let (tell, told) = mpsc::sync_channel::<trimtab_progress>(0);
    let (reply, replies) = mpsc::channel();
    let watch = Box::new(move |p: &trimtab_progress| match tell.send(*p).map(|()| replies.recv()) {
        Ok(Ok(true)) => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    std::thread::scope(|scope| {
        let name = std::thread::Builder::new().name("trimtab-train".into());
        let run = name
            .spawn_scoped(scope, || learn(watch))
            .map_err(|e| Error::Config(format!("cannot start a thread: {e}")))?;
        for progress in told {
            let answer = ask(&progress);
            *cancelled |= answer != trimtab_reply::Continue as i32 && answer != trimtab_reply::Stop as i32;
            reply.send(answer == trimtab_reply::Continue as i32).ok();
        }
        run.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
    })
}
