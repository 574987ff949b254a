//! The library in a few lines: quantize a checkpoint, teach it one person's notifications, ask it.
//!
//! ```sh
//! python3 models/get-minilm.py
//! cargo run --profile fast --example finetune -- models/all-MiniLM-L6-v2
//! ```
//!
//! The argument is a Hugging Face directory of a BERT. Everything it makes goes to a temporary folder.

use std::ops::ControlFlow;
use std::path::Path;
use trimtab::data::{self, Columns, Example, LabelForm};
use trimtab::import::Checkpoint;
use trimtab::task::Kind;
use trimtab::train::Progress;
use trimtab::{Base, Model, Options, Trainer, quant};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let checkpoint = std::env::args_os().nth(1).ok_or("usage: finetune CHECKPOINT_DIR")?;
    let temp = tempfile::tempdir()?;
    let (base_path, bias_path) =
        (temp.path().join("base.q8.safetensors"), temp.path().join("me.bias.safetensors"));

    // Once for a checkpoint: its weights to int8. The base is never written again.
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let report = quant::quantize(&Checkpoint::open(Path::new(&checkpoint))?, &base_path, go_on)?;
    println!("base: {} parameters, {} bytes", report.parameters, report.base_bytes);

    // Once for a person: its biases, and a head that tells the labels apart.
    let base = Base::open(&base_path)?;
    let (train, dev) = (notifications("train.tsv")?, notifications("dev.tsv")?);
    let trained = Trainer::new(&base, Kind::Classify)
        .examples(train)
        .on_progress(|progress| {
            if let Progress::Note(text) = progress {
                println!("{text}");
            }
            ControlFlow::Continue(())
        })
        .train()?;
    if let Some(sentence) = trained.assessment.as_ref().and_then(|a| a.sentence()) {
        println!("{sentence}");
    }
    println!("{:.1} % of {} others right", 100.0 * trained.model.evaluate(&dev)?.main(), dev.len());
    trained.save(&bias_path, false)?;

    // As often as one likes: the base, and the small file that makes it this person's.
    let model = Model::open(&base, &bias_path, &Options::default())?;
    for text in ["School: Jonah has a temperature, please collect him", "Flash sale! 40 % off all lamps"] {
        let answer = model.predict(text, None)?;
        let best = answer.probabilities().iter().copied().fold(0.0, f64::max);
        println!("{answer} ({:.0} %): {text}", 100.0 * best);
    }
    Ok(())
}

/// A file of the examples that come with the repository.
fn notifications(file: &str) -> trimtab::Result<Vec<Example>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/notifications").join(file);
    data::read_examples(&path, &Columns::default(), LabelForm::Name)
}
