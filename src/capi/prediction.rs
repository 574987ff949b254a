//! One answer.

use super::border::{c_string, free, given, told};
use super::set::Set;
use crate::model::Prediction;
use std::ffi::{CString, c_char};
use std::sync::{Arc, OnceLock};

/// The answer to one text. It never changes, and outlives its model.
pub struct trimtab_prediction {
    answer: Prediction,
    /// The set that answered, for its labels.
    set: Arc<Set>,
    tags: Vec<CString>,
    text: CString,
    json: OnceLock<CString>,
}

impl trimtab_prediction {
    pub(super) fn of(answer: Prediction, set: Arc<Set>) -> trimtab_prediction {
        let tags = match &answer {
            Prediction::Tags { tags, .. } => tags.iter().map(|tag| c_string(tag)).collect(),
            _ => Vec::new(),
        };
        let text = c_string(&answer.to_string());
        trimtab_prediction { answer, set, tags, text, json: OnceLock::new() }
    }

    fn names(&self) -> &[CString] {
        match &self.answer {
            Prediction::Label { .. } | Prediction::Labels { .. } => &self.set.labels,
            _ => &self.tags,
        }
    }
}

/// The answer as text: the label; labels between commas; tags or words between spaces; the number; the part of the text.
///
/// Valid until the prediction is freed; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_text(prediction: *const trimtab_prediction) -> *const c_char {
    told(std::ptr::null(), || {
        // SAFETY: a handle or NULL (the header's rule)
        unsafe { given(prediction, "prediction") }.map_or(std::ptr::null(), |p| p.text.as_ptr())
    })
}

/// The answer as the JSON object that `trimtab predict --json` prints, without the text.
///
/// Valid until the prediction is freed; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_json(prediction: *const trimtab_prediction) -> *const c_char {
    told(std::ptr::null(), || {
        // SAFETY: a handle or NULL (the header's rule)
        let Ok(p) = (unsafe { given(prediction, "prediction") }) else { return std::ptr::null() };
        let json = || c_string(&p.answer.json(p.set.model.labels()).to_string());
        p.json.get_or_init(json).as_ptr()
    })
}

/// The number that a regress model answers; NaN for other tasks and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_value(prediction: *const trimtab_prediction) -> f64 {
    // SAFETY: a handle or NULL (the header's rule)
    told(f64::NAN, || match unsafe { given(prediction, "prediction") }.map(|p| &p.answer) {
        Ok(Prediction::Value { value }) => *value,
        _ => f64::NAN,
    })
}

/// How many labels have a probability: all that the model knows, in its order; of a tag model the words of the text, which is
/// split at white space and punctuation.
/// 0 for other tasks and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_count(prediction: *const trimtab_prediction) -> usize {
    // SAFETY: a handle or NULL (the header's rule)
    told(0, || unsafe { given(prediction, "prediction") }.map_or(0, |p| p.answer.probabilities().len()))
}

/// Label `index`; of a tag model the tag of word `index`. Valid until the prediction is freed; NULL where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_label(
    prediction: *const trimtab_prediction,
    index: usize,
) -> *const c_char {
    told(std::ptr::null(), || {
        // SAFETY: a handle or NULL (the header's rule)
        let p = unsafe { given(prediction, "prediction") };
        p.ok().and_then(|p| p.names().get(index)).map_or(std::ptr::null(), |name| name.as_ptr())
    })
}

/// The probability of label `index`, or of the tag of word `index`; NaN where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_probability(
    prediction: *const trimtab_prediction,
    index: usize,
) -> f64 {
    told(f64::NAN, || {
        // SAFETY: a handle or NULL (the header's rule)
        let p = unsafe { given(prediction, "prediction") };
        p.ok().and_then(|p| p.answer.probabilities().get(index).copied()).unwrap_or(f64::NAN)
    })
}

/// Frees a prediction; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trimtab_prediction_free(prediction: *mut trimtab_prediction) {
    // SAFETY: a handle that nobody uses any more, or NULL (the header's rule)
    unsafe { free(prediction) }
}
