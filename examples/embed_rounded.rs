//! Sentence embeddings as ONNX Runtime makes them of a file by `quantize_dynamic`: the input of each Linear is rounded to u8
//! with one scale for the whole text, as `DynamicQuantizeLinear` does.
//!
//! `cargo run --release --example embed_rounded -- BASE TEXTS.txt > embeddings.jsonl`
//!
//! For `tests/onnx_int8.py`, which shows by it that a base made of such a file is that file. The encoder is put together of
//! the ops in reference mode, the mean of the tokens behind it; that it is the encoder, and that rounding is all that
//! differs, is seen by the first text: without rounding its embedding must be that of `trimtab embed --exact`.

use std::path::Path;
use tract_core::prelude::tract_ndarray::{Array2, ArrayViewMut2};
use trimtab::config::Pooling;
use trimtab::data::Example;
use trimtab::import::canonical;
use trimtab::ops::attention::{self, Heads, Queries};
use trimtab::ops::embed::{self, Embed};
use trimtab::ops::linear::{self, Linear};
use trimtab::ops::{Numerics, Values, ValuesMut, add_norm};
use trimtab::params::Term;
use trimtab::tokenize::TextEncoder;
use trimtab::{Base, Error, Model, Options, Result, Task};

const NUM: Numerics = Numerics::Reference;

/// Longest text, in tokens: what `trimtab embed` takes.
const MAX_LEN: usize = 128;

/// `DynamicQuantizeLinear` and back: one scale, and a zero point so that 0 is 0.
fn round(x: &mut [f32]) {
    let least = x.iter().fold(0.0, |m: f32, v| m.min(*v));
    let most = x.iter().fold(0.0, |m: f32, v| m.max(*v));
    let scale = if most > least { (most - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
    x.iter_mut().for_each(|v| {
        let q = ((*v / scale).round_ties_even() + zero).clamp(0.0, 255.0);
        *v = (q - zero) * scale;
    });
}

struct Encoder<'a> {
    base: &'a Base,
    tables: Embed,
}

impl Encoder<'_> {
    fn new(base: &Base) -> Result<Encoder<'_>> {
        let c = base.config();
        let table = |kind: &str| base.matrix(&canonical::embeddings(c.family, kind));
        let types = if c.types > 0 { Some(table("token_type")?) } else { None };
        let tables =
            Embed { word: table("word")?, position: table("position")?, first: c.first_position, types };
        Ok(Encoder { base, tables })
    }

    /// The Linears of `terms` side by side.
    fn linear(&self, terms: &[Term], layer: usize, mut x: Vec<f32>, rounded: bool) -> Result<Vec<f32>> {
        let c = self.base.config();
        let (mut parts, mut biases) = (vec![], vec![]);
        for term in terms {
            let module = term.module(c.family, layer);
            parts.push(self.base.matrix(&format!("{module}.weight"))?);
            biases.push(self.base.vector(&format!("{module}.bias"))?);
        }
        if rounded {
            round(&mut x);
        }
        let l = Linear { parts, gelu: (terms == [Term::M2]).then_some(c.gelu) };
        let biases: Vec<&[f32]> = biases.iter().map(|b| &b[..]).collect();
        let mut y = vec![0.0; x.len() / l.input() * l.out()];
        linear::forward(&NUM, &l, Values::F32(&x), &biases, ValuesMut::F32(&mut y), None);
        Ok(y)
    }

    fn norm(&self, term: Term, layer: usize, x: &[f32], residual: Option<&[f32]>) -> Result<Vec<f32>> {
        let c = self.base.config();
        let module = term.module(c.family, layer);
        let gain = self.base.vector(&format!("{module}.weight"))?;
        let bias = self.base.vector(&format!("{module}.bias"))?;
        let mut y = vec![0.0; x.len()];
        add_norm::forward(&NUM, x, residual, &gain, &bias, c.layer_norm_eps, &mut y, None, None);
        Ok(y)
    }

    /// The mean of a text's tokens.
    fn embed(&self, ids: &[i32], types: &[i32], rounded: bool) -> Result<Vec<f32>> {
        let (c, rows) = (self.base.config(), ids.len());
        let positions: Vec<i32> = (0..rows as i32).collect();
        let tokens =
            Array2::from_shape_vec((3, rows), [ids, &positions, types].concat()).expect("three rows");
        let mut x = vec![0.0; rows * c.embedding_width()];
        let view = ArrayViewMut2::from_shape((rows, c.embedding_width()), &mut x[..]).expect("its shape");
        embed::forward(&self.tables, tokens.view(), view);
        x = self.norm(Term::EmbLn, 0, &x, None)?;
        if c.embedding.is_some() {
            x = self.linear(&[Term::EmbProj], 0, x, rounded)?;
        }
        let heads = Heads { heads: c.heads, dim: c.head_dim() };
        for layer in 0..c.layers {
            let qkv = self.linear(&[Term::Q, Term::K, Term::V], layer, x.clone(), rounded)?;
            let (mut context, ends) = (vec![0.0; rows * c.hidden], [0, rows as i32]);
            let to = ValuesMut::F32(&mut context);
            attention::forward(&NUM, heads, Queries::All, Values::F32(&qkv), &ends, to);
            let y = self.linear(&[Term::M1], layer, context, rounded)?;
            x = self.norm(Term::Ln1, layer, &y, Some(&x))?;
            let y = self.linear(&[Term::M2], layer, x.clone(), rounded)?;
            let y = self.linear(&[Term::M3], layer, y, rounded)?;
            x = self.norm(Term::Ln2, layer, &y, Some(&x))?;
        }
        let mean = |col: usize| x[col..].iter().step_by(c.hidden).sum::<f32>() / rows as f32;
        Ok((0..c.hidden).map(mean).collect())
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, texts] = &args[..] else {
        return Err(Error::Config("usage: embed_rounded BASE TEXTS.txt".into()));
    };
    let base = Base::open(base)?;
    let c = base.config();
    let max_len = MAX_LEN.min(c.seq_max());
    let json = base.tokenizer_bytes();
    let tokenizer = TextEncoder::from_bytes(json, base.path(), max_len, c.vocab, c.types_told())?;
    let encoder = Encoder::new(&base)?;
    let path = Path::new(texts);
    let texts = std::fs::read_to_string(path).map_err(|e| Error::Io { path: path.into(), source: e })?;
    for (i, text) in texts.lines().enumerate() {
        let encoded = tokenizer.encode(text, None)?;
        if i == 0 {
            let options = Options { exact: true, pooling: Some(Pooling::Mean), ..Options::default() };
            let exact = Model::new(&base, Task::Contrastive, &options)?
                .embed_all(&[Example { text_a: text.into(), ..Example::default() }])?;
            let ours = encoder.embed(&encoded.ids, &encoded.types, false)?;
            let apart = ours.iter().zip(&exact[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "the encoder of this example is {apart} from `embed --exact`");
        }
        println!("{}", serde_json::json!(encoder.embed(&encoded.ids, &encoded.types, true)?));
    }
    Ok(())
}
