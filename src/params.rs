//! The table of trainable parameters: paper symbol, Hugging Face name, shape, place in the flat vector.
//!
//! All parameters live in one `theta: Vec<f32>`, and a gradient is a vector of the same layout.
//! Order: embedding LayerNorm, then per layer `q k v m1 ln1 m2 m3 ln2`, pooler, head weight, head bias.
//!
//! | symbol | HF name (+ `.bias`) | shape | note |
//! |---|---|---|---|
//! | `emb_ln` | `bert.embeddings.LayerNorm` | `[hidden]` | |
//! | `b_q` `b_k` `b_v` | `bert.encoder.layer.{l}.attention.self.{query,key,value}` | `[hidden]` | the gradient of `b_k` is zero: softmax ignores a constant per row |
//! | `b_m1` | `….attention.output.dense` | `[hidden]` | |
//! | `b_ln1` | `….attention.output.LayerNorm` | `[hidden]` | |
//! | `b_m2` | `….intermediate.dense` | `[intermediate]` | |
//! | `b_m3` | `….output.dense` | `[hidden]` | |
//! | `b_ln2` | `….output.LayerNorm` | `[hidden]` | |
//! | `pooler` | `bert.pooler.dense` | `[hidden]` | with `cls` pooling only |
//!
//! Names are matched whole. (BitFit's code selects by substring, so its `output.dense` also selects the
//! attention output; it always trains the pooler's bias and the classifier. Here `pooler` is a term like
//! the others and the head is always trained.)

use crate::config::{Config, Pooling};
use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A kind of bias vector, by the paper's symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Term {
    EmbLn,
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
    pub const ALL: [Term; 10] = [
        Term::EmbLn,
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
    pub fn module(self, layer: usize) -> String {
        let of_layer = |m: &str| format!("bert.encoder.layer.{layer}.{m}");
        match self {
            Term::EmbLn => "bert.embeddings.LayerNorm".into(),
            Term::Q => of_layer("attention.self.query"),
            Term::K => of_layer("attention.self.key"),
            Term::V => of_layer("attention.self.value"),
            Term::M1 => of_layer("attention.output.dense"),
            Term::Ln1 => of_layer("attention.output.LayerNorm"),
            Term::M2 => of_layer("intermediate.dense"),
            Term::M3 => of_layer("output.dense"),
            Term::Ln2 => of_layer("output.LayerNorm"),
            Term::Pooler => "bert.pooler.dense".into(),
        }
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
        terms.sort();
        terms.dedup();
        Ok(Terms(terms))
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
    /// Weight of the task head, `[labels, hidden]`.
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
        let h = config.hidden;
        l.push(Term::EmbLn.module(0) + ".bias", Role::Bias(Term::EmbLn, None), vec![h]);
        for layer in 0..config.layers {
            for term in Term::LAYER {
                let width = if term == Term::M2 { config.intermediate } else { h };
                l.push(term.module(layer) + ".bias", Role::Bias(term, Some(layer)), vec![width]);
            }
        }
        if pooling == Pooling::Cls {
            l.push(Term::Pooler.module(0) + ".bias", Role::Bias(Term::Pooler, None), vec![h]);
        }
        l.push("classifier.weight".into(), Role::HeadWeight, vec![labels, h]);
        l.push("classifier.bias".into(), Role::HeadBias, vec![labels]);
        l
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

    /// Place of the head's weight `[labels, hidden]`.
    pub fn head_weight(&self) -> Range<usize> {
        self.params[self.params.len() - 2].range.clone()
    }

    /// Place of the head's bias `[labels]`.
    pub fn head_bias(&self) -> Range<usize> {
        self.params[self.params.len() - 1].range.clone()
    }
}
