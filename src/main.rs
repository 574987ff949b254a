//! The `trimtab` command: parses, calls the library, chooses the exit code.
#![deny(clippy::print_stdout, clippy::print_stderr)] // they panic where the reader is gone

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
