//! A base file: opened, asked for everything it has, and used.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::{Base, Model, Task};
use trimtab_fuzz::{options, put, within};

fuzz_target!(|input: &[u8]| {
    let path = put("base", input);
    within(input, || {
        let Ok(base) = Base::open(&path) else { return };
        for tensor in base.tensors() {
            let _ = base.matrix(&tensor.name).map(|m| m.dequantize());
            let _ = base.vector(&tensor.name);
        }
        let _ = base.verify();
        let task = Task::Classify(vec!["no".into(), "yes".into()]);
        if let Ok(model) = Model::new(&base, task, &options()) {
            let _ = model.predict("a bat, a cat", Some("and a [MASK]"));
        }
    });
});
