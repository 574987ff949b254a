//! The encoder's sizes and choices, read from `config.json`, and those of the modules behind it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Tokens that a text is cut to if nobody says, where the base has as many positions.
pub const DEFAULT_MAX_LEN: usize = 128;
/// What the most tokens of an exported model's text may be.
#[cfg(feature = "onnx")]
pub(crate) const EXPORT_LENGTHS: std::ops::RangeInclusive<usize> = 4..=1 << 13;

/// Which GELU the checkpoint was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gelu {
    /// `x/2 · (1 + erf(x/√2))`; `"gelu"` in Hugging Face configs.
    Erf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715x³)))`; `"gelu_new"`, `"gelu_pytorch_tanh"`.
    Tanh,
}

/// Whose tensor names, config keys and head a checkpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Devlin et al. 2019.
    #[default]
    Bert,
    /// Positions begin behind the padding's; no token types are told (Liu et al. 2019).
    Roberta,
    /// No token types, and a pooler with ReLU in its classifier alone (Sanh et al. 2019).
    DistilBert,
    /// Embeddings may be narrower than the encoder; a pooler with GELU in its classifier alone (Clark et al. 2020).
    Electra,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 4] = [Family::Bert, Family::Roberta, Family::DistilBert, Family::Electra];

    /// `model_type` in `config.json`, and what the encoder's tensor names begin with.
    pub fn name(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::Roberta => "roberta",
            Family::DistilBert => "distilbert",
            Family::Electra => "electra",
        }
    }

    /// Keys of `config.json`: width, width of the feed-forward layer, layers, heads, activation.
    pub fn keys(self) -> [&'static str; 5] {
        match self {
            Family::DistilBert => ["dim", "hidden_dim", "n_layers", "n_heads", "activation"],
            _ => {
                ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"]
            }
        }
    }

    /// What stands behind the pooler's dense layer.
    pub fn activation(self) -> Activation {
        match self {
            Family::Bert | Family::Roberta => Activation::Tanh,
            Family::DistilBert => Activation::Relu,
            Family::Electra => Activation::Gelu,
        }
    }

    fn is_bert(&self) -> bool {
        *self == Family::Bert
    }
}

/// What stands behind the pooler's dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `tanh x`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// [`Gelu::Erf`]
    Gelu,
}

/// How the tokens' vectors become one vector for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The first token through the pooler: dense and [`Activation`].
    Cls,
    /// The mean over all tokens of the text (sentence-transformers).
    Mean,
    /// The first token as it is, which sentence-transformers calls `cls`. For embeddings of bases that ask for `cls`.
    First,
    /// Every token by itself, for tags. No base asks for it.
    Tokens,
    /// The two texts of a pair by themselves, each the mean of its tokens, and one vector that compares them
    /// ([`crate::ops::compare`]). No base asks for it.
    Apart,
    /// The mean over the tokens of all windows of a text that is longer than one sequence. No base asks for it.
    Windows,
}

impl Pooling {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::First => "first",
            Pooling::Tokens => "tokens",
            Pooling::Apart => "apart",
            Pooling::Windows => "windows",
        }
    }

    /// Width of what the head reads above an encoder of width `hidden`.
    pub fn features(self, hidden: usize) -> usize {
        if self == Pooling::Apart { 2 * hidden } else { hidden }
    }
}

/// A module of sentence-transformers behind the pooling. They make an embedding of the pooled vector, in order; heads read
/// the pooled vector itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Module {
    /// `y = f(W x + b)`, `W: [outputs, inputs]`.
    Dense {
        /// Width of `x`.
        inputs: usize,
        /// Width of `y`.
        outputs: usize,
        /// Whether there is a `b`.
        bias: bool,
        /// `f`
        activation: DenseActivation,
    },
    /// The vector divided by its length.
    Normalize,
}

impl Module {
    /// Most modules that are read.
    const MOST: usize = 16;
    /// Widest vector that a Dense gives.
    const WIDEST: usize = 1 << 16;

    /// Width of the vectors that `modules` make of pooled ones of width `hidden`.
    ///
    /// Fails with what is wrong: widths that do not follow from one another or are out of bounds, too many modules.
    pub fn check(modules: &[Module], hidden: usize) -> Result<usize, String> {
        if modules.len() > Module::MOST {
            return Err(format!("{} modules; at most {} are read", modules.len(), Module::MOST));
        }
        modules.iter().try_fold(hidden, |width, module| match module {
            Module::Normalize => Ok(width),
            Module::Dense { inputs, .. } if *inputs != width => Err(format!(
                "a Dense module takes vectors of {inputs} values, but what stands before it gives {width}"
            )),
            Module::Dense { outputs, .. } if (1..=Module::WIDEST).contains(outputs) => Ok(*outputs),
            Module::Dense { outputs, .. } => Err(format!(
                "a Dense module gives vectors of {outputs} values; must be 1 to {}",
                Module::WIDEST
            )),
        })
    }

    /// Width of the vectors that checked `modules` make of pooled ones of width `hidden`.
    pub fn width(modules: &[Module], hidden: usize) -> usize {
        Module::check(modules, hidden).unwrap_or(hidden)
    }
}

/// What stands behind the Linear of [`Module::Dense`], with the defaults of its class in `torch.nn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenseActivation {
    /// `x`
    Identity,
    /// `tanh x`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `x` above 0, else `x / 100`
    LeakyRelu,
    /// `x` above 0, else `exp x - 1`
    Elu,
    /// [`Gelu::Erf`]
    Gelu,
    /// `x · sigmoid x`
    Silu,
    /// `1 / (1 + exp -x)`
    Sigmoid,
}

