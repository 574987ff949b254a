//! Every op's backward against finite differences of its forward, in reference mode, and the identities that
//! hold for free.
//!
//! Loss = Σ y·c with random c, in f64; a random direction of one per element; two-point differences.
//! Activation quantization is off: through rounding to int8 the difference would be noise.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tract_core::prelude::tract_ndarray::{Array2, Array3, ArrayView2, Axis, s};
use trimtab::config::Gelu;
use trimtab::ops::attention::{self, Heads};
use trimtab::ops::dropout::{self, Dropout};
use trimtab::ops::linear::{self, InputGrad, Linear};
use trimtab::ops::pooler::{self, Pooler};
use trimtab::ops::{Numerics, Saved, SavedMut, add_norm, head, loss};
use trimtab::quant::QMatrix;

const NUM: Numerics = Numerics::Reference;
const EPS: f32 = 1e-2;
const TOLERANCE: f64 = 1e-3;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Values in [-1, 1).
fn random(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, cols), || (rng.random::<u32>() >> 8) as f32 / (1 << 23) as f32 - 1.0)
}

fn weight(rng: &mut ChaCha8Rng, out: usize, cols: usize) -> QMatrix {
    let q = (0..out * cols).map(|_| (rng.random::<u32>() % 255) as i8).map(|v| v.max(-127)).collect();
    let scale = (0..out).map(|_| 0.002 + (rng.random::<u32>() % 100) as f32 * 2e-5).collect();
    QMatrix::from_parts(out, cols, q, scale)
}

