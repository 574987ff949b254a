//! Inference, texts a second: forward to logits and pooled vectors, one thread, the kernel sets of this CPU.
//!
//! `cargo bench --bench forward -- 16x32/avx2` runs one. Groups are `forward/{batch}x{seq}`, ids the kernel sets.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trimtab::train;

fn forward(c: &mut Criterion) {
    let (base, pool) = (support::base(), support::one_thread());
    for (batch, seq) in support::SHAPES {
        let mut group = c.benchmark_group(format!("forward/{batch}x{seq}"));
        group.throughput(Throughput::Elements(batch as u64));
        let texts = support::texts(batch, seq);
        let texts: Vec<_> = texts.iter().map(|d| &d.text).collect();
        for set in support::sets((batch, seq)) {
            let graph = support::graph(&base, set.clone());
            let theta = graph.initial_theta(&base).expect("the base has every bias");
            group.bench_function(set.name(), |b| {
                pool.install(|| b.iter(|| train::forward_all(&graph, &theta, &texts).expect("a forward")));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = support::short();
    targets = forward
}
criterion_main!(benches);
