//! A model: one whole set of biases at a time, behind a lock that is held only to take or to replace it.

use super::base::trimtab_base;
use super::border::{free, given, guard, out, read, text, trimtab_status, write};
use super::examples::{example, trimtab_examples};
use super::prediction::trimtab_prediction;
use super::scores::trimtab_scores;
use super::set::Set;
use crate::error::{Error, Result};
use crate::model::{Model, Options};
use crate::quant::Base;
use crate::task::{Kind, Task};
use std::ffi::c_char;
use std::path::Path;
use std::sync::{Arc, RwLock};

/// A base with biases and a head of its own: a user's model.
///
/// Threads may predict with it while another trains it, swaps its biases or saves them: each call takes the whole set of
/// biases that is there when it begins.
pub struct trimtab_model {
    pub(super) base: Base,
    pub(super) kind: Kind,
    /// The labels that its maker named; `None` takes those of the examples.
    pub(super) labels: Option<Vec<String>>,
    pub(super) options: Options,
    /// `None` until there are labels.
    set: RwLock<Option<Arc<Set>>>,
}

impl trimtab_model {
    fn now(&self) -> Result<Arc<Set>> {
        read(&self.set).clone().ok_or_else(|| {
            Error::Config("the model has no labels yet: train it, or give them to trimtab_model_new".into())
        })
    }

    /// Answers come of `model` from now on; calls that run end with the set they began with.
    pub(super) fn put(&self, model: Model) {
        let new = Some(Set::of(model));
        // The old set is dropped behind the lock, not within.
        let _old = std::mem::replace(&mut *write(&self.set), new);
    }

    fn check_kind(&self, kind: Kind) -> Result<()> {
        match kind == self.kind {
            true => Ok(()),
            false => Err(Error::Config(format!("a model of {} cannot take biases of {kind}", self.kind))),
        }
    }
}

/// How a model runs. All zero, or NULL in its place, for the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trimtab_options {
    /// Longest text in tokens, the rest is cut off; 0 takes 128. A bias file brings its own.
    pub max_len: usize,
    /// Threads for one call; 0 takes one for each performance core. No result depends on it.
    pub threads: usize,
}

/// # Safety
/// NULL, or options that stay during the call.
unsafe fn settings(options: *const trimtab_options) -> Options {
    let mut settings = Options::default();
    // SAFETY: the caller's promise
    if let Some(options) = unsafe { options.as_ref() } {
        settings.threads = (options.threads > 0).then_some(options.threads.min(1024));
        if options.max_len > 0 {
            settings.max_len = options.max_len;
        }
    }
    settings
}

/// A model for a task: "classify", "multilabel", "regress", "tag", "qa", "contrastive" or "mlm".
///
/// `labels` are the `count` names that a classify, multilabel or tag model tells apart, in the order of their
/// probabilities; with NULL they are taken from the examples when it is trained (sorted, as on the command line), and
/// until then it answers nothing. Other tasks have none. An untrained contrastive model embeds as the base does.
/// `model` gets the handle, to be freed by `trimtab_model_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_new(
    base: *const trimtab_base,
    task: *const c_char,
    labels: *const *const c_char,
    count: usize,
    options: *const trimtab_options,
    model: *mut *mut trimtab_model,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a place for a handle, a handle, a text and options (the header's rule)
        let (place, base, task, options) =
            unsafe { (out(model, "model")?, given(base, "base")?, text(task, "task")?, settings(options)) };
        let kind: Kind = task.parse()?;
        let named = matches!(kind, Kind::Classify | Kind::Multilabel | Kind::Tag);
        let labels = match labels.is_null() {
            true if count > 0 => return Err(Error::Config(format!("labels is NULL, but count is {count}"))),
            true => None,
            false if !named => return Err(Error::Config(format!("{kind} has no labels; give NULL"))),
            // SAFETY: not NULL, so `count` pointers stand there, to texts (the header's rule)
            false => Some(unsafe { names(labels, count) }?),
        };
        let task = match (&labels, named) {
            (None, true) => None,
            (labels, _) => Some(Task::new(kind, labels.clone().unwrap_or_default())),
        };
        let set = task.map(|task| Model::new(&base.0, task, &options)).transpose()?.map(Set::of);
        place.set(trimtab_model { base: base.0.clone(), kind, labels, options, set: RwLock::new(set) });
        Ok(())
    })
}

/// # Safety
/// `labels` points to `count` pointers to texts, or NULLs, that stay during the call.
unsafe fn names(labels: *const *const c_char, count: usize) -> Result<Vec<String>> {
    // One after the other: no slice is made, whose size a wrong count could overflow.
    let name = |i: usize| {
        // SAFETY: below `count`
        let label = unsafe { labels.wrapping_add(i).read() };
        // SAFETY: a text or NULL
        Ok(unsafe { text(label, &format!("label {i}")) }?.to_owned())
    };
    (0..count).map(name).collect()
}

/// A model from a bias file, which must have been trained on this base. Its task is the file's.
///
/// `model` gets the handle, to be freed by `trimtab_model_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_open(
    base: *const trimtab_base,
    path: *const c_char,
    options: *const trimtab_options,
    model: *mut *mut trimtab_model,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a place for a handle, a handle, a text and options (the header's rule)
        let (place, base, path, options) =
            unsafe { (out(model, "model")?, given(base, "base")?, text(path, "path")?, settings(options)) };
        let personal = Model::open(&base.0, Path::new(path), &options)?;
        let options = Options { max_len: personal.max_len(), ..options };
        let kind = personal.task().kind();
        let set = RwLock::new(Some(Set::of(personal)));
        place.set(trimtab_model { base: base.0.clone(), kind, labels: None, options, set });
        Ok(())
    })
}

