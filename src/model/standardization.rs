//! Numbers to be learned, in units of their own spread.

use crate::ops::loss::Target;
use crate::train::Labelled;

/// What numbers are measured in while they are learned: mean 0, standard deviation 1.
pub(super) struct Standardization {
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

impl Standardization {
    /// Of the numbers among the targets; 0 and 1 where there is none.
    pub fn of(data: &[Labelled]) -> Standardization {
        let values = || {
            data.iter().filter_map(|d| match d.target {
                Target::Value(v) => Some(f64::from(v)),
                _ => None,
            })
        };
        let n = values().count().max(1) as f64;
        let mean = values().sum::<f64>() / n;
        let deviation = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        Standardization { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
    }

    pub fn enter(&self, target: &mut Target) {
        if let Target::Value(v) = target {
            *v = ((f64::from(*v) - self.mean) / self.deviation) as f32;
        }
    }

    /// Has the head give what it gave in this unit in the numbers' own.
    pub fn leave(&self, weight: &mut [f32], bias: &mut [f32]) {
        if (self.mean, self.deviation) != (0.0, 1.0) {
            weight.iter_mut().for_each(|w| *w = (f64::from(*w) * self.deviation) as f32);
            bias.iter_mut().for_each(|b| *b = (f64::from(*b) * self.deviation + self.mean) as f32);
        }
    }
}
