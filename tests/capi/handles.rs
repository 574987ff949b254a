//! The handles with their lifetimes, so that a test reads like a test. Every function is called through a pointer of the
//! type it has in the header.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};
use trimtab::capi::*;

pub const OK: trimtab_status = trimtab_status::Ok;
pub type Status = Result<(), (trimtab_status, String)>;

pub fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

pub fn path(path: &Path) -> CString {
    c(path.to_str().unwrap())
}

/// The text at a pointer of the library.
pub fn text(p: *const c_char) -> String {
    assert!(!p.is_null());
    // SAFETY: the library's texts end in a NUL, and this one is copied before anything else is called
    unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_owned()
}

/// What a call returned, with its message.
pub fn told(status: trimtab_status) -> Status {
    match status {
        OK => Ok(()),
        status => Err((status, text(trimtab_last_error()))),
    }
}

pub struct Base(pub *mut trimtab_base);

impl Base {
    pub fn open(file: &Path) -> Base {
        Base::try_open(file).unwrap()
    }

    pub fn try_open(file: &Path) -> Result<Base, (trimtab_status, String)> {
        let (mut base, file) = (null_mut(), path(file));
        // SAFETY: a text and a place for a handle
        let opened = told(unsafe { trimtab_base_open(file.as_ptr(), &mut base) });
        assert_eq!(base.is_null(), opened.is_err());
        opened.map(|()| Base(base))
    }

    pub fn width(&self) -> usize {
        // SAFETY: a handle
        unsafe { trimtab_base_width(self.0) }
    }

    pub fn of_bytes(bytes: &[u8]) -> Result<Base, (trimtab_status, String)> {
        let mut base = null_mut();
        // SAFETY: so many bytes, and a place for a handle
        told(unsafe { trimtab_base_of_bytes(bytes.as_ptr(), bytes.len(), &mut base) }).map(|()| Base(base))
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        // SAFETY: a handle of this struct alone
        unsafe { trimtab_base_free(self.0) }
    }
}

pub struct Examples(pub *mut trimtab_examples);

impl Examples {
    pub fn new() -> Examples {
        let mut examples = null_mut();
        // SAFETY: a place for a handle
        told(unsafe { trimtab_examples_new(&mut examples) }).unwrap();
        Examples(examples)
    }

    pub fn of(file: &Path, task: &str) -> Examples {
        let examples = Examples::new();
        examples.read(file, task).unwrap();
        examples
    }

    pub fn read(&self, file: &Path, task: &str) -> Status {
        let (file, task) = (path(file), c(task));
        // SAFETY: a handle and texts
        told(unsafe { trimtab_examples_read(self.0, file.as_ptr(), task.as_ptr()) })
    }

    pub fn add(&self, text: &str, text_b: Option<&str>, label: Option<&str>) {
        let (text, text_b, label) = (c(text), text_b.map(c), label.map(c));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        // SAFETY: a handle, and texts or NULL
        told(unsafe { trimtab_examples_add(self.0, text.as_ptr(), pointer(&text_b), pointer(&label)) })
            .unwrap();
    }

    pub fn count(&self) -> usize {
        // SAFETY: a handle
        unsafe { trimtab_examples_count(self.0) }
    }
}

impl Drop for Examples {
    fn drop(&mut self) {
        // SAFETY: a handle of this struct alone
        unsafe { trimtab_examples_free(self.0) }
    }
}

/// Options that choose everything.
pub fn chosen() -> trimtab_train_options {
    trimtab_train_options {
        seed: 0,
        epochs: 0,
        batch: 0,
        lr: 0.0,
        hold_out: 0.0,
        patience: 0,
        terms: null(),
        layers_from: 0,
        layers_to: 0,
        start: null(),
        memory: 0,
        effort: 0,
    }
}

pub struct Model(pub *mut trimtab_model);

// SAFETY: the header says that any thread may use a handle
unsafe impl Send for Model {}
// SAFETY: the same, at once with others
unsafe impl Sync for Model {}

type Watch<'a> = &'a mut dyn FnMut(&trimtab_progress) -> trimtab_reply;

unsafe extern "C" fn watch(progress: *const trimtab_progress, user: *mut c_void) -> i32 {
    // SAFETY: `user` is what `train` gives; the progress is valid during the call
    let (watch, progress) = unsafe { (&mut *user.cast::<Watch>(), &*progress) };
    watch(progress) as i32
}

impl Model {
    pub fn try_new(base: &Base, task: &str, labels: &[&str]) -> Result<Model, (trimtab_status, String)> {
        let labels: Vec<CString> = labels.iter().map(|l| c(l)).collect();
        let pointers: Vec<*const c_char> = labels.iter().map(|l| l.as_ptr()).collect();
        let some = if pointers.is_empty() { null() } else { pointers.as_ptr() };
        let (mut model, task) = (null_mut(), c(task));
        // SAFETY: a handle, texts, as many labels as are said, and a place for a handle
        let status =
            unsafe { trimtab_model_new(base.0, task.as_ptr(), some, pointers.len(), null(), &mut model) };
        told(status).map(|()| Model(model))
    }

    pub fn new(base: &Base, task: &str, labels: &[&str]) -> Model {
        Model::try_new(base, task, labels).unwrap()
    }

