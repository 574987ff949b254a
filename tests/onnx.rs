//! ONNX files: those of `tests/onnx`, which gen.py there made with several exporters, damaged ones, and the real
//! MiniLM where `TRIMTAB_ONNX` (a folder with `minilm/encoder.onnx`) and `TRIMTAB_MINILM` say where it is.

mod common;

use common::{join, split, tokenizer_json};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trimtab::config::{Family, Gelu, Pooling};
use trimtab::data::Example;
use trimtab::import::Checkpoint;
use trimtab::quant::{Base, QuantizeReport, quantize};
use trimtab::{Error, Model, Options, Task, TrainConfig};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/onnx/{name}.onnx"))
}

fn write_base(checkpoint: &Checkpoint, out: &Path) -> (Base, QuantizeReport) {
    let report = quantize(checkpoint, out, &mut |_, _| ControlFlow::Continue(())).unwrap();
    (Base::open(out).unwrap(), report)
}

/// A fixture with the tests' tokenizer, as a base in `dir`.
fn base_of(name: &str, dir: &Path) -> (Base, QuantizeReport) {
    let tokenizer = dir.join("tokenizer.json");
    fs::write(&tokenizer, tokenizer_json()).unwrap();
    let checkpoint = Checkpoint::open_onnx(&fixture(name), Some(&tokenizer), None).unwrap();
    write_base(&checkpoint, &dir.join(name))
}

fn error_of(file: &Path, dir: &Path) -> Error {
    let tokenizer = dir.join("tokenizer.json");
    fs::write(&tokenizer, tokenizer_json()).unwrap();
    Checkpoint::open_onnx(file, Some(&tokenizer), None).expect_err("it is refused")
}

fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

#[test]
fn every_exporter_gives_the_same_base() {
    let temp = tempfile::tempdir().unwrap();
    let (_, first) = base_of("ts-eager-13", temp.path());
    for name in
        ["ts-eager-17", "ts-sdpa-14", "ts-fixed", "ts-ids-and-mask", "dynamo-eager-18", "dynamo-sdpa-20"]
    {
        let (base, report) = base_of(name, temp.path());
        assert_eq!(report.weights_sha256, first.weights_sha256, "{name}");
        assert_eq!(report.fingerprint, first.fingerprint, "{name}");
        base.verify().unwrap();
    }
}

#[test]
fn computes_what_onnx_runtime_computes() {
    let temp = tempfile::tempdir().unwrap();
    let expected: Map<String, Value> =
        serde_json::from_slice(&fs::read(fixture("x").with_file_name("expected.json")).unwrap()).unwrap();
    assert!(expected.len() >= 15, "{} expected", expected.len());
    for (name, mean) in expected.iter().filter(|(name, _)| *name != "ts-relu") {
        let (base, report) = base_of(name, temp.path());
        let options = Options { pooling: Some(Pooling::Mean), exact: true, ..Options::default() };
        let model = Model::new(&base, Task::Contrastive, &options).unwrap();
        let text = Example { text_a: "a e j p w".into(), ..Example::default() };
        let ours = &model.embed_all(&[text]).unwrap()[0];
        let theirs: Vec<f32> = mean.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let cosine = cosine(ours, &theirs);
        // The runtime rounds activations to int8 too, and these random ones take it worse than real ones.
        let least = if name.starts_with("int8") { 0.995 } else { 0.999 };
        assert!(cosine >= least, "{name}: cosine {cosine}");
        // Signed weights are not rounded again, but for the tables; unsigned ones have zero points of their own.
        let most = if name.starts_with("int8-s") { 4e-3 } else { 8e-3 };
        if name.starts_with("int8") {
            assert!(report.relative_error < most, "{name}: relative error {}", report.relative_error);
        }
    }
}

