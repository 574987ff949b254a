//! A random BERT directory, for tests and benches that need a checkpoint but not a real one.
#![allow(dead_code)] // each test file uses its part

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use trimtab::import::Checkpoint;
use trimtab::quant::{Base, quantize};

pub const HIDDEN: usize = 32;
pub const HEADS: usize = 2;
pub const LAYERS: usize = 2;
pub const INTERMEDIATE: usize = 64;
pub const POSITIONS: usize = 64;

/// Sizes of a random encoder. Its vocabulary is always [`vocabulary`].
#[derive(Clone, Copy)]
pub struct Sizes {
    pub hidden: usize,
    pub heads: usize,
    pub layers: usize,
    pub intermediate: usize,
    pub positions: usize,
}

impl Sizes {
    /// Those of [`Tiny::new`].
    pub const TINY: Sizes = Sizes {
        hidden: HIDDEN,
        heads: HEADS,
        layers: LAYERS,
        intermediate: INTERMEDIATE,
        positions: POSITIONS,
    };
}

/// A checkpoint in memory, to be changed and written in any dialect.
#[derive(Clone)]
pub struct Tiny {
    /// `config.json`.
    pub config: Value,
    /// `1_Pooling/config.json`, if any.
    pub pooling: Option<Value>,
    /// Shape and values by canonical name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tiny {
    /// A random checkpoint of [`Sizes::TINY`].
    pub fn new(seed: u64) -> Tiny {
        Tiny::of_sizes(seed, Sizes::TINY)
    }

