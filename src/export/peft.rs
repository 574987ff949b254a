//! An adapter that Hugging Face's `peft` loads unchanged: the biases and the head alone, over the checkpoint that the
//! base was made from.
//!
//! Its type is BEFT (`peft` 0.21), which adds a vector to the output of a Linear: `b − b₀`, with `b₀` the base's
//! bias. What is no Linear's goes among `modules_to_save`, whole: LayerNorms (gain and bias), the head, and
//! DistilBERT's `pre_classifier`. The weights
//! are the checkpoint's own, so answers differ from trimtab's by the rounding to int8.
//!
//! The other types cannot hold biases alone: LoRA's `bias="all"` goes with its two matrices, and IA³ has none.
//! A head by the `mean` of the tokens is refused: `transformers` has no class that it fits.

use super::directory::Directory;
use super::weights::{self, Tensor, Values};
use super::{Merged, Report, json};
use crate::config::{Family, Pooling};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::params::{Role, Term};
use crate::task::Kind;
use serde_json::json;
use std::path::Path;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// What `peft` puts before the names of the model that it wraps.
pub(crate) const PREFIX: &str = "base_model.model.";
/// What it calls the vector that BEFT adds to a module's output.
pub(crate) const ADDED: &str = ".beft_bias";

/// Writes the directory `out`, which must not be there or be empty; with `force` an earlier export there is replaced.
///
/// Errors: `Error::Config` for what stands at `out`, and for a model whose head has no pooler below it; `Error::Io`.
pub fn export(model: &Model, out: &Path, force: bool) -> Result<Report> {
    let m = Merged::of(model)?;
    if m.has_own_class() {
        let reads = match m.pooling {
            Pooling::First => "the first token without a pooler layer",
            _ => "the mean of the tokens",
        };
        let what = format!(
            "this model reads {reads}, for which transformers has no class that an adapter could stand on: train with --pool \
             cls if the base has a pooler, or export hf or onnx"
        );
        return Err(Error::Config(what));
    }
    let mut dir = Directory::begin(out, force, &[CONFIG, WEIGHTS])?;
    let (mut tensors, mut targets, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    // A contrastive model stands on the plain `…Model`, whose names have no prefix.
    let inner = format!("{}.", m.config().family.name());
    let name = |module: &str| match m.task.kind() {
        Kind::Contrastive => module.strip_prefix(&inner).unwrap_or(module).to_owned(),
        _ => module.to_owned(),
    };
    for p in m.layout.iter() {
        let Role::Bias(term, layer) = p.role else { continue };
        let (now, then) = (&m.theta[p.range.clone()], m.base.vector(&p.name)?);
        // A Linear to target there must be, and the value of the first layer is a part of every model.
        let any = (term, layer) == (Term::V, Some(0));
        // What ends in a saved module's name is saved with it, so it has to be there.
        let whole = term == Term::Pooler && m.config().family == Family::DistilBert;
        if now == then && !any && !whole {
            continue;
        }
        let module = term.module(m.config().family, layer.unwrap_or(0));
        let named = name(&module);
        match term {
            // `peft` takes `classifier` to mean this one too, as it ends so, and then wants it whole.
            Term::Pooler if whole => {
                let weight = m.base.matrix(&format!("{module}.weight"))?;
                let shape = vec![weight.rows(), weight.cols()];
                let name = format!("{PREFIX}{named}.weight");
                tensors.push(Tensor { name, shape, values: Values::Matrix(weight) });
                tensors.push(tensor(format!("{named}.bias"), &[now.len()], now.to_vec()));
                saved.push(named);
            }
            Term::EmbLn | Term::Ln1 | Term::Ln2 => {
                let gain = m.base.vector(&format!("{module}.weight"))?;
                tensors.push(tensor(format!("{named}.weight"), &[gain.len()], gain));
                tensors.push(tensor(format!("{named}.bias"), &[now.len()], now.to_vec()));
                saved.push(named);
            }
            _ => {
                let added: Vec<f32> = now.iter().zip(&then).map(|(now, then)| now - then).collect();
                tensors.push(tensor(named.clone() + ADDED, &[1, added.len()], added));
                targets.push(named);
            }
        }
    }
    if m.task.outputs() > 0 {
        let (head, outputs) = (m.head_module(), m.task.outputs());
        let [weight, bias] = m.head();
        tensors.push(tensor(format!("{head}.weight"), &[outputs, m.config().hidden], weight.to_vec()));
        tensors.push(tensor(format!("{head}.bias"), &[outputs], bias.to_vec()));
        saved.push(head.to_owned());
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let config = json!({
        "peft_type": "BEFT",
        // None: `SEQ_CLS` would save a whole classifier, of which RoBERTa's and ELECTRA's pooler is a part.
        "task_type": null,
        "base_model_name_or_path": m.base.name(),
        "inference_mode": true,
        "init_weights": true,
        "target_modules": targets,
        "modules_to_save": saved,
    });
    dir.small(CONFIG, &json(&config)?)?;
    dir.reserve(WEIGHTS, weights::bytes(&tensors)?)?;
    dir.file(WEIGHTS, |file| weights::write(&tensors, file))?;
    Ok(Report { what: "BEFT adapter".into(), bytes: dir.finish()?, beside: Vec::new() })
}

fn tensor(name: String, shape: &[usize], values: Vec<f32>) -> Tensor {
    Tensor { name: format!("{PREFIX}{name}"), shape: shape.to_vec(), values: Values::Floats(values) }
}
