//! Every dialect of a checkpoint quantizes to what a plain re-computation gives.

mod common;

use common::{HIDDEN, LAYERS, Tiny, vocabulary};
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde_json::json;
use std::path::Path;
use trimtab::config::{Gelu, Pooling};
use trimtab::import::Checkpoint;
use trimtab::kernels::tiles;
use trimtab::quant::{Base, quantize};

/// Quantizes the directory and compares every tensor with the definition applied to `tiny`'s values, narrowed
/// by `narrow` as the file's dtype does.
fn check(tiny: &Tiny, dir: &Path, narrow: impl Fn(f32) -> f32) -> Base {
    let out = dir.join("out.q8.safetensors");
    let report =
        quantize(&Checkpoint::open(dir).unwrap(), &out, &mut |_, _| std::ops::ControlFlow::Continue(()))
            .unwrap();
    let base = Base::open(&out).unwrap();
    base.verify().unwrap();
    assert_eq!(base.fingerprint(), report.fingerprint);
    let mut tensors = 1; // the tokenizer
    for (name, (shape, values)) in &tiny.tensors {
        let values: Vec<f32> = values.iter().map(|v| narrow(*v)).collect();
        if shape.len() == 1 {
            tensors += 1;
            assert_eq!(base.vector(name).unwrap(), values, "{name}");
            continue;
        }
        tensors += 2;
        let matrix = base.matrix(name).unwrap();
        assert_eq!((matrix.rows(), matrix.cols()), (shape[0], shape[1]), "{name}");
        let mut dequantized = vec![0.0; shape[1]];
        for (r, row) in values.chunks(shape[1]).enumerate() {
            let max = row.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = if max > 0.0 { max / 127.0 } else { 1.0 };
            assert_eq!(matrix.scale()[r], scale, "{name} row {r}");
            let q: Vec<i8> =
                row.iter().map(|v| (v / scale).round_ties_even().clamp(-127.0, 127.0) as i8).collect();
            assert_eq!(matrix.row(r).collect::<Vec<_>>(), q, "{name} row {r}");
            matrix.dequantize_row(r, &mut dequantized);
            assert!(dequantized.iter().zip(row).all(|(a, b)| (a - b).abs() <= scale * 0.5001));
        }
        assert_eq!(base.vector(&format!("{name}.scale")).unwrap(), matrix.scale());
    }
    assert_eq!(base.tensors().len(), tensors);
    assert_eq!(base.tokenizer_bytes(), common::tokenizer_json().as_bytes());
    base
}

#[test]
fn plain_f32() {
    let dir = tempfile::tempdir().unwrap();
    let mut tiny = Tiny::new(1);
    // A row of zeros, and one that holds every half.
    let (_, word) = tiny.tensors.get_mut("bert.embeddings.word_embeddings.weight").unwrap();
    word[..HIDDEN].fill(0.0);
    for (i, v) in word[HIDDEN..2 * HIDDEN].iter_mut().enumerate() {
        *v = if i == 0 { 127.0 } else { i as f32 - 16.5 };
    }
    tiny.write(dir.path());
    let base = check(&tiny, dir.path(), |v| v);
    let word = base.matrix("bert.embeddings.word_embeddings.weight").unwrap();
    assert_eq!(word.scale()[..2], [1.0, 1.0]);
    assert_eq!(word.data()[..HIDDEN], [0; HIDDEN]);
    assert_eq!(word.data()[HIDDEN..][..5], [127, -16, -14, -14, -12]); // -15.5, -14.5, -13.5, -12.5
    assert_eq!(word.data().as_ptr().align_offset(4), 0);
    assert_eq!((base.config().layers, base.config().vocab), (LAYERS, vocabulary().len()));
    assert_eq!(base.config().gelu, Gelu::Erf);
    assert_eq!((base.pooling(), base.has_pooler()), (Pooling::Cls, true));
}

#[test]
fn half_precision() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Tiny::new(2);
    let place = |name: &str| (name.to_owned(), "model.safetensors");
    tiny.write_as(dir.path(), Dtype::F16, place);
    check(&tiny, dir.path(), |v| f16::from_f32(v).to_f32());
    tiny.write_as(dir.path(), Dtype::BF16, place);
    check(&tiny, dir.path(), |v| bf16::from_f32(v).to_f32());
}

