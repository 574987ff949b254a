//! What lies below the lowest trained bias: the same for a text in every epoch, so computed once and kept.
//!
//! A cache lives for one run, on one open base and with the biases the run began with, and is addressed by the index
//! of an example in the run's data. So nothing stale can get in, and nothing needs a fingerprint.

use crate::error::Result;
use crate::graph::{Batch, Graph, Split};
use crate::tokenize::Encoded;
use half::f16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Hidden states of examples, in front of the lowest trained layer. First come, first kept: what does not fit is
/// computed each time it is needed.
pub(crate) struct PrefixCache {
    /// By example: `[tokens, hidden]`.
    states: Vec<OnceLock<Box<[f16]>>>,
    left_bytes: Arc<AtomicUsize>,
}

impl PrefixCache {
    /// Caches for sets of these numbers of examples, which together take at most `size` bytes.
    pub fn sharing<const N: usize>(size: usize, examples: [usize; N]) -> [PrefixCache; N] {
        let left_bytes = Arc::new(AtomicUsize::new(size));
        examples.map(|n| PrefixCache {
            states: (0..n).map(|_| OnceLock::new()).collect(),
            left_bytes: left_bytes.clone(),
        })
    }

    fn get(&self, example: usize) -> Option<&[f16]> {
        self.states.get(example)?.get().map(|x| &**x)
    }

    /// Keeps a copy if there is room.
    fn keep(&self, example: usize, x: &[f16]) {
        let Some(place) = self.states.get(example) else { return };
        let take = |left: usize| left.checked_sub(size_of_val(x));
        if self.left_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            // A text that stands twice in a batch may be there by now, with the same values.
            let _ = place.set(x.into());
        }
    }
}

/// Examples of a batch as a cache knows them: the cache, and the index of each text.
pub(crate) type Known<'a> = (&'a PrefixCache, &'a [usize]);

/// The hidden states `[rows, hidden]` of `texts` at the cut, kept ones and computed ones side by side.
pub(crate) fn states(
    graph: &Graph,
    split: &Split,
    texts: &[&Encoded],
    known: Option<Known>,
    theta: &[f32],
) -> Result<Vec<f16>> {
    let kept: Vec<Option<&[f16]>> = match known {
        Some((cache, indices)) => indices.iter().map(|&i| cache.get(i)).collect(),
        None => vec![None; texts.len()],
    };
    let missing: Vec<&Encoded> =
        texts.iter().zip(&kept).filter(|(_, kept)| kept.is_none()).map(|(text, _)| *text).collect();
    let fresh = match missing.is_empty() {
        true => Vec::new(),
        false => graph.below(split, &Batch::new(missing, None), theta)?,
    };
    let rows: usize = texts.iter().map(|t| t.ids.len()).sum();
    let mut x = Vec::with_capacity(rows * graph.hidden());
    let mut fresh = &fresh[..];
    for (i, (text, kept)) in texts.iter().zip(kept).enumerate() {
        match kept {
            Some(kept) => x.extend_from_slice(kept),
            None => {
                let (own, rest) = fresh.split_at(text.ids.len() * graph.hidden());
                if let Some((cache, indices)) = known {
                    cache.keep(indices[i], own);
                }
                x.extend_from_slice(own);
                fresh = rest;
            }
        }
    }
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_fits_and_what_came_first() {
        let [a, b] = PrefixCache::sharing(10, [2, 1]);
        let x = |v: f32, n: usize| vec![f16::from_f32(v); n];
        a.keep(1, &x(1.0, 3));
        b.keep(0, &x(2.0, 3));
        assert_eq!((a.get(1), b.get(0)), (Some(&x(1.0, 3)[..]), None), "6 of 10 bytes are taken");
        b.keep(0, &x(3.0, 2));
        a.keep(0, &x(4.0, 1));
        assert_eq!((a.get(0), b.get(0)), (None, Some(&x(3.0, 2)[..])), "no byte is left");
        a.keep(7, &x(5.0, 0));
        assert_eq!(a.get(7), None, "no such example");
    }
}
