//! Every op's backward against finite differences of its forward, in reference mode, and the identities that
//! hold for free.
//!
//! Loss = Σ y·c with random c, in f64; a random direction of one per element; two-point differences.
//! Activation quantization is off: through rounding to int8 the difference would be noise.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tract_core::prelude::tract_ndarray::{Array2, ArrayView2, Axis};
use trimtab::config::{Activation, Gelu};
use trimtab::ops::attention::{self, Heads, Queries};
use trimtab::ops::dropout::{self, Dropout};
use trimtab::ops::linear::{self, InputGrad, Linear};
use trimtab::ops::loss::Target;
use trimtab::ops::pooler::{self, Pooler};
use trimtab::ops::{Numerics, Values, ValuesMut, add_norm, head, loss, text_sums};
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
    let q: Vec<i8> =
        (0..out * cols).map(|_| (rng.random::<u32>() % 255) as i8).map(|v| v.max(-127)).collect();
    let scale = (0..out).map(|_| 0.002 + (rng.random::<u32>() % 100) as f32 * 2e-5).collect();
    QMatrix::linear(out, cols, &q, scale)
}

fn values(x: &Array2<f32>) -> Values<'_> {
    Values::F32(x.as_slice().unwrap())
}

fn values_mut(x: &mut Array2<f32>) -> ValuesMut<'_> {
    ValuesMut::F32(x.as_slice_mut().unwrap())
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

#[test]
fn linear_input_and_bias() {
    let mut r = rng(1);
    let l = Linear { parts: (0..3).map(|_| weight(&mut r, 20, 12)).collect(), gelu: None };
    let (x, bias) = (random(&mut r, 7, 12), random(&mut r, 1, 60));
    let run = |x: &Array2<f32>, bias: &Array2<f32>| {
        let mut y = Array2::zeros((7, 60));
        let b: Vec<&[f32]> = bias.as_slice().unwrap().chunks(20).collect();
        linear::forward(&NUM, &l, values(x), &b, values_mut(&mut y), None);
        y
    };
    let back = |d_y: &Array2<f32>| {
        let mut d_x = Array2::zeros((7, 12));
        linear::backward(&NUM, &l, values(d_y), InputGrad::Set(d_x.as_slice_mut().unwrap()));
        d_x
    };
    check("linear x", &x, 2, |x| run(x, &bias), |_, d| back(d));
    // Two texts: a bias's gradient is the sum of their sums.
    let bias_grad = |d_y: &Array2<f32>| {
        let mut sums = Array2::zeros((2, 60));
        text_sums(&NUM, d_y.as_slice().unwrap(), 60, &[0, 3, 7], sums.as_slice_mut().unwrap());
        sums.sum_axis(Axis(0)).insert_axis(Axis(0))
    };
    check("linear b", &bias, 3, |b| run(&x, b), |_, d| bias_grad(d));

    // `Add` joins what is there
    let d_y = random(&mut r, 7, 60);
    let mut sum = Array2::from_elem((7, 12), 0.5);
    linear::backward(&NUM, &l, values(&d_y), InputGrad::Add(sum.as_slice_mut().unwrap()));
    assert!((&sum - &back(&d_y)).iter().all(|v| (v - 0.5).abs() <= 1e-5));
}