#[test]
fn graphs_tell_families_and_choices() {
    let temp = tempfile::tempdir().unwrap();
    for (name, family, gelu, pooler, types, first_position, embedding) in [
        ("ts-eager-13", Family::Bert, Gelu::Erf, true, 2, 0, None),
        ("ts-classifier", Family::Bert, Gelu::Erf, true, 2, 0, None),
        ("ts-no-pooler", Family::Bert, Gelu::Tanh, false, 2, 0, None),
        ("distilbert", Family::DistilBert, Gelu::Erf, false, 0, 0, None),
        ("roberta", Family::Roberta, Gelu::Erf, true, 1, 2, None),
        ("electra", Family::Electra, Gelu::Erf, false, 2, 0, Some(16)),
    ] {
        let (base, _) = base_of(name, temp.path());
        let c = base.config();
        assert_eq!((c.family, c.gelu, c.types), (family, gelu, types), "{name}");
        assert_eq!((c.first_position, c.embedding), (first_position, embedding), "{name}");
        assert_eq!(base.has_pooler(), pooler, "{name}");
        assert_eq!((c.hidden, c.intermediate, c.layers, c.heads), (32, 48, 2, 4), "{name}");
        assert_eq!((c.vocab, c.max_positions, c.layer_norm_eps), (110, 24, 1e-12), "{name}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let error = error_of(&fixture("ts-relu"), temp.path());
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("/encoder/layer.0/") && error.contains("GELU"), "{error}");
}

#[test]
fn a_config_must_agree() {
    let temp = tempfile::tempdir().unwrap();
    let (tokenizer, config) = (temp.path().join("tokenizer.json"), temp.path().join("config.json"));
    fs::write(&tokenizer, tokenizer_json()).unwrap();
    let mut json = json!({
        "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 110, "max_position_embeddings": 24, "type_vocab_size": 2,
        "hidden_act": "gelu", "layer_norm_eps": 1e-12
    });
    let open = |json: &Value| {
        fs::write(&config, json.to_string()).unwrap();
        Checkpoint::open_onnx(&fixture("ts-eager-13"), Some(&tokenizer), Some(&config))
    };
    open(&json).unwrap();
    json["num_attention_heads"] = json!(8);
    let error = open(&json).unwrap_err().to_string();
    assert!(error.contains("`heads` is 8, but 4"), "{error}");
}

#[test]
fn folders_are_laid_out_as_optimum_does() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("onnx")).unwrap();
    fs::write(temp.path().join("tokenizer.json"), tokenizer_json()).unwrap();
    let file = temp.path().join("onnx/model.onnx");
    fs::copy(fixture("ts-no-pooler"), &file).unwrap();
    for path in [temp.path(), &file] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!((checkpoint.config().layers, checkpoint.pooling()), (2, Pooling::Mean));
    }
    fs::remove_file(temp.path().join("tokenizer.json")).unwrap();
    let error = Checkpoint::open(&file).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

/// Opens whatever it is, and reads everything; whether it could.
fn use_all(file: &Path, tokenizer: &Path) -> bool {
    let checkpoint = Checkpoint::open_onnx(file, Some(tokenizer), None);
    checkpoint
        .and_then(|c| c.tensors().iter().try_for_each(|spec| c.read(&spec.name, &mut |_, _| Ok(()))))
        .is_ok()
}

#[test]
fn damaged_files_never_panic() {
    let temp = tempfile::tempdir().unwrap();
    let (tokenizer, damaged) = (temp.path().join("tokenizer.json"), temp.path().join("damaged.onnx"));
    fs::write(&tokenizer, tokenizer_json()).unwrap();
    let write = |bytes: &[u8]| {
        let _ = fs::remove_file(&damaged);
        fs::write(&damaged, bytes).unwrap();
    };
    for bytes in
        [&b""[..], b"{\"not\": \"onnx\"}", &[0xff; 64], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x3a, 0]]
    {
        write(bytes);
        let error = error_of(&damaged, temp.path());
        assert!(matches!(error, Error::Format { .. }), "{error}");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let (mut read, mut failed) = (0, 0);
    // TRIMTAB_FUZZ makes it longer, for a night.
    let rounds = std::env::var("TRIMTAB_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(96);
    for round in 0..rounds {
        let name = ["ts-eager-13", "dynamo-sdpa-20", "int8-u-pc", "roberta"][round % 4];
        let mut bytes = fs::read(fixture(name)).unwrap();
        if round % 8 < 2 {
            bytes.truncate(rng.random_range(0..bytes.len()));
        } else {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = if rng.random() { bytes[at] ^ 1 << rng.random_range(0..8) } else { rng.random() };
            }
        }
        write(&bytes);
        if use_all(&damaged, &tokenizer) { read += 1 } else { failed += 1 }
    }
    assert!(
        read > rounds / 10 && failed > rounds / 4,
        "{read} read, {failed} failed: not the damage it should be"
    );
}

/// What fuzzing found: tract counted up to an axis for minutes.
#[test]
fn an_axis_far_out_is_refused_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(fixture("ts-sdpa-14")).unwrap();
    // `axis` of -1 is ten bytes, of which the fifth is made less.
    let axis: Vec<u8> = [&b"\x0a\x04axis\x18"[..], &[0xff; 9], &[1]].concat();
    let at = bytes.windows(axis.len()).position(|window| window == axis).expect("an axis of -1");
    bytes[at + 7 + 4] = 0xf7;
    let damaged = temp.path().join("axis.onnx");
    fs::write(&damaged, bytes).unwrap();
    let start = std::time::Instant::now();
    let error = error_of(&damaged, temp.path()).to_string();
    assert!(error.contains("`axis` is 2147483649; at most 8 is read"), "{error}");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

