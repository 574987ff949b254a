//! The f32 kernels: every set gives portable's bits.

use super::super::isa::Isa;
use super::super::lanes::LANES;
use super::super::{BLOCK, Block, Kernels, blocks, gelu, portable::Portable};
use super::{Each, Failures, OnSet, Rng, on_every_set, others};
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
        let mut to = vec![Block { q: [99; BLOCK], scale: f32::NAN }; rows * blocks(cols)];
        k.quantize_rows(&x, cols, fold, &mut to);
        all.push(plain(k, &to));
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
    let mut to = vec![Block { q: [99; BLOCK], scale: f32::NAN }; rows * blocks(cols)];
    let saved = (cols > 0).then_some((&mut n[..], &mut rstd[..]));
    k.add_norm(&x, Some(&r), &gain, &bias, 1e-12, &mut y, Some(&mut to), saved);
    all.push(plain(k, &to));
    let (mut norm, mut d_x) = (nan(), nan());
    k.add_norm(&x, None, &gain, &bias, 1e-5, &mut norm, None, None);
    let rstds = if cols > 0 { &rstd[..] } else { &[] };
    k.add_norm_backward(&r, &n, rstds, &gain, &mut d_x, Some((&bias, &mut to)));
    all.push(plain(k, &to));
    all.extend([y, norm, d_x, n.iter().map(|n| n.to_f32()).collect(), rstd]);

    let mut sum = g.floats(cols, 1.0);
    if cols > 0 {
        k.add_rows(&x, &mut sum);
    }
    let mut t = nan();
    k.tanh(&x, &mut t);
    all.extend([sum, t]);
    all
}

/// Bytes and scales of blocks, unflipped.
fn plain(k: &dyn Kernels, x: &[Block]) -> Vec<f32> {
    let byte = |q: i8| f32::from((q as u8 ^ k.flip()) as i8);
    x.iter().flat_map(|b| b.q.map(byte).into_iter().chain([b.scale])).collect()
}

const NAMES: [&str; 13] = [
    "quantized",
    "folded",
    "softmax",
    "softmax backward",
    "add_norm quantized",
    "norm backward folded",
    "add_norm",
    "norm",
    "norm backward",
    "n",
    "rstd",
    "add_rows",
    "tanh",
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
                let mut to = [Block { q: [99; BLOCK], scale: 0.0 }];
                k.quantize_rows(&x, 37, None, &mut to);
                let q = plain(&*k, &to);
                assert!(q[BLOCK].is_nan() && q[..BLOCK] == [0.0; BLOCK], "{name}: quantize_rows");
                let mut s = x.clone();
                s.resize(48, 7.0);
                k.softmax_rows(&mut s, 37, 48, 1.0);
                assert!(s[..37].iter().all(|s| s.is_nan()) && s[37..] == [0.0; 11], "{name}: softmax");
                let mut y = vec![0.0; 37];
                k.add_norm(&x, None, &[1.0; 37], &[0.0; 37], 1e-5, &mut y, None, None);
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
        let mut to = [Block { q: [99; BLOCK], scale: f32::NAN }];
        k.quantize_rows(&x, 10, None, &mut to);
        let q = plain(&*k, &to);
        assert_eq!(q[..10], [127.0, -127.0, 0.0, 2.0, 2.0, 0.0, -2.0, 126.0, 0.0, 0.0], "{}", k.name());
        assert_eq!((&q[10..BLOCK], q[BLOCK]), (&[0.0; BLOCK - 10][..], 1.0), "{}: padding, scale", k.name());
        k.quantize_rows(&[0.0; 10], 10, None, &mut to);
        assert_eq!(plain(&*k, &to), [0.0; BLOCK + 1]);
    }
}

/// All halves there and back, and the floats around every boundary between two of them.
struct Halves<'a>(&'a mut Failures);

impl OnSet for Halves<'_> {
    fn on<I: Isa>(&mut self, l: I) {
        let widen = |h: &[f16; LANES]| {
            let mut wide = [0.0; LANES];
            l.vectorize(Each(|| l.store(l.load_f16(h), &mut wide)));
            wide
        };
        let narrow = |x: &[f32; LANES]| {
            let mut narrow = [f16::ZERO; LANES];
            l.vectorize(Each(|| l.store_f16(l.load(x), &mut narrow)));
            narrow.map(f16::to_f32)
        };
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let exact: Vec<f32> = all.iter().map(|h| h.to_f32()).collect();
        for (h, exact) in all.as_chunks::<LANES>().0.iter().zip(exact.as_chunks::<LANES>().0) {
            self.0.same(&("widened", h), I::NAME, &widen(h), exact);
        }
        for ulps in [-1, 0, 1] {
            let between =
                |w: &[f32]| f32::from_bits(((w[0] + w[1]) / 2.0).to_bits().wrapping_add_signed(ulps));
            let x: Vec<f32> = exact.windows(2).map(between).chain([65519.99]).collect();
            for x in x.as_chunks::<LANES>().0 {
                let wanted = x.map(|x| f16::from_f32(x).to_f32());
                self.0.same(&("narrowed", x), I::NAME, &narrow(x), &wanted);
            }
        }
    }
}

#[test]
fn f16_is_what_the_half_crate_says() {
    let mut failures = Failures::default();
    on_every_set(&mut Halves(&mut failures));
    failures.finish();
}

/// Moves of lanes: the transposed square, low bytes, the largest integer.
struct Moves;

impl OnSet for Moves {
    fn on<I: Isa>(&mut self, l: I) {
        let rows: [[f32; LANES]; LANES] =
            std::array::from_fn(|i| std::array::from_fn(|j| (i * 16 + j) as f32));
        let mut turned = rows;
        l.vectorize(Each(|| {
            for (v, to) in l.transpose(rows.map(|row| l.load(&row))).into_iter().zip(&mut turned) {
                l.store(v, to);
            }
        }));
        for (i, row) in turned.iter().enumerate() {
            assert_eq!(*row, std::array::from_fn(|j| rows[j][i]), "{}: row {i}", I::NAME);
        }

        let ints: [[i32; LANES]; 4] = std::array::from_fn(|i| {
            std::array::from_fn(|j| ((i * 16 + j) as i32 * 0x0123_4567) ^ if j % 3 == 0 { -1 } else { 0 })
        });
        let mut bytes = [0; 64];
        let mut largest = [0; 4];
        l.vectorize(Each(|| {
            let v = ints.map(|v| l.bits(l.load(&v.map(|v| f32::from_bits(v as u32)))));
            l.store_bytes(v, &mut bytes);
            largest = v.map(|v| l.max_i_lane(v));
        }));
        assert_eq!(bytes[..], ints.concat().iter().map(|v| *v as u8).collect::<Vec<_>>(), "{}", I::NAME);
        assert_eq!(largest, ints.map(|v| v.into_iter().max().unwrap()), "{}", I::NAME);
    }
}

#[test]
fn lanes_move_to_their_places() {
    on_every_set(&mut Moves);
}

#[test]
fn code_of_the_derivative() {
    assert_eq!((gelu::decode(gelu::encode(0.0)), gelu::decode(gelu::encode(1.0))), (0.0, 1.0));
    for code in 0..=255u8 {
        assert_eq!(gelu::encode(gelu::decode(code)), code);
    }
    for i in 0..=1258 {
        let g = -0.129 + i as f32 * 1e-3;
        assert!((gelu::decode(gelu::encode(g)) - g).abs() <= 0.5 / 203.0 + 1e-6, "{g}");
    }
}
