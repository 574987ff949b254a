//! Sentence embeddings: one JSON array of `hidden` floats a text, in the order of the file.
//!
//! `cargo run --release --example embed -- BASE DATA.tsv [N] > embeddings.jsonl`
//!
//! `trimtab embed` does the same for plain lines of text. `tests/compare_embeddings.py` compares them with the fp32 model in PyTorch.

use std::path::Path;
use trimtab::data::{self, Columns, LabelForm};
use trimtab::{Base, Error, Model, Options, Result, Task};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, data, rest @ ..] = &args[..] else {
        return Err(Error::Config("usage: embed BASE DATA.tsv [N]".into()));
    };
    let limit = rest.first().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let mut texts = data::read_examples(Path::new(data), &Columns::default(), LabelForm::Nothing)?;
    texts.truncate(limit);
    let model = Model::new(&Base::open(base)?, Task::Contrastive, &Options::default())?;
    for vector in model.embed_all(&texts)? {
        println!("{}", serde_json::json!(vector));
    }
    Ok(())
}
