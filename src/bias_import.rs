//! Biases trained elsewhere into a bias file: from a part of a `state_dict`, or from an adapter of `peft`.
//!
//! Names are those of `transformers`, with or without the encoder's prefix, as [`bias_file`](crate::bias_file) has them, also
//! behind the prefixes of wrappers (`module.`, `_orig_mod.`); in an adapter they stand behind `base_model.model.`, and `….beft_bias` is added to the base's own bias. Types: F32,
//! F16, BF16. A weight that is not the head's is refused, as it would not be that of the base, but for a LayerNorm's gain
//! that is the base's to the bit.

use crate::bias_file::BiasFile;
use crate::container::{Header, floats};
use crate::error::{Error, Result};
use crate::export::peft::{ADDED, PREFIX};
use crate::import::canonical::{self, Kind};
use crate::import::wrapped;
use crate::model::Model;
use crate::params::{Layout, Param, Role, Term, Terms};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest file read: that of a bias file.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What [`import`] read.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The bias file, to be saved.
    pub file: BiasFile,
    /// Names that were not known and left out.
    pub ignored: Vec<String>,
}

/// Reads `path` for `model`, a model of the task at its beginning ([`Model::new`]), whose base says which names and
/// shapes there are.
///
/// Errors: `Error::Format` if it is no safetensors file; `Error::Tensor` for a name that is not known (unless
/// `ignore_unknown`), a weight that cannot differ, another shape or type, a value that is not finite, a head that is
/// missing.
pub fn import(path: &Path, model: &Model, stride: Option<usize>, ignore_unknown: bool) -> Result<Imported> {
    let bytes = crate::import::read_small(path, FILE_BYTES_MAX)?;
    let header = Header::of_bytes(path, &bytes)?;
    let (base, layout) = (model.base(), model.graph().layout());
    let family = model.base().config().family;
    let specs = canonical::tensors(base.config(), base.has_pooler(), false);
    let (mut tensors, mut ignored) = (BTreeMap::new(), Vec::new());
    for (name, info) in &header.tensors {
        let start = header.data_start as usize;
        let mut values = floats(info.dtype, &bytes[start + info.data_offsets.0..start + info.data_offsets.1])
            .ok_or_else(|| {
                Error::tensor(path, name, format!("is {}; expected F32, F16 or BF16", info.dtype))
            })?;
        let plain = name.strip_prefix(PREFIX).unwrap_or(name).replace(".base_layer.", ".");
        let added = plain.strip_suffix(ADDED).map(|module| format!("{module}.bias"));
        let (is_added, plain) = (added.is_some(), added.unwrap_or(plain));
        let plain = wrapped::plain(&plain);
        let names = [plain.clone(), format!("{}.{plain}", family.name())];
        if let Some(param) = names.iter().find_map(|n| layout.iter().find(|p| p.name == *n)) {
            let shape = if is_added { [&[1], &param.shape[..]].concat() } else { param.shape.clone() };
            if info.shape != shape {
                let what = format!("expected shape {shape:?}, found {:?}", info.shape);
                return Err(Error::tensor(path, name, what));
            }
            if is_added {
                values.iter_mut().zip(base.vector(&param.name)?).for_each(|(v, b)| *v += b);
            }
            if tensors.insert(param.name.clone(), (param.shape.clone(), values)).is_some() {
                return Err(Error::tensor(path, name, format!("is `{}` a second time", param.name)));
            }
        } else if let Some(spec) =
            specs.iter().find(|s| s.name.ends_with(".weight") && names.contains(&s.name))
        {
            if spec.kind != Kind::Vector || base.vector(&spec.name)? != values {
                let what = "only biases can differ: this weight is frozen in the base; save the tensors that have \
                            `bias` in their name, and the head's";
                return Err(Error::tensor(path, name, what));
            }
        } else if ignore_unknown {
            ignored.push(name.clone());
        } else {
            let example: Vec<_> = layout.iter().take(2).map(|p| format!("`{}`", p.name)).collect();
            let what = format!(
                "this model has no such parameter ({}; its names are such as {}); --ignore-unknown leaves it out",
                match model.pooling().name() {
                    "mean" => "with the mean of the tokens there is no pooler",
                    _ => model.pooling().name(),
                },
                example.join(", ")
            );
            return Err(Error::tensor(path, name, what));
        }
    }
    let (terms, layers) = trained(layout, &tensors, base.config().layers);
    let file = BiasFile {
        task: model.task().clone(),
        pooling: model.pooling(),
        terms: terms.to_string(),
        layers,
        max_len: model.max_len(),
        stride,
        base_fingerprint: base.fingerprint().to_owned(),
        base_name: base.name().to_owned(),
        metrics: serde_json::Value::Null,
        settings: serde_json::json!({ "imported": true }),
        tensors,
    };
    Ok(Imported { file, ignored })
}

/// The layers from the first to the last that has a bias there, and the terms that all of these have.
fn trained(
    layout: &Layout,
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    depth: usize,
) -> (Terms, (usize, usize)) {
    let is_there = |p: &Param| tensors.contains_key(&p.name);
    let found = || {
        layout.iter().filter(|p| is_there(p)).filter_map(|p| match p.role {
            Role::Bias(_, layer) => layer,
            _ => None,
        })
    };
    let layers = (found().min().unwrap_or(0), found().max().map_or(depth, |l| l + 1));
    let inside = |layer: Option<usize>| layer.is_none_or(|l| (layers.0..layers.1).contains(&l));
    let complete = |term: &Term| {
        let mut of_term = layout
            .iter()
            .filter(|p| matches!(p.role, Role::Bias(t, layer) if t == *term && inside(layer)))
            .peekable();
        of_term.peek().is_some() && of_term.all(is_there)
    };
    (Term::ALL.into_iter().filter(complete).collect(), layers)
}
