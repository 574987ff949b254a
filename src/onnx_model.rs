//! An ONNX classifier that is not trained here, and answers as it is: any graph of token ids to `[batch, labels]`, or to
//! `logits` of `[batch, sequence, labels]`, which tag the tokens.
//!
//! Where a file says what its outputs are called, it does so beside itself, in transformers' `config.json` (`id2label`,
//! `problem_type`), or, if `trimtab export` wrote it, in its own metadata. One output is a number, more are labels.
//!
//! It runs in f32 (or in the int8 of the file) through tract, text by text: slower than a base of the same encoder, which
//! `quantize` makes of the same file.

use crate::config::EXPORT_LENGTHS;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::export;
use crate::import::onnx::Runnable;
use crate::import::{MAX_CONFIG, read_small, read_tokenizer};
use crate::model::Prediction;
use crate::task::Task;
use crate::tokenize::TextEncoder;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where to find what belongs to an ONNX file. What is not given is looked for beside it, first under the file's own name
/// (`me.tokenizer.json` of `me.onnx`), and one folder up.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// `tokenizer.json`.
    pub tokenizer: Option<PathBuf>,
    /// `config.json`, which may be missing.
    pub config: Option<PathBuf>,
    /// Names of the outputs, in their order; before those of `config`.
    pub labels: Option<Vec<String>>,
    /// Longest text in tokens; longer ones are cut. `None` takes what the file says, if `trimtab export` wrote it, else 128.
    pub max_len: Option<usize>,
    /// Threads; `None` takes one for each performance core.
    pub threads: Option<usize>,
}

/// An ONNX file ready to answer.
pub struct OnnxModel {
    model: Runnable,
    encoder: TextEncoder,
    task: Task,
    /// The id of what stands behind a text where the file fixes a length.
    pad: i32,
    pool: rayon::ThreadPool,
}

impl OnnxModel {
    /// Opens a file. It is taken for hostile, as everything that is imported is.
    ///
    /// Errors: [`Error::Format`] for a file that is broken, labels that are not as many as the outputs, or a tokenizer that is
    /// none; [`Error::Unsupported`] for operators, inputs or outputs that are not read, or weights that do not fit in memory.
    pub fn open(path: &Path, options: &OnnxOptions) -> Result<OnnxModel> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let beside = |name: &str| {
            let places = [export::own_name(path, name), dir.join(name), dir.join("..").join(name)];
            places.into_iter().find(|p| p.exists())
        };
        let tokenizer = options.tokenizer.clone().or_else(|| beside("tokenizer.json"));
        let tokenizer = tokenizer.unwrap_or_else(|| dir.join("tokenizer.json"));
        let json = read_tokenizer(&tokenizer)?;
        let config = match options.config.clone().or_else(|| beside("config.json")) {
            Some(path) => {
                let text = read_small(&path, MAX_CONFIG)?;
                serde_json::from_slice(&text).map_err(|e| Error::format(&path, format!("not JSON: {e}")))?
            }
            None => Value::Null,
        };
        if let Some(max_len) = options.max_len.filter(|n| !EXPORT_LENGTHS.contains(n)) {
            return Err(Error::Config(format!("max-len {max_len}; use 4 to 8192")));
        }
        let too_long = |asked: usize, most: usize, of: &Path| {
            let what = format!("max-len {asked} is more than the {most} positions of {}", of.display());
            Error::Config(format!("{what}; use {most} or less"))
        };
        let positions = positions(&config).unwrap_or(usize::MAX);
        if let Some(asked) = options.max_len.filter(|asked| *asked > positions) {
            return Err(too_long(asked, positions, path));
        }
        let model = Runnable::open(path, options.max_len, positions)?;
        if let Some(asked) = options.max_len.filter(|asked| *asked > model.seq_max) {
            return Err(too_long(asked, model.seq_max, path));
        }
        let task = task(path, &model, options.labels.as_deref(), &config)?;
        let types = if model.has_types() { 2 } else { 0 };
        // What ids the model has is for it to say.
        let encoder = TextEncoder::from_bytes(&json, &tokenizer, model.seq_max, i32::MAX as usize, types)?;
        let threads = options.threads.unwrap_or_else(crate::sys::cores::performance);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::Config(format!("cannot start {threads} threads: {e}")))?;
        let pad = if model.pads() { pad(&json, &config) } else { 0 };
        Ok(OnnxModel { model, encoder, task, pad, pool })
    }

    /// What it answers, with its labels.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// An example of a text as people write it, to be answered. A tagger splits it into words.
    pub fn raw(&self, text: &str) -> Example {
        self.task.raw(text)
    }

    /// The answers to the texts, in their order. A tagger tags the words of [`Example::word_list`].
    ///
    /// Errors: [`Error::Unsupported`] where running the graph fails; what the tokenizer says.
    pub fn predict_all(&self, examples: &[Example]) -> Result<Vec<Prediction>> {
        let one = |example: &Example| {
            if let Task::Tag(labels) = &self.task {
                let (text, starts) = self.encoder.encode_words(&example.word_list())?;
                let logits = self.model.run(&text.ids, &text.types, self.pad)?;
                return Ok(Prediction::of_words(labels, &logits, example, &starts));
            }
            let text = self.encoder.encode(&example.text_a, example.text_b.as_deref())?;
            let logits = self.model.run(&text.ids, &text.types, self.pad)?;
            Prediction::of_text(&self.task, &logits)
                .ok_or_else(|| Error::Internal("not a classifier's task".into()))
        };
        self.pool.install(|| examples.par_iter().map(one).collect())
    }
}

