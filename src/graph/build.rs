//! The ops of a graph, made of a base's tensors.

use super::nodes::{
    AttentionNode, DropAt, EmbedNode, FirstNode, HeadNode, HeadRows, LinearNode, NormNode, PoolerNode,
    Reader, Shared,
};
use super::wiring::{Purpose, Start, plan};
use super::{DropoutRates, Graph, LayerOps, NOTHING, internal};
use crate::config::{Config, Family, Gelu, MlmHead, Pooling};
use crate::error::{Error, Result};
use crate::import::canonical;
use crate::ops::Numerics;
use crate::ops::attention::{Heads, Queries};
use crate::ops::dropout::Dropout;
use crate::ops::embed::Embed;
use crate::ops::linear::Linear;
use crate::ops::masked_lm::MaskedLm;
use crate::ops::pooler::Pooler;
use crate::params::{Layout, MlmNames, Term};
use crate::quant::{Base, QMatrix};
use std::sync::Arc;
use tract_core::internal::*;

impl Graph {
    /// Wires the encoder of `base` with a head of `labels` outputs; of none where the pooled vectors are all.
    ///
    /// Errors: a tensor the config calls for is missing or of another shape; `cls` pooling without a pooler.
    pub fn new(
        base: &Base,
        numerics: Numerics,
        pooling: Pooling,
        labels: usize,
        rates: DropoutRates,
    ) -> Result<Graph> {
        let config = base.config();
        if pooling == Pooling::Cls && !base.has_pooler() {
            return Err(Error::Config(format!(
                "{} has no pooler: leave out the pooling, which is then {}, or take mean (--pool mean)",
                base.path().display(),
                base.pooling().name()
            )));
        }
        let layout = Layout::new(config, pooling, labels);
        let scope = SymbolScope::default();
        let batch = scope.sym("batch").to_dim();
        let shared = Shared {
            numerics: numerics.clone(),
            rows: scope.sym("rows").to_dim(),
            whole: match pooling {
                Pooling::Windows => scope.sym("whole").to_dim(),
                _ => batch.clone(),
            },
            batch,
        };
        let build = Build { base, config, layout: &layout, shared: &shared, rates };
        let pooler = match pooling {
            Pooling::Mean | Pooling::Windows => (Pooler::Mean, 0..0),
            Pooling::Tokens => (Pooler::Tokens, 0..0),
            Pooling::First => (Pooler::First, 0..0),
            Pooling::Apart => (Pooler::Apart, 0..0),
            Pooling::Cls => {
                let weight = build.weight(Term::Pooler, 0)?;
                (Pooler::cls(&weight, config.family.activation()), layout.bias(Term::Pooler, 0))
            }
        };
        let layers: Vec<LayerOps> = (0..config.layers).map(|l| build.layer(l)).collect::<Result<_>>()?;
        let of_first = matches!(pooling, Pooling::Cls | Pooling::First);
        let top = layers.last().filter(|_| of_first).map(|last| last.of_first(&shared));
        let mut graph = Graph {
            embed: Arc::new(EmbedNode { shared: shared.clone(), tables: build.tables()? }),
            emb_ln: build.norm(Term::EmbLn, 0, DropAt::Output)?,
            projection: match config.embedding {
                Some(_) => Some(build.linear(&[Term::EmbProj], 0, Reader::Layer)?),
                None => None,
            },
            layers,
            top,
            first: Arc::new(FirstNode { shared: shared.clone(), hidden: config.hidden }),
            pooler: Arc::new(PoolerNode {
                shared: shared.clone(),
                pooler: pooler.0,
                hidden: config.hidden,
                bias: pooler.1,
            }),
            head: Arc::new(HeadNode {
                shared: shared.clone(),
                labels,
                weight: layout.head_weight(),
                bias: layout.head_bias(),
                dropout: Dropout { p: rates.head, site: u32::MAX },
                reads: match pooling {
                    Pooling::Tokens => HeadRows::Tokens,
                    Pooling::Apart => HeadRows::Pairs,
                    Pooling::Cls | Pooling::Mean | Pooling::First | Pooling::Windows => HeadRows::Texts,
                },
            }),
            mlm_head: None,
            inference: SimplePlan::new(TypedModel::default()).map_err(internal)?,
            numerics,
            layout,
            recycled: Arc::default(),
        };
        let (model, outlets) = graph.wire(&scope, Start::Tokens, NOTHING, Purpose::Pooled)?;
        graph.inference = plan(model, &[outlets.logits, outlets.pooled])?;
        Ok(graph)
    }

