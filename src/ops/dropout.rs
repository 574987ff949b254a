//! Dropout without saved masks: whether an element is kept is a hash of where it stands.
//!
//! The key is the example's (seed, epoch and its index in the data), so a mask depends neither on the order
//! of a batch nor on how it was cut, and the backward computes it again.

/// A place in the network that drops: rate, and a number that tells places apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability of an element being dropped, in [0, 1).
    pub p: f32,
    /// Which place.
    pub site: u32,
}

/// The key that switches dropout off for an example.
pub const OFF: i64 = 0;

impl Dropout {
    /// Multiplies `x`, the values `[first, first + x.len())` of example `key` at this place, by 0 or `1/(1-p)`.
    pub fn apply(self, key: i64, first: usize, x: &mut [f32]) {
        if self.p == 0.0 || key == OFF {
            return;
        }
        let threshold = (f64::from(self.p) * 2f64.powi(32)) as u64;
        let keep = 1.0 / (1.0 - self.p);
        let stream = stream(key, self.site);
        for (i, x) in x.iter_mut().enumerate() {
            let hash = mix(stream.wrapping_add((first + i) as u64));
            *x *= if hash >> 32 < threshold { 0.0 } else { keep };
        }
    }

    /// The same for every row of a ragged batch: `x: [rows, cols]`, `offsets: [batch + 1]`, `keys: [batch]`.
    pub fn apply_rows(self, keys: &[i64], offsets: &[i32], cols: usize, x: &mut [f32]) {
        if self.p == 0.0 {
            return;
        }
        for (key, o) in keys.iter().zip(offsets.windows(2)) {
            self.apply(*key, 0, &mut x[o[0] as usize * cols..o[1] as usize * cols]);
        }
    }
}

/// The key of an example in an epoch; never [`OFF`].
pub fn key(seed: u64, epoch: usize, example: usize) -> i64 {
    (mix(mix(seed ^ 0x7472_696d).wrapping_add(((epoch as u64) << 40) ^ example as u64)) | 1) as i64
}

/// The key of the second text of an example whose first one has `key`.
pub fn partner(key: i64) -> i64 {
    if key == OFF { OFF } else { (mix(key as u64) | 1) as i64 }
}

/// The hash of place `i` of example `key` at a site.
pub(super) fn hash(key: i64, site: u32, i: usize) -> u64 {
    mix(stream(key, site).wrapping_add(i as u64))
}

fn stream(key: i64, site: u32) -> u64 {
    mix(key as u64 ^ (u64::from(site) << 48))
}

/// SplitMix64's finalizer (Steele et al. 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_asked_share_and_keeps_the_mean() {
        let mut x = vec![1.0f32; 100_000];
        Dropout { p: 0.1, site: 3 }.apply(key(0, 1, 2), 0, &mut x);
        let dropped = x.iter().filter(|v| **v == 0.0).count() as f64 / x.len() as f64;
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len() as f64;
        assert!((dropped - 0.1).abs() < 0.005, "{dropped}");
        assert!((mean - 1.0).abs() < 0.005, "{mean}");
    }

    #[test]
    fn a_mask_depends_on_the_example_and_not_on_its_place_in_the_batch() {
        let d = Dropout { p: 0.5, site: 0 };
        let (a, b) = (key(7, 0, 0), key(7, 0, 1));
        let mut ab = vec![1.0f32; 8];
        d.apply_rows(&[a, b], &[0, 1, 2], 4, &mut ab);
        let mut ba = vec![1.0f32; 8];
        d.apply_rows(&[b, a], &[0, 1, 2], 4, &mut ba);
        assert_eq!(ab[..4], ba[4..]);
        assert_eq!(ab[4..], ba[..4]);
        let mut off = vec![1.0f32; 8];
        d.apply_rows(&[OFF, OFF], &[0, 1, 2], 4, &mut off);
        assert_eq!(off, [1.0; 8]);
    }
}
