//! Puts what was read of a graph together: an encoder's sizes and choices, and where each of its tensors lies.

use super::meaning::*;
use super::reader::Reader;
use super::tensor::Stored;
use crate::config::{Config, Family, Gelu};
use crate::import::canonical;
use crate::params::Term;
use std::collections::BTreeMap;

/// Where a tensor of the encoder lies.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Vector(String),
    /// A matrix, `[rows, cols]` once it lies as we want it.
    Matrix(Matrix),
}

/// An encoder that was found in a graph.
#[derive(Debug)]
pub(super) struct Encoder {
    pub config: Config,
    pub has_pooler: bool,
    /// Name of the input that tells tokens from padding.
    pub mask: String,
    /// By canonical name.
    pub sources: BTreeMap<String, Source>,
}

/// What is wrong, and the node where that shows.
fn at(node: &str, expected: &str) -> String {
    format!("node `{node}`: expected {expected}")
}

/// Finds the encoder in what was read; fails with the first node that did not fit.
pub(super) fn find(reader: &Reader, stored: &BTreeMap<String, Stored>) -> Result<Encoder, String> {
    assemble(reader, stored).map_err(|why| match &reader.misfit {
        Some(misfit) => misfit.clone(),
        None => why,
    })
}

fn assemble(reader: &Reader, stored: &BTreeMap<String, Stored>) -> Result<Encoder, String> {
    let linear = |i: usize| &reader.linears[i];
    let Some(first) = reader.norms.first() else { return Err("expected a LayerNorm over embeddings".into()) };
    let Pre::Embeddings(rows) = &first.pre else {
        return Err(at(&first.node, "a LayerNorm over the sum of the embeddings"));
    };
    let tables = tables(rows, stored).ok_or_else(|| {
        at(
            &first.node,
            "embeddings of words, positions (counted from 0, or behind a padding id) and token types",
        )
    })?;
    let mut parts = Parts { family: Family::Bert, sources: Vec::new() };
    let attention = |o: usize| match linear(o).from {
        From::Context(a) => Some(&reader.attentions[a]),
        _ => None,
    };

    // What goes into the first layer: the embeddings, or a projection of them.
    let mut stream = From::Norm(0);
    let mut projection = None;
    if let Some(Norm { pre: Pre::Residual(_, flow @ From::Linear(p)), .. }) = reader.norms.get(1)
        && linear(*p).from == From::Norm(0)
    {
        (stream, projection) = (*flow, Some(*p));
    }
    let mut layers = Vec::new();
    for pair in reader.norms[1..].chunks_exact(2) {
        let [ln1, ln2] = pair else { break };
        let layer = layers.len();
        let Pre::Residual(o, flow) = ln1.pre else { break };
        let Some(a) = attention(o).filter(|_| flow == stream) else {
            return Err(at(&ln1.node, "the sum of an attention and what went into it"));
        };
        let Pre::Residual(m3, flow) = ln2.pre else { break };
        let (From::Active(m2, Function::Gelu(gelu)), true) =
            (linear(m3).from, flow == From::Norm(1 + 2 * layer))
        else {
            return Err(at(
                &linear(m3).node,
                "a Linear of GELU, added to what went into the feed-forward layer",
            ));
        };
        if linear(m2).from != From::Norm(1 + 2 * layer) {
            return Err(at(&linear(m2).node, "a Linear of what the attention's LayerNorm gives"));
        }
        let Some(v) = a.value else { return Err(at(&a.node, "an attention with values")) };
        for l in [a.query, a.key, v] {
            if linear(l).from != stream {
                return Err(at(&linear(l).node, "a Linear of what goes into the layer"));
            }
        }
        layers.push(Layer { linears: [a.query, a.key, v, o, m2, m3], attention: a.clone(), gelu });
        stream = From::Norm(2 + 2 * layer);
    }
    if layers.is_empty() || reader.loose_products.len() != 2 * layers.len() {
        let node = reader.loose_products.get(2 * layers.len()).unwrap_or(&first.node);
        return Err(at(node, "attention, feed-forward layer and their LayerNorms, layer by layer"));
    }

    let hidden = linear(layers[0].linears[0]).inputs;
    let intermediate = linear(layers[0].linears[4]).outputs;
    let (heads, gelu, eps) = (layers[0].attention.heads, layers[0].gelu, first.eps);
    let norms = &reader.norms[..1 + 2 * layers.len()];
    if let Some(norm) = norms.iter().find(|n| n.eps != eps) {
        return Err(at(
            &norm.node,
            &format!("an eps of {eps}, as the first LayerNorm has; found {}", norm.eps),
        ));
    }
    for layer in &layers {
        let a = &layer.attention;
        if (a.heads, layer.gelu) != (heads, gelu) {
            return Err(at(&a.node, "as many heads and the same GELU as in the first layer"));
        }
        if !a.mask.is_power_of_two() || a.mask == 1 << tables.ids {
            return Err(at(&a.node, "a mask made of attention_mask alone"));
        }
        for (l, outputs) in
            layer.linears.into_iter().zip([hidden, hidden, hidden, hidden, intermediate, hidden])
        {
            if linear(l).outputs != outputs {
                let (node, found) = (&linear(l).node, linear(l).outputs);
                return Err(at(node, &format!("a Linear of {outputs} outputs; found {found}")));
            }
        }
    }

    let wide = first.width != hidden || projection.is_some();
    parts.family = match (tables.pad, &tables.types) {
        (Some(_), _) => Family::Roberta,
        (None, None) => Family::DistilBert,
        _ if wide => Family::Electra,
        _ => Family::Bert,
    };
    let family = parts.family;
    if wide && family != Family::Electra {
        return Err(at(&first.node, "embeddings as wide as the encoder"));
    }
    let size = |name: &String| stored.get(name).map_or(0, |s| s.dims[0]);
    let config = Config {
        family,
        hidden,
        intermediate,
        layers: layers.len(),
        heads,
        vocab: size(&tables.words.name),
        max_positions: size(&tables.positions.name),
        first_position: tables.pad.map_or(0, |pad| pad as usize + 1),
        embedding: wide.then_some(first.width),
        types: tables.types.as_ref().map_or(0, |t| size(&t.name)),
        layer_norm_eps: eps,
        gelu,
    };

    for (table, matrix) in [
        ("word", Some(&tables.words)),
        ("position", Some(&tables.positions)),
        ("token_type", tables.types.as_ref()),
    ] {
        let Some(matrix) = matrix else { continue };
        if stored.get(&matrix.name).is_none_or(|s| s.dims[1] != first.width) {
            return Err(at(&first.node, "embedding tables of the same width"));
        }
        parts.sources.push((canonical::embeddings(family, table), Source::Matrix(matrix.clone())));
    }
    parts.norm(Term::EmbLn, 0, first);
    if let Some(p) = projection {
        parts.linear(Term::EmbProj, 0, linear(p))?;
    }
    for (i, layer) in layers.iter().enumerate() {
        for (term, l) in
            [Term::Q, Term::K, Term::V, Term::M1, Term::M2, Term::M3].into_iter().zip(layer.linears)
        {
            parts.linear(term, i, linear(l))?;
        }
        parts.norm(Term::Ln1, i, &norms[1 + 2 * i]);
        parts.norm(Term::Ln2, i, &norms[2 + 2 * i]);
    }
    // A pooler is whatever has its shape and place; a head's layer of the same kind is one in all families but BERT.
    let last = From::First(2 * layers.len());
    let wanted = family.activation();
    let pooler = reader.functions.iter().find(|(l, f)| {
        let l = linear(*l);
        f.activation() == Some(wanted) && l.from == last && (l.inputs, l.outputs) == (hidden, hidden)
    });
    if let Some((l, _)) = pooler {
        parts.linear(Term::Pooler, 0, linear(*l))?;
    }
    let mask = reader.inputs[layers[0].attention.mask.trailing_zeros() as usize].to_owned();
    let sources = parts.sources.into_iter().collect();
    Ok(Encoder { config, has_pooler: pooler.is_some(), mask, sources })
}

