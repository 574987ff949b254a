//! A directory of sentence-transformers: `modules.json`, and what the modules that it names say.
//!
//! The first module is the Transformer, the second its Pooling; Dense and Normalize may follow. Anything else would change
//! the vectors, so it is refused by name. A directory without `modules.json` is a Transformer alone, pooled as
//! `1_Pooling/config.json` says where there is one.

use super::hf_config::{Object, object, read_pooling, size, string, unsupported};
use super::{MAX_CONFIG, canonical, read_small, safetensors};
use crate::config::{DenseActivation, Module, Pooling};
use crate::container::refuse_impostor;
use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

const MODULES: &str = "modules.json";
/// Where sentence-transformers says how to pool, from a model's directory.
const POOLING: &str = "1_Pooling/config.json";
/// Files by which a directory is known as one of sentence-transformers, in the order in which they are looked for.
#[cfg(feature = "onnx")]
pub(super) const IN_ROOT: [&str; 3] = [MODULES, POOLING, "sentence_bert_config.json"];
/// What a Transformer module's settings may be called: the first names of families went into it once.
const TRANSFORMER: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// What a directory says of everything but the encoder itself.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where config, tokenizer and weights are.
    pub transformer: PathBuf,
    /// [`Pooling::Mean`] or [`Pooling::First`], and the file that says so.
    pub pooling: Option<(Pooling, PathBuf)>,
    /// What follows the pooling, and the file that says so.
    pub modules: Vec<Module>,
    /// Their tensors, by the names of [`canonical::modules`].
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// Longest text in tokens.
    pub max_seq_length: Option<usize>,
    /// Whether texts are lower-cased before the tokenizer gets them.
    pub lower_case: bool,
    /// What it asks for that is not done.
    pub warnings: Vec<String>,
}

impl Directory {
    /// Reads what stands in `root`, without the encoder.
    ///
    /// Fails with [`Error::Unsupported`] on another module, pooling or activation, with [`Error::Format`] on a broken file or
    /// a path out of the directory, and with [`Error::Tensor`] on a Dense whose weights do not fit its config.
    pub fn read(root: &Path) -> Result<Directory> {
        let mut found = Directory {
            transformer: root.to_owned(),
            pooling: None,
            modules: Vec::new(),
            tensors: BTreeMap::new(),
            max_seq_length: None,
            lower_case: false,
            warnings: Vec::new(),
        };
        let list = root.join(MODULES);
        if list.exists() {
            found.read_modules(root, &list)?;
        } else if root.join(POOLING).exists() {
            found.read_pooling(root.join(POOLING))?;
        }
        found.read_settings()?;
        found.read_prompts(&root.join("config_sentence_transformers.json"))?;
        Ok(found)
    }

    fn read_modules(&mut self, root: &Path, list: &Path) -> Result<()> {
        let text = read_small(list, MAX_CONFIG)?;
        let all: Vec<Object> = serde_json::from_slice(&text)
            .map_err(|e| Error::format(list, format!("not a JSON array of modules: {e}")))?;
        for (place, module) in all.iter().enumerate() {
            let class = string(list, module, "type")?;
            // Elsewhere the last part may be the name of something else.
            let kind = class.strip_prefix("sentence_transformers.").and_then(|c| c.rsplit('.').next());
            match (place, kind) {
                (0, Some("Transformer")) => self.transformer = below(root, list, module)?,
                (1, Some("Pooling")) => self.read_pooling(below(root, list, module)?.join("config.json"))?,
                (2.., Some("Normalize")) => self.read_normalize(&below(root, list, module)?)?,
                (2.., Some("Dense")) => self.read_dense(&below(root, list, module)?)?,
                (_, Some("Transformer" | "Pooling" | "Normalize" | "Dense")) => {
                    let what = format!(
                        "module {place} is {class}; supported: a Transformer, a Pooling, then Dense and Normalize"
                    );
                    return unsupported(list, what);
                }
                _ => {
                    let what = format!(
                        "module {place}, {class}, is not supported; supported of sentence_transformers: \
                         Transformer, Pooling, Dense, Normalize"
                    );
                    return unsupported(list, what);
                }
            }
        }
        match all.len() {
            0 | 1 => {
                unsupported(list, "names no Pooling module behind a Transformer; both are needed".into())
            }
            _ => Ok(()),
        }
    }

    fn read_pooling(&mut self, path: PathBuf) -> Result<()> {
        self.pooling = Some((read_pooling(&path, &read_small(&path, MAX_CONFIG)?)?, path));
        Ok(())
    }

    fn read_normalize(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("config.json");
        if path.exists() {
            check_features(&path, &object(&path, &read_small(&path, MAX_CONFIG)?)?)?;
        }
        self.modules.push(Module::Normalize);
        Ok(())
    }