/// What fuzzing found: tract followed the axes in a circle that did not close, until there was no memory left.
#[test]
fn an_order_with_an_axis_twice_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let bytes = fs::read(fixture("ts-sdpa-14")).unwrap();
    let perm = b"\x0a\x04perm\x40\x00\x40\x02\x40\x01\x40\x03";
    let at = bytes.windows(perm.len()).position(|window| window == perm).expect("an order of axes");
    // Twice the first, in the place of the third; and one that is none.
    for axis in [0, 7] {
        let mut bytes = bytes.clone();
        bytes[at + 11] = axis;
        let damaged = temp.path().join("perm.onnx");
        fs::write(&damaged, bytes).unwrap();
        let error = error_of(&damaged, temp.path()).to_string();
        assert!(error.contains("`perm` does not have each axis once"), "{error}");
    }
}

/// The folders of the real models: ONNX, and safetensors.
fn minilm() -> Option<(PathBuf, PathBuf)> {
    let onnx = std::env::var_os("TRIMTAB_ONNX").map(|dir| PathBuf::from(dir).join("minilm"))?;
    let safetensors = std::env::var_os("TRIMTAB_MINILM").map(PathBuf::from)?;
    (onnx.join("encoder.onnx").exists() && safetensors.join("config.json").exists())
        .then_some((onnx, safetensors))
}

/// Copies a checkpoint without its pooler, which the ONNX file does not have.
fn without_pooler(from: &Path, to: &Path) {
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let (header, data) = split(&fs::read(from.join("model.safetensors")).unwrap());
    let (mut kept, mut bytes) = (Map::new(), Vec::new());
    for (name, info) in header.as_object().unwrap() {
        if name.contains("pooler") || name == "__metadata__" {
            continue;
        }
        let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let start = bytes.len();
        bytes.extend_from_slice(&data[offset(0)..offset(1)]);
        let mut info = info.clone();
        info["data_offsets"] = json!([start, bytes.len()]);
        kept.insert(name.clone(), info);
    }
    fs::write(to.join("model.safetensors"), join(&Value::Object(kept), &bytes)).unwrap();
}

#[test]
fn minilm_is_the_same_from_onnx_and_safetensors() {
    let Some((onnx, safetensors)) = minilm() else {
        eprintln!("SKIPPED: set TRIMTAB_ONNX and TRIMTAB_MINILM");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    // Bias files say what their base is called.
    let dir = temp.path().join("encoder");
    fs::create_dir(&dir).unwrap();
    without_pooler(&safetensors, &dir);
    let made =
        |path: &Path, name: &str| write_base(&Checkpoint::open(path).unwrap(), &temp.path().join(name));
    let (a, from_safetensors) = made(&dir, "a.q8.safetensors");
    let (b, from_onnx) = made(&onnx.join("encoder.onnx"), "b.q8.safetensors");
    assert_eq!(from_onnx.weights_sha256, from_safetensors.weights_sha256);
    assert_eq!(from_onnx.fingerprint, from_safetensors.fingerprint);
    assert_eq!(a.config(), b.config());

    let examples: Vec<Example> = (0..48)
        .map(|i| Example {
            text_a: format!("{} film number {i}", ["a good", "a bad", "no"][i % 3]),
            label: Some(["yes", "no", "none"][i % 3].into()),
            ..Example::default()
        })
        .collect();
    let train = |base: &Base, name: &str| {
        let task = Task::Classify(trimtab::data::label_set(&examples));
        let mut model = Model::new(base, task, &Options::default()).unwrap();
        let config = TrainConfig { epochs: 1, ..TrainConfig::default() };
        model.train(&examples, None, &config, |_| ControlFlow::Continue(())).unwrap();
        let path = temp.path().join(name);
        model.save(&path, false).unwrap();
        fs::read(path).unwrap()
    };
    assert!(train(&a, "a.bias") == train(&b, "b.bias"), "bias files differ");
}

#[test]
fn int8_minilm_is_taken_over() {
    let Some((onnx, _)) = minilm() else {
        eprintln!("SKIPPED: set TRIMTAB_ONNX and TRIMTAB_MINILM");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    for name in ["encoder-int8-pt", "encoder-int8-pc"] {
        let checkpoint = Checkpoint::open(&onnx.join(format!("{name}.onnx"))).unwrap();
        let (base, report) = write_base(&checkpoint, &temp.path().join(name));
        base.verify().unwrap();
        // What is left are the embedding tables, whose zero points are not 0.
        assert!(report.relative_error < 1e-3, "{name}: {}", report.relative_error);
    }
}
