//! `trimtab import-bias`: biases trained in PyTorch into a bias file.

use super::args::{self, Pool};
use super::{print, print_beside, terminal};
use serde_json::json;
use std::path::PathBuf;
use trimtab::config::DEFAULT_MAX_LEN;
use trimtab::quant::Base;
use trimtab::task::Kind;
use trimtab::{Error, Model, Options, Result, Task, bias_import, output};

/// Make a bias file of biases trained in PyTorch
///
/// Reads a safetensors file with the biases and the head of a model of transformers, by the names of its state_dict:
/// `save_file({n: p for n, p in model.state_dict().items() if "bias" in n or "classifier" in n}, FILE)`; or
/// adapter_model.safetensors of a BEFT adapter of peft. Every name and shape is checked; weights other than the head's are
/// refused, since the base's cannot change.
#[derive(clap::Args)]
pub struct Args {
    /// Safetensors file
    file: PathBuf,
    /// Base file, made by `quantize` of the checkpoint that was trained
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// What was learned: classify, multilabel, regress, tag, qa or contrastive
    #[arg(long, default_value = "classify", value_name = "TASK")]
    task: Kind,
    /// Labels in the order of the head's rows, between commas
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    labels: Vec<String>,
    /// How a text becomes one vector
    #[arg(long, value_enum, default_value_t = Pool::Auto, value_name = "auto|cls|mean")]
    pool: Pool,
    /// Longest text in tokens; longer ones are cut [default: 128, or the model's positions, if it has fewer]
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Bias file to write, by custom NAME.bias.safetensors; - or /dev/stdout writes to standard output
    #[arg(short, long, value_name = "BIAS", value_parser = args::out_file())]
    output: PathBuf,
    /// Leave out tensors whose names are not known, and say which
    #[arg(long)]
    ignore_unknown: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    args::check_out(&args.output, &[&args.base, &args.file])?;
    args::check_json(&args.output, args.json)?;
    let takes = matches!(args.task, Kind::Classify | Kind::Multilabel | Kind::Tag);
    if takes == args.labels.is_empty() {
        let what = if takes { "needs --labels" } else { "has no labels; leave --labels out" };
        return Err(Error::Config(format!("{} {what}", args.task)));
    }
    if args.task == Kind::Mlm {
        return Err(Error::Config("biases of a masked LM have no bias file to be imported to".into()));
    }
    let base = Base::open(&args.base)?;
    let options = Options {
        pooling: args.pool.pooling(),
        max_len: args::max_len(&base, args.max_len)?.unwrap_or(DEFAULT_MAX_LEN),
        threads: Some(1),
        ..Options::default()
    };
    let model = Model::new(&base, Task::new(args.task, args.labels), &options)?;
    let stride = (args.task == Kind::Qa).then_some(model.max_len() / 3);
    let imported = bias_import::import(&args.file, &model, stride, args.ignore_unknown)?;
    for name in &imported.ignored {
        terminal::say(terminal::one_line(&format!("left out: {name}")));
    }
    imported.file.save(&args.output, false)?;
    // What `predict` would say of it is better heard now. What went to a stream cannot be read again.
    if !output::is_stream(&args.output) {
        Model::open(&base, &args.output, &options)?;
    }
    let tensors = imported.file.tensors.len();
    if args.json {
        let facts = json!({
            "output": args.output, "tensors": tensors, "terms": imported.file.terms,
            "layers": format!("{}..{}", imported.file.layers.0, imported.file.layers.1), "ignored": imported.ignored,
        });
        return print(&facts.to_string());
    }
    print_beside(
        &args.output,
        &format!("{}: {tensors} tensors, terms {}", args.output.display(), imported.file.terms),
    )
}