/// The answer to a text, or to a pair: `text_b` is NULL for one text; for qa `text` is the question and `text_b` the
/// text with its answer.
///
/// Many threads at once share the threads of the model's options. `prediction` gets the handle, to be freed by
/// `trimtab_prediction_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_predict(
    model: *const trimtab_model,
    text: *const c_char,
    text_b: *const c_char,
    prediction: *mut *mut trimtab_prediction,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a place for a handle, a handle and texts (the header's rule)
        let (place, model, example) =
            unsafe { (out(prediction, "prediction")?, given(model, "model")?, example(text, text_b)?) };
        let set = model.now()?;
        let answer = set.model.predict(&example.text_a, example.text_b.as_deref())?;
        if !answer.is_finite() {
            return Err(Error::Diverged("the answer is not a number: the biases are broken".into()));
        }
        place.set(trimtab_prediction::of(answer, set));
        Ok(())
    })
}

/// The vector of a text: `width` floats at `vector`, as many as `trimtab_base_width` tells.
///
/// Errors: another width; a task that reads every token by itself (tag, qa, mlm).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_embed(
    model: *const trimtab_model,
    text: *const c_char,
    vector: *mut f32,
    width: usize,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle and a text (the header's rule)
        let (model, example) = unsafe { (given(model, "model")?, example(text, std::ptr::null())?) };
        if vector.is_null() {
            return Err(Error::Config("vector is NULL".into()));
        }
        let set = model.now();
        let floats = set.as_ref().map_or(model.base.embedding_width(), |set| set.model.embedding_width());
        if width != floats && !set.as_ref().is_ok_and(|set| set.model.graph().reads_tokens()) {
            return Err(Error::Config(format!(
                "width is {width}; the vectors of this model have {floats} floats"
            )));
        }
        let set = set?;
        if set.model.graph().reads_tokens() {
            let what = format!("a {} model has vectors of tokens, not of texts", model.kind);
            return Err(Error::Config(what));
        }
        let found = set.model.embed_all(&[example])?.remove(0);
        if found.iter().any(|v| !v.is_finite()) {
            return Err(Error::Diverged("the vector is not of numbers: the biases are broken".into()));
        }
        for (i, value) in found.into_iter().enumerate() {
            // SAFETY: `vector` holds `width` floats (this function's own rule), and there are as many
            unsafe { vector.add(i).write(value) };
        }
        Ok(())
    })
}

/// Scores of its answers to labelled examples, written to `scores`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_evaluate(
    model: *const trimtab_model,
    examples: *const trimtab_examples,
    scores: *mut trimtab_scores,
) -> trimtab_status {
    guard(|| {
        // SAFETY: handles (the header's rule)
        let (model, examples) = unsafe { (given(model, "model")?, given(examples, "examples")?) };
        if scores.is_null() {
            return Err(Error::Config("scores is NULL".into()));
        }
        let examples = examples.copy();
        if examples.is_empty() {
            return Err(Error::Config("there are no examples to score on".into()));
        }
        let found = trimtab_scores::of(Some(&model.now()?.model.evaluate(&examples)?));
        // SAFETY: not NULL, so it may be written (the header's rule)
        unsafe { scores.write(found) };
        Ok(())
    })
}

/// Replaces the model's biases, head and labels by those of a bias file of its task and base, at once: a call that runs
/// meanwhile uses the old set or the new one, never some of each. Where this fails the old set stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_swap(
    model: *mut trimtab_model,
    path: *const c_char,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle and a text (the header's rule)
        let (model, path) = unsafe { (given(model, "model")?, text(path, "path")?) };
        let new = Model::open(&model.base, Path::new(path), &model.options)?;
        model.check_kind(new.task().kind())?;
        model.put(new);
        Ok(())
    })
}

/// The same with the biases that `other` has now, a model of the same task and base. They are shared, not copied: this
/// takes no time, and what later happens to `other` does not change `model`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_share(
    model: *mut trimtab_model,
    other: *const trimtab_model,
) -> trimtab_status {
    guard(|| {
        // SAFETY: handles (the header's rule)
        let (model, other) = unsafe { (given(model, "model")?, given(other, "other")?) };
        model.check_kind(other.kind)?;
        let (wants, has) = (model.base.fingerprint(), other.base.fingerprint());
        if wants != has {
            return Err(Error::Config(format!("the models have other bases: {wants} and {has}")));
        }
        // One lock at a time: two models may share with each other at once.
        let new = Some(other.now()?);
        let _old = std::mem::replace(&mut *write(&model.set), new);
        Ok(())
    })
}

/// Writes the biases and the head to a bias file: beside `path`, synced, then renamed over it, so that no half of a file is
/// ever there. `half` that is not 0 writes f16: half the size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_save(
    model: *const trimtab_model,
    path: *const c_char,
    half: i32,
) -> trimtab_status {
    guard(|| {
        // SAFETY: a handle and a text (the header's rule)
        let (model, path) = unsafe { (given(model, "model")?, text(path, "path")?) };
        model.now()?.model.save(Path::new(path), half != 0)
    })
}

/// Frees a model; NULL does nothing. Predictions that it made stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_model_free(model: *mut trimtab_model) {
    // SAFETY: a handle that nobody uses any more, or NULL (the header's rule)
    unsafe { free(model) }
}
