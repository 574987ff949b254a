//! The C ABI: `include/trimtab.h` is made of this module by cbindgen, comments and all.
//!
//! A thin border around [`Base`](crate::Base) and [`Model`](crate::Model). Nothing unwinds across it, and every
//! argument is checked as far as C lets it be: NULL and text that is not UTF-8 are errors. A handle keeps what it
//! needs behind locks and [`Arc`](std::sync::Arc)s of its own, so that only its end has to be waited for.
#![cfg(feature = "capi")] // here, for where it is declared cbindgen would put it around every line of the header
#![allow(unsafe_code)] // pointers come from C; each block says what makes it sound
#![allow(non_camel_case_types)] // one name for a type, in C, here and in the header
#![allow(clippy::missing_safety_doc)] // one rule for all functions, at the head of the header (cbindgen.toml)

// in the order of the header
mod border;

mod base;

mod examples;

mod model;

mod learning;

mod prediction;

mod scores;
mod set;

pub use base::{
    trimtab_base, trimtab_base_free, trimtab_base_of_bytes, trimtab_base_open, trimtab_base_width,
};
pub use border::{trimtab_last_error, trimtab_status, trimtab_version};
pub use examples::{
    trimtab_examples, trimtab_examples_add, trimtab_examples_clear, trimtab_examples_count,
    trimtab_examples_free, trimtab_examples_new, trimtab_examples_read,
};
pub use learning::{
    trimtab_effort, trimtab_event, trimtab_model_train, trimtab_progress, trimtab_progress_fn, trimtab_reply,
    trimtab_report, trimtab_train_options,
};
pub use model::{
    trimtab_model, trimtab_model_embed, trimtab_model_evaluate, trimtab_model_free, trimtab_model_new,
    trimtab_model_open, trimtab_model_predict, trimtab_model_save, trimtab_model_share, trimtab_model_swap,
    trimtab_options,
};
pub use prediction::{
    trimtab_prediction, trimtab_prediction_count, trimtab_prediction_free, trimtab_prediction_json,
    trimtab_prediction_label, trimtab_prediction_probability, trimtab_prediction_text,
    trimtab_prediction_value,
};
pub use scores::trimtab_scores;
