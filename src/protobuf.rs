//! Protocol Buffers' wire format, as much of it as ONNX needs.
//!
//! A message is a run of fields. Each begins with the varint `number << 3 | type`: type 0 is a varint, 2 a length and as
//! many bytes (text, a message), 5 four bytes. Numbers and types are those of `onnx.proto3`.

/// A message, field after field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message without fields.
    pub fn new() -> Message {
        Message::default()
    }

    /// Appends a whole number.
    pub fn int(mut self, field: u64, value: i64) -> Message {
        // Negative numbers have all ten bytes, as the format wants it.
        put_number(&mut self.0, field, value as u64);
        self
    }

    /// Appends an f32.
    pub fn float(mut self, field: u64, value: f32) -> Message {
        put_varint(&mut self.0, field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends bytes.
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        put_bytes(&mut self.0, field, value);
        self
    }

    /// Appends text.
    pub fn text(self, field: u64, value: &str) -> Message {
        self.bytes(field, value.as_bytes())
    }

    /// Appends a message.
    pub fn message(self, field: u64, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }

    /// Appends the number and the length of a field of `bytes` bytes, which the caller writes behind this message.
    pub fn open(mut self, field: u64, bytes: u64) -> Message {
        put_length(&mut self.0, field, bytes);
        self
    }

    /// Appends the fields of another message.
    pub fn followed_by(mut self, other: &Message) -> Message {
        self.0.extend(&other.0);
        self
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A dimension of an input or output of an ONNX graph.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dim {
    /// Told by the data.
    Named(&'static str),
    /// The same for all.
    Fixed(usize),
}

/// ONNX's ValueInfoProto: an input or output `name`, its element type by its number in ONNX.
pub(crate) fn value_info(name: &str, element: i64, dims: &[Dim]) -> Message {
    let shape = dims.iter().fold(Message::new(), |shape, dim| {
        let dim = match dim {
            Dim::Fixed(n) => Message::new().int(1, *n as i64),
            Dim::Named(name) => Message::new().text(2, name),
        };
        shape.message(1, &dim)
    });
    let tensor = Message::new().int(1, element).message(2, &shape);
    Message::new().text(1, name).message(2, &Message::new().message(1, &tensor))
}

/// Appends a varint.
fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a field that is a number.
pub(crate) fn put_number(out: &mut Vec<u8>, field: u64, n: u64) {
    put_varint(out, field << 3);
    put_varint(out, n);
}

/// Appends a field that is bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_length(out, field, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends the number and the length of a field that is so many bytes.
fn put_length(out: &mut Vec<u8>, field: u64, bytes: u64) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of protobuf.dev's page on the encoding.
    #[test]
    fn known_bytes() {
        assert_eq!(Message::new().int(1, 150).as_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::new().text(2, "testing");
        assert_eq!(text.as_bytes(), b"\x12\x07testing");
        let inner = Message::new().int(1, 150);
        assert_eq!(Message::new().message(3, &inner).as_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let minus_two = Message::new().int(1, -2);
        assert_eq!(minus_two.as_bytes(), [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert_eq!(Message::new().float(2, 1.0).as_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
    }

    #[test]
    fn edges_of_a_varint() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 1]),
        ] {
            assert_eq!(&Message::new().int(1, value).as_bytes()[1..], bytes, "{value}");
        }
        assert_eq!(Message::new().int(16, 0).as_bytes(), [0x80, 0x01, 0], "a field number of two bytes");
    }

    #[test]
    fn an_open_field_is_that_of_its_bytes() {
        let data = vec![7u8; 300];
        let mut open = Message::new().open(9, 300).as_bytes().to_vec();
        open.extend(&data);
        assert_eq!(open, Message::new().bytes(9, &data).as_bytes());
    }
}
