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

/// The codes, in the low byte of every lane: `203 g + 26 + 1.5 · 2²³`, rounded once. `g` is within the range (a NaN's
/// code is arbitrary but fixed).
#[inline(always)]
fn encode_lanes<L: Lanes>(l: L, g: L::F) -> L::I {
    l.bits(l.fma(g, l.splat(STEPS), l.splat(ROUND + ZERO)))
}

/// Beyond this, `Φ` is 0 or 1 (to 1.1e-5).
const TAIL: f32 = 4.25;

/// `(Φ(x) - 1/2) / x` in `w = 2 x²/TAIL² - 1`: Chebyshev interpolation at 9 points, in powers of `w`. Within 1.7e-5; more
/// would be lost, since the result is rounded to 1/254 of the largest of its block. The first coefficient is moved
/// so that `x` times the polynomial reaches 1/2 at the tail.
const PHI: [f32; 9] = [
    0.165_935_78,
    -0.080_746_56,
    0.055_649_534,
    -0.039_502_7,
    0.025_928_626,
    -0.013_742_447,
    0.007_917_809,
    -0.006_652_065,
    0.002_859_089_3,
];

/// `(gelu'(x) - 1/2) / x` in `w`, erf form, 8 points: within 7.6e-4, a third of what the code rounds by.
const SLOPE: [f32; 8] = [
    0.170_049_65,
    -0.100_374_34,
    0.108_099_625,
    -0.109_580_34,
    0.062_862_806,
    -0.066_123_456,
    0.116_470_5,
    -0.063_882_09,
];

/// `gelu(x)` of `N` independent values and, if `CODE`, the code of `gelu'(x)` in the low bytes.
///
/// Erf form: error below 7.5e-5, `x` from 4.25 on and zero from -4.25 down; tanh form: below 2.5e-7 · max(1, |x|). The sign
/// is right everywhere. The code is within half a step plus 8e-4. NaN stays NaN. Bounds: `tests/accuracy.rs`.
#[inline(always)]
pub(super) fn gelu<L: Lanes, const CODE: bool, const N: usize>(
    l: L,
    kind: Gelu,
    x: [L::F; N],
) -> ([L::F; N], [L::I; N]) {
    let (mut y, mut code) = (x, [l.splat_i(0); N]);
    match kind {
        Gelu::Erf => {
            let half = l.splat(0.5);
            let (mut c, mut w) = (x, x);
            for i in 0..N {
                c[i] = l.min(l.splat(TAIL), l.max(l.splat(-TAIL), x[i]));
                w[i] = l.fma(l.mul(c[i], c[i]), l.splat(2.0 / (TAIL * TAIL)), l.splat(-1.0));
            }
            // Φ - 1/2 by an odd polynomial; kept within ±1/2, so that Φ is never negative.
            let phi = polynomial(l, w, &PHI);
            for i in 0..N {
                let h = l.min(half, l.max(l.splat(-0.5), l.mul(c[i], phi[i])));
                y[i] = l.mul(x[i], l.add(half, h));
            }
            if CODE {
                let slope = polynomial(l, w, &SLOPE);
                for i in 0..N {
                    code[i] = encode_lanes(l, l.fma(c[i], slope[i], half));
                }
            }
        }
        Gelu::Tanh => {
            // x/2 (1 + tanh u) = x σ(v), v = 2u.
            let a = 2.0 * 0.797_884_6; // 2 √(2/π)
            let one = l.splat(1.0);
            let mut v = x;
            for i in 0..N {
                let slope = l.fma(l.mul(x[i], x[i]), l.splat(-a * 0.044715), l.splat(-a));
                v[i] = l.mul(x[i], slope);
            }
            let e = exp(l, v);
            for i in 0..N {
                let s = l.div(one, l.add(one, e[i]));
                y[i] = l.mul(x[i], s);
                if CODE {
                    // σ + x σ' v', σ' = σ (1 - σ); `x` is kept from where v' would overflow while σ' is 0.
                    let c = l.min(l.splat(12.0), l.max(l.splat(-12.0), x[i]));
                    let d_v = l.fma(l.mul(c, c), l.splat(3.0 * a * 0.044715), l.splat(a));
                    let d_s = l.mul(l.mul(s, l.sub(one, s)), d_v);
                    code[i] = encode_lanes(l, l.fma(c, d_s, s));
                }
            }
        }
    }
    (y, code)
}
