//! The tensors of an encoder under their Hugging Face names: what a checkpoint must hold and a base holds.

use crate::config::{Config, Family, Module};
use crate::params::{MlmNames, Term};

/// What becomes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weight of a Linear of the encoder or of the masked-LM head, `[out, in]`: quantized to int8, stored in tiles.
    Linear,
    /// Embedding table `[rows, embedding]` or the pooler's weight `[out, in]`: quantized to int8, stored row by row.
    Matrix,
    /// Bias or LayerNorm gain: stays f32.
    Vector,
    /// Weight `[out, in]` of a Dense module behind the pooling: stays f32.
    Dense,
}

/// One tensor an encoder is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Canonical name, with the family's prefix: `bert.` and so on.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What becomes of it.
    pub kind: Kind,
}

/// Every tensor of an encoder, in name order (bytewise), with its pooler and its masked-LM head where it has them.
pub fn tensors(config: &Config, pooler: bool, mlm_head: bool) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, kind| specs.push(Spec { name, shape, kind });
    let (h, e, family) = (config.hidden, config.embedding_width(), config.family);
    for (table, rows) in
        [("word", config.vocab), ("position", config.max_positions), ("token_type", config.types)]
    {
        if rows > 0 {
            push(embeddings(family, table), vec![rows, e], Kind::Matrix);
        }
    }
    let mut module = |term: Term, layer| {
        let name = term.module(family, layer);
        let (rows, cols) = match term {
            Term::EmbLn => (e, e),
            Term::EmbProj => (h, e),
            Term::M2 => (config.intermediate, h),
            Term::M3 => (h, config.intermediate),
            _ => (h, h),
        };
        match term {
            Term::EmbLn | Term::Ln1 | Term::Ln2 => push(name.clone() + ".weight", vec![rows], Kind::Vector),
            Term::Pooler => push(name.clone() + ".weight", vec![rows, cols], Kind::Matrix),
            _ => push(name.clone() + ".weight", vec![rows, cols], Kind::Linear),
        }
        push(name + ".bias", vec![rows], Kind::Vector);
    };
    module(Term::EmbLn, 0);
    if config.embedding.is_some() {
        module(Term::EmbProj, 0);
    }
    for layer in 0..config.layers {
        Term::LAYER.into_iter().for_each(|t| module(t, layer));
    }
    if pooler {
        module(Term::Pooler, 0);
    }
    if mlm_head {
        specs.extend(self::mlm_head(config));
    }
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    specs
}

/// The tensors of the masked-LM head, without its last layer's weight, which is the word embeddings.
pub fn mlm_head(config: &Config) -> Vec<Spec> {
    let (h, e, names) = (config.hidden, config.embedding_width(), MlmNames::of(config.family));
    let spec = |name: String, shape: &[usize], kind| Spec { name, shape: shape.to_vec(), kind };
    vec![
        spec(format!("{}.weight", names.dense), &[e, h], Kind::Linear),
        spec(format!("{}.bias", names.dense), &[e], Kind::Vector),
        spec(format!("{}.weight", names.norm), &[e], Kind::Vector),
        spec(format!("{}.bias", names.norm), &[e], Kind::Vector),
        spec(names.bias.into(), &[config.vocab], Kind::Vector),
    ]
}

/// The tensors of sentence-transformers modules: `modules.{i}.linear.weight` and `.bias` of each Dense, `i` from 0.
pub fn modules(modules: &[Module]) -> Vec<Spec> {
    let mut specs = Vec::new();
    for (i, module) in modules.iter().enumerate() {
        let Module::Dense { inputs, outputs, bias, .. } = module else { continue };
        let name = |part: &str| format!("modules.{i}.linear.{part}");
        specs.push(Spec { name: name("weight"), shape: vec![*outputs, *inputs], kind: Kind::Dense });
        if *bias {
            specs.push(Spec { name: name("bias"), shape: vec![*outputs], kind: Kind::Vector });
        }
    }
    specs
}

/// Name of the `word`, `position` or `token_type` table.
pub fn embeddings(family: Family, table: &str) -> String {
    format!("{}.embeddings.{table}_embeddings.weight", family.name())
}
