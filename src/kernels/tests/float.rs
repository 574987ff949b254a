//! The f32 kernels: every set gives portable's bits.

use super::super::{BLOCK, Kernels, gelu, portable::Portable};
use super::{Failures, Rng, others};
use half::f16;
use proptest::prelude::*;

/// Everything one set makes of `rows × cols` values.
fn run(
    k: &dyn Kernels,
    rows: usize,
    cols: usize,
    size: f32,
    poison: Option<f32>,
    seed: u64,
) -> Vec<Vec<f32>> {
    let mut g = Rng(seed);
    let mut x = g.floats(rows * cols, size);
    if let (Some(v), true) = (poison, rows * cols > 0) {
        x[g.next() as usize % (rows * cols)] = v;
    }
    let r = g.floats(rows * cols, size);
    let (gain, bias) = (g.floats(cols, 2.0), g.floats(cols, 2.0));
    let nan = || vec![f32::NAN; rows * cols];
    let mut all = Vec::new();

    for fold in [None, Some(&gain[..])] {
        let (mut q, mut scale) = (vec![99; rows * cols], vec![f32::NAN; rows * cols.div_ceil(BLOCK)]);
        k.quantize_rows(&x, cols, fold, &mut q, &mut scale);
        all.push(q.iter().map(|&q| q as f32).collect());
        all.push(scale);
    }

    // Rows of `ld`, the first `n` used, the rest stale.
    let ld = cols.next_multiple_of(16);
    let mut s = vec![f32::NAN; rows * ld];
    for (s, x) in s.chunks_exact_mut(ld.max(1)).zip(x.chunks_exact(cols.max(1))) {
        s[..cols].copy_from_slice(x);
    }
    k.softmax_rows(&mut s, cols, ld, 0.3);
    let mut d_p = g.floats(rows * ld, size);
    k.softmax_backward_rows(&s, &mut d_p, ld, 0.3);
    all.extend([s, d_p]);

    let (mut y, mut n, mut rstd) = (nan(), vec![f16::NAN; rows * cols], vec![f32::NAN; rows]);
    k.add_norm(&x, Some(&r), &gain, &bias, 1e-12, &mut y, (cols > 0).then_some((&mut n[..], &mut rstd[..])));
    let (mut plain, mut d_x) = (nan(), nan());
    k.add_norm(&x, None, &gain, &bias, 1e-5, &mut plain, None);
    k.add_norm_backward(&r, &n, if cols > 0 { &rstd } else { &[] }, &gain, &mut d_x);
    all.extend([y, plain, d_x, n.iter().map(|n| n.to_f32()).collect(), rstd]);

    let codes: Vec<u8> = (0..rows * cols).map(|_| g.next() as u8).collect();
    let (mut d, mut sum) = (x.clone(), g.floats(cols, 1.0));
    k.gelu_backward(&mut d, &codes);
    if cols > 0 {
        k.add_rows(&x, &mut sum);
    }
    let (mut t, mut half, mut back) = (nan(), vec![f16::NAN; rows * cols], nan());
    k.tanh(&x, &mut t);
    k.to_f16(&x, &mut half);
    k.from_f16(&half, &mut back);
    all.extend([d, sum, t, back]);
    all
}

const NAMES: [&str; 15] = [
    "q",
    "scale",
    "q folded",
    "scale folded",
    "softmax",
    "softmax backward",
    "add_norm",
    "norm",
    "norm backward",
    "n",
    "rstd",
    "gelu backward",
    "add_rows",
    "tanh",
    "f16",
];

fn compare(rows: usize, cols: usize, size: f32, poison: Option<f32>, seed: u64, failures: &mut Failures) {
    let wanted = run(&Portable, rows, cols, size, poison, seed);
    for k in others() {
        let got = run(&*k, rows, cols, size, poison, seed);
        for ((name, got), wanted) in NAMES.iter().zip(got).zip(&wanted) {
            failures.same(&(name, rows, cols, size, poison), k.name(), &got, wanted);
        }
    }
}

