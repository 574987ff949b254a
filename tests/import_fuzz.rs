//! Random damage to checkpoints and bases: an error or a value, never a panic.

mod common;

use common::{HIDDEN, Tiny, bytes_of};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::json;
use std::fs;
use std::path::Path;
use trimtab::import::Checkpoint;
use trimtab::quant::Base;

/// Writes a file anew: ext4 would sync one that is truncated and rewritten, at 5 ms each.
fn write_new(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// Whatever bytes there are: an error, or a base of which everything can be asked.
fn use_all(path: &Path) -> bool {
    let Ok(base) = Base::open(path) else { return false };
    for tensor in base.tensors() {
        if let Ok(matrix) = base.matrix(&tensor.name) {
            assert_eq!(matrix.scale().len(), matrix.rows());
            assert!(matrix.data().len() >= matrix.rows() * matrix.cols());
            assert_eq!(matrix.dequantize().len(), matrix.rows() * matrix.cols());
            assert!(matrix.scale().iter().all(|s| *s > 0.0 && s.is_finite()));
        }
        if let Ok(vector) = base.vector(&tensor.name) {
            assert!(vector.iter().all(|v| v.is_finite()));
        }
    }
    base.config().head_dim();
    base.tokenizer_bytes();
    let _ = base.verify();
    true
}

#[test]
fn random_damage_never_panics() {
    let temp = tempfile::tempdir().unwrap();
    let path = Tiny::new(12).write_base(temp.path());
    let good = fs::read(&path).unwrap();
    let header_bytes = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    let (mut opened, mut failed) = (0, 0);
    for round in 0..4000 {
        let mut bytes = good.clone();
        match round % 8 {
            0 => bytes.truncate(rng.random_range(0..good.len())),
            1 => bytes[rng.random_range(0..8)] ^= 1 << rng.random_range(0..8),
            2 => {
                // Cut a piece out.
                let a = rng.random_range(0..good.len());
                bytes.drain(a..(a + rng.random_range(1..200)).min(good.len()));
            }
            kind => {
                let end = if kind < 7 { header_bytes } else { good.len() };
                for _ in 0..rng.random_range(1..4) {
                    let at = rng.random_range(0..end);
                    // Mostly digits: those still parse.
                    bytes[at] =
                        if rng.random_bool(0.7) { rng.random_range(b'0'..=b'9') } else { rng.random() };
                }
            }
        }
        let damaged = temp.path().join("damaged");
        write_new(&damaged, &bytes);
        if use_all(&damaged) { opened += 1 } else { failed += 1 }
    }
    assert!(
        opened > 50 && failed > 2000,
        "{opened} opened, {failed} failed: the damage is not what it should be"
    );
}

/// The files by which a directory is one of sentence-transformers, with a Dense.
fn sentence_transformers(dir: &Path) {
    let put = |name: &str, value: serde_json::Value| {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), value.to_string()).unwrap();
    };
    let module = |path: &str, class: &str| json!({ "path": path, "type": format!("sentence_transformers.models.{class}") });
    put(
        "modules.json",
        json!([
            module("", "Transformer"),
            module("1_Pooling", "Pooling"),
            module("2_Dense", "Dense"),
            module("3_Normalize", "Normalize")
        ]),
    );
    put(
        "1_Pooling/config.json",
        json!({ "word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": true }),
    );
    put(
        "2_Dense/config.json",
        json!({ "in_features": HIDDEN, "out_features": 8, "bias": true, "activation_function": "torch.nn.Tanh" }),
    );
    let (weight, bias) = (bytes_of(&[0.5; 8 * HIDDEN], Dtype::F32), bytes_of(&[0.5; 8], Dtype::F32));
    let tensors = [("linear.weight", vec![8, HIDDEN], &weight), ("linear.bias", vec![8], &bias)];
    let views =
        tensors.map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap()));
    serialize_to_file(views, None, &dir.join("2_Dense/model.safetensors")).unwrap();
    put("sentence_bert_config.json", json!({ "max_seq_length": 32, "do_lower_case": true }));
    put(
        "tokenizer_config.json",
        json!({ "do_lower_case": false, "model_max_length": 512, "cls_token": "[CLS]" }),
    );
    put(
        "config_sentence_transformers.json",
        json!({ "prompts": { "query": "query: " }, "default_prompt_name": "query" }),
    );
}

#[test]
fn random_damage_to_a_checkpoint_never_panics() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("tiny");
    Tiny::new(14).write(&dir);
    sentence_transformers(&dir);
    let names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "config_sentence_transformers.json",
    ];
    Checkpoint::open(&dir).unwrap();
    let good: Vec<Vec<u8>> = names.iter().map(|n| fs::read(dir.join(n)).unwrap()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    let (mut read, mut failed) = (0, 0);
    for round in 0..4000 {
        let which = round % names.len();
        let mut bytes = good[which].clone();
        let end = if which == 1 { 12_000.min(bytes.len()) } else { bytes.len() };
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..end);
            bytes[at] = if rng.random_bool(0.7) { rng.random_range(b'0'..=b'9') } else { rng.random() };
        }
        write_new(&dir.join(names[which]), &bytes);
        let result = Checkpoint::open(&dir).and_then(|checkpoint| {
            checkpoint.tensors().iter().try_for_each(|spec| checkpoint.read(&spec.name, &mut |_, _| Ok(())))
        });
        if result.is_ok() {
            read += 1
        } else {
            failed += 1
        }
        write_new(&dir.join(names[which]), &good[which]);
    }
    assert!(read > 50 && failed > 1000, "{read} read, {failed} failed: the damage is not what it should be");
}
