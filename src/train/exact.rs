//! Sums of gradients that do not depend on their order.
//!
//! A gradient of a batch is the sum of its texts' gradients, and these come from several threads and from pieces of
//! any size. In floating point the order would show in the last bits; so each text's share is rounded to a multiple
//! of 2⁻³⁶ and added in f64, where such sums are exact up to 2¹⁷. AdamW's `eps` is hundreds of such units.

use std::ops::Range;

/// `x + ROUND - ROUND` is `x` rounded to a multiple of 2⁻³⁶: around 1.5 · 2¹⁶ that is the distance of two f64.
const ROUND: f64 = 1.5 * (1u64 << 16) as f64;
/// A share of this size or more, or none at all (NaN), spoils the sum.
const LIMIT: f32 = (1 << 15) as f32;
/// What the sizes of all shares are counted in, so that this sum too is one of integers.
const SIZES: f32 = (1 << 10) as f32;
/// The most that all shares together may be.
const MOST: u64 = (1 << 17) * (1 << 10);

/// A sum of vectors that have the layout of theta.
pub struct ExactSum {
    sums: Vec<f64>,
    /// Sum of the shares' largest values; none once a share was spoilt.
    size: Option<u64>,
}

impl ExactSum {
    /// Zeros.
    pub fn new(len: usize) -> ExactSum {
        ExactSum { sums: vec![0.0; len], size: Some(0) }
    }

    /// Adds values at `range`.
    pub fn add(&mut self, range: Range<usize>, values: &[f32]) {
        let sums = &mut self.sums[range];
        assert_eq!(sums.len(), values.len());
        // The bits of |v| order as |v| does, with NaN on top, which a maximum of floats would lose.
        let mut largest = 0i32;
        for (sum, v) in sums.iter_mut().zip(values) {
            largest = largest.max(v.to_bits() as i32 & i32::MAX);
            *sum += f64::from(*v) + ROUND - ROUND;
        }
        let largest = f32::from_bits(largest as u32);
        let size = (largest < LIMIT).then(|| (largest * SIZES).ceil() as u64);
        self.size = self.size.zip(size).map(|(all, size)| all.saturating_add(size));
    }

    /// Moves another sum into this one, and leaves zeros there.
    pub fn take(&mut self, other: &mut ExactSum) {
        for (a, b) in self.sums.iter_mut().zip(&mut other.sums) {
            *a += std::mem::take(b);
        }
        let size = other.size.replace(0);
        self.size = self.size.zip(size).map(|(a, b)| a.saturating_add(b));
    }

    /// Moves the sum to `grad`, rounded once; all NaN where a share was not finite or all together absurdly large.
    pub fn finish(&mut self, grad: &mut [f32]) {
        let fine = self.size.replace(0).is_some_and(|size| size < MOST);
        for (grad, sum) in grad.iter_mut().zip(&mut self.sums) {
            let sum = std::mem::take(sum);
            *grad = if fine { sum as f32 } else { f32::NAN };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order_and_any_grouping_give_the_same_bits() {
        let shares: Vec<[f32; 3]> =
            (0..50).map(|i| [1e-7 * i as f32, (i as f32 * 0.7).sin(), 3e3 / (1.0 + i as f32)]).collect();
        let grad = |sum: &mut ExactSum| {
            let mut grad = [0.0; 3];
            sum.finish(&mut grad);
            grad
        };
        let mut forward = ExactSum::new(3);
        shares.iter().for_each(|s| forward.add(0..3, s));
        let (mut a, mut b) = (ExactSum::new(3), ExactSum::new(3));
        for (i, s) in shares.iter().enumerate().rev() {
            if i % 3 == 0 { &mut a } else { &mut b }.add(0..3, s);
        }
        b.take(&mut a);
        let wanted = grad(&mut forward);
        assert_eq!(grad(&mut b), wanted);
        assert_eq!((grad(&mut a), grad(&mut forward)), ([0.0; 3], [0.0; 3]), "both are used up");
        let exact = shares.iter().map(|s| f64::from(s[1])).sum::<f64>();
        assert!((f64::from(wanted[1]) - exact).abs() < 1e-7, "{wanted:?}");
    }

    #[test]
    fn what_is_no_number_shows() {
        for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e9] {
            let mut sum = ExactSum::new(2);
            sum.add(1..2, &[bad]);
            let mut grad = [0.0; 2];
            sum.finish(&mut grad);
            assert!(grad.iter().all(|g| g.is_nan()), "{bad}");
            sum.add(0..2, &[1.0, -2.0]);
            sum.finish(&mut grad);
            assert_eq!(grad, [1.0, -2.0], "the next sum is its own");
        }
    }
}
