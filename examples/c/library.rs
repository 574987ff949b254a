//! The C library as the tests link it: of the crate that `cargo test` has compiled already. The one that ships is made by
//! `cross/build`.
pub use trimtab::capi::*;
