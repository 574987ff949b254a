//! A run's checkpoint: an input that begins with `{` is the position in one that is whole, digest included, from which the
//! run goes on; any other is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use safetensors::tensor::{TensorView, serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;
use trimtab::data::Example;
use trimtab::train::{Checkpoints, Progress};
use trimtab::{Model, Task, TrainConfig};
use trimtab_fuzz::{BASE, FOLDER, options, within};

static DIR: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.join("run"));

/// The checkpoint behind the second of four steps.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let _ = fs::remove_dir_all(&*DIR);
    train(false, &mut |step| if step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        .expect("a run that is stopped");
    fs::read(file()).expect("its checkpoint")
});

fn file() -> PathBuf {
    DIR.join("step-00000002.safetensors")
}

fn train(resume: bool, on_step: &mut (dyn FnMut(usize) -> ControlFlow<()> + Send)) -> trimtab::Result<()> {
    let one = |text: &str, label: &str| Example {
        text_a: text.into(),
        label: Some(label.into()),
        ..Example::default()
    };
    let examples = [one("a bat", "no"), one("a cat and b", "yes")];
    let checkpoints = Some(Checkpoints { dir: DIR.clone(), every: 1, resume });
    let config = TrainConfig { epochs: 2, batch: 1, checkpoints, ..TrainConfig::default() };
    let mut model = Model::new(&BASE, Task::Classify(vec!["no".into(), "yes".into()]), &options())?;
    let dev = &examples[..1];
    model.train(&examples, Some(dev), &config, |progress| match progress {
        Progress::Step { done, .. } => on_step(done),
        _ => ControlFlow::Continue(()),
    })?;
    Ok(())
}

/// The whole one with another position, and the digest that belongs to it.
fn with_position(position: &str) -> Vec<u8> {
    let (_, header) = SafeTensors::read_metadata(&WHOLE).expect("it is whole");
    let mut metadata: HashMap<String, String> = header.metadata().clone().expect("it has metadata");
    let tensors = SafeTensors::deserialize(&WHOLE).expect("it is whole");
    let mut names = tensors.names();
    names.sort();
    let mut sha = Sha256::new();
    sha.update(format!("{}\n{position}\n", metadata["run"]));
    for name in &names {
        let data = tensors.tensor(name).expect("it is there");
        sha.update(format!("{name} {}\n", data.data().len() / 4));
        sha.update(data.data());
    }
    let sum = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    metadata.insert("position".into(), position.into());
    metadata.insert("sha256".into(), sum);
    let views: Vec<(&str, TensorView)> =
        names.iter().map(|name| (*name, tensors.tensor(name).expect("it is there"))).collect();
    serialize(views, Some(metadata)).expect("no names twice")
}

fuzz_target!(|input: &[u8]| {
    let whole = &*WHOLE;
    let bytes = match std::str::from_utf8(input) {
        Ok(position) if position.starts_with('{') => with_position(position),
        _ => input.to_vec(),
    };
    let _ = fs::remove_dir_all(&*DIR);
    fs::create_dir_all(&*DIR).expect("a temporary folder");
    fs::write(file(), bytes).expect("a temporary file");
    within(if input.len() > whole.len() { input } else { whole }, || {
        let mut steps = 0;
        let _ = train(true, &mut |_| {
            steps += 1;
            if steps > 8 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    });
});
