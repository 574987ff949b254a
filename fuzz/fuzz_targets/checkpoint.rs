//! A Hugging Face directory, made into a base: `config.json`, `tokenizer.json`, `1_Pooling/config.json` and
//! `model.safetensors`, with a NUL between two of them; an empty one is left out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fs;
use std::ops::ControlFlow;
use trimtab::Base;
use trimtab::import::Checkpoint;
use trimtab::quant::quantize;
use trimtab_fuzz::{FOLDER, put, within};

const NAMES: [&str; 4] =
    ["model/config.json", "model/tokenizer.json", "model/1_Pooling/config.json", "model/model.safetensors"];

fuzz_target!(|input: &[u8]| {
    let dir = FOLDER.join("model");
    fs::create_dir_all(dir.join("1_Pooling")).expect("a temporary folder");
    let mut parts = input.splitn(NAMES.len(), |b| *b == 0);
    for name in NAMES {
        match parts.next() {
            None | Some([]) => drop(fs::remove_file(FOLDER.join(name))),
            Some(part) => drop(put(name, part)),
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
