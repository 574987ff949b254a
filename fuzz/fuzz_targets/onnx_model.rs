//! An ONNX classifier, run as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use trimtab::data::Example;
use trimtab::onnx_model::{OnnxModel, OnnxOptions};
use trimtab_fuzz::{put, within};

static TOKENIZER: LazyLock<PathBuf> =
    LazyLock::new(|| put("wordpiece.json", include_bytes!("../corpus/tokenizer/wordpiece")));

fuzz_target!(|input: &[u8]| {
    let path = put("classifier.onnx", input);
    let tokenizer = Some(TOKENIZER.clone());
    let labels = Some(vec!["no".to_owned(), "yes".to_owned()]);
    let options = OnnxOptions { tokenizer, labels, threads: Some(1), ..OnnxOptions::default() };
    within(input, || {
        let Ok(model) = OnnxModel::open(&path, &options) else { return };
        let _ = model.predict_all(&[Example { text_a: "a bat".into(), ..Example::default() }]);
    });
});
