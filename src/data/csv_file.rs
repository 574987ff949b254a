//! CSV records (RFC 4180) through the csv crate, with the two checks it lacks: a bound on the length of a
//! record, and an error where a quote is never closed (the rest of the file would become one field).

use super::lines::{BOM, LINE_BYTES_MAX, check_text};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// Reads record by record; every field is UTF-8 without NUL.
pub struct Records<'p, R> {
    reader: csv::Reader<Guard<R>>,
    notes: Rc<RefCell<Notes>>,
    record: csv::ByteRecord,
    path: &'p Path,
}

/// What the guard tells the reader of the records it has passed on.
#[derive(Default)]
struct Notes {
    /// Lines on which the records start that are not yet taken. (The csv crate's own positions are those
    /// before the blank lines and line feeds that it skips.)
    starts: VecDeque<usize>,
    /// Why reading stopped, with the line.
    trouble: Option<(usize, String)>,
}

impl<'p, R: Read> Records<'p, R> {
    /// `line` is the number of the first line, `delimiter` stands between fields.
    pub fn new(reader: R, path: &'p Path, line: usize, delimiter: u8) -> Self {
        let notes = Rc::new(RefCell::new(Notes::default()));
        let guard = Guard {
            reader,
            state: State::FieldStart,
            delimiter,
            line,
            record_line: line,
            record_bytes: 0,
            passed: 0,
            notes: Rc::clone(&notes),
        };
        // `flexible`: the caller counts the fields, to word the error like that of a TSV file.
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(guard);
        Records { reader, notes, record: csv::ByteRecord::new(), path }
    }

    /// The fields of the next record, with the line it starts on; `None` at the end.
    pub fn next_record(&mut self) -> Result<Option<(usize, Vec<String>)>> {
        let read = self.reader.read_byte_record(&mut self.record);
        let mut notes = self.notes.borrow_mut();
        if let Some((line, what)) = notes.trouble.take() {
            return Err(Error::data(self.path, Some(line), what));
        }
        match read {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(e) => {
                return Err(match e.into_kind() {
                    csv::ErrorKind::Io(e) => Error::io(self.path)(e),
                    other => Error::data(self.path, None, format!("bad CSV: {other:?}")),
                });
            }
        }
        let line = notes.starts.pop_front().unwrap_or(1);
        let mut fields = Vec::with_capacity(self.record.len());
        for (i, bytes) in self.record.iter().enumerate() {
            let text = check_text(bytes).map_err(|(at, what)| {
                let line = line + bytes[..at].iter().filter(|&&b| b == b'\n').count();
                Error::data(self.path, Some(line), format!("field {}: {what}", i + 1))
            })?;
            fields.push(text.to_owned());
        }
        Ok(Some((line, fields)))
    }
}

/// Where in a record the bytes passed on so far end.
#[derive(Clone, Copy, PartialEq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

/// Follows the records in the bytes it passes on, and fails where one is too long or never ends.
struct Guard<R> {
    reader: R,
    state: State,
    delimiter: u8,
    line: usize,
    record_line: usize,
    record_bytes: usize,
    passed: usize,
    notes: Rc<RefCell<Notes>>,
}

impl<R> Guard<R> {
    fn step(&mut self, byte: u8) {
        use State::*;
        self.passed += 1;
        if self.passed <= BOM.len() && byte == BOM[self.passed - 1] {
            return; // the csv crate drops the mark
        }
        if self.record_bytes == 0 && !matches!(byte, b'\n' | b'\r') {
            self.record_line = self.line;
            self.notes.borrow_mut().starts.push_back(self.line);
        }
        self.record_bytes += 1;
        self.line += usize::from(byte == b'\n');
        self.state = match (self.state, byte) {
            (Quoted, b'"') => QuoteInQuoted,
            (Quoted, _) => Quoted,
            (FieldStart | QuoteInQuoted, b'"') => Quoted,
            (_, b) if b == self.delimiter => FieldStart,
            (_, b'\n' | b'\r') => {
                self.record_bytes = 0;
                FieldStart
            }
            _ => Plain,
        };
    }

    fn fail(&self, what: String) -> std::io::Error {
        self.notes.borrow_mut().trouble = Some((self.record_line, what));
        std::io::Error::other("refused")
    }
}

impl<R: Read> Read for Guard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        for &byte in &buffer[..n] {
            self.step(byte);
            if self.record_bytes > LINE_BYTES_MAX {
                let hint = if self.state == State::Quoted { ": is a quote left open?" } else { "" };
                return Err(self.fail(format!("the record is longer than the limit of 1 MiB{hint}")));
            }
        }
        if n == 0 && !buffer.is_empty() && self.state == State::Quoted {
            return Err(self.fail("a quote opened in this record is never closed".into()));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(usize, Vec<String>)>> {
        let mut records = Records::new(bytes, Path::new("f.csv"), 1, b',');
        let mut out = Vec::new();
        while let Some(record) = records.next_record()? {
            out.push(record);
        }
        Ok(out)
    }

    #[test]
    fn quotes_line_breaks_mark_and_blank_lines() {
        let got = all(b"\xef\xbb\xbfa,b\r\n\r\n\"x, \"\"y\"\"\nz\",5\" nail\r\n,\n1,2").unwrap();
        let want: Vec<(usize, Vec<&str>)> = vec![
            (1, vec!["a", "b"]),
            (3, vec!["x, \"y\"\nz", "5\" nail"]),
            (5, vec!["", ""]),
            (6, vec!["1", "2"]),
        ];
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
    }

    #[test]
    fn open_quote_is_an_error() {
        let e = all(b"a,b\n1,2\n3,\"four\n5,6\n").unwrap_err().to_string();
        assert_eq!(e, "f.csv:3: a quote opened in this record is never closed");
    }

    #[test]
    fn record_length_is_bounded() {
        let mut bytes = b"a,b\n1,\"".to_vec();
        bytes.resize(3 << 20, b'\n');
        let e = all(&bytes).unwrap_err().to_string();
        assert_eq!(e, "f.csv:2: the record is longer than the limit of 1 MiB: is a quote left open?");
        let mut bytes = b"a,b\n1,".to_vec();
        bytes.resize(3 << 20, b'x');
        let e = all(&bytes).unwrap_err().to_string();
        assert_eq!(e, "f.csv:2: the record is longer than the limit of 1 MiB");
    }

    #[test]
    fn bad_bytes_are_placed() {
        let e = all(b"a,b\n1,\"x\n\ny\xff\"\n").unwrap_err().to_string();
        assert!(e.starts_with("f.csv:4: field 2: not UTF-8 at byte 4 (0xff)"), "{e}");
        let e = all(b"a,b\n1,x\0\n").unwrap_err().to_string();
        assert!(e.starts_with("f.csv:2: field 2: a NUL at byte 1"), "{e}");
    }
}
