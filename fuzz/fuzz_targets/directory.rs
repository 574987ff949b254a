//! The small files of a Hugging Face directory, with a NUL between two of them; an empty one is left out. The last part is the
//! header of `model.safetensors`, whose data are those of the corpus: so the names of tensors change, with what wraps them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::ops::ControlFlow;
use std::sync::LazyLock;
use trimtab::Base;
use trimtab::import::Checkpoint;
use trimtab::quant::quantize;
use trimtab_fuzz::{FOLDER, put, within};

const NAMES: [&str; 11] = [
    "modules.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "3_Normalize/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "config.json",
    "tokenizer.json",
    INDEX,
    WEIGHTS,
];
/// With an index, the weights are in the one shard `shard.safetensors`.
const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// What stands behind the header of the corpus's `model.safetensors`.
static DATA: LazyLock<&[u8]> = LazyLock::new(|| {
    let file = include_bytes!("../corpus/checkpoint/f32").splitn(4, |b| *b == 0).nth(3).expect("four parts");
    let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    &file[8 + header as usize..]
});

/// The weights of `2_Dense`: 8 × 8 and a bias.
static DENSE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let header = br#"{"linear.bias":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},"linear.weight":{"dtype":"F32","shape":[8,8],"data_offsets":[32,288]}}"#;
    safetensors(header, &[0; 288])
});

fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fuzz_target!(|input: &[u8]| {
    let dir = FOLDER.join("directory");
    for folder in ["1_Pooling", "2_Dense", "3_Normalize"] {
        fs::create_dir_all(dir.join(folder)).expect("a temporary folder");
    }
    put("directory/2_Dense/model.safetensors", &DENSE);
    let mut parts = input.splitn(NAMES.len(), |b| *b == 0);
    let mut is_sharded = false;
    for name in NAMES {
        let part = parts.next().unwrap_or_default();
        let path = format!("directory/{name}");
        if part.is_empty() {
            let _ = fs::remove_file(FOLDER.join(path));
        } else if name != WEIGHTS {
            put(&path, part);
            is_sharded |= name == INDEX;
        } else {
            let weights = put(&path, &safetensors(part, &DATA));
            if is_sharded {
                fs::rename(weights, dir.join("shard.safetensors")).expect("a folder for both");
            }
        }
    }
    within(input, || {
        let Ok(checkpoint) = Checkpoint::open(&dir) else { return };
        let out = FOLDER.join("out.q8.safetensors");
        if quantize(&checkpoint, &out, &mut |_, _| ControlFlow::Continue(())).is_ok() {
            Base::open(&out).and_then(|base| base.verify()).expect("a base that was just written");
        }
    });
});
