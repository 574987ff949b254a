//! `trimtab quantize`: a checkpoint directory into a base file.

use super::{print, terminal};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use trimtab::import::Checkpoint;
use trimtab::quant::Base;
use trimtab::{Error, Result, quant};

/// Freeze a Hugging Face model directory into one int8 base file
///
/// Of BERT, RoBERTa, DistilBERT or ELECTRA.
/// Reads config.json, tokenizer.json, model.safetensors (also sharded, also f16 or bf16) and, where there is
/// one, 1_Pooling/config.json. The base file holds weights, config and tokenizer.
#[derive(clap::Args)]
pub struct Args {
    /// Directory of the checkpoint
    dir: PathBuf,
    /// Base file to write, by custom NAME.q8.safetensors
    #[arg(short, long, value_name = "BASE")]
    output: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    let checkpoint = Checkpoint::open(&args.dir)?;
    check_target(&args.dir, &args.output)?;
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

/// Refuses to replace a file of the checkpoint itself; a base that was put beside it may be replaced.
fn check_target(dir: &Path, output: &Path) -> Result<()> {
    let (Ok(dir), Ok(file)) = (dir.canonicalize(), output.canonicalize()) else { return Ok(()) };
    if file.is_file() && file.starts_with(dir) && Base::open(output).is_err() {
        let what = format!("--output {} would replace a file of the checkpoint", output.display());
        return Err(Error::Config(what));
    }
    Ok(())
}
