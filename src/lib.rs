//! Fine-tunes the biases of a frozen int8 BERT on the CPU that uses it.

pub mod config;
pub mod data;
pub mod error;
pub mod kernels;
pub mod params;
pub mod tokenize;

pub use error::{Error, Result};
