//! `trimtab eval`: scores of a bias file on labelled lines.

use super::{args, print};
use std::path::PathBuf;
use std::time::Instant;
use trimtab::quant::Base;
use trimtab::{Personal, Result, data};

/// Score a bias file on labelled lines
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: args::Model,
    /// Labelled lines: .tsv, .csv or .jsonl
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    columns: args::Data,
    #[command(flatten)]
    run: args::Run,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let base = Base::open(&args.model.base)?;
    let model = Personal::open(&base, &args.model.bias, &args.run.options())?;
    let examples = args.columns.read(&args.data)?;
    data::label_ids(&examples, model.labels(), &args.data)?;
    let start = Instant::now();
    let m = model.evaluate(&examples)?;
    let examples_per_s = m.examples as f64 / start.elapsed().as_secs_f64();
    if args.json {
        let mut object = serde_json::to_value(&m).expect("plain data");
        object["examples_per_s"] = examples_per_s.into();
        return print(&object.to_string());
    }
    print(&format!(
        "{} examples: accuracy {:.1} %, F1 {:.3}, macro F1 {:.3}, MCC {:.3}, loss {:.4} ({:.0} examples/s)",
        m.examples,
        100.0 * m.accuracy,
        m.f1,
        m.macro_f1,
        m.mcc,
        m.loss,
        examples_per_s
    ))
}
