//! Lines of a text file, bounded in length and checked, so that no file can exhaust the memory.

use crate::error::{Error, Result};
use std::io::BufRead;
use std::path::Path;

/// Longest line, or record of a CSV file, in bytes: far beyond any text an encoder can look at.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// How far to look for the end of a line that is too long, only to say how long it is.
const COUNT_BYTES_MAX: u64 = 256 << 20;
/// UTF-8 byte order mark.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads line by line; the terminator (`\n` or `\r\n`) and a leading byte order mark are taken off.
pub struct Lines<'p, R> {
    reader: R,
    path: &'p Path,
    buffer: Vec<u8>,
    line: usize,
    keep_blank: bool,
}

impl<'p, R: BufRead> Lines<'p, R> {
    /// Starts at the first line; `path` is for messages.
    pub fn new(reader: R, path: &'p Path) -> Self {
        Lines { reader, path, buffer: Vec::new(), line: 0, keep_blank: false }
    }

    /// Gives blank lines too, for readers whose every line has an answer.
    pub fn keep_blank(self) -> Self {
        Lines { keep_blank: true, ..self }
    }

    /// The next line that is not blank (or any, see [`Lines::keep_blank`]), with its number from 1; `None` at the end.
    ///
    /// Errors: reading fails; a line is too long, is not UTF-8 or holds a NUL.
    pub fn next_line(&mut self) -> Result<Option<(usize, &str)>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            if self.keep_blank
                || !self.buffer.iter().all(u8::is_ascii_whitespace)
                || self.buffer.contains(&b'\t')
            {
                break; // a line of tabs is not blank: it is a row of empty fields
            }
        }
        let text =
            check_text(&self.buffer).map_err(|(_, what)| Error::data(self.path, Some(self.line), what))?;
        Ok(Some((self.line, text)))
    }

    /// Reads one line into the buffer; false at the end of the file.
    fn fill(&mut self) -> Result<bool> {
        self.buffer.clear();
        let mut bytes: u64 = 0; // of this line, kept or not
        let ended = loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io(self.path)(e)),
            };
            if chunk.is_empty() {
                break false;
            }
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            bytes += part.len() as u64;
            // Two bytes more than the limit: `\r`, and one that shows that the line is too long.
            let room = LINE_BYTES_MAX + 2 - self.buffer.len();
            self.buffer.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() || bytes > COUNT_BYTES_MAX {
                break true;
            }
        };
        if !ended && bytes == 0 {
            return Ok(false);
        }
        self.line += 1;
        if self.line == 1 && self.buffer.starts_with(BOM) {
            self.buffer.drain(..BOM.len());
        }
        if self.buffer.last() == Some(&b'\r') {
            self.buffer.pop();
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            let over = if bytes > COUNT_BYTES_MAX { "over " } else { "" };
            let what = format!("the line is {over}{} long; the limit is 1 MiB", size(bytes));
            return Err(Error::data(self.path, Some(self.line), what));
        }
        Ok(true)
    }
}

/// Text without NUL; else the offset of the first bad byte, from 0, and what is wrong there.
pub fn check_text(bytes: &[u8]) -> Result<&str, (usize, String)> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let what = "if the file is in another encoding, name it with --encoding";
        (at, format!("not UTF-8 at byte {at} (0x{:02x}); {what}", bytes[at]))
    })?;
    match memchr::memchr(0, bytes) {
        Some(at) => Err((at, format!("a NUL at byte {at}: is this a text file?"))),
        None => Ok(text),
    }
}

/// A size for people, in decimal units.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(usize, String)>> {
        // A buffer of 3 bytes: lines cross its borders.
        let reader = std::io::BufReader::with_capacity(3, bytes);
        let mut lines = Lines::new(reader, Path::new("f"));
        let mut out = Vec::new();
        while let Some((n, text)) = lines.next_line()? {
            out.push((n, text.to_owned()));
        }
        Ok(out)
    }

    #[test]
    fn mark_terminators_and_blank_lines_go() {
        let got = all(b"\xef\xbb\xbfa\r\n\n  \r\nb\tc\n\t\n\xc3\xa9").unwrap();
        let want = [(1, "a"), (4, "b\tc"), (5, "\t"), (6, "é")];
        assert_eq!(got, want.map(|(n, s)| (n, s.to_string())));
        assert!(all(b"").unwrap().is_empty());
        assert!(all(b"\xef\xbb\xbf").unwrap().is_empty());
    }

    #[test]
    fn bad_bytes_are_placed() {
        let e = all(b"ok\nab\xff").unwrap_err().to_string();
        assert!(e.starts_with("f:2: not UTF-8 at byte 2 (0xff); if the file"), "{e}");
        let e = all(b"ab\xe2\x82\n").unwrap_err().to_string();
        assert!(e.starts_with("f:1: not UTF-8 at byte 2 (0xe2)"), "{e}");
        let e = all(b"a\0b").unwrap_err().to_string();
        assert!(e.starts_with("f:1: a NUL at byte 1"), "{e}");
    }

    #[test]
    fn length_is_bounded() {
        let mut bytes = vec![b'x'; LINE_BYTES_MAX];
        bytes.extend_from_slice(b"\r\nshort\n");
        let mut lines = Lines::new(&bytes[..], Path::new("f"));
        assert_eq!(lines.next_line().unwrap().map(|(n, t)| (n, t.len())), Some((1, LINE_BYTES_MAX)));
        assert_eq!(lines.next_line().unwrap(), Some((2, "short")));

        let mut bytes = b"a\n".to_vec();
        bytes.resize(10_000_002, b'x');
        let mut lines = Lines::new(&bytes[..], Path::new("f"));
        lines.next_line().unwrap();
        let e = lines.next_line().unwrap_err().to_string();
        assert_eq!(e, "f:2: the line is 10 MB long; the limit is 1 MiB");
        assert!(lines.buffer.capacity() <= 4 * LINE_BYTES_MAX);
    }

    #[test]
    fn endless_line_is_given_up() {
        struct Endless;
        impl std::io::Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                buffer.fill(b'x');
                Ok(buffer.len())
            }
        }
        let mut lines = Lines::new(std::io::BufReader::with_capacity(1 << 20, Endless), Path::new("f"));
        let e = lines.next_line().unwrap_err().to_string();
        assert!(e.contains("the line is over 26"), "{e}");
    }
}
