//! The encoder's sizes and choices, read from `config.json`; nothing is guessed.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which GELU the checkpoint was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gelu {
    /// `x/2 · (1 + erf(x/√2))`; `"gelu"` in Hugging Face configs.
    Erf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`; `"gelu_new"`, `"gelu_pytorch_tanh"`.
    Tanh,
}

/// How the tokens' vectors become one vector for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token through the pooler: dense and tanh (Devlin et al. 2019).
    Cls,
    /// The mean over all tokens of the text (sentence-transformers).
    Mean,
    /// Every token by itself, for tags. No base asks for it.
    Tokens,
}

impl Pooling {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Tokens => "tokens",
        }
    }
}

/// Sizes and choices of a BERT encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width of the encoder.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Number of encoder layers.
    pub layers: usize,
    /// Attention heads; `hidden / heads` is the width of one.
    pub heads: usize,
    /// Rows of the word embedding table.
    pub vocab: usize,
    /// Longest sequence, in tokens.
    pub max_positions: usize,
    /// Rows of the token type table.
    pub types: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
    /// Activation of the feed-forward layer.
    pub gelu: Gelu,
}

impl Config {
    /// Refuses sizes that no encoder has, so that nothing behind this can overflow.
    ///
    /// `path` is the file named in the error; keys are named as in `config.json`. The bound on the two widths is
    /// what i32 can sum: `255 · 128 · 65536 < 2^31`.
    pub fn validate(&self, path: &Path) -> Result<()> {
        for (key, value, most) in [
            ("hidden_size", self.hidden, 1 << 14),
            ("intermediate_size", self.intermediate, 1 << 16),
            ("num_hidden_layers", self.layers, 1 << 10),
            ("num_attention_heads", self.heads, 1 << 10),
            ("vocab_size", self.vocab, 1 << 22),
            ("max_position_embeddings", self.max_positions, 1 << 16),
            ("type_vocab_size", self.types, 1 << 10),
        ] {
            if value == 0 || value > most {
                return Err(Error::format(path, format!("`{key}` is {value}; must be 1 to {most}")));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(Error::format(
                path,
                format!(
                    "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                    self.hidden, self.heads
                ),
            ));
        }
        let eps = self.layer_norm_eps;
        if !(eps > 0.0 && eps < 1.0) {
            return Err(Error::format(
                path,
                format!("`layer_norm_eps` is {eps}; must be above 0 and below 1"),
            ));
        }
        Ok(())
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }
}
