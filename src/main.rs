<<<<<<< HEAD
//! The `trimtab` command: parses, calls the library, chooses the exit code.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
=======
fn main() {}
>>>>>>> 03e65846ebf454d817649e42c2cb620c5e37c82c
