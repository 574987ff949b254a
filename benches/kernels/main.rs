//! Every kernel set at the shapes of MiniLM and BERT-base, on one thread.
//!
//! group = `{op}/{shape}`, id = the kernel set, so that sets stand beside each other; throughput in multiply-adds, or
//! in elements where there are none. Each set's answer is compared with portable's before it is timed. Groups
//! `peak_{first,last}/{int8,f32}` are loops over registers only, ids `{set}/{instruction}`: what the instruction itself
//! allows on this machine, before everything else and behind it, since clocks change. `benches/record.py` divides by it.
#![allow(missing_docs)]

mod products;
mod rows;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use trimtab::kernels::{Block, Kernels, available, blocks, peak};

/// An op with its operands, for one kernel set.
trait Work {
    /// What is timed. What it changes in place must neither grow without bound nor fade: that would time something else.
    fn run(&mut self, k: &dyn Kernels);
    /// What a first `run` wrote; of blocks see [`plain`].
    fn written(&self, k: &dyn Kernels) -> Vec<f32>;
}

/// Times `of(set)` on every set, after comparing what it writes with portable's answer.
fn every_set<W: Work>(c: &mut Criterion, group: &str, elements: usize, of: impl Fn(&dyn Kernels) -> W) {
    let sets = available();
    let answer = |k: &dyn Kernels| {
        let mut work = of(k);
        work.run(k);
        // As bits: a NaN must not differ from itself, nor 0 equal -0.
        work.written(k).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let mut wanted = None;
    let mut group_of_sets = c.benchmark_group(group);
    group_of_sets.throughput(Throughput::Elements(elements as u64));
    for k in &sets {
        let mut checked = false;
        // Criterion calls this more than once for a bench, and not at all for one that is filtered out.
        group_of_sets.bench_function(k.name(), |b| {
            if !checked {
                let wanted =
                    wanted.get_or_insert_with(|| answer(&**sets.last().expect("portable is always there")));
                assert!(answer(&**k) == *wanted, "{} differs from portable in {group}", k.name());
                checked = true;
            }
            let mut work = of(&**k);
            b.iter(|| work.run(&**k));
        });
    }
}

/// Deterministic, finite and of ordinary size: zeros, subnormals or infinities would time something else.
fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 250.0 - 2.0).collect()
}

/// Rows of [`floats`] as the set quantizes them.
fn quantized(k: &dyn Kernels, rows: usize, cols: usize) -> Vec<Block> {
    let mut to = empty(rows, cols);
    k.quantize_rows(&floats(rows * cols), cols, None, &mut to);
    to
}

/// Room for rows of blocks.
fn empty(rows: usize, cols: usize) -> Vec<Block> {
    vec![bytemuck::Zeroable::zeroed(); rows * blocks(cols)]
}

/// Bytes and scales of blocks, without the set's flip.
fn plain<'a>(k: &dyn Kernels, x: &'a [Block]) -> impl Iterator<Item = f32> + 'a {
    let flip = k.flip();
    x.iter().flat_map(move |b| b.q.map(|q| f32::from((q as u8 ^ flip) as i8)).into_iter().chain([b.scale]))
}

fn peaks(c: &mut Criterion, when: &str) {
    let all = peak::peaks();
    for (numbers, which) in [("int8", 0), ("f32", 1)] {
        let mut g = c.benchmark_group(format!("peak_{when}/{numbers}"));
        for set in available() {
            let Some((int8, float)) = peak::of_set(set.name()) else { continue };
            let instruction = [int8, float][which];
            let Some((_, multiply_adds, run)) = all.iter().find(|p| p.0 == instruction) else { continue };
            g.throughput(Throughput::Elements(*multiply_adds));
            g.bench_function(BenchmarkId::new(set.name(), instruction), |b| b.iter(run));
        }
    }
}

fn one_thread(c: &mut Criterion) {
    // The GEMMs share their work among the threads of the pool they are called in, here the global one.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build_global()
        .expect("nothing has used the global pool yet");
    peaks(c, "first");
    products::benches(c);
    rows::benches(c);
    peaks(c, "last");
}

criterion_group! {
    name = benches;
    // Short, for there are some four hundred; a median of ten is what the record needs.
    config = Criterion::default()
        .sample_size(10)
        .nresamples(1_000)
        .warm_up_time(Duration::from_millis(30))
        .measurement_time(Duration::from_millis(150));
    targets = one_thread
}
criterion_main!(benches);