    pub fn try_open(base: &Base, file: &Path) -> Result<Model, (trimtab_status, String)> {
        let (mut model, file) = (null_mut(), path(file));
        // SAFETY: a handle, a text and a place for a handle
        told(unsafe { trimtab_model_open(base.0, file.as_ptr(), null(), &mut model) }).map(|()| Model(model))
    }

    pub fn open(base: &Base, file: &Path) -> Model {
        Model::try_open(base, file).unwrap()
    }

    /// On so many threads.
    pub fn open_on(base: &Base, file: &Path, threads: usize) -> Model {
        let (mut model, file) = (null_mut(), path(file));
        let options = trimtab_options { max_len: 0, threads };
        // SAFETY: a handle, a text, options and a place for a handle
        told(unsafe { trimtab_model_open(base.0, file.as_ptr(), &options, &mut model) }).unwrap();
        Model(model)
    }

    /// Trains it, watched.
    pub fn train(
        &self,
        examples: &Examples,
        held_out: Option<&Examples>,
        options: &trimtab_train_options,
        mut on_progress: impl FnMut(&trimtab_progress) -> trimtab_reply,
    ) -> Result<trimtab_report, (trimtab_status, String)> {
        let mut report = std::mem::MaybeUninit::uninit();
        let mut on_progress: Watch = &mut on_progress;
        let user = (&raw mut on_progress).cast::<c_void>();
        let held_out = held_out.map_or(null(), |h| h.0.cast_const());
        // SAFETY: handles, options with texts of the caller, a callback with what it asks for, a place for a report
        let status = unsafe {
            trimtab_model_train(self.0, examples.0, held_out, options, Some(watch), user, report.as_mut_ptr())
        };
        // SAFETY: written on success
        told(status).map(|()| unsafe { report.assume_init() })
    }

    /// Trains it to the end.
    pub fn learn(&self, examples: &Examples, options: &trimtab_train_options) -> trimtab_report {
        self.train(examples, None, options, |_| trimtab_reply::Continue).unwrap()
    }

    pub fn save(&self, file: &Path) {
        let file = path(file);
        // SAFETY: a handle and a text
        told(unsafe { trimtab_model_save(self.0, file.as_ptr(), 0) }).unwrap();
    }

    pub fn try_predict(&self, text: &str) -> Result<Prediction, (trimtab_status, String)> {
        let (mut prediction, text) = (null_mut(), c(text));
        // SAFETY: a handle, a text and a place for a handle
        told(unsafe { trimtab_model_predict(self.0, text.as_ptr(), null(), &mut prediction) })
            .map(|()| Prediction(prediction))
    }

    pub fn predict(&self, text: &str) -> Prediction {
        self.try_predict(text).unwrap()
    }

    pub fn swap(&self, file: &Path) -> Status {
        let file = path(file);
        // SAFETY: a handle and a text
        told(unsafe { trimtab_model_swap(self.0, file.as_ptr()) })
    }

    pub fn share(&self, other: &Model) -> Status {
        // SAFETY: handles
        told(unsafe { trimtab_model_share(self.0, other.0) })
    }

    pub fn evaluate(&self, examples: &Examples) -> trimtab_scores {
        let mut scores = std::mem::MaybeUninit::uninit();
        // SAFETY: handles and a place for scores, which are written on success
        unsafe {
            told(trimtab_model_evaluate(self.0, examples.0, scores.as_mut_ptr())).unwrap();
            scores.assume_init()
        }
    }

    pub fn try_embed(&self, text: &str, width: usize) -> Result<Vec<f32>, (trimtab_status, String)> {
        let (mut vector, text) = (vec![f32::NAN; width], c(text));
        // SAFETY: a handle, a text, and as many floats as are said
        told(unsafe { trimtab_model_embed(self.0, text.as_ptr(), vector.as_mut_ptr(), width) })
            .map(|()| vector)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: a handle of this struct alone
        unsafe { trimtab_model_free(self.0) }
    }
}

pub struct Prediction(pub *mut trimtab_prediction);

impl Prediction {
    pub fn text(&self) -> String {
        // SAFETY: a handle; the text is copied
        text(unsafe { trimtab_prediction_text(self.0) })
    }

    pub fn json(&self) -> String {
        // SAFETY: a handle; the text is copied
        text(unsafe { trimtab_prediction_json(self.0) })
    }

    pub fn value(&self) -> f64 {
        // SAFETY: a handle
        unsafe { trimtab_prediction_value(self.0) }
    }

    /// Every label with its probability.
    pub fn labels(&self) -> Vec<(String, f64)> {
        // SAFETY: a handle; the texts are copied
        let one = |i| unsafe {
            (text(trimtab_prediction_label(self.0, i)), trimtab_prediction_probability(self.0, i))
        };
        // SAFETY: a handle
        let count = unsafe { trimtab_prediction_count(self.0) };
        // SAFETY: a handle; behind the last there is none
        assert!(unsafe { trimtab_prediction_label(self.0, count) }.is_null());
        // SAFETY: the same
        assert!(unsafe { trimtab_prediction_probability(self.0, count) }.is_nan());
        (0..count).map(one).collect()
    }
}

impl Drop for Prediction {
    fn drop(&mut self) {
        // SAFETY: a handle of this struct alone
        unsafe { trimtab_prediction_free(self.0) }
    }
}
