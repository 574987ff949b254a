//! `trimtab export`: a personal model for other runtimes.

use super::{args, print, terminal};
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;
use trimtab::export::{hf, onnx, peft};
use trimtab::quant::Base;
use trimtab::{Error, Options, Personal, Result};

/// Hand a model to other runtimes: Hugging Face's transformers and peft, or whatever reads ONNX
///
/// hf: a directory for `AutoModelFor….from_pretrained`, in f32, biases merged. A model that reads the mean of the tokens
/// brings its own class, for which transformers asks `trust_remote_code=True`; one trained with --pool cls needs none.
/// onnx, onnx-int8: one file with pooling and head inside; inputs `input_ids`, `attention_mask` and, for BERT and ELECTRA,
/// `token_type_ids`; output `logits` (qa: `start_logits`, `end_logits`; contrastive: `sentence_embedding`).
/// peft: an adapter of type BEFT (peft 0.21) over the checkpoint that the base was made from; not for a head by
/// the mean of the tokens.
/// hf and onnx answer as `predict --exact` does, onnx-int8 within its own rounding.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: args::Model,
    /// What to write
    #[arg(long)]
    format: Format,
    /// File to write for onnx, by custom NAME.onnx; else a directory, not there yet or empty
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Replace the earlier export that --output has
    #[arg(long)]
    force: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Hf,
    Onnx,
    OnnxInt8,
    Peft,
}

pub fn run(args: Args) -> Result<()> {
    let out = &args.output;
    let file = matches!(args.format, Format::Onnx | Format::OnnxInt8);
    if file {
        args::check_out(out, &[&args.model.base, &args.model.bias])?;
        if out.exists() && !args.force {
            let what = format!("{} is there; name another file, or use --force to replace it", out.display());
            return Err(Error::Config(what));
        }
    }
    let base = Base::open(&args.model.base)?;
    // No text is computed.
    let options = Options { threads: Some(1), ..Options::default() };
    let model = Personal::open(&base, &args.model.bias, &options)?;
    let report = match args.format {
        Format::Hf => hf::export(&model, out, args.force)?,
        Format::Onnx => onnx::export(&model, onnx::Weights::Floats, out)?,
        Format::OnnxInt8 => onnx::export(&model, onnx::Weights::Int8, out)?,
        Format::Peft => peft::export(&model, out, args.force)?,
    };
    if args.json {
        return print(&json!({ "output": out, "what": report.what, "bytes": report.bytes }).to_string());
    }
    let (shown, size) = (out.display(), terminal::size(report.bytes));
    print(&format!("{shown}: {}, {size}", report.what))
}
