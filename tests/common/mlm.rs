//! A tiny checkpoint with a masked-LM head: the encoder of `tests/golden/tiny-FAMILY`, the head of its golden data.

use safetensors::SafeTensors;
use std::path::Path;

/// Writes it to the directory `to`, which is made.
pub fn write_checkpoint(family: &str, to: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let encoder = golden.join(format!("tiny-{family}"));
    std::fs::create_dir_all(to).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(encoder.join(file), to.join(file)).unwrap();
    }
    let encoder = std::fs::read(encoder.join("model.safetensors")).unwrap();
    let head = std::fs::read(golden.join(format!("tiny-{family}-mlm.safetensors"))).unwrap();
    let (encoder, head) =
        (SafeTensors::deserialize(&encoder).unwrap(), SafeTensors::deserialize(&head).unwrap());
    let mut all = encoder.tensors();
    let head = head.tensors().into_iter();
    all.extend(head.filter_map(|(name, t)| Some((name.strip_prefix("head.")?.to_owned(), t))));
    safetensors::serialize_to_file(all, None, &to.join("model.safetensors")).unwrap();
}
