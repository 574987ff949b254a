//! The tensors of a BERT encoder under their Hugging Face names: what a checkpoint must hold and a base holds.

use crate::config::Config;
use crate::params::Term;

/// What becomes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weight of a Linear of the encoder's layers, `[out, in]`: quantized to int8, stored in tiles.
    Linear,
    /// Embedding table `[rows, hidden]` or the pooler's weight `[out, in]`: quantized to int8, stored row by row.
    Matrix,
    /// Bias or LayerNorm gain: stays f32.
    Vector,
}

/// One tensor an encoder is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Canonical name, with the prefix `bert.`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What becomes of it.
    pub kind: Kind,
}

/// Every tensor of an encoder, in name order (bytewise).
pub fn tensors(config: &Config, pooler: bool) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, kind| specs.push(Spec { name, shape, kind });
    let h = config.hidden;
    for (table, rows) in
        [("word", config.vocab), ("position", config.max_positions), ("token_type", config.types)]
    {
        push(format!("bert.embeddings.{table}_embeddings.weight"), vec![rows, h], Kind::Matrix);
    }
    let mut module = |term: Term, layer| {
        let name = term.module(layer);
        let (rows, cols) = match term {
            Term::M2 => (config.intermediate, h),
            Term::M3 => (h, config.intermediate),
            _ => (h, h),
        };
        match term {
            Term::EmbLn | Term::Ln1 | Term::Ln2 => push(name.clone() + ".weight", vec![h], Kind::Vector),
            Term::Pooler => push(name.clone() + ".weight", vec![rows, cols], Kind::Matrix),
            _ => push(name.clone() + ".weight", vec![rows, cols], Kind::Linear),
        }
        push(name + ".bias", vec![rows], Kind::Vector);
    };
    module(Term::EmbLn, 0);
    for layer in 0..config.layers {
        Term::LAYER.into_iter().for_each(|t| module(t, layer));
    }
    if pooler {
        module(Term::Pooler, 0);
    }
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    specs
}