/// Two Linears with a GELU between, as in the feed-forward block.
#[test]
fn linear_through_gelu() {
    let mut r = rng(18);
    for kind in [Gelu::Erf, Gelu::Tanh] {
        let inner = Linear { parts: vec![weight(&mut r, 20, 12)], gelu: Some(kind) };
        let outer = Linear { parts: vec![weight(&mut r, 9, 20)], gelu: None };
        let (x, bias, outer_bias) = (random(&mut r, 7, 12), random(&mut r, 1, 20), [0.1; 9]);
        let run = |x: &Array2<f32>, bias: &Array2<f32>| {
            let (mut f, mut slope, mut y) =
                (Array2::zeros((7, 20)), Array2::zeros((7, 20)), Array2::zeros((7, 9)));
            let saved = Some(values_mut(&mut slope));
            linear::forward(&NUM, &inner, values(x), &[bias.as_slice().unwrap()], values_mut(&mut f), saved);
            linear::forward(&NUM, &outer, values(&f), &[&outer_bias], values_mut(&mut y), None);
            (y, slope)
        };
        let back = |x: &Array2<f32>, bias: &Array2<f32>, d_y: &Array2<f32>| {
            let (_, slope) = run(x, bias);
            let (mut d_z, mut d_x, mut d_b) =
                (Array2::zeros((7, 20)), Array2::zeros((7, 12)), Array2::zeros((2, 20)));
            let through = InputGrad::Gelu {
                derivative: values(&slope),
                offsets: &[0, 2, 7],
                d_b: Some(d_b.as_slice_mut().unwrap()),
                below: &inner,
                d_z: values_mut(&mut d_z),
            };
            linear::backward(&NUM, &outer, values(d_y), through);
            linear::backward(&NUM, &inner, values(&d_z), InputGrad::Set(d_x.as_slice_mut().unwrap()));
            (d_x, d_b.sum_axis(Axis(0)).insert_axis(Axis(0)))
        };
        check("gelu x", &x, 19, |x| run(x, &bias).0, |x, d| back(x, &bias, d).0);
        check("gelu b", &bias, 20, |b| run(&x, b).0, |b, d| back(&x, b, d).1);
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
        let saved = Some((ValuesMut::F32(&mut n), &mut rstd[..]));
        let (x, residual) = (x.as_slice().unwrap(), residual.as_slice().unwrap());
        add_norm::forward(&NUM, x, Some(residual), g, b, 1e-12, y.as_slice_mut().unwrap(), None, saved);
        (y, n, rstd)
    };
    let back = |x: &Array2<f32>, d_y: &Array2<f32>| {
        let (_, n, rstd) = run(x, &b);
        let (mut d_x, mut d_b) = (Array2::zeros(x.raw_dim()), Array2::zeros((1, 24)));
        let (saved, d_y) = ((Values::F32(&n), &rstd[..]), d_y.as_slice().unwrap());
        text_sums(&NUM, d_y, 24, &[0, 5], d_b.as_slice_mut().unwrap());
        add_norm::backward(&NUM, d_y, saved, g.as_slice().unwrap(), d_x.as_slice_mut().unwrap(), None);
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
    let offsets = [0, 3, 4, 9];
    attention_of(Queries::All, &offsets, &offsets);
    attention_of(Queries::First, &offsets, &[0, 1, 2, 3]);
}

/// `rows` is where the rows of ctx of each text begin.
fn attention_of(queries: Queries, offsets: &[i32], rows: &[i32]) {
    let mut r = rng(7);
    let heads = Heads { heads: 2, dim: 8 };
    let asks = rows[3] as usize;
    let qkv = random(&mut r, 9, 48).mapv(|v| 2.0 * v);
    let run = |qkv: &Array2<f32>| {
        let mut ctx = Array2::zeros((asks, 16));
        attention::forward(&NUM, heads, queries, values(qkv), offsets, values_mut(&mut ctx));
        ctx
    };
    let below = Linear { parts: (0..3).map(|_| weight(&mut r, 16, 16)).collect(), gelu: None };
    let back_by_text = |qkv: &Array2<f32>, d: &Array2<f32>| {
        let (mut d_qkv, mut d_b) = (Array2::zeros(qkv.raw_dim()), Array2::zeros((3, 48)));
        let (d, to, sums) = (d.as_slice().unwrap(), values_mut(&mut d_qkv), d_b.as_slice_mut().unwrap());
        attention::backward(&NUM, heads, queries, d, values(qkv), offsets, &below, to, sums);
        (d_qkv, d_b)
    };
    let back = |qkv: &Array2<f32>, d: &Array2<f32>| back_by_text(qkv, d).0;
    check("attention", &qkv, 8, run, back);

    let d_ctx = random(&mut r, asks, 16);
    let (d, d_b) = back_by_text(&qkv, &d_ctx);
    for (t, text) in offsets.windows(2).map(|o| o[0] as usize..o[1] as usize).enumerate() {
        let d = d.slice_axis(Axis(0), text.into());
        let sums = d_b.row(t);
        assert!((&d.sum_axis(Axis(0)) - &sums).iter().all(|v| v.abs() <= 1e-5), "text {t}");
        let own = rows[t] as usize..rows[t + 1] as usize;
        let d_ctx_sums = d_ctx.slice_axis(Axis(0), own.into()).sum_axis(Axis(0));
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
    let w = weight(&mut r, 16, 16);
    // Of ReLU, whose slope jumps, the golden data tell.
    let cls = |activation| Pooler::cls(&w, activation);
    for pooler in [Pooler::Mean, Pooler::First, cls(Activation::Tanh), cls(Activation::Gelu)] {
        let h = random(&mut r, 7, 16);
        let b = random(&mut r, 1, 16);
        let forward = |h: &Array2<f32>, b: &Array2<f32>| {
            let (mut p, mut slope) = (Array2::zeros((2, 16)), vec![0.0; 32]);
            let b = b.as_slice().unwrap();
            pooler::forward(&NUM, &pooler, h.view(), &offsets, b, p.view_mut(), Some(&mut slope));
            (p, slope)
        };
        let run = |h: &Array2<f32>, b: &Array2<f32>| forward(h, b).0;
        let back = |h: &Array2<f32>, b: &Array2<f32>, d: &Array2<f32>| {
            let (p, slope) = forward(h, b);
            let (mut d_h, mut d_b) = (Array2::zeros(h.raw_dim()), Array2::zeros((2, 16)));
            let by_text = Some(d_b.as_slice_mut().unwrap());
            pooler::backward(
                &NUM,
                &pooler,
                d.view(),
                (p.view(), &slope),
                &offsets,
                by_text,
                Some(d_h.view_mut()),
            );
            (d_h, d_b.sum_axis(Axis(0)).insert_axis(Axis(0)))
        };
        check("pooler h", &h, 10, |h| run(h, &b), |h, d| back(h, &b, d).0);
        if matches!(pooler, Pooler::Cls(..)) {
            check("pooler b", &b, 11, |b| run(&h, b), |b, d| back(&h, b, d).1);
        }
    }
}

/// Where the rows of texts of one row each begin.
fn ones(texts: usize) -> Vec<i32> {
    (0..).take(texts + 1).collect()
}

#[test]
fn head_all_inputs() {
    let mut r = rng(12);
    let (p, w, b) = (random(&mut r, 4, 10), random(&mut r, 3, 10), random(&mut r, 1, 3));
    let keys: Vec<i64> = (0..4).map(|i| dropout::key(0, 0, i)).collect();
    let (one_row, by_token) = (ones(4), [0, 1, 4]);
    let rates = [0.0, 0.4].map(|p| Dropout { p, site: 0 });
    for (dropout, texts) in [
        (rates[0], (&keys[..], &one_row[..])),
        (rates[1], (&keys, &one_row)),
        (rates[1], (&keys[..2], &by_token)),
    ] {
        let run = |p: &Array2<f32>, w: &Array2<f32>, b: &Array2<f32>| {
            let mut y = Array2::zeros((4, 3));
            head::forward(p.view(), dropout, texts, w.view(), b.as_slice().unwrap(), y.view_mut());
            y
        };
        let back = |p: &Array2<f32>, w: &Array2<f32>, d: &Array2<f32>| {
            let (mut d_w, mut d_b) = (Array2::zeros((3, 10)), Array2::zeros((1, 3)));
            let mut d_p = Array2::zeros(p.raw_dim());
            let (to_w, to_b) = (d_w.as_slice_mut().unwrap(), d_b.as_slice_mut().unwrap());
            head::backward(&NUM, d.view(), dropout, texts, w.view(), d_p.view_mut());
            head::parameters(&NUM, d.view(), p.view(), dropout, texts, to_w, to_b);
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
    let targets = [0, 3, 1, 1, 2].map(Target::Class);
    let weights = [0.5, 2.0, 1.0, 1.5];
    for weights in [None, Some(&weights[..])] {
        let total = loss::total_weight(&targets, weights);
        let value = |y: &Array2<f32>| {
            let (l, _) = loss::loss(y.view(), &ones(5), &targets, weights, total);
            Array2::from_elem((1, 1), l.iter().sum::<f64>() as f32)
        };
        let back = |y: &Array2<f32>, d: &Array2<f32>| {
            loss::loss(y.view(), &ones(5), &targets, weights, total).1.mapv(|v| v * d[[0, 0]])
        };
        check("cross entropy", &logits, 17, value, back);
        let (_, d) = loss::loss(logits.view(), &ones(5), &targets, weights, total);
        for row in d.rows() {
            assert!(row.sum().abs() <= 1e-6, "probabilities sum to 1, so the gradient of a row sums to 0");
        }
    }
}

#[test]
fn losses_of_other_tasks() {
    let mut r = rng(18);
    let several: Vec<Target> =
        (0..5).map(|i| Target::Labels((0..4).map(|l| (i + l) % 3 == 0).collect())).collect();
    let numbers: Vec<Target> = [0.5, -2.0, 0.0, 1.0, 3.5].map(Target::Value).to_vec();
    // two texts of three and two tokens, one of which has no tag
    let tags = vec![Target::Tags(vec![(0, 3), (2, 1)]), Target::Tags(vec![(0, 0), (1, 2)])];
    let spans = vec![Target::Span(1, 2), Target::Span(0, 0)];
    let (one_row, by_token) = (ones(5), [0, 3, 5]);
    for (name, targets, offsets, outputs) in [
        ("labels", &several, &one_row[..], 4),
        ("number", &numbers, &one_row, 1),
        ("tags", &tags, &by_token, 4),
        ("spans", &spans, &by_token, 2),
    ] {
        let logits = random(&mut r, 5, outputs).mapv(|v| 3.0 * v);
        let total = loss::total_weight(targets, None);
        let value = |y: &Array2<f32>| {
            let (l, _) = loss::loss(y.view(), offsets, targets, None, total);
            Array2::from_elem((1, 1), l.iter().sum::<f64>() as f32)
        };
        let back = |y: &Array2<f32>, d: &Array2<f32>| {
            loss::loss(y.view(), offsets, targets, None, total).1.mapv(|v| v * d[[0, 0]])
        };
        check(name, &logits, 19, value, back);
    }
}

/// PyTorch 2.9:
/// ```python
/// y = torch.tensor([[1.5, -0.5], [-200.0, 3.0]])
/// print(torch.nn.BCEWithLogitsLoss()(y, torch.tensor([[1.0, 1.0], [1.0, 0.0]])))
/// print(torch.nn.MSELoss()(y[:, 0], torch.tensor([1.0, -202.0])))
/// ```
#[test]
fn losses_are_pytorchs() {
    let y = Array2::from_shape_vec((2, 2), vec![1.5, -0.5, -200.0, 3.0]).unwrap();
    let several = [Target::Labels(vec![true, true]), Target::Labels(vec![true, false])];
    let sum = |l: Vec<f64>| l.iter().sum::<f64>();
    let bce = sum(loss::loss(y.view(), &ones(2), &several, None, 2.0).0);
    assert!((bce - 51.056014).abs() < 1e-4, "{bce}");
    let (y, numbers) = (Array2::from_shape_vec((2, 1), vec![1.5, -200.0]).unwrap(), [1.0, -202.0]);
    let mse = sum(loss::loss(y.view(), &ones(2), &numbers.map(Target::Value), None, 2.0).0);
    assert!((mse - 2.125).abs() < 1e-6, "{mse}");
}

#[test]
fn what_is_no_number_shows_in_every_loss() {
    let tags = Target::Tags(vec![(0, 1)]);
    let span = Target::Span(0, 0);
    for target in [Target::Class(1), Target::Labels(vec![true, false]), Target::Value(0.0), tags, span] {
        let broken = Array2::from_elem((1, 2), f32::NAN);
        assert!(loss::loss(broken.view(), &ones(1), [&target], None, 1.0).0[0].is_nan(), "{target:?}");
    }
}