impl DenseActivation {
    /// Every one, with the name of its class in `torch.nn`.
    pub const ALL: [(&str, DenseActivation); 8] = [
        ("Identity", DenseActivation::Identity),
        ("Tanh", DenseActivation::Tanh),
        ("ReLU", DenseActivation::Relu),
        ("LeakyReLU", DenseActivation::LeakyRelu),
        ("ELU", DenseActivation::Elu),
        ("GELU", DenseActivation::Gelu),
        ("SiLU", DenseActivation::Silu),
        ("Sigmoid", DenseActivation::Sigmoid),
    ];
}

/// Whether a checkpoint has the head of its family's `…ForMaskedLM`, which guesses hidden words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MlmHead {
    /// It has none.
    None,
    /// Its last layer is the word embeddings again.
    Tied,
    /// Its last layer has a weight of its own, which no base holds: the head is left out.
    Untied,
}

impl MlmHead {
    /// Every one.
    pub const ALL: [MlmHead; 3] = [MlmHead::None, MlmHead::Tied, MlmHead::Untied];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            MlmHead::None => "none",
            MlmHead::Tied => "tied",
            MlmHead::Untied => "untied",
        }
    }
}

/// Sizes and choices of an encoder.
///
/// What BERT does not have is left out of its JSON: bases of earlier versions read and write the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Whose names it has.
    #[serde(default, skip_serializing_if = "Family::is_bert")]
    pub family: Family,
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
    /// Rows of the position table.
    pub max_positions: usize,
    /// Row of the position table that a text's first token takes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_position: usize,
    /// Width of the embeddings, where they are projected to the encoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<usize>,
    /// Rows of the token type table; 0 where there is none.
    pub types: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
    /// Activation of the feed-forward layer.
    pub gelu: Gelu,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Config {
    /// Refuses sizes that no encoder has, so that nothing behind this can overflow.
    ///
    /// `path` is the file named in the error; keys are named as in `config.json`. The bound on the two widths is
    /// what i32 can sum: `255 · 128 · 65536 < 2^31`.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let [hidden, intermediate, layers, heads, _] = self.family.keys();
        let fewest_types = usize::from(self.family != Family::DistilBert);
        for (key, value, least, most) in [
            (hidden, self.hidden, 1, 1 << 14),
            (intermediate, self.intermediate, 1, 1 << 16),
            (layers, self.layers, 1, 1 << 10),
            (heads, self.heads, 1, 1 << 10),
            ("vocab_size", self.vocab, 1, 1 << 22),
            ("max_position_embeddings", self.max_positions, 1, 1 << 16),
            ("type_vocab_size", self.types, fewest_types, 1 << 10),
            ("embedding_size", self.embedding_width(), 1, 1 << 14),
        ] {
            if value < least || value > most {
                return Err(Error::format(path, format!("`{key}` is {value}; must be {least} to {most}")));
            }
        }
        if self.first_position >= self.max_positions {
            let (first, rows) = (self.first_position, self.max_positions);
            let what = format!("texts begin at position {first}, but `max_position_embeddings` is {rows}");
            return Err(Error::format(path, what));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (h, n) = (self.hidden, self.heads);
            return Err(Error::format(path, format!("`{hidden}` {h} is not a multiple of `{heads}` {n}")));
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

    /// Longest sequence, in tokens.
    pub fn seq_max(&self) -> usize {
        self.max_positions - self.first_position
    }

    /// Width of the embedding tables.
    pub fn embedding_width(&self) -> usize {
        self.embedding.unwrap_or(self.hidden)
    }

    /// Token types that the tokenizer may give; 0 where transformers hands none to the model, so that all are type 0.
    pub fn types_told(&self) -> usize {
        match self.family {
            Family::Bert | Family::Electra => self.types,
            Family::Roberta | Family::DistilBert => 0,
        }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }
}
