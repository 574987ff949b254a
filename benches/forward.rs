//! Inference, texts a second: forward to logits and pooled vectors, one thread, every kernel set of this CPU.
//!
//! `cargo bench --bench forward -- avx2/16x32` runs one. Ids are `{kernel}/{batch}x{seq}`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use trimtab::{kernels, train};

fn forward(c: &mut Criterion) {
    let (base, pool) = (support::base(), support::one_thread());
    let mut group = c.benchmark_group("forward");
    group.sample_size(20);
    for set in kernels::available() {
        let graph = support::graph(&base, set.clone());
        let theta = graph.initial_theta(&base).expect("the base has every bias");
        for (batch, seq) in support::SHAPES {
            let texts = support::texts(batch, seq);
            let texts: Vec<_> = texts.iter().map(|d| &d.text).collect();
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(set.name(), format!("{batch}x{seq}")), |b| {
                pool.install(|| b.iter(|| train::forward_all(&graph, &theta, &texts).expect("a forward")));
            });
        }
    }
}

criterion_group!(benches, forward);
criterion_main!(benches);
