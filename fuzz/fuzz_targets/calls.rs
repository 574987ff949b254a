//! Calls of the C library, one after the other: each byte of the input is a function, and what follows it chooses its
//! handles, texts, files and numbers. Handles that are not there are NULL, and none is used after it was freed, which the
//! header forbids.
#![no_main]
#![deny(clippy::undocumented_unsafe_blocks)] // the only unsafe code of the fuzz targets: a caller's side of the C border

use libfuzzer_sys::fuzz_target;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use trimtab::capi::*;
use trimtab_fuzz::{BASE, FOLDER, put, within};

/// Most calls of one input, and trainings among them.
const CALLS: usize = 48;
const TRAININGS: usize = 3;
/// Handles of a kind.
const SLOTS: usize = 3;

/// What is left of the input.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn slot(&mut self) -> usize {
        usize::from(self.byte()) % SLOTS
    }

    /// Some words, or whatever the input has; NULL for `None`.
    fn text(&mut self) -> Option<CString> {
        let words = ["a bat", "a cat and b", "", "no", "yes", "no,yes", "0.5", "the bat, who", "classify"];
        match self.byte() {
            0 => None,
            n @ 1..=9 => CString::new(words[usize::from(n) - 1]).ok(),
            n => {
                let (text, rest) = self.0.split_at(self.0.len().min(usize::from(n) % 40));
                self.0 = rest;
                CString::new(text.iter().copied().filter(|b| *b != 0).collect::<Vec<u8>>()).ok()
            }
        }
    }

    fn task(&mut self) -> Option<CString> {
        let tasks = ["classify", "multilabel", "regress", "tag", "qa", "contrastive", "mlm"];
        let n = usize::from(self.byte());
        if n == 255 { self.text() } else { CString::new(tasks[n % tasks.len()]).ok() }
    }

    fn file(&mut self) -> Option<CString> {
        let names = ["tiny.q8.safetensors", "out.bias", "lines.tsv", "none", "lines.conll"];
        match usize::from(self.byte()) {
            0 => None,
            n => CString::new(FOLDER.join(names[n % names.len()]).as_os_str().as_bytes()).ok(),
        }
    }

    fn float(&mut self) -> f64 {
        [0.0, 1e-3, 1e-2, 0.5, 1e9, -1.0, f64::NAN, f64::INFINITY][usize::from(self.byte()) % 8]
    }

    fn small(&mut self) -> usize {
        match self.byte() {
            255 => usize::MAX,
            n => usize::from(n) % 4,
        }
    }
}

fn at(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(null(), |text| text.as_ptr())
}

unsafe extern "C" fn on_progress(_: *const trimtab_progress, user: *mut c_void) -> i32 {
    // SAFETY: `user` is the i32 that the call gives
    let left = unsafe { &mut *user.cast::<i32>() };
    *left -= 1;
    if *left > 0 { 0 } else { *left % 4 }
}

static LINES: LazyLock<()> = LazyLock::new(|| {
    put("lines.tsv", b"label\ttext\nno\ta bat\nyes\ta cat and b\nno\tthe bat\n");
    put("lines.conll", b"a O\nbat B-X\n\na O\ncat O\n");
    LazyLock::force(&BASE);
});

#[derive(Default)]
struct Handles {
    bases: [Option<*mut trimtab_base>; SLOTS],
    examples: [Option<*mut trimtab_examples>; SLOTS],
    models: [Option<*mut trimtab_model>; SLOTS],
    predictions: [Option<*mut trimtab_prediction>; SLOTS],
}

