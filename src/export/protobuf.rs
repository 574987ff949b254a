//! Protocol Buffers' wire format, as much of it as ONNX needs.
//!
//! A message is a run of fields. Each begins with the varint `number << 3 | type`: type 0 is a varint, 2 a length and as
//! many bytes (text, a message), 5 four bytes. Numbers and types are those of `onnx.proto3`.

/// A message, field after field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A message without fields.
    pub fn new() -> Message {
        Message::default()
    }

    /// Appends a whole number.
    pub fn int(mut self, field: u32, value: i64) -> Message {
        self.tag(field, 0);
        // Negative numbers have all ten bytes, as the format wants it.
        self.varint(value as u64);
        self
    }

    /// Appends an f32.
    pub fn float(mut self, field: u32, value: f32) -> Message {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Appends bytes.
    pub fn bytes(mut self, field: u32, value: &[u8]) -> Message {
        self.length(field, value.len() as u64);
        self.0.extend(value);
        self
    }

    /// Appends text.
    pub fn text(self, field: u32, value: &str) -> Message {
        self.bytes(field, value.as_bytes())
    }

    /// Appends a message.
    pub fn message(self, field: u32, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }

    /// Appends the number and the length of a field of `bytes` bytes, which the caller writes behind this message.
    pub fn open(mut self, field: u32, bytes: u64) -> Message {
        self.length(field, bytes);
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

    fn tag(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    fn length(&mut self, field: u32, bytes: u64) {
        self.tag(field, 2);
        self.varint(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
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
