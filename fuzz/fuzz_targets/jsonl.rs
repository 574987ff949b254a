//! Examples of files of JSON objects: one a line, or an array of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::data::Format;

fuzz_target!(|input: &[u8]| {
    trimtab_fuzz::examples(Format::Jsonl, input);
    trimtab_fuzz::examples(Format::Json, input);
});
