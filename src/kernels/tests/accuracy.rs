//! How near the kernels are to the mathematics, in f64. The bounds stated in the docs are checked here.

use super::super::gelu::{decode, gelu};
use super::super::lanes::{LANES, Lanes};
use super::super::{Gelu, Kernels, math, portable::Portable};
use super::Rng;
use half::f16;
use std::f64::consts::{PI, SQRT_2};

/// `2/√π e^{-x²} Σ 2ⁿ x^{2n+1} / (2n+1)!!`: all terms of one sign, so nothing cancels.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, 0.0);
    for n in 0..200 {
        sum += term;
        term *= 2.0 * x * x / (2 * n + 3) as f64;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// GELU and its derivative.
fn gelu_exact(kind: Gelu, x: f64) -> (f64, f64) {
    match kind {
        Gelu::Erf => {
            let phi = 0.5 * (1.0 + erf(x / SQRT_2));
            (x * phi, phi + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt())
        }
        Gelu::Tanh => {
            let a = (2.0 / PI).sqrt();
            let t = (a * (x + 0.044715 * x.powi(3))).tanh();
            let d_u = a * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * d_u)
        }
    }
}

/// Every f32 kernel gives all sets' lanes the same bits, so portable's single lane stands for all.
fn on_lanes(f: impl Fn([f32; LANES]) -> [f32; LANES], x: f32) -> f32 {
    f([x; LANES])[LANES - 1]
}

/// GELU of one value and the code of its derivative.
fn one<const CODE: bool>(kind: Gelu, x: f32) -> (f32, u8) {
    let (y, code) = gelu::<_, CODE, 1>(Portable, kind, [[x; LANES]]);
    (y[0][0], code[0][0] as u8)
}

/// `n` values from `from` to `to`, both included.
fn grid(from: f32, to: f32, n: usize) -> impl Iterator<Item = f32> {
    (0..=n).map(move |i| (from as f64 + (to as f64 - from as f64) * i as f64 / n as f64) as f32)
}

#[test]
fn erf_reference_is_right() {
    // Abramowitz & Stegun, table 7.1.
    for (x, e) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (-3.0, -0.9999779095)] {
        assert!((erf(x) - e).abs() < 1e-10, "{x}");
    }
}

#[test]
fn exp_and_tanh() {
    let (mut relative, mut absolute) = (0f64, 0f64);
    for x in grid(-87.0, 88.0, 200_000) {
        let e = on_lanes(|x| math::exp(Portable, [x])[0], x) as f64;
        relative = relative.max((e / (x as f64).exp() - 1.0).abs());
    }
    for x in grid(-10.0, 10.0, 200_000) {
        let t = on_lanes(|x| math::tanh(Portable, x), x);
        absolute = absolute.max((t as f64 - (x as f64).tanh()).abs());
        assert!(t.abs() <= 1.0 && t.signum() == x.signum(), "tanh {x} = {t}");
    }
    for x in grid(-125.0, 1.0, 200_000) {
        let e = on_lanes(|x| math::exp2(Portable, [x])[0], x) as f64;
        assert!((e / (x as f64).exp2() - 1.0).abs() <= 3e-6, "2^{x} = {e}");
    }
    println!("exp: relative error {relative:.2e}; tanh: absolute error {absolute:.2e}");
    assert!(relative <= 1e-7 && absolute <= 3e-7, "{relative:e} {absolute:e}");
    assert_eq!(on_lanes(|x| math::exp(Portable, [x])[0], 0.0), 1.0);
    assert!(on_lanes(|x| math::exp(Portable, [x])[0], f32::NAN).is_nan());
    assert!(on_lanes(|x| math::exp2(Portable, [x])[0], f32::NAN).is_nan());
    assert!(on_lanes(|x| math::tanh(Portable, x), f32::NAN).is_nan());
}

#[test]
fn gelu_and_the_code_of_its_derivative() {
    for kind in [Gelu::Erf, Gelu::Tanh] {
        let (mut value, mut slope) = (0f64, 0f64);
        for x in grid(-12.0, 12.0, 240_000).chain([-1e3, 1e3, -1e30, 1e30]) {
            let (y, code) = one::<true>(kind, x);
            assert_eq!(y.to_bits(), one::<false>(kind, x).0.to_bits());
            let (wanted, d) = gelu_exact(kind, x as f64);
            value = value.max((y as f64 - wanted).abs() / (x as f64).abs().max(1.0));
            slope = slope.max((decode(code) as f64 - d).abs());
            assert!(y == 0.0 || y.signum() == x.signum(), "{kind:?} gelu({x}) = {}", y);
            if x.abs() >= 6.0 && kind == Gelu::Erf {
                assert_eq!(y, x.max(0.0), "tail");
            }
            if x.abs() >= 6.0 {
                assert_eq!(decode(code), if x > 0.0 { 1.0 } else { 0.0 }, "slope at {x}");
            }
        }
        println!("{kind:?} gelu: error {value:.2e} of max(1, |x|); derivative {slope:.2e}");
        // Half a step of the code, and the polynomial.
        let bound = if kind == Gelu::Erf { 7.5e-5 } else { 2.5e-7 };
        assert!(value <= bound && slope <= 0.5 / 203.0 + 8e-4, "{kind:?} {value:e} {slope:e}");
        assert!(one::<true>(kind, f32::NAN).0.is_nan());
    }
}

