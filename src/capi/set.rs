//! What answers: biases and their labels, shared by a model and the answers that it gave.

use super::border::c_string;
use crate::model::Model;
use std::ffi::CString;
use std::sync::Arc;

/// Biases, and the labels that they tell apart.
pub(super) struct Set {
    pub model: Model,
    pub labels: Vec<CString>,
}

impl Set {
    pub(super) fn of(model: Model) -> Arc<Set> {
        let labels = model.labels().iter().map(|label| c_string(label)).collect();
        Arc::new(Set { model, labels })
    }
}