impl Handles {
    /// One call, with handles that this holds or NULL.
    fn call(&mut self, function: u8, b: &mut Bytes, trainings: &mut usize) {
        let i = b.slot();
        let base = self.bases[i].unwrap_or(null_mut());
        let examples = self.examples[i].unwrap_or(null_mut());
        let model = self.models[i].unwrap_or(null_mut());
        let prediction = self.predictions[i].unwrap_or(null_mut());
        match function % 20 {
            0 if self.bases[i].is_none() => {
                let (file, mut handle) = (b.file(), null_mut());
                // SAFETY: a text or NULL, and a place for a handle
                let status = unsafe { trimtab_base_open(at(&file), &mut handle) };
                self.bases[i] = made(status, handle);
            }
            1 => {
                self.bases[i] = None;
                // SAFETY: a handle that is forgotten, or NULL
                unsafe { trimtab_base_free(base) }
            }
            2 if self.examples[i].is_none() => {
                let mut handle = null_mut();
                // SAFETY: a place for a handle
                let status = unsafe { trimtab_examples_new(&mut handle) };
                self.examples[i] = made(status, handle);
            }
            3 | 4 => {
                let (text, text_b, label) = (b.text(), b.text(), b.text());
                // SAFETY: a handle and texts, or NULL
                told(unsafe { trimtab_examples_add(examples, at(&text), at(&text_b), at(&label)) });
            }
            5 => {
                let (file, task) = (b.file(), b.task());
                // SAFETY: a handle and texts, or NULL
                told(unsafe { trimtab_examples_read(examples, at(&file), at(&task)) });
            }
            6 => {
                // SAFETY: a handle or NULL
                told(unsafe { trimtab_examples_clear(examples) });
            }
            7 => {
                self.examples[i] = None;
                // SAFETY: a handle that is forgotten, or NULL
                unsafe { trimtab_examples_free(examples) }
            }
            8 if self.models[i].is_none() => {
                let (task, labels, mut handle) = (b.task(), [b.text(), b.text()], null_mut());
                let labels = labels.each_ref().map(at);
                let some = if b.byte() % 2 == 0 { null() } else { labels.as_ptr() };
                let options = trimtab_options { max_len: b.small(), threads: 1 };
                let base = self.bases[b.slot()].unwrap_or(null_mut());
                let count = b.small().min(2);
                // SAFETY: a handle and texts or NULL, at most as many labels as there are, and a place for a handle
                let status =
                    unsafe { trimtab_model_new(base, at(&task), some, count, &options, &mut handle) };
                self.models[i] = made(status, handle);
            }
            9 if self.models[i].is_none() => {
                let (file, mut handle) = (b.file(), null_mut());
                let options = trimtab_options { max_len: 0, threads: 1 };
                let base = self.bases[b.slot()].unwrap_or(null_mut());
                // SAFETY: a handle and a text, or NULL, and a place for a handle
                let status = unsafe { trimtab_model_open(base, at(&file), &options, &mut handle) };
                self.models[i] = made(status, handle);
            }
            10 if self.predictions[i].is_none() => {
                let (text, text_b, mut handle) = (b.text(), b.text(), null_mut());
                let model = self.models[b.slot()].unwrap_or(null_mut());
                // SAFETY: a handle and texts, or NULL, and a place for a handle
                let status = unsafe { trimtab_model_predict(model, at(&text), at(&text_b), &mut handle) };
                self.predictions[i] = made(status, handle);
            }
            11 => {
                let (text, width) = (b.text(), b.small().min(3));
                // SAFETY: a handle or NULL
                let width = if width == 3 { unsafe { trimtab_base_width(base) } } else { width };
                let mut vector = vec![0f32; width];
                // SAFETY: a handle and a text, or NULL, and as many floats as are said
                told(unsafe { trimtab_model_embed(model, at(&text), vector.as_mut_ptr(), width) });
            }
            12 => {
                let mut scores = std::mem::MaybeUninit::uninit();
                let examples = self.examples[b.slot()].unwrap_or(null_mut());
                // SAFETY: handles or NULL, and a place for scores
                told(unsafe { trimtab_model_evaluate(model, examples, scores.as_mut_ptr()) });
            }
            13 => {
                let file = b.file();
                // SAFETY: a handle and a text, or NULL
                told(unsafe { trimtab_model_swap(model, at(&file)) });
            }
            14 => {
                let other = self.models[b.slot()].unwrap_or(null_mut());
                // SAFETY: handles or NULL
                told(unsafe { trimtab_model_share(model, other) });
            }
            15 => {
                // Never over the base, which is in use.
                let file = CString::new(FOLDER.join("out.bias").as_os_str().as_bytes()).ok();
                // SAFETY: a handle and a text, or NULL
                told(unsafe { trimtab_model_save(model, at(&file), i32::from(b.byte() % 2)) });
            }
            16 => {
                self.models[i] = None;
                // SAFETY: a handle that is forgotten, or NULL
                unsafe { trimtab_model_free(model) }
            }
            17 if *trainings < TRAININGS => {
                *trainings += 1;
                let [examples, held_out] = [b.slot(), b.slot()].map(|i| self.examples[i].unwrap_or(null_mut()));
                let (terms, start) = (b.text(), b.file());
                let options = trimtab_train_options {
                    seed: b.byte().into(),
                    epochs: b.small().clamp(1, 2),
                    batch: b.small(),
                    lr: b.float(),
                    hold_out: b.float(),
                    patience: b.small(),
                    terms: if b.byte() % 2 == 0 { null() } else { at(&terms) },
                    layers_from: b.small(),
                    layers_to: b.small(),
                    start: if b.byte() % 2 == 0 { null() } else { at(&start) },
                    memory: usize::from(b.byte()) << 22,
                    effort: i32::from(b.byte() % 4),
                };
                let mut left = i32::from(b.byte());
                let user = (&raw mut left).cast::<c_void>();
                let callback = if b.byte() % 2 == 0 { None } else { Some(on_progress as _) };
                let mut report = std::mem::MaybeUninit::uninit();
                // SAFETY: handles or NULL, options with texts that live through the call, a callback with the number it asks for
                told(unsafe {
                    trimtab_model_train(model, examples, held_out, &options, callback, user, report.as_mut_ptr())
                });
            }
            18 => {
                // SAFETY: a handle or NULL
                let text = unsafe { [trimtab_prediction_text(prediction), trimtab_prediction_json(prediction)] };
                for text in text.into_iter().filter(|p| !p.is_null()) {
                    // SAFETY: not NULL, and a text of the library ends in a NUL
                    unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8");
                }
                // SAFETY: a handle or NULL
                let count = unsafe { trimtab_prediction_count(prediction) };
                for i in [0, 1, count, usize::MAX] {
                    // SAFETY: a handle or NULL; any index is allowed
                    let label = unsafe { trimtab_prediction_label(prediction, i) };
                    // SAFETY: the same
                    let p = unsafe { trimtab_prediction_probability(prediction, i) };
                    assert_eq!((label.is_null(), p.is_nan()), (i >= count, i >= count));
                }
                // SAFETY: a handle or NULL
                unsafe { trimtab_prediction_value(prediction) };
            }
            19 => {
                self.predictions[i] = None;
                // SAFETY: a handle that is forgotten, or NULL
                unsafe { trimtab_prediction_free(prediction) }
            }
            // A place that is taken.
            _ => {}
        }
    }