#[test]
fn softmax_and_its_backward() {
    let (rows, n, ld, scale) = (7, 37, 48, 0.25);
    let mut g = Rng(1);
    let s = g.floats(rows * ld, 20.0);
    let mut p = s.clone();
    Portable.softmax_rows(&mut p, n, ld, scale);
    let d_p = g.floats(rows * ld, 1.0);
    let mut d_s = d_p.clone();
    Portable.softmax_backward_rows(&p, &mut d_s, ld, scale);
    for r in 0..rows {
        let at = |v: &[f32], i: usize| v[r * ld + i] as f64;
        let e: Vec<f64> = (0..n).map(|i| (at(&s, i) * scale as f64).exp()).collect();
        let sum: f64 = e.iter().sum();
        let dot: f64 = (0..n).map(|i| at(&d_p, i) * e[i] / sum).sum();
        for (i, e) in e.iter().enumerate() {
            assert!((at(&p, i) - e / sum).abs() <= 5e-6 * e / sum, "{r} {i}");
            let d = scale as f64 * e / sum * (at(&d_p, i) - dot);
            assert!((at(&d_s, i) - d).abs() <= 2e-6, "{r} {i}: {} {d}", at(&d_s, i));
        }
        assert!((n..ld).all(|i| at(&p, i) == 0.0 && at(&d_s, i) == 0.0));
    }
}

#[test]
fn norm_and_its_backward() {
    let (rows, cols) = (5, 100);
    let mut g = Rng(2);
    let (x, r, d_y) = (g.floats(rows * cols, 3.0), g.floats(rows * cols, 1.0), g.floats(rows * cols, 1.0));
    let (gain, bias) = (g.floats(cols, 2.0), g.floats(cols, 1.0));
    let (mut y, mut n, mut rstd) = (vec![0.0; rows * cols], vec![f16::ZERO; rows * cols], vec![0.0; rows]);
    Portable.add_norm(&x, Some(&r), &gain, &bias, 1e-5, &mut y, None, Some((&mut n, &mut rstd)));
    let mut d_x = vec![0.0; rows * cols];
    Portable.add_norm_backward(&d_y, &n, &rstd, &gain, &mut d_x, None);
    for row in 0..rows {
        let at = |v: &[f32], i: usize| v[row * cols + i] as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..cols).map(f).sum::<f64>() / cols as f64;
        let v = |i: usize| at(&x, i) + at(&r, i);
        let m = mean(&v);
        let s = 1.0 / (mean(&|i| (v(i) - m).powi(2)) + 1e-5).sqrt();
        assert!((rstd[row] as f64 / s - 1.0).abs() <= 1e-6);
        let d_n = |i: usize| at(&d_y, i) * gain[i] as f64;
        let exact = |i: usize| (v(i) - m) * s;
        let (m1, m2) = (mean(&d_n), mean(&|i| d_n(i) * exact(i)));
        for i in 0..cols {
            let wanted = exact(i) * gain[i] as f64 + bias[i] as f64;
            assert!((at(&y, i) - wanted).abs() <= 2e-6, "y {row} {i}: {} {wanted}", at(&y, i));
            // n is kept as f16: 11 bits.
            assert!((n[row * cols + i].to_f64() - exact(i)).abs() <= 1e-3);
            let wanted = s * (d_n(i) - m1 - exact(i) * m2);
            assert!((at(&d_x, i) - wanted).abs() <= 1e-3, "d_x {row} {i}: {} {wanted}", at(&d_x, i));
        }
    }
}

/// The tree of a sum: lanes `i` and `i + 8` first. A change here changes every trained file.
#[test]
fn sum_has_its_order() {
    let mut v = [0.0f32; LANES];
    (v[0], v[8], v[4]) = (1e8, -1e8, 1.0);
    assert_eq!(Portable.sum(v), 1.0);
    (v[0], v[4], v[8]) = (1e8, -1e8, 1.0);
    assert_eq!(Portable.sum(v), 0.0);
}
