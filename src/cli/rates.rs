//! The timed loops of `bench`: one kernel set's products, and a base's texts.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};
use trimtab::graph::Graph;
use trimtab::kernels::{Forward, Kernels, MatI8, Part, blocks, tiles};
use trimtab::ops::loss::Target;
use trimtab::tokenize::Encoded;
use trimtab::train::step::Stepper;
use trimtab::train::{self, Labelled};
use trimtab::{Base, Error, Result, TrainConfig};

/// Most calls that are timed: a median needs no more.
const CALLS_MAX: usize = 2_000;

/// Median seconds of a call: one call to warm up, then until `budget` is used. Where the first call alone takes all of
/// it, that one counts.
pub fn seconds(budget: Duration, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    call()?;
    let first = start.elapsed();
    if first >= budget {
        return Ok(first.as_secs_f64());
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || (start.elapsed() < budget && times.len() < CALLS_MAX) {
        let call_start = Instant::now();
        call()?;
        // A clock too coarse for the call must not make it infinitely fast.
        times.push(call_start.elapsed().as_secs_f64().max(1e-9));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Multiply-adds a second of a forward product: `m` rows, `k` inputs, `n` outputs, both multiples of a block.
pub fn product(set: &dyn Kernels, (m, k, n): (usize, usize, usize), budget: Duration) -> Result<f64> {
    // Finite, of ordinary size and not all the same, as in the criterion benches.
    let floats = |n: usize| (0..n).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect::<Vec<_>>();
    let mut x = vec![bytemuck::Zeroable::zeroed(); m * blocks(k)];
    set.quantize_rows(&floats(m * k), k, None, &mut x);
    // From a multiple of 64 on, as in a mapped base.
    let len = tiles::len(n, k).ok_or_else(|| Error::Internal("a shape of bench overflows".into()))?;
    let bytes: Vec<i8> = (0..len + 63).map(|i| ((i * 7919 % 255) as i8).max(-127)).collect();
    let start = bytes.as_ptr().addr().wrapping_neg() % 64;
    let w = MatI8 { tiles: &bytes[start..start + len], rows: n, cols: k };
    let (sums, scale, bias) = (set.weight_sums(w), vec![1e-3; n], floats(n));
    let parts = [Part { w, sums: &sums, scale: &scale, bias: &bias }];
    let mut y = vec![0.0; m * n];
    let s = seconds(budget, || {
        set.gemm_forward(&x, &parts, Forward::F32(&mut y));
        Ok(())
    })?;
    Ok((m * k * n) as f64 / s)
}

/// `batch` texts of `tokens` random tokens, labelled in turn; the same on every machine.
pub fn texts(batch: usize, tokens: usize, vocab: usize) -> Vec<Labelled> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut text = || Encoded::plain((0..tokens).map(|_| rng.random_range(0..vocab as i32)).collect());
    (0..batch)
        .map(|i| Labelled { text: text(), target: Target::Class(i % 2), partner: None, part: None })
        .collect()
}

/// Seconds of a forward to the logits of all `texts`.
pub fn forward(base: &Base, graph: &Graph, texts: &[Labelled], budget: Duration) -> Result<f64> {
    let theta = graph.initial_theta(base)?;
    let texts: Vec<&Encoded> = texts.iter().map(|t| &t.text).collect();
    seconds(budget, || train::forward_all(graph, &theta, &texts).map(drop))
}

/// Seconds of a training step on `texts`: forward, loss, backward, clip and AdamW over every default bias and the head.
pub fn step(base: &Base, graph: &Graph, texts: &[Labelled], budget: Duration) -> Result<f64> {
    let mut theta = graph.initial_theta(base)?;
    let mut trainer = Stepper::new(graph, &TrainConfig::default(), None)?;
    let batch: Vec<&Labelled> = texts.iter().collect();
    seconds(budget, || {
        let step = trainer.step(&mut theta, &batch, None, 1e-4)?;
        match step.is_finite() {
            true => Ok(()),
            false => Err(Error::Diverged(format!("a step on random texts gave loss {}", step.loss))),
        }
    })
}
