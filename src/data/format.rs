//! How files of examples are written, and what to do with files that are not read.

use crate::error::{Error, Result};
use std::path::Path;
use std::str::FromStr;

/// How a file of examples is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then one row a line; fields between tabs, no quoting: a `"` is a plain character.
    Tsv,
    /// A header, then records, by RFC 4180.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// A token and its tag a line, a blank line behind each sentence.
    Conll,
    /// One JSON object of questions about texts.
    Squad,
    /// A `.json` file: an array of objects, [`Format::Squad`] or [`Format::Jsonl`], whichever it turns out to be.
    Json,
    /// A text a line, and no labels; blank lines are none.
    Text,
    /// A [`Store`](super::Store) of examples; its columns are what they are.
    Store,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(s: &str) -> Result<Format> {
        match s.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Ok(Format::Tsv),
            "csv" => Ok(Format::Csv),
            "jsonl" | "ndjson" | "json-lines" => Ok(Format::Jsonl),
            "conll" | "conllu" | "bio" | "iob" => Ok(Format::Conll),
            "squad" => Ok(Format::Squad),
            "json" => Ok(Format::Json),
            "text" | "txt" => Ok(Format::Text),
            "store" => Ok(Format::Store),
            _ => Err(Error::Config(format!(
                "unknown format `{s}`; known: tsv, csv, jsonl, json, conll, squad, text, store"
            ))),
        }
    }
}

impl Format {
    /// The format that the name of `path` tells. Errors: `Error::Data` for any other extension.
    pub fn of(path: &Path) -> Result<Format> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        extension.parse().map_err(|_| {
            let what = match conversion(&extension.to_ascii_lowercase(), path) {
                Some(what) => what,
                None => format!(
                    "cannot tell the format from the extension `{extension}`; known: .tsv, .csv, .jsonl, .ndjson, \
                     .json-lines, .json, .conll, .conllu, .txt, .store; say which it is with --format"
                ),
            };
            Error::data(path, None, what)
        })
    }
}

/// How to convert a file that is not read.
fn conversion(extension: &str, path: &Path) -> Option<String> {
    let python = |read: &str| {
        let to = path.with_extension("jsonl");
        format!(
            "convert it with: python -c \"import pandas as pd; pd.{read}('{}').to_json('{}', orient='records', \
             lines=True, force_ascii=False)\"",
            path.display(),
            to.display()
        )
    };
    Some(match extension {
        "parquet" => format!("Parquet files are not read; {}", python("read_parquet")),
        "arrow" | "feather" => format!("Arrow files are not read; {}", python("read_feather")),
        "xlsx" | "xls" | "xlsm" | "ods" => {
            format!("spreadsheets are not read; save the sheet as CSV in UTF-8, or {}", python("read_excel"))
        }
        "gz" | "bz2" | "xz" | "zst" | "zip" | "7z" => "compressed files are not read; unpack it first".into(),
        "mbox" | "eml" | "msg" => {
            "mail is not read as it is; export it as CSV with a column for the label, the subject and the body".into()
        }
        "ann" => "brat's .ann files are not read; convert them and their .txt files to CoNLL, such as with brat's \
                  tools/anntoconll.py"
            .into(),
        "doc" | "docx" | "odt" | "pdf" | "rtf" => {
            return Some(format!(
                "cannot tell the format from the extension `{extension}`: documents are not read; save it as a table, \
                 .tsv, .csv, .jsonl, or say which format it is with --format"
            ));
        }
        _ => return None,
    })
}

/// What a file is whose first bytes tell that it is not text.
pub(super) fn binary(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 11] = [
        (
            b"PAR1",
            "a Parquet file, which is not read; convert it with pandas' read_parquet and to_json(lines=True)",
        ),
        (
            b"ARROW1",
            "an Arrow file, which is not read; convert it with pandas' read_feather and to_json(lines=True)",
        ),
        (
            b"PK\x03\x04",
            "a ZIP archive or a spreadsheet (.xlsx, .ods); unpack it, or save the sheet as CSV in UTF-8",
        ),
        (b"\xd0\xcf\x11\xe0", "an old Office document (.xls, .doc); save the sheet as CSV in UTF-8"),
        (b"\x1f\x8b", "compressed by gzip; unpack it with gunzip"),
        (b"BZh", "compressed by bzip2; unpack it with bunzip2"),
        (b"\xfd7zXZ", "compressed by xz; unpack it with unxz"),
        (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; unpack it with unzstd"),
        (b"%PDF-", "a PDF document; its text must be copied into a table"),
        (b"SQLite format 3\0", "an SQLite database; if it is a store of trimtab, say --format store"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer and not the file itself; fetch it with `git lfs pull`",
        ),
    ];
    KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_extension_or_flag() {
        assert_eq!(Format::of(Path::new("a/b.TSV")).unwrap(), Format::Tsv);
        assert_eq!("ndjson".parse::<Format>().unwrap(), Format::Jsonl);
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        let e = Format::of(Path::new("a.doc")).unwrap_err().to_string();
        assert!(e.contains("`doc`") && e.contains(".jsonl") && e.contains("--format"), "{e}");
        assert!(Format::of(Path::new("a")).is_err());
        assert!(matches!("xml".parse::<Format>(), Err(Error::Config(_))));
    }

    #[test]
    fn what_is_not_read_comes_with_the_way_to_convert_it() {
        for (name, words) in [
            ("a.parquet", "pd.read_parquet('a.parquet').to_json('a.jsonl'"),
            ("a.XLSX", "pd.read_excel('a.XLSX')"),
            ("a.csv.gz", "unpack it first"),
            ("Inbox.mbox", "export it as CSV"),
            ("a.ann", "anntoconll.py"),
        ] {
            let e = Format::of(Path::new(name)).unwrap_err().to_string();
            assert!(e.starts_with(&format!("{name}: ")) && e.contains(words), "{e}");
        }
        assert!(binary(b"PK\x03\x04rest").unwrap().contains("spreadsheet"));
        assert_eq!(binary(b"label\ttext\n"), None);
        assert_eq!(binary(b""), None);
    }
}