#[test]
fn without_prefix_and_with_the_old_names_of_layer_norm() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Tiny::new(3).without_pooler();
    tiny.write_as(dir.path(), Dtype::F32, |name| {
        let name = name.strip_prefix("bert.").unwrap();
        let old =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        (old, "model.safetensors")
    });
    let base = check(&tiny, dir.path(), |v| v);
    assert_eq!((base.pooling(), base.has_pooler()), (Pooling::Mean, false));
    assert!(
        base.matrix("bert.pooler.dense.weight").unwrap_err().to_string().contains("bert.pooler.dense.weight")
    );
}

#[test]
fn sharded_gives_the_same_base_as_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (whole, parts) = (temp.path().join("whole"), temp.path().join("parts"));
    let tiny = Tiny::new(4);
    tiny.write(&whole);
    tiny.write_as(&parts, Dtype::F32, |name| {
        let second = name.contains("layer.1");
        (name.to_owned(), ["model-1-of-2.safetensors", "model-2-of-2.safetensors"][usize::from(second)])
    });
    assert!(!parts.join("model.safetensors").exists());
    let (a, b) = (check(&tiny, &whole, |v| v), check(&tiny, &parts, |v| v));
    assert_eq!(a.fingerprint(), b.fingerprint());
}

#[test]
fn a_base_is_a_function_of_its_checkpoint_and_readable_by_the_safetensors_crate() {
    let temp = tempfile::tempdir().unwrap();
    let tiny = Tiny::new(5);
    let first = std::fs::read(tiny.write_base(temp.path())).unwrap();
    let second = std::fs::read(tiny.write_base(temp.path())).unwrap();
    assert!(first == second, "two runs gave different bytes");
    let file = safetensors::SafeTensors::deserialize(&first).unwrap();
    let name = "bert.encoder.layer.1.output.dense.weight";
    assert_eq!(file.tensor(name).unwrap().dtype(), Dtype::I8);
    assert_eq!(file.tensor(name).unwrap().shape(), tiles::shape(HIDDEN, common::INTERMEDIATE));
}

#[test]
fn pooling_and_activation_come_from_the_files() {
    let temp = tempfile::tempdir().unwrap();
    let flags = |mode: &str| {
        let mut all = json!({"word_embedding_dimension": 32, "pooling_mode_cls_token": false,
            "pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": false});
        all[mode] = true.into();
        Some(all)
    };
    let cases = [
        (None, "gelu", Pooling::Cls, Gelu::Erf),
        (flags("pooling_mode_mean_tokens"), "gelu_new", Pooling::Mean, Gelu::Tanh),
        (flags("pooling_mode_cls_token"), "gelu_pytorch_tanh", Pooling::Cls, Gelu::Tanh),
        (Some(json!({"pooling_mode": "mean"})), "gelu", Pooling::Mean, Gelu::Erf),
    ];
    for (i, (pooling, act, expected_pooling, expected_gelu)) in cases.into_iter().enumerate() {
        let dir = temp.path().join(i.to_string());
        std::fs::create_dir(&dir).unwrap();
        let mut tiny = Tiny::new(6);
        tiny.pooling = pooling;
        tiny.config["hidden_act"] = act.into();
        let base = tiny.base(&dir);
        assert_eq!((base.pooling(), base.config().gelu), (expected_pooling, expected_gelu), "case {i}");
        assert!(base.has_pooler());
    }
}

#[test]
fn the_name_is_the_directory_or_the_repository_in_a_cache() {
    let temp = tempfile::tempdir().unwrap();
    let tiny = Tiny::new(7);
    for (path, name) in
        [("my model", "my model"), ("models--owner--nice-bert/snapshots/0123abcd", "nice-bert")]
    {
        let dir = temp.path().join(path);
        tiny.write(&dir);
        assert_eq!(Checkpoint::open(&dir).unwrap().name(), name);
    }
}

#[test]
fn the_tiny_tokenizer_is_valid() {
    let tokenizer = tokenizers::Tokenizer::from_bytes(common::tokenizer_json()).unwrap();
    let encoding = tokenizer.encode("This movie was not watchable!", true).unwrap();
    assert_eq!(encoding.get_tokens()[..3], ["[CLS]", "this", "movie"]);
    assert!(encoding.get_ids().iter().all(|id| (*id as usize) < vocabulary().len()));
    assert!(!encoding.get_tokens().contains(&"[UNK]".to_string()), "{:?}", encoding.get_tokens());
}
