//! The `trimtab` command as a user meets it: every test runs the real binary on the tiny model of `tests/golden`.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/mlm.rs"]
mod mlm;

mod answers;
mod bench;
mod changed;
mod checkpoint;
mod checkpoints;
mod data;
mod disk;
mod experiment;
mod export;
mod families;
mod files;
mod hidden_words;
mod interrupt;
mod long_texts;
mod memory;
mod onnx;
mod outputs;
mod pairs;
#[cfg(feature = "hub")]
mod pull;
mod pytorch;
mod questions;
mod reading;
mod results;
mod retraining;
mod sameness;
mod sandbox;
mod sentence_transformers;
mod settings;
#[cfg(feature = "store")]
mod store;
mod tags;
mod tasks;
mod vectors;
mod warnings;
