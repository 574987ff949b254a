//! Sums of gradients that do not depend on their order.
//!
//! A gradient of a batch is the sum of its texts' gradients, and these come from several threads and from pieces of
//! any size. In floating point the order would show in the last bits; so each text's share is rounded to a multiple
//! of 2⁻⁴⁴ and the sum is one of integers, exact. AdamW's `eps` hides anything below a hundred thousand such units.

use std::ops::Range;

/// Units in 1.
const UNITS: f32 = (1u64 << 44) as f32;
/// A text's share of this size or more, or none at all (NaN), spoils the sum. 128 of the largest share fit; beyond that the sum stays at its end.
const LIMIT: f32 = 4096.0;

/// A sum of vectors that have the layout of theta.
pub struct ExactSum {
    units: Vec<i64>,
    spoilt: bool,
}

impl ExactSum {
    /// Zeros.
    pub fn new(len: usize) -> ExactSum {
        ExactSum { units: vec![0; len], spoilt: false }
    }

    /// Adds values at `range`.
    pub fn add(&mut self, range: Range<usize>, values: &[f32]) {
        let units = &mut self.units[range];
        assert_eq!(units.len(), values.len());
        let mut fine = true;
        for (sum, v) in units.iter_mut().zip(values) {
            fine &= v.abs() < LIMIT;
            *sum = sum.saturating_add((v * UNITS) as i64);
        }
        self.spoilt |= !fine;
    }

    /// Moves another sum into this one, and leaves zeros there.
    pub fn take(&mut self, other: &mut ExactSum) {
        for (a, b) in self.units.iter_mut().zip(&mut other.units) {
            *a = a.saturating_add(std::mem::take(b));
        }
        self.spoilt |= std::mem::take(&mut other.spoilt);
    }

    /// Moves the sum to `grad`, rounded once; all NaN where a share was not finite or absurdly large.
    pub fn finish(&mut self, grad: &mut [f32]) {
        let spoilt = std::mem::take(&mut self.spoilt);
        for (grad, units) in grad.iter_mut().zip(&mut self.units) {
            let sum = std::mem::take(units) as f64 / f64::from(UNITS);
            *grad = if spoilt { f32::NAN } else { sum as f32 };
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
