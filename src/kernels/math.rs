//! `exp` and `tanh` on 16 lanes: our own polynomials, the same bits in every set.
//!
//! libm differs between systems in the last bit, and that bit would travel through training into the bias file.

use super::lanes::Lanes;

/// Adding it rounds an f32 of magnitude below 2²² to an integer, half to even; the integer is then in the low
/// bits of the sum.
pub(super) const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

/// `p[0] + p[1] x + …` of `N` independent values, Horner, one `fma` a term.
///
/// A chain of dependent `fma`s waits four cycles at each; several side by side fill them.
#[inline(always)]
pub(super) fn polynomial<L: Lanes, const N: usize, const T: usize>(
    l: L,
    x: [L::F; N],
    p: &[f32; T],
) -> [L::F; N] {
    let mut y = [l.splat(p[T - 1]); N];
    for &c in p[..T - 1].iter().rev() {
        let c = l.splat(c);
        for i in 0..N {
            y[i] = l.fma(y[i], x[i], c);
        }
    }
    y
}

/// `e^x`; relative error below 1e-7 for `x` in [-87, 88], beyond which `x` is clamped. NaN stays NaN.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`; `e^r` by the polynomial of Cephes' `expf` (S. Moshier).
#[inline(always)]
pub(super) fn exp<L: Lanes, const N: usize>(l: L, x: [L::F; N]) -> [L::F; N] {
    // 127, the exponent's bias, is added here so that the low bits are the exponent field of 2^n.
    let shifter = l.splat(ROUND + 127.0);
    let (mut r, mut two_n) = (x, x);
    for i in 0..N {
        // The bound goes first, so that a NaN in `x` stays (see `Lanes::max`).
        let x = l.min(l.splat(88.0), l.max(l.splat(-87.0), x[i]));
        let n = l.fma(x, l.splat(std::f32::consts::LOG2_E), shifter);
        two_n[i] = l.of_bits(l.shl23(l.bits(n)));
        let n = l.sub(n, shifter);
        // ln 2 in two parts; the first has 15 bits, so that n times it is exact.
        r[i] = l.fma(n, l.splat(2.121_944_4e-4), l.fma(n, l.splat(-0.693_359_4), x));
    }
    let mut y =
        polynomial(l, r, &[0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4]);
    for i in 0..N {
        let e = l.add(l.fma(y[i], l.mul(r[i], r[i]), r[i]), l.splat(1.0));
        y[i] = l.mul(e, two_n[i]);
    }
    y
}

/// `2^x` for `x <= 1`, below -125 clamped; relative error below 3e-6, which softmax's sum cancels in part. NaN stays
/// NaN.
///
/// `x = n + f`, `|f| <= 1/2`; `2^f` by the polynomial of least relative error.
#[inline(always)]
pub(super) fn exp2<L: Lanes, const N: usize>(l: L, x: [L::F; N]) -> [L::F; N] {
    let shifter = l.splat(ROUND + 127.0);
    let (mut f, mut two_n) = (x, x);
    for i in 0..N {
        let x = l.max(l.splat(-125.0), x[i]);
        let n = l.add(x, shifter);
        two_n[i] = l.of_bits(l.shl23(l.bits(n)));
        f[i] = l.sub(x, l.sub(n, shifter));
    }
    let mut y = polynomial(l, f, &[0.999_999_3, 0.693_121_8, 0.240_247_44, 0.055_917_86, 0.009_570_102]);
    for i in 0..N {
        y[i] = l.mul(y[i], two_n[i]);
    }
    y
}

/// `tanh x`; absolute error below 3e-7, odd, at most 1 in magnitude. NaN stays NaN.
///
/// The rational approximation of Eigen's `ptanh_float`, degrees 13 and 6.
#[inline(always)]
pub(super) fn tanh<L: Lanes>(l: L, x: L::F) -> L::F {
    let x = l.min(l.splat(7.9), l.max(l.splat(-7.9), x));
    let z = l.mul(x, x);
    let p = [
        4.893_524_6e-3,
        6.372_619_3e-4,
        1.485_722_4e-5,
        5.122_297_1e-8,
        -8.604_672e-11,
        2.000_188e-13,
        -2.760_768_5e-16,
    ];
    let q = [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6];
    l.div(l.mul(x, polynomial(l, [z], &p)[0]), polynomial(l, [z], &q)[0])
}
