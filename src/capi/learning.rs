//! Training, with a callback on the caller's own thread.

use super::border::{given, guard, panicked, text_or_null, trimtab_status};
use super::examples::trimtab_examples;
use super::model::trimtab_model;
use super::scores::trimtab_scores;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::recipe::{Baseline, Effort, Settings, Trained, Trainer};
use crate::train::Progress;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::path::PathBuf;
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
    /// Share of the examples to score epochs on instead of learning from it, if none are given for that; 0 or below learns
    /// from all of them, and scores by cross-validation.
    pub hold_out: f64,
    /// Early-stopping patience in epochs, with held-out examples; 0 is 5 if `epochs` is 0, else never.
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
    /// A `trimtab_effort`: how much work to spend on choosing and scoring.
    pub effort: i32,
}

/// How much work a run spends on choosing, and on telling how good its result is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum trimtab_effort {
    /// Cross-validates what it trains on three folds: about three times the steps of `Quick`.
    Normal = 0,
    /// Trains once; without held-out examples there are no scores but a linear probe's.
    Quick = 1,
    /// Tries several settings on five folds: about ten times the steps of `Quick`.
    Thorough = 2,
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
            let model = given(model, "model")?;
            let depth = model.base.config().layers;
            (model, given(examples, "examples")?.copy(), held_out, wishes(options, depth)?)
        };
        let job = |tell: &mut (dyn FnMut(&trimtab_progress) -> ControlFlow<()> + Send)| {
            learn(model, &examples, held_out, &wishes, tell)
        };
        let mut cancelled = false;
        let trained = match progress {
            None => job(&mut |_| ControlFlow::Continue(())),
            Some(progress) => {
                // SAFETY: the caller's function, on its own thread, with the pointer it gave
                let mut ask = |p: &trimtab_progress| unsafe { progress(p, user) };
                relayed(&mut ask, &mut cancelled, |mut tell| job(&mut tell))
            }
        }?;
        // Stopped before the first step there is nothing to use.
        let found = &trained.report;
        if cancelled || (found.interrupted && found.steps == 0) {
            return Err(Error::Interrupted("the model is as it was".into()));
        }
        let assessment = trained.assessment.as_ref();
        let probe = assessment.and_then(|a| a.probe.as_ref());
        let told = trimtab_report {
            examples: trained.learned(),
            epochs: found.epochs.len(),
            kept: found.kept,
            steps: found.steps,
            biases: found.trained_biases,
            seconds: found.train_s,
            stopped: found.interrupted.into(),
            scores: trimtab_scores::of(assessment.map(|a| &a.metrics)),
            head_alone: trimtab_scores::of(probe.map(|Baseline { metrics, .. }| metrics)),
        };
        let new = trained.model;
        model.put(new);
        if !report.is_null() {
            // SAFETY: not NULL, so it may be written (the header's rule)
            unsafe { report.write(told) };
        }
        Ok(())
    })
}

/// What the options ask for; zeros are left to the run.
///
/// # Safety
/// `options` is NULL, or valid with its texts during the call.
unsafe fn wishes(options: *const trimtab_train_options, depth: usize) -> Result<Settings> {
    // SAFETY: the caller's promise
    let Some(o) = (unsafe { options.as_ref() }) else { return Ok(Settings::default()) };
    // SAFETY: the same
    let (terms, start) = unsafe { (text_or_null(o.terms, "terms")?, text_or_null(o.start, "start")?) };
    let some = |n: usize| (n > 0).then_some(n);
    if o.hold_out.is_nan() || o.hold_out >= 1.0 {
        return Err(Error::Config(format!("hold_out is a share below 1, not {}", o.hold_out)));
    }
    let default = Settings::default();
    let layers = o.layers_from..some(o.layers_to).unwrap_or(depth);
    Ok(Settings {
        seed: o.seed,
        effort: match o.effort {
            n if n == trimtab_effort::Normal as i32 => Effort::Normal,
            n if n == trimtab_effort::Quick as i32 => Effort::Quick,
            n if n == trimtab_effort::Thorough as i32 => Effort::Thorough,
            n => return Err(Error::Config(format!("effort {n} is no trimtab_effort"))),
        },
        epochs: some(o.epochs),
        batch: some(o.batch),
        lr: (o.lr != 0.0).then_some(o.lr),
        hold_out: (o.hold_out > 0.0).then_some(o.hold_out),
        patience: some(o.patience),
        terms: terms.map_or(Ok(default.terms.clone()), str::parse)?,
        layers: (o.layers_from > 0 || o.layers_to > 0).then_some(layers),
        start: start.map(PathBuf::from),
        memory: some(o.memory),
        ..default
    })
}

/// A new model, trained as the command line trains; `tell` may end the run.
fn learn(
    model: &trimtab_model,
    examples: &[Example],
    held_out: Option<Vec<Example>>,
    settings: &Settings,
    tell: &mut (dyn FnMut(&trimtab_progress) -> ControlFlow<()> + Send),
) -> Result<Trained> {
    let mut at = trimtab_progress {
        event: trimtab_event::Begin,
        step: 0,
        steps: 0,
        epoch: 0,
        epochs: 0,
        loss: f64::NAN,
        scores: trimtab_scores::of(None),
    };
    let watch = |p: Progress| {
        at.scores = trimtab_scores::of(None);
        match p {
            // for people, and parts of the work that steps count
            Progress::Note(_) | Progress::Warning(_) | Progress::Fold { .. } => {
                return ControlFlow::Continue(());
            }
            Progress::Begin { before, epochs, .. } => {
                (at.event, at.epochs, at.scores) = (trimtab_event::Begin, epochs, trimtab_scores::of(before));
            }
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
    Trainer::new(&model.base, model.kind)
        .labels(model.labels.clone())
        .examples(examples.to_vec())
        .dev(held_out)
        .options(model.options.clone())
        .settings(settings.clone())
        .on_progress(watch)
        .train()
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
