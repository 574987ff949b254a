//! The C ABI, called as C would call it; and, where there is a C compiler, from C itself (`example.rs`).
#![allow(unsafe_code)] // of what is tested: a caller's side of the border

mod handles;
#[path = "../cli/sandbox.rs"]
#[allow(dead_code)] // the tests of the command line use the rest
mod sandbox;

mod arguments;
mod example;
mod header;
mod sameness;
mod threads;
mod training;
