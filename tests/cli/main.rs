//! The `trimtab` command as a user meets it: every test runs the real binary on the tiny model of `tests/golden`.

mod answers;
mod bench;
mod data;
mod disk;
mod files;
mod interrupt;
mod results;
mod sameness;
mod sandbox;
mod settings;
