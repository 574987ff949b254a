//! The tiny checkpoint in a sandbox, to be changed as people have theirs.

use crate::sandbox::{Done, Sandbox, TINY, USAGE};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

pub const TEXTS: &str = "we love it\nnot a Good movie, é!\nthe station was far and the day was very long\n";
pub const CLASSES: &str = "sentence_transformers.models.";

/// A sandbox with the tiny checkpoint in `m`, to be changed, and some texts in `lines`.
pub struct Model(pub Sandbox);

impl Model {
    pub fn new() -> Model {
        let s = Sandbox::new();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            s.write_below(&format!("m/{name}"), std::fs::read(Path::new(TINY).join(name)).unwrap());
        }
        s.write("lines", TEXTS);
        Model(s)
    }

    pub fn put(&self, name: &str, value: Value) {
        self.0.write_below(&format!("m/{name}"), value.to_string());
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.0.read(&format!("m/{name}"))).unwrap()
    }

    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.json(name);
        change(&mut value);
        self.put(name, value);
    }

    /// `modules.json`: path and class of each module.
    pub fn modules(&self, all: &[(&str, &str)]) {
        let module = |(i, (path, class)): (usize, &(&str, &str))| {
            let class = if class.contains('.') { (*class).to_owned() } else { format!("{CLASSES}{class}") };
            json!({ "idx": i, "name": i.to_string(), "path": path, "type": class })
        };
        self.put("modules.json", all.iter().enumerate().map(module).collect());
    }

    /// Pooling of one mode, by the old keys.
    pub fn pool(&self, mode: &str) {
        self.put("1_Pooling/config.json", json!({ "word_embedding_dimension": 64, mode: true }));
    }

    /// A Dense module in `dir`: its weight `[out, in]` and bias.
    pub fn dense(&self, dir: &str, inputs: usize, outputs: usize, activation: &str) -> (Vec<f32>, Vec<f32>) {
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 101.0 - 0.5;
        let weight: Vec<f32> = (0..inputs * outputs).map(value).collect();
        let bias: Vec<f32> = (0..outputs).map(|i| value(i + 5)).collect();
        self.put(
            &format!("{dir}/config.json"),
            json!({ "in_features": inputs, "out_features": outputs, "bias": true, "activation_function": activation }),
        );
        let tensors =
            [("linear.weight", vec![outputs, inputs], &weight), ("linear.bias", vec![outputs], &bias)];
        let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| crate::common::bytes_of(t.2, Dtype::F32)).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
            (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, &self.0.path(&format!("m/{dir}/model.safetensors"))).unwrap();
        (weight, bias)
    }

    /// Writes the weights again, each under the name that `name` gives it, or left out.
    pub fn rename(&self, name: impl Fn(&str) -> Option<String>) {
        let bytes = self.0.read("m/model.safetensors");
        let all = SafeTensors::deserialize(&bytes).unwrap();
        let tensors: BTreeMap<String, TensorView> =
            all.tensors().into_iter().filter_map(|(n, view)| Some((name(&n)?, view))).collect();
        serialize_to_file(tensors, None, &self.0.path("m/model.safetensors")).unwrap();
    }

    /// Quantizes it to `b`.
    pub fn quantize(&self) -> Done {
        self.0.ok("quantize m --output b")
    }

    pub fn refuses(&self, words: &[&str]) {
        self.0.refuses("quantize m --output b", USAGE, words);
    }

    /// What `embed` gives for the lines.
    pub fn embed(&self, flags: &str) -> Vec<Vec<f64>> {
        let done = self.0.ok(&format!("embed --base b --exact {flags} lines"));
        let one = |line: &str| {
            let object: Value = serde_json::from_str(line).unwrap();
            object["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
        };
        done.stdout.lines().map(one).collect()
    }

    /// Token ids do not show, but vectors do: whether two tokenizers read the lines alike.
    pub fn embeds(&self) -> Vec<Vec<f64>> {
        self.quantize();
        self.embed("")
    }
}

/// Asserts that two sets of vectors agree.
pub fn near(a: &[Vec<f64>], b: &[Vec<f64>]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.len(), b.len());
        let far = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(far <= 1e-5, "{far}");
    }
}