    /// Random weights: uniform, matrices about 1/√hidden, biases about 0.05, gains about 1.
    pub fn of_sizes(seed: u64, sizes: Sizes) -> Tiny {
        let Sizes { hidden, heads, layers, intermediate, positions } = sizes;
        let matrix = 0.3 * (HIDDEN as f32 / hidden as f32).sqrt();
        let vocab = vocabulary().len();
        let mut tiny = Tiny {
            config: json!({
                "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
                "hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers,
                "intermediate_size": intermediate, "vocab_size": vocab,
                "max_position_embeddings": positions, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
                "position_embedding_type": "absolute", "hidden_dropout_prob": 0.1
            }),
            pooling: None,
            tensors: BTreeMap::new(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
            let n = shape.iter().product();
            let values = (0..n).map(|_| middle + rng.random_range(-spread..spread)).collect();
            tiny.tensors.insert(name, (shape.to_vec(), values));
        };
        let norm =
            |module: &str| [(format!("{module}.weight"), 1.0, 0.2), (format!("{module}.bias"), 0.0, 0.1)];
        let embeddings = "bert.embeddings";
        for (table, rows) in [("word", vocab), ("position", positions), ("token_type", 2)] {
            add(format!("{embeddings}.{table}_embeddings.weight"), &[rows, hidden], 0.0, 0.3);
        }
        for (name, middle, spread) in norm(&format!("{embeddings}.LayerNorm")) {
            add(name, &[hidden], middle, spread);
        }
        let mut linears = vec![("bert.pooler.dense".to_owned(), hidden, hidden)];
        for layer in 0..layers {
            let layer = format!("bert.encoder.layer.{layer}");
            for module in ["self.query", "self.key", "self.value", "output.dense"] {
                linears.push((format!("{layer}.attention.{module}"), hidden, hidden));
            }
            linears.push((format!("{layer}.intermediate.dense"), intermediate, hidden));
            linears.push((format!("{layer}.output.dense"), hidden, intermediate));
            for module in ["attention.output", "output"] {
                for (name, middle, spread) in norm(&format!("{layer}.{module}.LayerNorm")) {
                    add(name, &[hidden], middle, spread);
                }
            }
        }
        for (module, out, inner) in linears {
            add(format!("{module}.weight"), &[out, inner], 0.0, matrix);
            add(format!("{module}.bias"), &[out], 0.0, 0.1);
        }
        tiny
    }

    /// Drops the pooler.
    pub fn without_pooler(mut self) -> Tiny {
        self.tensors.retain(|name, _| !name.contains("pooler"));
        self
    }

    /// Writes config, tokenizer and pooling; no weights.
    pub fn write_texts(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        std::fs::write(dir.join("tokenizer.json"), tokenizer_json()).unwrap();
        if let Some(pooling) = &self.pooling {
            std::fs::create_dir_all(dir.join("1_Pooling")).unwrap();
            std::fs::write(dir.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
        }
    }

    /// Writes all of it as one f32 file under canonical names.
    pub fn write(&self, dir: &Path) {
        self.write_as(dir, Dtype::F32, |name| (name.to_owned(), "model.safetensors"));
    }

    /// Writes all of it in a dtype, each tensor under a name and in a file of one's choice.
    pub fn write_as(&self, dir: &Path, dtype: Dtype, place: impl Fn(&str) -> (String, &'static str)) {
        self.write_texts(dir);
        type Stored = (String, Vec<usize>, Vec<u8>);
        let mut files: BTreeMap<&str, Vec<Stored>> = BTreeMap::new();
        let mut map = serde_json::Map::new();
        for (name, (shape, values)) in &self.tensors {
            let (name, file) = place(name);
            map.insert(name.clone(), file.into());
            files.entry(file).or_default().push((name, shape.clone(), bytes_of(values, dtype)));
        }
        for (file, tensors) in &files {
            let views: Vec<_> = tensors
                .iter()
                .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()))
                .collect();
            serialize_to_file(views, None, &dir.join(file)).unwrap();
        }
        if files.len() > 1 {
            let index = json!({"metadata": {}, "weight_map": map});
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
    }

    /// Writes the checkpoint and its base below `dir`; returns the base's path.
    pub fn write_base(&self, dir: &Path) -> PathBuf {
        let (model, out) = (dir.join("tiny"), dir.join("tiny.q8.safetensors"));
        self.write(&model);
        quantize(&Checkpoint::open(&model).unwrap(), &out, &mut |_, _| std::ops::ControlFlow::Continue(()))
            .unwrap();
        out
    }

    /// The base of this checkpoint, written below `dir` and opened.
    pub fn base(&self, dir: &Path) -> Base {
        Base::open(self.write_base(dir)).unwrap()
    }
}

/// Values in a dtype, as a file holds them.
pub fn bytes_of(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        other => panic!("no values of {other} here"),
    }
}

/// Special tokens, then letters and digits as starts and continuations of words, some words, punctuation.
pub fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
    let signs = ('a'..='z').chain('0'..='9');
    tokens.extend(signs.clone().map(String::from));
    tokens.extend(signs.map(|c| format!("##{c}")));
    let words = "the a is it this was not good bad movie food very we i you and or to of in un ##able ##ing ##ed . , ! ? ' -";
    tokens.extend(words.split(' ').map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    tokens.retain(|t| seen.insert(t.clone()));
    tokens
}

/// A WordPiece `tokenizer.json` over [`vocabulary`], laid out as Hugging Face writes BERT's.
pub fn tokenizer_json() -> String {
    let tokens = vocabulary();
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(i, t)| (t.clone(), json!(i))).collect();
    let special = |t: &str| tokens.iter().position(|x| x == t).unwrap();
    let added: Vec<_> = tokens[..5]
        .iter()
        .enumerate()
        .map(|(i, t)| {
            json!({"id": i, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let token = |t: &str, ty: u8| json!({"SpecialToken": {"id": t, "type_id": ty}});
    let sequence = |s: &str, ty: u8| json!({"Sequence": {"id": s, "type_id": ty}});
    let entry = |t: &str| json!({"id": t, "ids": [special(t)], "tokens": [t]});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0)],
            "pair": [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0), sequence("B", 1), token("[SEP]", 1)],
            "special_tokens": {"[CLS]": entry("[CLS]"), "[SEP]": entry("[SEP]")}
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab}
    })
    .to_string()
}

/// Splits a safetensors file into its header and its data.
pub fn split(bytes: &[u8]) -> (Value, Vec<u8>) {
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), bytes[8 + n..].to_vec())
}

/// A safetensors file of any header, padded to a multiple of 64 so that the data is as aligned as its offsets.
pub fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let mut text = header.to_string().into_bytes();
    while !(text.len() + 8).is_multiple_of(64) {
        text.push(b' ');
    }
    join_raw(&text, data)
}

/// A safetensors file of any bytes in place of a header.
pub fn join_raw(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}
