//! An ONNX file: its encoder found, and every weight read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use trimtab::import::Checkpoint;
use trimtab_fuzz::{put, within};

static TOKENIZER: LazyLock<PathBuf> = LazyLock::new(|| put("tokenizer.json", b"{}"));

fuzz_target!(|input: &[u8]| {
    let (path, tokenizer) = (put("model.onnx", input), &*TOKENIZER);
    within(input, || {
        let Ok(checkpoint) = Checkpoint::open_onnx(&path, Some(tokenizer), None) else { return };
        for spec in checkpoint.tensors() {
            let _ = checkpoint.read(&spec.name, &mut |_, _| Ok(()));
        }
    });
});