    fn free(self) {
        // SAFETY: handles that this held, each once
        unsafe {
            self.predictions.into_iter().flatten().for_each(|p| trimtab_prediction_free(p));
            self.models.into_iter().flatten().for_each(|p| trimtab_model_free(p));
            self.examples.into_iter().flatten().for_each(|p| trimtab_examples_free(p));
            self.bases.into_iter().flatten().for_each(|p| trimtab_base_free(p));
        }
    }
}

/// What failed has a message, and is no bug.
fn told(status: trimtab_status) {
    if status != trimtab_status::Ok {
        // SAFETY: a call failed on this thread, so there is a text
        let message = unsafe { CStr::from_ptr(trimtab_last_error()) }.to_str().expect("UTF-8");
        assert!(!message.is_empty() && status != trimtab_status::Internal, "{message}");
    }
}

/// The handle of a call that did it; of another there is none.
fn made<T>(status: trimtab_status, handle: *mut T) -> Option<*mut T> {
    told(status);
    assert_eq!(handle.is_null(), status != trimtab_status::Ok);
    (!handle.is_null()).then_some(handle)
}

fuzz_target!(|input: &[u8]| {
    LazyLock::force(&LINES);
    within(input, || {
        let (mut handles, mut bytes, mut trainings) = (Handles::default(), Bytes(input), 0);
        for _ in 0..CALLS {
            if bytes.0.is_empty() {
                break;
            }
            let function = bytes.byte();
            handles.call(function, &mut bytes, &mut trainings);
        }
        handles.free();
    });
});