    fn read_dense(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("config.json");
        let json = object(&path, &read_small(&path, MAX_CONFIG)?)?;
        check_features(&path, &json)?;
        let flag = |key: &str, default: bool| match json.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Error::format(&path, format!("`{key}` is {other}; must be true or false"))),
        };
        if flag("use_residual", false)? {
            return unsupported(&path, "a Dense module with use_residual is not supported".into());
        }
        let name = match json.contains_key("activation_function") {
            true => string(&path, &json, "activation_function")?,
            false => "torch.nn.modules.activation.Tanh",
        };
        let class = name.strip_prefix("torch.nn.").and_then(|name| name.rsplit('.').next());
        let activation = DenseActivation::ALL.into_iter().find(|(known, _)| Some(*known) == class);
        let Some((_, activation)) = activation else {
            let known = DenseActivation::ALL.map(|(name, _)| name).join(", ");
            let what =
                format!("activation_function `{name}` is not supported; supported of torch.nn: {known}");
            return unsupported(&path, what);
        };
        let module = Module::Dense {
            inputs: size(&path, &json, "in_features")?,
            outputs: size(&path, &json, "out_features")?,
            bias: flag("bias", true)?,
            activation,
        };
        // Bounds the sizes before anything is read.
        if let Module::Dense { inputs, .. } = module {
            Module::check(std::slice::from_ref(&module), inputs)
                .map_err(|what| Error::format(&path, what))?;
        }
        let weights = dir.join("model.safetensors");
        let torch = dir.join("pytorch_model.bin");
        if !weights.exists() && torch.exists() {
            refuse_impostor(&torch)?;
            let what = "pickled weights are not read, they can run code; convert them to safetensors: in Python, \
                        `SentenceTransformer(DIR).save(DIR)`";
            return unsupported(&torch, what.into());
        }
        if !weights.exists() {
            return Err(Error::format(&weights, "missing: the weights of a Dense module; download it too"));
        }
        // In the file they have the names of a lone Dense.
        let place = self.modules.len();
        let ours = |name: &str| name.replacen("modules.0.", &format!("modules.{place}."), 1);
        let mut specs = canonical::modules(std::slice::from_ref(&module));
        specs.iter_mut().for_each(|spec| spec.name = spec.name.replacen("modules.0.", "", 1));
        for (name, values) in safetensors::read_all(&weights, &specs)? {
            self.tensors.insert(ours(&format!("modules.0.{name}")), values);
        }
        self.modules.push(module);
        Ok(())
    }

    /// The Transformer module's own settings.
    fn read_settings(&mut self) -> Result<()> {
        let Some(path) = TRANSFORMER.map(|name| self.transformer.join(name)).into_iter().find(|p| p.exists())
        else {
            return Ok(());
        };
        let json = object(&path, &read_small(&path, MAX_CONFIG)?)?;
        if !matches!(json.get("max_seq_length"), None | Some(Value::Null)) {
            let length = size(&path, &json, "max_seq_length")?;
            if length == 0 {
                return Err(Error::format(&path, "`max_seq_length` is 0"));
            }
            self.max_seq_length = Some(length);
        }
        self.lower_case = match json.get("do_lower_case") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(lower)) => *lower,
            Some(other) => {
                let what = format!("`do_lower_case` is {other}; must be true or false");
                return Err(Error::format(&path, what));
            }
        };
        Ok(())
    }

    fn read_prompts(&mut self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let json = object(path, &read_small(path, MAX_CONFIG)?)?;
        let Some(name) = json.get("default_prompt_name").and_then(Value::as_str) else { return Ok(()) };
        let prompt = json.get("prompts").and_then(|all| all.get(name)).and_then(Value::as_str).unwrap_or("");
        if !prompt.is_empty() {
            self.warnings.push(format!(
                "{}: sentence-transformers puts the prompt {prompt:?} (`{name}`) before each text; trimtab does not: \
                 write it before the texts yourself",
                path.display()
            ));
        }
        Ok(())
    }
}

/// Fails on a module that does not read and write the text's vector.
fn check_features(path: &Path, json: &Object) -> Result<()> {
    for key in ["module_input_name", "module_output_name"] {
        match json.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if name == "sentence_embedding" => {}
            Some(other) => {
                let what = format!("{key} {other} is not supported; supported: \"sentence_embedding\"");
                return unsupported(path, what);
            }
        }
    }
    Ok(())
}

/// The directory of a module, which must stay below `root`.
fn below(root: &Path, list: &Path, module: &Object) -> Result<PathBuf> {
    let path = string(list, module, "path")?;
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.contains(['\\', ':', '\0']) {
        let what = format!("module path {path:?} does not stay in the directory");
        return Err(Error::format(list, what));
    }
    Ok(if path.is_empty() { root.to_owned() } else { root.join(path) })
}
