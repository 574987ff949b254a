//! The table of trainable parameters: paper symbol, Hugging Face name, shape, place in the flat vector.
//!
//! All parameters live in one `theta: Vec<f32>`, and a gradient is a vector of the same layout.
//! Order: embedding LayerNorm, then per layer `q k v m1 ln1 m2 m3 ln2`, pooler, head weight, head bias.
//!
//! | symbol | HF name (+ `.bias`) in BERT | shape | note |
//! |---|---|---|---|
//! | `emb_ln` | `bert.embeddings.LayerNorm` | `[embedding]` | |
//! | `emb_proj` | `electra.embeddings_project` | `[hidden]` | ELECTRA, where its embeddings have another width |
//! | `b_q` `b_k` `b_v` | `bert.encoder.layer.{l}.attention.self.{query,key,value}` | `[hidden]` | the gradient of `b_k` is zero: softmax ignores a constant per row |
//! | `b_m1` | `….attention.output.dense` | `[hidden]` | |
//! | `b_ln1` | `….attention.output.LayerNorm` | `[hidden]` | |
//! | `b_m2` | `….intermediate.dense` | `[intermediate]` | |
//! | `b_m3` | `….output.dense` | `[hidden]` | |
//! | `b_ln2` | `….output.LayerNorm` | `[hidden]` | |
//! | `pooler` | `bert.pooler.dense` | `[hidden]` | with `cls` pooling only |
//!
//! RoBERTa and ELECTRA have BERT's names behind a prefix of their own, DistilBERT has others ([`Term::module`]); the
//! pooler of these three is the first layer of their classifier, so the head has other names too ([`head_module`]).
//!
//! Names are matched whole. (BitFit's code selects by substring, so its `output.dense` also selects the
//! attention output; it always trains the pooler's bias and the classifier. Here `pooler` is a term like
//! the others and the head is always trained.)

use crate::config::{Config, Family, Pooling};
use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A kind of bias vector, by the paper's symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Term {
    EmbLn,
    EmbProj,
    Q,
    K,
    V,
    M1,
    Ln1,
    M2,
    M3,
    Ln2,
    Pooler,
}

impl Term {
    /// Every term, in the order of the network.
    pub const ALL: [Term; 11] = [
        Term::EmbLn,
        Term::EmbProj,
        Term::Q,
        Term::K,
        Term::V,
        Term::M1,
        Term::Ln1,
        Term::M2,
        Term::M3,
        Term::Ln2,
        Term::Pooler,
    ];
    /// The terms every layer has, in the order of the network.
    pub const LAYER: [Term; 8] =
        [Term::Q, Term::K, Term::V, Term::M1, Term::Ln1, Term::M2, Term::M3, Term::Ln2];

    /// The symbol used on the command line and in plots.
    pub fn symbol(self) -> &'static str {
        match self {
            Term::EmbLn => "emb_ln",
            Term::EmbProj => "emb_proj",
            Term::Q => "q",
            Term::K => "k",
            Term::V => "v",
            Term::M1 => "m1",
            Term::Ln1 => "ln1",
            Term::M2 => "m2",
            Term::M3 => "m3",
            Term::Ln2 => "ln2",
            Term::Pooler => "pooler",
        }
    }

    /// Hugging Face name of the module whose bias this is, without `.bias`.
    pub fn module(self, family: Family, layer: usize) -> String {
        let distil = family == Family::DistilBert;
        let named = |bert: &str, distilbert: &str| match distil {
            false => format!("{}.encoder.layer.{layer}.{bert}", family.name()),
            true => format!("distilbert.transformer.layer.{layer}.{distilbert}"),
        };
        match self {
            Term::EmbLn => format!("{}.embeddings.LayerNorm", family.name()),
            Term::EmbProj => format!("{}.embeddings_project", family.name()),
            Term::Q => named("attention.self.query", "attention.q_lin"),
            Term::K => named("attention.self.key", "attention.k_lin"),
            Term::V => named("attention.self.value", "attention.v_lin"),
            Term::M1 => named("attention.output.dense", "attention.out_lin"),
            Term::Ln1 => named("attention.output.LayerNorm", "sa_layer_norm"),
            Term::M2 => named("intermediate.dense", "ffn.lin1"),
            Term::M3 => named("output.dense", "ffn.lin2"),
            Term::Ln2 => named("output.LayerNorm", "output_layer_norm"),
            Term::Pooler => match family {
                Family::Bert => "bert.pooler.dense".into(),
                Family::Roberta | Family::Electra => "classifier.dense".into(),
                Family::DistilBert => "pre_classifier".into(),
            },
        }
    }
}

