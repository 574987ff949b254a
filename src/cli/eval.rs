//! `trimtab eval`: scores of a bias file on labelled examples.

use super::{args, print};
use std::path::PathBuf;
use std::time::Instant;
use trimtab::quant::Base;
use trimtab::train::metrics::Scores;
use trimtab::{Personal, Result};

/// Score a bias file on labelled lines
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: args::Model,
    /// Labelled lines: .tsv, .csv or .jsonl; .conll for tag, .json for qa; for mlm also .txt
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
    let examples = args.columns.read(&args.data, model.task().kind().wanted())?;
    model.task().targets(&examples, &args.data)?;
    let start = Instant::now();
    let m = model.evaluate(&examples)?;
    let examples_per_s = m.examples as f64 / start.elapsed().as_secs_f64();
    if args.json {
        let mut object = serde_json::to_value(&m).expect("plain data");
        object["examples_per_s"] = examples_per_s.into();
        return print(&object.to_string());
    }
    let scores = match m.scores {
        Scores::Classify { accuracy, f1, macro_f1, mcc } => {
            let accuracy = 100.0 * accuracy;
            format!("accuracy {accuracy:.1} %, F1 {f1:.3}, macro F1 {macro_f1:.3}, MCC {mcc:.3}")
        }
        _ => m.to_string(),
    };
    print(&format!("{} examples: {scores}, loss {:.4} ({examples_per_s:.0} examples/s)", m.examples, m.loss))
}
