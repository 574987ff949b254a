//! A bias file, opened on the base it may or may not belong to; and biases of PyTorch, which are such a container too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use trimtab::bias_file::BiasFile;
use trimtab::{Model, Task, bias_import};
use trimtab_fuzz::{BASE, options, put, within};

static UNTRAINED: LazyLock<Model> = LazyLock::new(|| {
    let task = Task::Classify(vec!["no".into(), "yes".into()]);
    Model::new(&BASE, task, &options()).expect("a model of the corpus's base")
});

fuzz_target!(|input: &[u8]| {
    let path = put("bias", input);
    let untrained = &*UNTRAINED;
    within(input, || {
        let _ = BiasFile::open(&path);
        if let Ok(model) = Model::open(&BASE, &path, &options()) {
            let _ = model.predict("a bat, a cat", Some("and a [MASK]"));
        }
        let _ = bias_import::import(&path, untrained, None, true);
    });
});