#[test]
fn same_bits_at_awkward_sizes() {
    let mut failures = Failures::default();
    for rows in [0, 1, 2, 5] {
        for cols in [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 64, 100, 127, 384] {
            for size in [1e-42, 1e-30, 1e-3, 1.0, 30.0, 1e4, 1e38] {
                let seed = (rows * 1000 + cols) as u64;
                compare(rows, cols, size, None, seed, &mut failures);
            }
            for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0] {
                compare(rows, cols, 1.0, Some(poison), 1, &mut failures);
            }
        }
    }
    failures.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_bits_at_random_sizes(rows in 0usize..9, cols in 0usize..200, exponent in -45i32..38, seed: u64) {
        let mut failures = Failures::default();
        compare(rows, cols, 10f32.powi(exponent), None, seed, &mut failures);
        prop_assert!(failures.0.is_empty(), "{:?}", failures.0);
    }
}

/// A NaN must be seen, not become a number on the way.
#[test]
fn nan_and_infinity_reach_the_result() {
    for k in super::available() {
        for at in [0, 5, 16, 36] {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
                let mut x: Vec<f32> = (0..37).map(|i| i as f32 * 0.1).collect();
                x[at] = bad;
                let name = k.name();
                let (mut q, mut scale) = (vec![99; 37], vec![0.0]);
                k.quantize_rows(&x, 37, None, &mut q, &mut scale);
                assert!(scale[0].is_nan() && q == [0; 37], "{name}: quantize_rows");
                let mut s = x.clone();
                s.resize(48, 7.0);
                k.softmax_rows(&mut s, 37, 48, 1.0);
                assert!(s[..37].iter().all(|s| s.is_nan()) && s[37..] == [0.0; 11], "{name}: softmax");
                let mut y = vec![0.0; 37];
                k.add_norm(&x, None, &[1.0; 37], &[0.0; 37], 1e-5, &mut y, None);
                assert!(y.iter().all(|y| y.is_nan()), "{name}: add_norm");
                k.tanh(&x, &mut y);
                assert_eq!(y[at].is_nan(), bad.is_nan(), "{name}: tanh");
            }
        }
    }
}

#[test]
fn quantize_rounds_half_to_even_and_keeps_the_ends() {
    for k in super::available() {
        let x = [127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 126.49, 0.0, -0.0];
        let (mut q, mut scale) = (vec![99; 10], vec![0.0]);
        k.quantize_rows(&x, 10, None, &mut q, &mut scale);
        assert_eq!(q, [127, -127, 0, 2, 2, 0, -2, 126, 0, 0], "{}", k.name());
        assert_eq!(scale, [1.0]);
        k.quantize_rows(&[0.0; 10], 10, None, &mut q, &mut scale);
        assert_eq!((&q[..], scale[0]), (&[0i8; 10][..], 0.0));
    }
}

/// All halves there and back, and the floats around every boundary between two of them.
#[test]
fn f16_is_what_the_half_crate_says() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let mut failures = Failures::default();
    for k in super::available() {
        let mut wide = vec![0.0; halves.len()];
        k.from_f16(&halves, &mut wide);
        let wanted: Vec<f32> = halves.iter().map(|h| h.to_f32()).collect();
        failures.same(&"from_f16", k.name(), &wide, &wanted);
        for ulps in [-1, 0, 1] {
            let x: Vec<f32> = wanted
                .windows(2)
                .map(|w| f32::from_bits(((w[0] + w[1]) / 2.0).to_bits().wrapping_add_signed(ulps)))
                .collect();
            let mut narrow = vec![f16::ZERO; x.len()];
            k.to_f16(&x, &mut narrow);
            let narrow: Vec<f32> = narrow.iter().map(|h| h.to_f32()).collect();
            let wanted: Vec<f32> = x.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
            failures.same(&("to_f16", ulps), k.name(), &narrow, &wanted);
        }
    }
    failures.finish();
}

#[test]
fn code_of_the_derivative() {
    assert_eq!((gelu::decode(gelu::encode(0.0)), gelu::decode(gelu::encode(1.0))), (0.0, 1.0));
    for code in 0..=255u8 {
        assert_eq!(gelu::encode(gelu::decode(code)), code);
        for k in super::available() {
            let mut d = [1.0; 17];
            k.gelu_backward(&mut d, &[code; 17]);
            assert_eq!(d, [gelu::decode(code); 17], "{}", k.name());
        }
    }
    for i in 0..=1258 {
        let g = -0.129 + i as f32 * 1e-3;
        assert!((gelu::decode(gelu::encode(g)) - g).abs() <= 0.5 / 203.0 + 1e-6, "{g}");
    }
}
