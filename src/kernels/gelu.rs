//! GELU, its derivative, and the byte that keeps the derivative for the backward.
//!
//! The derivative of either form lies in (-0.1290, 1.1290), so one byte in steps of 1/203 spans it, 0 and 1
//! exactly: one byte a value instead of the four that keeping the input would take.

use super::Gelu;
use super::lanes::Lanes;
use super::math::{ROUND, exp, polynomial};

/// Steps of the code in 1: the most for which (-0.1290, 1.1290) fits a byte.
const STEPS: f32 = 203.0;
/// The code of 0.
const ZERO: f32 = 26.0;

/// The code of a derivative: `round_half_even(203 g) + 26`, clamped to a byte.
pub fn encode(g: f32) -> u8 {
    ((g * STEPS).round_ties_even() + ZERO).clamp(0.0, 255.0) as u8
}

/// The derivative a code stands for: `(code - 26) / 203`, within 1/406 of what was encoded.
pub fn decode(code: u8) -> f32 {
    (code as f32 - ZERO) * (1.0 / STEPS)
}

/// [`decode`] on 16 lanes.
#[inline(always)]
pub(super) fn decode_lanes<L: Lanes>(l: L, code: L::F) -> L::F {
    l.mul(l.sub(code, l.splat(ZERO)), l.splat(1.0 / STEPS))
}

/// The codes, in the low byte of every lane. `g` is within the range; a NaN's code is arbitrary but fixed.
#[inline(always)]
fn encode_lanes<L: Lanes>(l: L, g: L::F) -> L::I {
    // One rounding: `203 g + 26 + 1.5 · 2²³`, whose low byte is the code.
    let g = l.min(l.splat(229.0 / STEPS), l.max(l.splat(-26.0 / STEPS), g));
    l.bits(l.fma(g, l.splat(STEPS), l.splat(ROUND + ZERO)))
}

/// Beyond this, `Φ` is 0 or 1 (to 8e-8).
const TAIL: f32 = 5.25;

/// `(Φ(x) - 1/2) / x` in `w = 2 x²/TAIL² - 1`: Chebyshev interpolation at 15 points, in powers of `w`. The first
/// coefficient is one unit in the last place up, so that `x` times the polynomial reaches 1/2 at the tail.
const PHI: [f32; 15] = [
    1.346_593_6e-1,
    -6.712_685_5e-2,
    4.964_598_6e-2,
    -3.976_217_3e-2,
    3.202_755e-2,
    -2.505_319_2e-2,
    1.856_592_5e-2,
    -1.273_210_1e-2,
    8.328_681e-3,
    -5.528_017_4e-3,
    3.039_716_7e-3,
    -9.698_687_4e-4,
    5.455_137e-4,
    -6.798_869e-4,
    2.774_600_3e-4,
];

/// `(gelu'(x) - 1/2) / x` in `w`, erf form, 10 points: within 6e-4, a fifth of what the code rounds by.
const SLOPE: [f32; 10] = [
    1.352_027e-1,
    -6.999_846e-2,
    5.244_282_3e-2,
    -5.815_212_8e-2,
    1.232_354_2e-1,
    -1.067_129_1e-1,
    -6.008_729_3e-2,
    4.642_229_5e-3,
    1.955_812_9e-1,
    -1.210_034e-1,
];

/// `gelu(x)` and, if `SLOPE`, the code of `gelu'(x)` in the low bytes.
///
/// Error below 2.5e-7 · max(1, |x|); the sign is right everywhere. The erf form is `x` from 5.25 on and zero from
/// -5.25 down. The code is within half a step plus 6e-4. NaN stays NaN. Bounds: `tests/accuracy.rs`.
#[inline(always)]
pub(super) fn gelu<L: Lanes, const CODE: bool>(l: L, kind: Gelu, x: L::F) -> (L::F, L::I) {
    match kind {
        Gelu::Erf => {
            let half = l.splat(0.5);
            let c = l.min(l.splat(TAIL), l.max(l.splat(-TAIL), x));
            let w = l.fma(l.mul(c, c), l.splat(2.0 / (TAIL * TAIL)), l.splat(-1.0));
            // Φ - 1/2 by an odd polynomial; kept within ±1/2, so that Φ is never negative.
            let h = l.mul(c, polynomial(l, w, &PHI));
            let h = l.min(half, l.max(l.splat(-0.5), h));
            let y = l.mul(x, l.add(half, h));
            let code =
                if CODE { encode_lanes(l, l.fma(c, polynomial(l, w, &SLOPE), half)) } else { l.splat_i(0) };
            (y, code)
        }
        Gelu::Tanh => {
            // x/2 (1 + tanh u) = x σ(v), v = 2u.
            let a = 2.0 * 0.797_884_6; // 2 √(2/π)
            let one = l.splat(1.0);
            let z = l.mul(x, x);
            let v = l.mul(x, l.fma(z, l.splat(a * 0.044715), l.splat(a)));
            let s = l.div(one, l.add(one, exp(l, l.sub(l.splat(0.0), v))));
            let y = l.mul(x, s);
            let code = if CODE {
                // σ + x σ' v', σ' = σ (1 - σ). At the far tails v' is huge but 1 - σ or σ is 0 (or 1e-38).
                let c = l.min(l.splat(12.0), l.max(l.splat(-12.0), x));
                let d_v = l.fma(l.mul(c, c), l.splat(3.0 * a * 0.044715), l.splat(a));
                let d_s = l.mul(l.mul(s, l.sub(one, s)), d_v);
                encode_lanes(l, l.fma(c, d_s, s))
            } else {
                l.splat_i(0)
            };
            (y, code)
        }
    }
}
