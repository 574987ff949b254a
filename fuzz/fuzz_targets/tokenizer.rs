//! A `tokenizer.json`, with which texts are encoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::tokenize::TextEncoder;
use trimtab_fuzz::within;

fuzz_target!(|input: &[u8]| {
    within(input, || {
        let Ok(encoder) = TextEncoder::from_bytes(input, "tokenizer.json".as_ref(), 16, 32, 2) else {
            return;
        };
        let _ = encoder.encode("A bat, a [MASK] \u{e9}\u{4e2d}", None);
        let _ = encoder.encode("a", Some("b c"));
        let _ = encoder.encode_words(&["a", "bat"]);
        let _ =
            encoder.encode_windows("who", "a bat, a cat and a dog or two of them in the sun and the sea", 2);
        let _ = encoder.words();
        let _ = encoder.decode(7);
    });
});
