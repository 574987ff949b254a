//! AdamW (Loshchilov and Hutter, arXiv 1711.05101) over the trained ranges of theta, and the learning rate's schedule.

use std::ops::Range;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;

/// A range of theta that is trained with one rate and one decay.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its place in theta.
    pub range: Range<usize>,
    /// Factor on the learning rate.
    pub rate: f32,
    /// Decoupled weight decay.
    pub decay: f32,
}

/// Moments of the gradient, with the layout of theta.
#[derive(Clone, Debug)]
pub struct AdamW {
    groups: Vec<Group>,
    m: Vec<f32>,
    v: Vec<f32>,
    step: i32,
}

impl AdamW {
    /// Fresh moments for a theta of `len` values.
    pub fn new(len: usize, groups: Vec<Group>) -> AdamW {
        AdamW { groups, m: vec![0.0; len], v: vec![0.0; len], step: 0 }
    }

    /// First and second moments, and the updates they have seen.
    pub fn state(&self) -> (&[f32], &[f32], i32) {
        (&self.m, &self.v, self.step)
    }

    /// Goes on from such a state, of a theta of the same length.
    pub fn restore(&mut self, m: &[f32], v: &[f32], updates: i32) {
        self.m.copy_from_slice(m);
        self.v.copy_from_slice(v);
        self.step = updates;
    }

    /// One update with learning rate `lr`. Values outside the groups do not move.
    pub fn update(&mut self, theta: &mut [f32], grad: &[f32], lr: f64) {
        self.step += 1;
        // f64 and the `libm` crate: the same bits on every platform.
        let correct1 = 1.0 - libm::pow(f64::from(BETA1), f64::from(self.step));
        let correct2 = 1.0 - libm::pow(f64::from(BETA2), f64::from(self.step));
        let root2 = correct2.sqrt() as f32;
        for g in &self.groups {
            let rate = (lr * f64::from(g.rate)) as f32;
            let size = (f64::from(rate) / correct1) as f32;
            let shrink = 1.0 - rate * g.decay;
            let values = theta[g.range.clone()].iter_mut().zip(&grad[g.range.clone()]);
            let moments = self.m[g.range.clone()].iter_mut().zip(&mut self.v[g.range.clone()]);
            for ((t, &d), (m, v)) in values.zip(moments) {
                *m = BETA1 * *m + (1.0 - BETA1) * d;
                *v = BETA2 * *v + (1.0 - BETA2) * d * d;
                *t = *t * shrink - size * *m / (v.sqrt() / root2 + EPS);
            }
        }
    }
}

/// Linear warm-up from 0 over the first `warmup` steps, then linear decay to 0 at `total`.
///
/// `step` counts from 0; as `get_linear_schedule_with_warmup` of transformers.
pub fn schedule(step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        step as f64 / warmup.max(1) as f64
    } else {
        total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64
    }
}

/// Scales `grad` so that its norm over `ranges` is at most `limit`; returns the norm before.
pub fn clip(grad: &mut [f32], ranges: &[Range<usize>], limit: f32) -> f64 {
    let square = |r: &Range<usize>| grad[r.clone()].iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    let norm = ranges.iter().map(square).sum::<f64>().sqrt();
    if limit > 0.0 && norm > f64::from(limit) {
        let factor = (f64::from(limit) / (norm + 1e-6)) as f32;
        grad.iter_mut().for_each(|g| *g *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.optim.AdamW([p], lr=0.1, weight_decay=0.01)` on p = [1, -2], gradients [0.5, -0.25] then [0.1, 0.3].
    #[test]
    fn follows_pytorch() {
        let group = Group { range: 0..2, rate: 1.0, decay: 0.01 };
        let mut opt = AdamW::new(3, vec![group]);
        let mut p = [1.0, -2.0, 7.0];
        opt.update(&mut p, &[0.5, -0.25, 9.0], 0.1);
        let first = p;
        opt.update(&mut p, &[0.1, 0.3, 9.0], 0.1);
        let close = |a: f32, b: f32| assert!((a - b).abs() < 2e-6, "{a} {b}");
        close(first[0], 0.899);
        close(first[1], -1.898);
        close(p[0], 0.817_796_95);
        close(p[1], -1.910_396_6);
        assert_eq!(p[2], 7.0, "outside the group nothing moves");
    }

    #[test]
    fn schedule_warms_up_and_decays_to_zero() {
        let lr: Vec<f64> = (0..=10).map(|s| schedule(s, 2, 10)).collect();
        assert_eq!(lr, [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]);
    }

    #[test]
    fn clip_limits_the_norm_over_the_trained_ranges() {
        let mut g = [3.0, 100.0, 4.0];
        assert_eq!(clip(&mut g, &[0..1, 2..3], 1.0), 5.0);
        assert!((g[0] - 0.6).abs() < 1e-5 && (g[2] - 0.8).abs() < 1e-5);
        assert!(clip(&mut [f32::NAN, 0.0], &[0..1, 1..2], 1.0).is_nan());
    }
}
