//! The order of the examples: shuffled by a seed, and grouped by length.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Batches that are shuffled together before they are sorted by length: enough to group lengths, few enough
/// that an epoch's order stays random.
const GROUP: usize = 8;

/// Indices of one epoch's batches. The same seed and epoch give the same batches on every machine.
///
/// Within groups of eight batches the examples are sorted by length, so that a batch holds texts of like
/// length and its memory is even; then the batches are shuffled.
pub fn batches(lengths: &[usize], batch: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64 + 1);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.shuffle(&mut rng);
    for group in order.chunks_mut(batch.saturating_mul(GROUP)) {
        group.sort_by_key(|&i| lengths[i]);
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_once_and_lengths_together() {
        let lengths: Vec<usize> = (0..100).map(|i| i * 37 % 50 + 3).collect();
        let b = batches(&lengths, 8, 0, 0);
        let mut seen: Vec<usize> = b.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        let spread = |b: &Vec<usize>| {
            let l = b.iter().map(|&i| lengths[i]);
            l.clone().max().unwrap() - l.min().unwrap()
        };
        assert!(b.iter().map(spread).sum::<usize>() / b.len() < 15);
        assert_ne!(b, batches(&lengths, 8, 0, 1), "epochs differ");
        assert_ne!(b, batches(&lengths, 8, 1, 0), "seeds differ");
        assert_eq!(b, batches(&lengths, 8, 0, 0), "a seed is repeatable");
    }
}