/// Of a layer: Linears of query, key, value, attention output and the feed-forward layer.
struct Layer {
    linears: [usize; 6],
    attention: Attention,
    gelu: Gelu,
}

struct Parts {
    family: Family,
    sources: Vec<(String, Source)>,
}

impl Parts {
    fn linear(&mut self, term: Term, layer: usize, linear: &Linear) -> Result<(), String> {
        let module = term.module(self.family, layer);
        let bias = linear.bias.clone().ok_or_else(|| at(&linear.node, "a Linear with a bias"))?;
        self.sources.push((module.clone() + ".weight", Source::Matrix(linear.weight.clone())));
        self.sources.push((module + ".bias", Source::Vector(bias)));
        Ok(())
    }

    fn norm(&mut self, term: Term, layer: usize, norm: &Norm) {
        let module = term.module(self.family, layer);
        self.sources.push((module.clone() + ".weight", Source::Vector(norm.gain.clone())));
        self.sources.push((module + ".bias", Source::Vector(norm.bias.clone())));
    }
}

/// The embedding tables, and the input that has the token ids.
struct Tables {
    words: Matrix,
    positions: Matrix,
    types: Option<Matrix>,
    ids: usize,
    /// The padding's id, where positions are counted behind it.
    pad: Option<i64>,
}

/// Tells the tables apart by what they are indexed with; of two indexed by inputs, words have more rows than types.
fn tables(rows: &[Rows], stored: &BTreeMap<String, Stored>) -> Option<Tables> {
    let is_position = |r: &&Rows| matches!(r.index, Index::Counting(0) | Index::BehindPad(..));
    let position = rows.iter().find(is_position)?;
    let mut others: Vec<&Rows> = rows.iter().filter(|r| !is_position(r)).collect();
    others.sort_by_key(|r| {
        let size = stored.get(&r.table.name).map_or(0, |s| s.dims[0]);
        (!matches!(r.index, Index::Input(_)), std::cmp::Reverse(size))
    });
    let (word, types) = match others[..] {
        [word] => (word, None),
        [word, types] => (word, Some(types)),
        _ => return None,
    };
    let Index::Input(ids) = word.index else { return None };
    if types.is_some_and(|t| !matches!(t.index, Index::Zero | Index::Input(_)) || t.index == word.index) {
        return None;
    }
    let pad = match position.index {
        Index::BehindPad(input, pad) if input == ids && (0..1 << 16).contains(&pad) => Some(pad),
        Index::Counting(_) => None,
        _ => return None,
    };
    if rows.len() != 2 + usize::from(types.is_some()) {
        return None;
    }
    let matrix = |r: &Rows| r.table.clone();
    Some(Tables { words: matrix(word), positions: matrix(position), types: types.map(matrix), ids, pad })
}
