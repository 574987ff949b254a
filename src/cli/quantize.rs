//! `trimtab quantize`: a checkpoint into a base file.

use super::{args, print, terminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trimtab::import::Checkpoint;
use trimtab::quant::Base;
use trimtab::{Error, Result, quant};

/// Freeze a Hugging Face model directory or an ONNX file into one int8 base file
///
/// Of BERT, RoBERTa, DistilBERT or ELECTRA.
/// Of a directory it reads config.json (missing keys have the defaults of transformers), tokenizer.json and
/// tokenizer_config.json, model.safetensors (also sharded, also f16 or bf16) and, of sentence-transformers, modules.json
/// with its Pooling (mean or cls), Dense and Normalize, and sentence_bert_config.json. The base file holds weights, config
/// and tokenizer.
///
/// Of an ONNX file (model.onnx, or a directory that has it but no safetensors) it reads exports by PyTorch and Optimum,
/// f32 or f16, and their int8 versions by ONNX Runtime's quantize_dynamic, whose weights stay as they are. Sizes are
/// recognised from the graph; config.json, where there is one, must agree. What is not understood is refused by the
/// name of its node.
#[derive(clap::Args)]
pub struct Args {
    /// Directory of the checkpoint, or an ONNX file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Tokenizer of an ONNX file [default: tokenizer.json beside it or one folder up]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Config of an ONNX file, to be checked against it [default: config.json beside it or one folder up, if any]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Base file to write, by custom NAME.q8.safetensors
    #[arg(short, long, value_name = "BASE", value_parser = args::out_file())]
    output: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    let checkpoint = match (&args.tokenizer, &args.config) {
        (None, None) => Checkpoint::open(&args.model)?,
        _ if args.model.is_dir() => {
            let what = "--tokenizer and --config go with an ONNX file; a directory has its own".into();
            return Err(Error::Config(what));
        }
        (tokenizer, config) => Checkpoint::open_onnx(&args.model, tokenizer.as_deref(), config.as_deref())?,
    };
    check_target(&args.model, &args.output)?;
    warn(&checkpoint);
    let bar = terminal::bar(0, "quantizing {wide_bar} {bytes}/{total_bytes}");
    let report = quant::quantize(&checkpoint, &args.output, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if terminal::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    if args.json {
        return print(&serde_json::to_string(&report).expect("plain data"));
    }
    print(&format!(
        "{}: {} ({} in the checkpoint), weights sha256 {}",
        args.output.display(),
        terminal::size(report.base_bytes),
        terminal::size(report.checkpoint_bytes),
        &report.weights_sha256[..16]
    ))
}

/// Says what a checkpoint's files disagree about.
pub fn warn(checkpoint: &Checkpoint) {
    for warning in checkpoint.warnings() {
        terminal::say(terminal::one_line(&format!("warning: {warning}")));
    }
}

/// Refuses to replace a file of the checkpoint itself; a base that was put beside it may be replaced.
fn check_target(model: &Path, output: &Path) -> Result<()> {
    let dir = if model.is_file() { model.parent().unwrap_or(model) } else { model };
    // The folder of a bare file name.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let (Ok(dir), Ok(file)) = (dir.canonicalize(), output.canonicalize()) else { return Ok(()) };
    if file.is_file() && file.starts_with(dir) && Base::open(output).is_err() {
        let what = format!("--output {} would replace a file of the checkpoint", output.display());
        return Err(Error::Config(what));
    }
    Ok(())
}
