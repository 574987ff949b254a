//! How texts are cut into micro-batches, and how many of these run at a time.

use crate::error::Result;
use crate::sys::cores;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Tokens of a micro-batch: enough rows to pay for unpacking the weights, few enough to stay near the cores.
pub(crate) const MICRO_ROWS: usize = 256;

/// How a batch is cut. Decides memory and speed, never a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroBatching {
    /// Most tokens of a micro-batch; a longer text is one of its own.
    pub rows: usize,
    /// Micro-batches that run at a time; threads beyond that work inside them.
    pub lanes: usize,
}

impl MicroBatching {
    /// Micro-batches of 256 tokens, one for each of the threads.
    pub fn of_threads(threads: usize) -> MicroBatching {
        MicroBatching { rows: MICRO_ROWS, lanes: threads }
    }

    /// Cuts texts of these lengths into runs of at most [`MicroBatching::rows`] tokens.
    pub(crate) fn micro_batches(self, lengths: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for (i, len) in lengths.enumerate() {
            match parts.last_mut() {
                Some(part) if rows + len <= self.rows => {
                    part.end = i + 1;
                    rows += len;
                }
                _ => {
                    parts.push(i..i + 1);
                    rows = len;
                }
            }
        }
        parts
    }

    /// Runs `f` on every micro-batch, on the threads of the current pool. Results in the order of the parts, or the
    /// error of the first that fails.
    ///
    /// Not one task a part: a thread that waits inside a part for its kernels' other threads would begin the next
    /// part meanwhile, and the memory of both would be in use.
    pub(crate) fn run<T: Send>(
        self,
        parts: &[Range<usize>],
        f: impl Fn(Range<usize>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::with_capacity(parts.len()));
        let lanes = self.lanes.clamp(1, parts.len().max(1));
        cores::awake(|| {
            (0..lanes).into_par_iter().with_max_len(1).for_each(|_| {
                while let Some((i, part)) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    parts.get(i).map(|part| (i, part))
                } {
                    let result = f(part.clone());
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                }
            });
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|(i, _)| *i);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn micro_batches_cover_everything_in_order() {
        let lengths = [100, 100, 56, 1, 300, 2, 255, 1];
        let cut = MicroBatching::of_threads(1);
        assert_eq!(cut.micro_batches(lengths.into_iter()), [0..3, 3..4, 4..5, 5..6, 6..8]);
        assert_eq!(MicroBatching { rows: 1, ..cut }.micro_batches([3, 1, 1].into_iter()), [0..1, 1..2, 2..3]);
        assert!(cut.micro_batches(std::iter::empty()).is_empty());
    }

    /// Each part has inner parallel work, whose waiting threads must not begin further parts.
    #[test]
    fn no_more_parts_at_a_time_than_lanes_and_results_in_order() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let parts: Vec<Range<usize>> = (0..40).map(|i| i..i + 1).collect();
        for lanes in [1, 2, 4] {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let run = |part: Range<usize>| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let inner: usize = (0..64usize)
                    .into_par_iter()
                    .map(|i| std::hint::black_box((0..2000).fold(i, |a, b| a ^ b)) & 1)
                    .sum();
                now.fetch_sub(1, Ordering::SeqCst);
                if inner > 64 { Err(Error::Internal("more than all".into())) } else { Ok(part.start) }
            };
            let all = pool.install(|| MicroBatching { rows: 1, lanes }.run(&parts, run)).unwrap();
            assert_eq!(all, (0..40).collect::<Vec<_>>());
            assert!(most.into_inner() <= lanes);
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let fail = |part: Range<usize>| match part.start {
            0 => Ok(()),
            i => Err(Error::Config(format!("part {i}"))),
        };
        let e = MicroBatching { rows: 1, lanes: 3 }.run(&[0..1, 1..2, 2..3], fail).unwrap_err();
        assert_eq!(e.to_string(), "part 1");
    }
}
