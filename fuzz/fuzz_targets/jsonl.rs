//! Reads examples from JSON objects: one object per line, or one array of objects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::data::Format;

fuzz_target!(|input: &[u8]| {
    trimtab_fuzz::examples(Format::Jsonl, input);
    trimtab_fuzz::examples(Format::Json, input);
});
