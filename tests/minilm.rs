//! The real all-MiniLM-L6-v2, where it is: `models/get-minilm.py` fetches it, `TRIMTAB_MINILM` points elsewhere.

use std::path::{Path, PathBuf};
use trimtab::config::{Config, Family, Gelu, Pooling};
use trimtab::import::Checkpoint;
use trimtab::quant::{Base, quantize};

/// SHA-256 of the int8 bytes that PyTorch 2.9.1 gives for every quantized tensor in name order.
const INT8_SHA256: &str = "777bba9ffaa9a3e25f738cd40ccfed0771f99b03a56694c65dc25c434a180a95";

fn model_dir() -> Option<PathBuf> {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    let dir = std::env::var_os("TRIMTAB_MINILM").map_or_else(default, PathBuf::from);
    dir.join("config.json").exists().then_some(dir)
}

#[test]
fn quantizes_to_the_bytes_of_pytorch() {
    let Some(dir) = model_dir() else {
        eprintln!("SKIPPED: no MiniLM; run models/get-minilm.py or set TRIMTAB_MINILM");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("minilm.q8.safetensors");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let mut last = (0, 1);
    let report = quantize(&checkpoint, &out, &mut |done, total| {
        last = (done, total);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last.0, last.1);
    assert_eq!(report.weights_sha256, INT8_SHA256);
    assert!(report.relative_error > 1e-4 && report.relative_error < 0.02, "{}", report.relative_error);

    let base = Base::open(&out).unwrap();
    base.verify().unwrap();
    assert_eq!(base.weights_sha256(), INT8_SHA256);
    assert_eq!(base.fingerprint(), report.fingerprint);
    assert_eq!(base.file_bytes(), report.base_bytes);
    assert_eq!(base.file_bytes(), std::fs::metadata(&out).unwrap().len());
    assert_eq!(base.pooling(), Pooling::Mean);
    assert!(base.has_pooler());
    let expected = Config {
        family: Family::Bert,
        hidden: 384,
        intermediate: 1536,
        layers: 6,
        heads: 12,
        vocab: 30522,
        max_positions: 512,
        first_position: 0,
        embedding: None,
        types: 2,
        layer_norm_eps: 1e-12,
        gelu: Gelu::Erf,
    };
    assert_eq!(*base.config(), expected);
    assert_eq!(base.tokenizer_bytes(), std::fs::read(dir.join("tokenizer.json")).unwrap());
}
