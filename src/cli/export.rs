//! `trimtab export`: a personal model for other runtimes.

use super::{args, print, print_beside, terminal};
use clap::ValueEnum;
use serde_json::json;
use std::path::{Path, PathBuf};
#[cfg(feature = "onnx")]
use trimtab::export::onnx_patch;
use trimtab::export::{hf, onnx, peft};
use trimtab::quant::Base;
use trimtab::{Error, Model, Options, Result, output};

/// Hand a model to other runtimes: Hugging Face's transformers and peft, or whatever reads ONNX
///
/// hf: a directory for `AutoModelFor….from_pretrained`, in f32, biases merged. A model that reads the mean of the tokens
/// brings its own class, for which transformers asks `trust_remote_code=True`; one trained with --pool cls needs none.
/// onnx, onnx-int8: one file with pooling and head inside; inputs `input_ids`, `attention_mask` and, for BERT and ELECTRA,
/// `token_type_ids`; output `logits` (qa: `start_logits`, `end_logits`; contrastive: `sentence_embedding`). Beside it come
/// tokenizer.json and config.json (`id2label`), so that `predict --onnx` needs nothing else. Where files of these names are
/// another model's, they stay, and the new ones are NAME.tokenizer.json and NAME.config.json.
/// peft: an adapter of type BEFT (peft 0.21) over the checkpoint that the base was made from; not for a head by
/// the mean of the tokens.
/// hf and onnx answer as `predict --exact` does, onnx-int8 within its own rounding.
/// onnx --from FILE: that file, which the base was made from, with the new biases and the head; weights as they are there.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: args::ModelFiles,
    /// What to write
    #[arg(long)]
    format: Format,
    /// File to write for onnx, by custom NAME.onnx; in a directory that is there, it is model.onnx; - or /dev/stdout writes to
    /// standard output, the ONNX file alone. Else a directory, not there yet or empty
    #[arg(short, long, value_name = "PATH", value_parser = args::out_file())]
    output: PathBuf,
    /// ONNX file that the base was made from, of which onnx then keeps weights and nodes, whatever their precision
    #[cfg(feature = "onnx")]
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
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

impl Args {
    /// The ONNX file to go by.
    fn from(&self) -> Option<&Path> {
        #[cfg(feature = "onnx")]
        return self.from.as_deref();
        #[cfg(not(feature = "onnx"))]
        None
    }
}

pub fn run(args: Args) -> Result<()> {
    if args.from().is_some() && args.format != Format::Onnx {
        return Err(Error::Config("--from goes with --format onnx".into()));
    }
    let is_file = matches!(args.format, Format::Onnx | Format::OnnxInt8);
    let out = &match is_file && args.output.is_dir() {
        true => args.output.join("model.onnx"),
        false => args.output.clone(),
    };
    args::check_json(out, args.json)?;
    if is_file {
        let mut inputs = vec![args.model.base.as_path(), &args.model.bias];
        inputs.extend(args.from());
        args::check_out(out, &inputs)?;
        if out.exists() && !output::is_stream(out) && !args.force {
            let what = format!("{} is there; name another file, or use --force to replace it", out.display());
            return Err(Error::Config(what));
        }
    }
    let base = Base::open(&args.model.base)?;
    // No text is computed.
    let options = Options { threads: Some(1), ..Options::default() };
    let model = Model::open(&base, &args.model.bias, &options)?;
    let report = match args.format {
        Format::Hf => hf::export(&model, out, args.force)?,
        Format::Onnx => match args.from() {
            #[cfg(feature = "onnx")]
            Some(from) => onnx_patch::export(&model, from, out)?,
            _ => onnx::export(&model, onnx::Weights::Floats, out)?,
        },
        Format::OnnxInt8 => onnx::export(&model, onnx::Weights::Int8, out)?,
        Format::Peft => peft::export(&model, out, args.force)?,
    };
    if is_file && output::is_stream(out) {
        terminal::say("note: a stream gets the ONNX file alone, without tokenizer.json and config.json");
    }
    for (name, path) in ["tokenizer.json", "config.json"].into_iter().zip(&report.beside) {
        if path.file_name().is_some_and(|is| is != name) {
            let path = path.display();
            terminal::say(format_args!(
                "note: the {name} that is there is another model's and stays: wrote {path}"
            ));
        }
    }
    if args.json {
        let object =
            json!({ "output": out, "what": report.what, "bytes": report.bytes, "beside": report.beside });
        return print(&object.to_string());
    }
    let (shown, size) = (out.display(), terminal::size(report.bytes));
    let beside: String = report.beside.iter().map(|path| format!(", {}", path.display())).collect();
    print_beside(out, &format!("{shown}{beside}: {}, {size}", report.what))
}