/// Longest text by the config, if it says: RoBERTa and its kin leave rows of the position table to the padding.
fn positions(config: &Value) -> Option<usize> {
    let rows = usize::try_from(config["max_position_embeddings"].as_u64()?).ok()?;
    let first = match config["model_type"].as_str() {
        Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => {
            config["pad_token_id"].as_u64().unwrap_or(1) + 1
        }
        _ => 0,
    };
    rows.checked_sub(usize::try_from(first).ok()?).filter(|n| *n >= 4)
}

/// What the outputs mean.
fn task(path: &Path, model: &Runnable, labels: Option<&[String]>, config: &Value) -> Result<Task> {
    let metadata = |key: &str| model.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let output = model.output();
    let outputs = output.labels;
    let named = match labels {
        Some(labels) => Some(labels.to_vec()),
        None => match metadata("labels").and_then(|json| serde_json::from_str::<Vec<String>>(json).ok()) {
            Some(labels) if !labels.is_empty() => Some(labels),
            _ => id2label(config, outputs),
        },
    };
    let problem = config["problem_type"].as_str();
    if outputs == 1 && !output.of_tokens && labels.is_none() && problem != Some("multi_label_classification")
    {
        return Ok(Task::Regress);
    }
    // The words of a masked LM are of the shape of tags.
    if named.is_none() && (output.of_tokens || !output.is_logits) {
        let what = match output.of_tokens {
            true => "no config.json names the tags of its tokens; name them (--labels), if it is a tagger",
            false => {
                "no config.json tells what its outputs mean, and none is called `logits`; name the labels (--labels), if \
                      it is a classifier"
            }
        };
        return Err(Error::format(path, what));
    }
    // As transformers calls them.
    let names = named.unwrap_or_else(|| (0..outputs).map(|i| format!("LABEL_{i}")).collect());
    if names.len() != outputs {
        let what = format!("{} labels are given, but the model has {outputs} outputs", names.len());
        return Err(Error::format(path, what));
    }
    if output.of_tokens {
        return Ok(Task::Tag(names));
    }
    let several = metadata("task") == Some("multilabel") || problem == Some("multi_label_classification");
    Ok(if several { Task::Multilabel(names) } else { Task::Classify(names) })
}

/// Labels of a `config.json`, if it has one for each output.
fn id2label(config: &Value, outputs: usize) -> Option<Vec<String>> {
    let map = config["id2label"].as_object()?;
    (0..outputs).map(|i| Some(map.get(&i.to_string())?.as_str()?.to_owned())).collect()
}

/// The id of padding: the config's, else that of the tokenizer's token of that name.
fn pad(tokenizer: &[u8], config: &Value) -> i32 {
    let tokenizer: Value = serde_json::from_slice(tokenizer).unwrap_or_default();
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let mut named = added.filter(|t| matches!(t["content"].as_str(), Some("[PAD]" | "<pad>")));
    let id = config["pad_token_id"].as_i64().or_else(|| named.next()?["id"].as_i64());
    id.and_then(|id| i32::try_from(id).ok()).unwrap_or(0)
}