    /// The same with the base's masked-LM head, frozen, above the tokens' vectors.
    ///
    /// Errors: `Error::Config` for a base without one, or whose head does not end in the word embeddings.
    pub fn with_mlm_head(self, base: &Base) -> Result<Graph> {
        let (config, path) = (base.config(), base.path().display());
        let names = MlmNames::of(config.family);
        let what = match base.mlm_head() {
            MlmHead::Tied => {
                let vector = |module: &str, part: &str| base.vector(&format!("{module}.{part}"));
                let linear = |matrix| Linear { parts: vec![matrix], gelu: None };
                let word = base.matrix(&canonical::embeddings(config.family, "word"))?;
                let head = MaskedLm {
                    dense: linear(base.matrix(&format!("{}.weight", names.dense))?),
                    dense_bias: vector(names.dense, "bias")?,
                    // The other two have it whatever their config says of the encoder.
                    gelu: match config.family {
                        Family::Bert | Family::DistilBert => config.gelu,
                        Family::Roberta | Family::Electra => Gelu::Erf,
                    },
                    gain: vector(names.norm, "weight")?,
                    norm_bias: vector(names.norm, "bias")?,
                    eps: config.layer_norm_eps,
                    decoder: linear(word.to_linear()),
                    bias: base.vector(names.bias)?,
                };
                return Ok(Graph { mlm_head: Some(head), ..self });
            }
            MlmHead::Untied => format!(
                "the masked-LM head that {path} was made from ends in a weight of its own, `{}`; one that ends in the word \
                 embeddings is needed (`tie_word_embeddings` not false)",
                names.decoder
            ),
            MlmHead::None => format!(
                "{path} has no masked-LM head; make the base of a checkpoint that has one, such as bert-base-uncased: of \
                 this family's ...ForMaskedLM, with `{}` and `{}.weight`",
                names.bias, names.dense
            ),
        };
        Err(Error::Config(what))
    }
}

struct Build<'a> {
    base: &'a Base,
    config: &'a Config,
    layout: &'a Layout,
    shared: &'a Shared,
    rates: DropoutRates,
}

impl Build<'_> {
    fn weight(&self, term: Term, layer: usize) -> Result<QMatrix> {
        self.base.matrix(&(term.module(self.config.family, layer) + ".weight"))
    }

    fn tables(&self) -> Result<Embed> {
        let table = |kind: &str| self.base.matrix(&canonical::embeddings(self.config.family, kind));
        Ok(Embed {
            word: table("word")?,
            position: table("position")?,
            first: self.config.first_position,
            types: if self.config.types > 0 { Some(table("token_type")?) } else { None },
        })
    }

    fn norm(&self, term: Term, layer: usize, drop_at: DropAt) -> Result<Arc<NormNode>> {
        let site = match term {
            Term::EmbLn => 0,
            Term::Ln1 => 1 + 2 * layer as u32,
            _ => 2 + 2 * layer as u32,
        };
        Ok(Arc::new(NormNode {
            shared: self.shared.clone(),
            gain: self.base.vector(&(term.module(self.config.family, layer) + ".weight"))?,
            bias: self.layout.bias(term, layer),
            eps: self.config.layer_norm_eps,
            drop_at,
            dropout: Dropout { p: self.rates.encoder, site },
            // The last one goes to the pooler alone.
            read: term != Term::Ln2 || layer + 1 < self.config.layers,
        }))
    }

    fn linear(&self, terms: &[Term], layer: usize, reader: Reader) -> Result<Arc<LinearNode>> {
        let gelu = (terms == [Term::M2]).then_some(self.config.gelu);
        let parts = terms.iter().map(|t| self.weight(*t, layer)).collect::<Result<_>>()?;
        let biases = terms.iter().map(|t| self.layout.bias(*t, layer)).collect();
        let linear = Linear { parts, gelu };
        Ok(Arc::new(LinearNode { shared: self.shared.clone(), linear, biases, reader }))
    }

    fn layer(&self, l: usize) -> Result<LayerOps> {
        let heads = Heads { heads: self.config.heads, dim: self.config.head_dim() };
        Ok(LayerOps {
            qkv: self.linear(&[Term::Q, Term::K, Term::V], l, Reader::Attention)?,
            attention: Arc::new(AttentionNode { shared: self.shared.clone(), heads, queries: Queries::All }),
            m1: self.linear(&[Term::M1], l, Reader::Norm)?,
            ln1: self.norm(Term::Ln1, l, DropAt::Branch)?,
            m2: self.linear(&[Term::M2], l, Reader::Linear)?,
            m3: self.linear(&[Term::M3], l, Reader::Norm)?,
            ln2: self.norm(Term::Ln2, l, DropAt::Branch)?,
        })
    }
}
