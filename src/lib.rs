//! Fine-tunes a BERT on the device that uses it: the encoder stays frozen in int8, its fp32 biases and a small
//! task head learn (BitFit, Ben-Zaken et al. 2022, arXiv 2106.10199).
//!
//! ```no_run
//! use std::path::Path;
//! use trimtab::data::{self, Columns, LabelForm};
//! use trimtab::{Base, Trainer, task::Kind};
//!
//! # fn main() -> trimtab::Result<()> {
//! let base = Base::open("minilm.q8.safetensors")?;
//! let examples = data::read_examples(Path::new("mine.tsv"), &Columns::default(), LabelForm::Name)?;
//! let trained = Trainer::new(&base, Kind::Classify).examples(examples).train()?;
//! trained.save(Path::new("me.bias.safetensors"), false)?;
//! println!("{}", trained.model.predict("Your parcel arrives today", None)?);
//! # Ok(())
//! # }
//! ```
//!
//! The modules in the order of the data's flow: [`import`] reads a checkpoint, [`quant`] freezes it into a base
//! file, [`graph`] wires a base into a tract model of fused [`ops`] over the [`kernels`], [`train`] runs it
//! forward and backward, [`recipe`] chooses what and how to train, [`bias_file`] keeps the result, [`export`] hands it to other
//! runtimes. [`Trainer`] makes a [`Model`] from examples; with the feature `capi` there is a C library around it. `onnx_model` answers with other people's ONNX
//! classifiers, as they are.

pub mod bias_file;
pub mod bias_import;
pub mod capi;
pub mod config;
mod container;
pub mod data;
pub mod embeddings;
pub mod error;
pub mod experiment;
pub mod export;
pub mod graph;
mod guard;
pub mod import;
pub mod kernels;
pub mod model;
#[cfg(feature = "onnx")]
pub mod onnx_model;
pub mod ops;
pub mod output;
pub mod params;
pub mod plots;
mod protobuf;
pub mod quant;
pub mod recipe;
pub mod scores;
pub mod spans;
#[doc(hidden)]
pub mod sys;
pub mod task;
pub mod text;
pub mod tokenize;
pub mod train;

pub use error::{Error, Result};
pub use model::{Candidate, Model, Options, Prediction, Reading};
pub use quant::Base;
pub use recipe::Trainer;
pub use task::Task;
pub use train::TrainConfig;
