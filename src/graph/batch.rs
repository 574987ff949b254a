//! Texts as a plan reads them.

use crate::ops::dropout;
use crate::tokenize::Encoded;

/// A ragged batch: the tokens of all texts one after another.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[3, rows]`: word, position and type ids, row after row.
    pub(super) tokens: Vec<i32>,
    /// `[batch + 1]`: where each text starts, and the number of rows.
    pub(super) offsets: Vec<i32>,
    /// `[batch]`: dropout keys.
    pub(super) keys: Vec<i64>,
    /// `[examples + 1]`: where the texts of each example start, and the number of rows. An example is one text, a pair that
    /// is read apart, or a long text in windows.
    pub(super) examples: Vec<i32>,
    /// `[examples]`: the dropout key of each example's first text.
    pub(super) example_keys: Vec<i64>,
}

impl Batch {
    /// Joins encoded examples; each sequence becomes a text. `keys` has one for each example; without keys dropout is off.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Encoded>, keys: Option<Vec<i64>>) -> Batch {
        let (mut ids, mut positions, mut types, mut offsets) = (vec![], vec![], vec![], vec![0]);
        let (mut of_texts, mut starts, mut example_keys) = (vec![], vec![0], vec![]);
        for example in examples {
            let mut key = keys.as_ref().map_or(dropout::OFF, |keys| keys[example_keys.len()]);
            example_keys.push(key);
            for text in example.sequences() {
                positions.extend(0..text.len() as i32);
                offsets.push((ids.len() + text.end) as i32);
                of_texts.push(key);
                key = dropout::partner(key);
            }
            ids.extend_from_slice(&example.ids);
            types.extend_from_slice(&example.types);
            starts.push(ids.len() as i32);
        }
        let tokens = [ids, positions, types].concat();
        Batch { tokens, offsets, keys: of_texts, examples: starts, example_keys }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Number of tokens.
    pub fn rows(&self) -> usize {
        self.tokens.len() / 3
    }

    pub(crate) fn offsets(&self) -> &[i32] {
        &self.offsets
    }

    pub(crate) fn examples(&self) -> &[i32] {
        &self.examples
    }

    pub(crate) fn keys(&self) -> &[i64] {
        &self.keys
    }
}
