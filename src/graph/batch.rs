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
}

impl Batch {
    /// Joins encoded texts. Without keys dropout is off.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a Encoded>, keys: Option<Vec<i64>>) -> Batch {
        let (mut ids, mut positions, mut types, mut offsets) = (vec![], vec![], vec![], vec![0]);
        for text in texts {
            ids.extend_from_slice(&text.ids);
            types.extend_from_slice(&text.types);
            positions.extend(0..text.ids.len() as i32);
            offsets.push(ids.len() as i32);
        }
        let keys = keys.unwrap_or_else(|| vec![dropout::OFF; offsets.len() - 1]);
        let tokens = [ids, positions, types].concat();
        Batch { tokens, offsets, keys }
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

    pub(crate) fn keys(&self) -> &[i64] {
        &self.keys
    }
}
