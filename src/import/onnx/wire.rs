//! The little of protobuf's wire format that ONNX needs: fields read from a file in small pieces.
//!
//! A message is a sequence of fields, each a varint `number << 3 | type` and a value: type 0 a varint, 1 eight bytes,
//! 2 a length and that many bytes (text, tensor data, messages), 5 four bytes. Groups (3, 4) are not in ONNX.

use crate::import::safetensors::read_at;
use std::fs::File;

/// Bytes fetched at a time.
const PIECE: usize = 16 << 10;

/// What fields are read from.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a File);

impl Bytes<'_> {
    /// Fills `into` from offset `at`, or fails with what is wrong.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        read_at(self.0, at, into).map_err(|e| e.to_string())
    }
}

/// Value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    /// Where its bytes lie; within the message.
    Len {
        at: u64,
        len: u64,
    },
    Fixed32([u8; 4]),
}

impl Value {
    /// The place of a field that has a length.
    pub fn place(self) -> Result<(u64, u64), String> {
        match self {
            Value::Len { at, len } => Ok((at, len)),
            _ => Err("a field is a number where bytes are expected".into()),
        }
    }

    /// The number of a varint.
    pub fn number(self) -> Result<u64, String> {
        match self {
            Value::Varint(n) => Ok(n),
            _ => Err("a field is not the number that is expected".into()),
        }
    }
}

/// Walks the fields of one message.
pub(super) struct Fields<'a> {
    bytes: Bytes<'a>,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    piece_at: u64,
}

impl<'a> Fields<'a> {
    /// The message in `at .. at + len`.
    pub fn new(bytes: Bytes<'a>, at: u64, len: u64) -> Fields<'a> {
        Fields { bytes, at, end: at.saturating_add(len), piece: Vec::new(), piece_at: at }
    }

    /// Number and value of the next field; none at the end.
    pub fn next(&mut self) -> Result<Option<(u64, Value)>, String> {
        if self.at >= self.end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed()?),
            2 => {
                let len = self.varint()?;
                if len > self.end - self.at {
                    return Err(format!("a field of {len} bytes at {} goes past the end", self.at));
                }
                let at = self.at;
                self.at += len;
                Value::Len { at, len }
            }
            5 => Value::Fixed32(self.fixed()?),
            other => return Err(format!("field of type {other} at byte {}", self.at)),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// A varint by itself, as packed numbers are.
    pub fn varint(&mut self) -> Result<u64, String> {
        let mut n = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(format!("a number longer than 64 bits at byte {}", self.at))
    }

    /// Whether all is read.
    pub fn is_done(&self) -> bool {
        self.at >= self.end
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut value = [0; N];
        for v in &mut value {
            *v = self.byte()?;
        }
        Ok(value)
    }

    fn byte(&mut self) -> Result<u8, String> {
        if self.at >= self.end {
            return Err(format!("ends early, at byte {}", self.at));
        }
        let have = self.piece_at..self.piece_at + self.piece.len() as u64;
        if !have.contains(&self.at) {
            self.piece.resize((self.end - self.at).min(PIECE as u64) as usize, 0);
            self.bytes.read(self.at, &mut self.piece)?;
            self.piece_at = self.at;
        }
        let byte = self.piece[(self.at - self.piece_at) as usize];
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::{put_bytes, put_number};
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn writes_and_reads() {
        let mut out = Vec::new();
        put_number(&mut out, 3, u64::MAX);
        put_bytes(&mut out, 300, b"abc");
        let file = file(&out);
        let mut fields = Fields::new(Bytes(&file), 0, out.len() as u64);
        assert_eq!(fields.next().unwrap(), Some((3, Value::Varint(u64::MAX))));
        let at = out.len() as u64 - 3;
        assert_eq!(fields.next().unwrap(), Some((300, Value::Len { at, len: 3 })));
        assert_eq!(fields.next().unwrap(), None);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut eleven_bytes = vec![0x08];
        eleven_bytes.extend([0x80; 10]);
        eleven_bytes.push(1);
        for bad in
            [&[0x0a, 5, 1][..], &[0x08], &[0x0b], &[0x08, 0xff, 0xff, 0xff], &[0xff; 11], &eleven_bytes]
        {
            let file = file(bad);
            assert!(Fields::new(Bytes(&file), 0, bad.len() as u64).next().is_err(), "{bad:?}");
        }
    }
}
