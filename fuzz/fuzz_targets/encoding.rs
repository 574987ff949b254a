//! A table in any encoding, with anything between its fields. The first byte says which of them are named by the user.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trimtab::data::{Format, Reading, LabelForm};
use trimtab_fuzz::{put, within};

const ENCODINGS: [&str; 11] = [
    "utf-8",
    "utf-16le",
    "utf-16be",
    "windows-1252",
    "iso-8859-2",
    "shift_jis",
    "gb18030",
    "euc-kr",
    "big5",
    "iso-2022-jp",
    "macintosh",
];
const DELIMITERS: [&str; 4] = [",", ";", "tab", "|"];

fuzz_target!(|input: &[u8]| {
    let Some((&choice, table)) = input.split_first() else { return };
    // Most inputs name nothing: then it is found out.
    let encoding = ENCODINGS.get(usize::from(choice & 31)).map(|name| name.parse().expect("a known one"));
    let delimiter =
        DELIMITERS.get(usize::from(choice >> 5)).map(|delimiter| delimiter.parse().expect("a known one"));
    let path = put("examples.csv", table);
    // Text of one byte a character takes up to three in UTF-8, and the examples have it once more.
    within(&[table, table, table].concat(), || {
        for format in [Format::Csv, Format::Tsv, Format::Text, Format::Jsonl] {
            let want = if format == Format::Text { LabelForm::Nothing } else { LabelForm::Name };
            let reading = Reading { encoding, delimiter, format: Some(format), ..Reading::default() };
            let from_file = reading.file(&path, want);
            let _ = Reading { skip_bad_lines: true, ..reading.clone() }.file(&path, want);
            // A pipe can be read but once, so less is found out; what it gives is the same.
            let from_pipe = reading.reader(table, &path, want);
            if let (Ok(a), Ok(b)) = (from_file, from_pipe) {
                assert_eq!(a.examples, b.examples);
            }
        }
    });
});