fn inner(a: ArrayView2<f32>, b: ArrayView2<f32>) -> f64 {
    a.iter().zip(b.iter()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Compares `backward(x, c)`, the gradient of Σ forward(x)·c, with differences of `forward` around `x`.
fn check(
    name: &str,
    x: &Array2<f32>,
    seed: u64,
    forward: impl Fn(&Array2<f32>) -> Array2<f32>,
    backward: impl Fn(&Array2<f32>, &Array2<f32>) -> Array2<f32>,
) {
    let mut rng = rng(seed);
    let y = forward(x);
    for trial in 0..5 {
        let c = random(&mut rng, y.nrows(), y.ncols());
        let direction = random(&mut rng, x.nrows(), x.ncols());
        let at = |step: f32| inner(forward(&(x + &(&direction * step))).view(), c.view());
        let numeric = (at(EPS) - at(-EPS)) / (2.0 * f64::from(EPS));
        let grad = backward(x, &c);
        let analytic = inner(grad.view(), direction.view());
        let size = (inner(grad.view(), grad.view()) * inner(direction.view(), direction.view())
            / direction.len() as f64)
            .sqrt()
            .max(1e-3);
        let error = (numeric - analytic).abs() / size;
        assert!(error <= TOLERANCE, "{name}, trial {trial}: {analytic} but differences say {numeric}");
    }
}

/// The gradient before the GELU, one matrix `[rows, 20]` a part.
fn parts_of(d_y: &Array2<f32>, kept: &[f32], gelu: Option<Gelu>) -> Vec<Array2<f32>> {
    let mut d_y = d_y.clone();
    if gelu.is_some() {
        linear::gelu_backward(&NUM, d_y.view_mut(), Saved::F32(kept));
    }
    (0..d_y.ncols() / 20)
        .map(|p| d_y.slice(s![.., p * 20..(p + 1) * 20]).as_standard_layout().to_owned())
        .collect()
}

#[test]
fn linear_input_and_bias() {
    let mut r = rng(1);
    for gelu in [None, Some(Gelu::Erf), Some(Gelu::Tanh)] {
        let parts = if gelu.is_some() { 1 } else { 3 };
        let l = Linear { parts: (0..parts).map(|_| weight(&mut r, 20, 12)).collect(), gelu };
        let x = random(&mut r, 7, 12);
        let bias = random(&mut r, 1, 20 * parts);
        let run = |x: &Array2<f32>, bias: &Array2<f32>| {
            let mut y = Array2::zeros((7, 20 * parts));
            let mut kept = vec![0.0; y.len()];
            let b: Vec<&[f32]> = bias.as_slice().unwrap().chunks(20).collect();
            let saved = gelu.map(|_| SavedMut::F32(&mut kept));
            linear::forward(&NUM, &l, x.view(), &b, y.view_mut(), saved);
            (y, kept)
        };
        let back = |x: &Array2<f32>, bias: &Array2<f32>, d_y: &Array2<f32>| {
            let (_, kept) = run(x, bias);
            let mut d_x = Array2::zeros(x.raw_dim());
            let mut d_b = Array2::zeros(bias.raw_dim());
            let mut bias_grads: Vec<_> = d_b.as_slice_mut().unwrap().chunks_mut(20).map(Some).collect();
            let d_parts = parts_of(d_y, &kept, gelu);
            let views: Vec<_> = d_parts.iter().map(|d| d.view()).collect();
            linear::backward(&NUM, &l, &views, &mut bias_grads, InputGrad::Set(d_x.view_mut()));
            (d_x, d_b)
        };
        check("linear x", &x, 2, |x| run(x, &bias).0, |x, d| back(x, &bias, d).0);
        check("linear b", &bias, 3, |b| run(&x, b).0, |b, d| back(&x, b, d).1);

        // `Add` joins what is there
        let d_y = random(&mut r, 7, 20 * parts);
        let (_, kept) = run(&x, &bias);
        let mut sum = Array2::from_elem(x.raw_dim(), 0.5);
        let mut none: Vec<Option<&mut [f32]>> = (0..parts).map(|_| None).collect();
        let d_parts = parts_of(&d_y, &kept, gelu);
        let views: Vec<_> = d_parts.iter().map(|d| d.view()).collect();
        linear::backward(&NUM, &l, &views, &mut none, InputGrad::Add(sum.view_mut()));
        let alone = back(&x, &bias, &d_y).0;
        assert!((&sum - &alone).iter().all(|v| (v - 0.5).abs() <= 1e-5));
    }
}

#[test]
fn layer_norm() {
    let mut r = rng(4);
    let (x, residual) = (random(&mut r, 5, 24), random(&mut r, 5, 24));
    let (g, b) = (random(&mut r, 1, 24).mapv(|v| v + 1.5), random(&mut r, 1, 24));
    let run = |x: &Array2<f32>, b: &Array2<f32>| {
        let mut y = Array2::zeros(x.raw_dim());
        let (mut n, mut rstd) = (vec![0.0; x.len()], vec![0.0; x.nrows()]);
        let (g, b) = (g.as_slice().unwrap(), b.as_slice().unwrap());
        let saved = Some((SavedMut::F32(&mut n), &mut rstd[..]));
        add_norm::forward(&NUM, x.view(), Some(residual.view()), g, b, 1e-12, y.view_mut(), saved);
        (y, n, rstd)
    };
    let back = |x: &Array2<f32>, d_y: &Array2<f32>| {
        let (_, n, rstd) = run(x, &b);
        let (mut d_x, mut d_b) = (Array2::zeros(x.raw_dim()), Array2::zeros((1, 24)));
        let saved = (Saved::F32(&n), &rstd[..]);
        let d_b_slice = Some(d_b.as_slice_mut().unwrap());
        add_norm::backward(&NUM, d_y.view(), saved, g.as_slice().unwrap(), d_b_slice, d_x.view_mut());
        (d_x, d_b)
    };
    check("layer norm x", &x, 5, |x| run(x, &b).0, |x, d| back(x, d).0);
    check("layer norm b", &b, 6, |b| run(&x, b).0, |_, d| back(&x, d).1);

    // adding a constant to a row changes nothing, nor does scaling it
    let d_x = back(&x, &random(&mut r, 5, 24)).0;
    for row in d_x.rows() {
        let (sum, size) = (row.sum().abs(), row.mapv(f32::abs).sum());
        assert!(sum <= 1e-5 * size.max(1.0), "d_x sums to {sum}");
    }
}

#[test]
fn attention_inputs() {
    let mut r = rng(7);
    let heads = Heads { heads: 2, dim: 8 };
    let offsets = [0, 3, 4, 9];
    let qkv = random(&mut r, 9, 48).mapv(|v| 2.0 * v);
    let run = |qkv: &Array2<f32>| {
        let mut ctx = Array2::zeros((9, 16));
        attention::forward(&NUM, heads, qkv.view(), &offsets, ctx.view_mut(), None);
        ctx
    };
    let back = |qkv: &Array2<f32>, d: &Array2<f32>| {
        let mut d_qkv = Array3::zeros((3, 9, 16));
        let saved = Saved::F32(qkv.as_slice().unwrap());
        attention::backward(&NUM, heads, d.view(), saved, &offsets, d_qkv.view_mut());
        let mut side_by_side = Array2::zeros(qkv.raw_dim());
        for (i, part) in d_qkv.outer_iter().enumerate() {
            side_by_side.slice_mut(s![.., i * 16..(i + 1) * 16]).assign(&part);
        }
        side_by_side
    };
    check("attention", &qkv, 8, run, back);

    let d_ctx = random(&mut r, 9, 16);
    let d = back(&qkv, &d_ctx);
    for text in offsets.windows(2).map(|o| o[0] as usize..o[1] as usize) {
        let rows = d.slice_axis(Axis(0), text.clone().into());
        let sums = rows.sum_axis(Axis(0));
        let d_ctx_sums = d_ctx.slice_axis(Axis(0), text.into()).sum_axis(Axis(0));
        for i in 0..16 {
            let (d_b_k, d_b_v) = (sums[16 + i], sums[32 + i]);
            assert!(d_b_k.abs() <= 1e-5, "softmax ignores a constant per row, but d_b_k is {d_b_k}");
            let wanted = d_ctx_sums[i];
            assert!((d_b_v - wanted).abs() <= 1e-5, "rows of P sum to 1, so d_b_v is {wanted}, not {d_b_v}");
        }
    }
}

#[test]
fn poolers() {
    let mut r = rng(9);
    let offsets = [0, 2, 7];
    for pooler in [Pooler::Mean, Pooler::cls(&weight(&mut r, 16, 16))] {
        let h = random(&mut r, 7, 16);
        let b = random(&mut r, 1, 16);
        let run = |h: &Array2<f32>, b: &Array2<f32>| {
            let mut p = Array2::zeros((2, 16));
            pooler::forward(&NUM, &pooler, h.view(), &offsets, b.as_slice().unwrap(), p.view_mut());
            p
        };
        let back = |h: &Array2<f32>, b: &Array2<f32>, d: &Array2<f32>| {
            let p = run(h, b);
            let (mut d_h, mut d_b) = (Array2::zeros(h.raw_dim()), Array2::zeros((1, 16)));
            let d_b_slice = Some(d_b.as_slice_mut().unwrap());
            pooler::backward(&NUM, &pooler, d.view(), p.view(), &offsets, d_b_slice, Some(d_h.view_mut()));
            (d_h, d_b)
        };
        check("pooler h", &h, 10, |h| run(h, &b), |h, d| back(h, &b, d).0);
        if matches!(pooler, Pooler::Cls(_)) {
            check("pooler b", &b, 11, |b| run(&h, b), |b, d| back(&h, b, d).1);
        }
    }
}

#[test]
fn head_all_inputs() {
    let mut r = rng(12);
    let (p, w, b) = (random(&mut r, 4, 10), random(&mut r, 3, 10), random(&mut r, 1, 3));
    let keys: Vec<i64> = (0..4).map(|i| dropout::key(0, 0, i)).collect();
    for dropout in [Dropout { p: 0.0, site: 0 }, Dropout { p: 0.4, site: 0 }] {
        let run = |p: &Array2<f32>, w: &Array2<f32>, b: &Array2<f32>| {
            let mut y = Array2::zeros((4, 3));
            head::forward(p.view(), dropout, &keys, w.view(), b.as_slice().unwrap(), y.view_mut());
            y
        };
        let back = |p: &Array2<f32>, w: &Array2<f32>, d: &Array2<f32>| {
            let (mut d_w, mut d_b) = (Array2::zeros((3, 10)), Array2::zeros((1, 3)));
            let mut d_p = Array2::zeros(p.raw_dim());
            let (dw, db) = (d_w.as_slice_mut().unwrap(), d_b.as_slice_mut().unwrap());
            head::backward(d.view(), p.view(), dropout, &keys, w.view(), dw, db, Some(d_p.view_mut()));
            (d_p, d_w, d_b)
        };
        check("head p", &p, 13, |p| run(p, &w, &b), |p, d| back(p, &w, d).0);
        check("head w", &w, 14, |w| run(&p, w, &b), |w, d| back(&p, w, d).1);
        check("head b", &b, 15, |b| run(&p, &w, b), |_, d| back(&p, &w, d).2);
    }
}

#[test]
fn cross_entropy() {
    let mut r = rng(16);
    let logits = random(&mut r, 5, 4).mapv(|v| 3.0 * v);
    let labels = [0, 3, 1, 1, 2];
    let weights = [0.5, 2.0, 1.0, 1.5];
    for weights in [None, Some(&weights[..])] {
        let total = loss::total_weight(&labels, weights);
        let value = |y: &Array2<f32>| {
            let (l, _) = loss::cross_entropy(y.view(), &labels, weights, total);
            Array2::from_elem((1, 1), l as f32)
        };
        let back = |y: &Array2<f32>, d: &Array2<f32>| {
            loss::cross_entropy(y.view(), &labels, weights, total).1.mapv(|v| v * d[[0, 0]])
        };
        check("cross entropy", &logits, 17, value, back);
        let (_, d) = loss::cross_entropy(logits.view(), &labels, weights, total);
        for row in d.rows() {
            assert!(row.sum().abs() <= 1e-6, "probabilities sum to 1, so the gradient of a row sums to 0");
        }
    }
    let broken = Array2::from_elem((5, 4), f32::NAN);
    assert!(loss::cross_entropy(broken.view(), &labels, None, 5.0).0.is_nan(), "NaN must show in the loss");
}
