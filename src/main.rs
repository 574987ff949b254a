//! The `trimtab` command: parses, calls the library, chooses the exit code.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
