//! Fine-tunes the biases of a frozen int8 BERT on the CPU that uses it.

pub mod config;
mod container;
pub mod error;
pub mod import;
pub mod kernels;
pub mod params;
pub mod quant;

pub use error::{Error, Result};
