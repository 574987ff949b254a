//! The command line: one file a subcommand. Results go to stdout, progress and errors to stderr.

mod args;
mod bench;
mod cooling;
mod demo;
mod embed;
mod eval;
#[cfg(feature = "store")]
mod examples;
mod experiment;
mod export;
#[cfg(feature = "store")]
mod forget;
mod import_bias;
mod inspect;
#[cfg(feature = "store")]
mod learn;
mod machine;
mod predict;
mod progress;
mod pull;
mod quantize;
mod rates;
mod results;
mod search;
mod stream;
mod terminal;
mod train;
mod train_job;

use clap::{Parser, Subcommand};
use std::io::ErrorKind;
use std::process::ExitCode;
use trimtab::{Error, Result};

/// Fine-tunes the biases of a frozen int8 BERT on this machine.
///
/// The usual way: `pull` (or any Hugging Face directory) gives a checkpoint, `quantize` freezes it into one
/// base file, `train` learns from labelled lines and writes a bias file of some 100 KB, `eval` and `predict`
/// use it; `learn`, `forget` and `examples` keep the labelled lines meanwhile; `embed` and `search` work on vectors of texts, with or without one; `export` hands it to other runtimes, `import-bias` takes biases trained in PyTorch. `demo` does all of it once, `bench` tells how fast this machine is, `experiment` which biases are worth training. Your data never leaves this machine.
#[derive(Parser)]
#[command(name = "trimtab", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pull(pull::Args),
    Quantize(quantize::Args),
    Train(Box<train::Args>),
    #[cfg(feature = "store")]
    Learn(learn::Args),
    #[cfg(feature = "store")]
    Forget(forget::Args),
    #[cfg(feature = "store")]
    Examples(examples::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Embed(embed::Args),
    Search(search::Args),
    Export(export::Args),
    ImportBias(import_bias::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    Experiment(Box<experiment::Args>),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    trimtab::sys::heap::keep_freed_memory();
    let result = match Cli::parse().command {
        Command::Pull(a) => pull::run(a),
        Command::Quantize(a) => quantize::run(a),
        Command::Train(a) => train::run(*a),
        #[cfg(feature = "store")]
        Command::Learn(a) => learn::run(a),
        #[cfg(feature = "store")]
        Command::Forget(a) => forget::run(a),
        #[cfg(feature = "store")]
        Command::Examples(a) => examples::run(a),
        Command::Eval(a) => eval::run(a),
        Command::Predict(a) => predict::run(a),
        Command::Embed(a) => embed::run(a),
        Command::Search(a) => search::run(a),
        Command::Export(a) => export::run(a),
        Command::ImportBias(a) => import_bias::run(a),
        Command::Inspect(a) => inspect::run(a),
        Command::Bench(a) => bench::run(a),
        Command::Demo(a) => demo::run(a),
        Command::Experiment(a) => experiment::run(*a),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // whoever reads our output has had enough: not our failure
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            let lines: Vec<String> = format!("trimtab: {e}").lines().map(terminal::one_line).collect();
            terminal::say(lines.join("\n"));
            ExitCode::from(e.exit_code())
        }
    }
}

/// Tells the result of a command that wrote the file `out`: on stdout, or on stderr if the file went to stdout.
fn print_beside(out: &std::path::Path, text: &str) -> Result<()> {
    match trimtab::output::is_stdout(out) {
        true => terminal::say(text),
        false => print(text)?,
    }
    Ok(())
}

/// Writes to stdout; an error there is an error of the command, a closed pipe a quiet end.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io { path: "standard output".into(), source })
}
