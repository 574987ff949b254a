//! Examples of a file of this format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::data::Format;

fuzz_target!(|input: &[u8]| trimtab_fuzz::examples(Format::Csv, input));