/// Hugging Face name of the head's Linear: in the family's `…ForSequenceClassification`, or for single tokens in its
/// `…ForTokenClassification`.
pub fn head_module(family: Family, pooling: Pooling) -> &'static str {
    match (family, pooling) {
        (
            Family::Roberta | Family::Electra,
            Pooling::Cls | Pooling::Mean | Pooling::First | Pooling::Windows,
        ) => "classifier.out_proj",
        _ => "classifier",
    }
}

/// Hugging Face names of the masked-LM head in the family's `…ForMaskedLM`.
#[derive(Clone, Copy, Debug)]
pub struct MlmNames {
    /// Its dense layer.
    pub dense: &'static str,
    /// The LayerNorm behind it.
    pub norm: &'static str,
    /// The bias of each word, a tensor's whole name.
    pub bias: &'static str,
    /// The weight of its last layer, a tensor's whole name: the word embeddings, unless a checkpoint says that it is not.
    pub decoder: &'static str,
}

impl MlmNames {
    /// Those of a family.
    pub fn of(family: Family) -> MlmNames {
        let [dense, norm, bias, decoder] = match family {
            Family::Bert => [
                "cls.predictions.transform.dense",
                "cls.predictions.transform.LayerNorm",
                "cls.predictions.bias",
                "cls.predictions.decoder.weight",
            ],
            Family::Roberta => {
                ["lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight"]
            }
            Family::DistilBert => {
                ["vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"]
            }
            Family::Electra => [
                "generator_predictions.dense",
                "generator_predictions.LayerNorm",
                "generator_lm_head.bias",
                "generator_lm_head.weight",
            ],
        };
        MlmNames { dense, norm, bias, decoder }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

/// Which biases to train: a set of terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms(Vec<Term>);

impl Terms {
    /// Every bias that can learn: all but `k`, whose gradient is exactly zero.
    pub fn all() -> Terms {
        Terms(Term::ALL.into_iter().filter(|t| *t != Term::K).collect())
    }

    /// No bias: the head alone.
    pub fn none() -> Terms {
        Terms(Vec::new())
    }

    /// Those that this encoder can have: without `emb_proj` where nothing is projected.
    pub fn of(&self, config: &Config) -> Terms {
        let has = |t: &Term| *t != Term::EmbProj || config.embedding.is_some();
        Terms(self.iter().filter(has).collect())
    }

    /// Whether `term` is in the set.
    pub fn contains(&self, term: Term) -> bool {
        self.0.contains(&term)
    }

    /// The terms, in network order.
    pub fn iter(&self) -> impl Iterator<Item = Term> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Terms {
    fn default() -> Self {
        Terms::all()
    }
}

impl FromIterator<Term> for Terms {
    fn from_iter<I: IntoIterator<Item = Term>>(terms: I) -> Terms {
        let mut terms: Vec<Term> = terms.into_iter().collect();
        terms.sort();
        terms.dedup();
        Terms(terms)
    }
}

impl FromStr for Terms {
    type Err = Error;

    /// Symbols separated by commas or spaces, or `all`, or `none`.
    fn from_str(s: &str) -> Result<Terms> {
        let mut terms = Vec::new();
        for word in s.split([',', ' ']).filter(|w| !w.is_empty()) {
            match word {
                "all" => terms.extend(Terms::all().0),
                "none" => {}
                _ => match Term::ALL.into_iter().find(|t| t.symbol() == word) {
                    Some(t) => terms.push(t),
                    None => {
                        let known: Vec<_> = Term::ALL.iter().map(|t| t.symbol()).collect();
                        return Err(Error::Config(format!(
                            "unknown bias term `{word}`; known: {}, all, none",
                            known.join(" ")
                        )));
                    }
                },
            }
        }
        if s.trim().is_empty() {
            return Err(Error::Config("no bias term given; use `none` to train the head only".into()));
        }
        Ok(Terms::from_iter(terms))
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let names: Vec<_> = self.0.iter().map(|t| t.symbol()).collect();
        f.write_str(&names.join(","))
    }
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A bias of the encoder: its term, and its layer where it has one.
    Bias(Term, Option<usize>),
    /// Weight of the task head, `[labels, features]` ([`Pooling::features`]).
    HeadWeight,
    /// Bias of the task head, `[labels]`.
    HeadBias,
}

/// One parameter: its name, its shape, and where it lies in `theta`.
#[derive(Clone, Debug)]
pub struct Param {
    /// Hugging Face name, such as `bert.encoder.layer.0.output.dense.bias`.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its place in the flat vector.
    pub range: Range<usize>,
}

/// All parameters of a model with a task head, and their places in one flat vector.
#[derive(Clone, Debug)]
pub struct Layout {
    params: Vec<Param>,
    len: usize,
}

impl Layout {
    /// The layout for an encoder, its pooling and a head of `labels` outputs.
    pub fn new(config: &Config, pooling: Pooling, labels: usize) -> Layout {
        let mut l = Layout { params: Vec::new(), len: 0 };
        let (h, family) = (config.hidden, config.family);
        let bias = |term: Term, layer: usize| term.module(family, layer) + ".bias";
        l.push(bias(Term::EmbLn, 0), Role::Bias(Term::EmbLn, None), vec![config.embedding_width()]);
        if config.embedding.is_some() {
            l.push(bias(Term::EmbProj, 0), Role::Bias(Term::EmbProj, None), vec![h]);
        }
        for layer in 0..config.layers {
            for term in Term::LAYER {
                let width = if term == Term::M2 { config.intermediate } else { h };
                l.push(bias(term, layer), Role::Bias(term, Some(layer)), vec![width]);
            }
        }
        if pooling == Pooling::Cls {
            l.push(bias(Term::Pooler, 0), Role::Bias(Term::Pooler, None), vec![h]);
        }
        let head = head_module(family, pooling);
        l.push(format!("{head}.weight"), Role::HeadWeight, vec![labels, pooling.features(h)]);
        l.push(format!("{head}.bias"), Role::HeadBias, vec![labels]);
        l
    }

    /// The same with the head's two parameters under another name.
    pub(crate) fn with_head(mut self, name: &str) -> Layout {
        let head = self.params.len() - 2;
        for (param, part) in self.params[head..].iter_mut().zip(["weight", "bias"]) {
            param.name = format!("{name}.{part}");
        }
        self
    }

    fn push(&mut self, name: String, role: Role, shape: Vec<usize>) {
        let n: usize = shape.iter().product();
        self.params.push(Param { name, role, shape, range: self.len..self.len + n });
        self.len += n;
    }

    /// Length of `theta`.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: there is always a head.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every parameter, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.params.iter()
    }

    /// Place of a bias. Panics if the layout has none such (a `pooler` under mean pooling).
    pub fn bias(&self, term: Term, layer: usize) -> Range<usize> {
        let found = self.params.iter().find(|p| match p.role {
            Role::Bias(t, l) => t == term && l.is_none_or(|l| l == layer),
            _ => false,
        });
        found.expect("the layout has this bias").range.clone()
    }

    /// Place of the head's weight `[labels, features]`.
    pub fn head_weight(&self) -> Range<usize> {
        self.params[self.params.len() - 2].range.clone()
    }

    /// Place of the head's bias `[labels]`.
    pub fn head_bias(&self) -> Range<usize> {
        self.params[self.params.len() - 1].range.clone()
    }
}
