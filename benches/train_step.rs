//! One training step, texts a second: forward, loss, backward, clip, AdamW; one thread, every kernel set.
//!
//! `cargo bench --bench train_step -- avx2/16x32` runs one. Ids are `{kernel}/{batch}x{seq}`. Before each, the
//! peak of resident memory over a few steps is printed, where the system tells: memory is what bias-only training
//! is about. The heap keeps what earlier benches freed, so for a figure of its own run one id, or the example
//! `measure`.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::proc;
use trimtab::train::Labelled;
use trimtab::train::step::Trainer;
use trimtab::{TrainConfig, kernels};

fn train_step(c: &mut Criterion) {
    let (base, pool) = (support::base(), support::one_thread());
    let mut group = c.benchmark_group("train_step");
    group.sample_size(20);
    for set in kernels::available() {
        let graph = support::graph(&base, set.clone());
        for (batch, seq) in support::SHAPES {
            let id = format!("{batch}x{seq}");
            let data = support::texts(batch, seq);
            let data: Vec<&Labelled> = data.iter().collect();
            group.throughput(Throughput::Elements(batch as u64));
            // Criterion calls the closure many times; what it trains is made once, and only if it is not filtered out.
            let mut made = None;
            group.bench_function(BenchmarkId::new(set.name(), &id), |b| {
                let (trainer, theta) = made.get_or_insert_with(|| {
                    let mut theta = graph.initial_theta(&base).expect("the base has every bias");
                    let mut trainer = Trainer::new(&graph, &TrainConfig::default(), None).expect("a plan");
                    let fresh = proc::reset_peak();
                    for _ in 0..3 {
                        let step =
                            pool.install(|| trainer.step(&mut theta, &data, None, 1e-4)).expect("a step");
                        assert!(step.is_finite(), "a step that diverged does less work");
                    }
                    if let Some(peak) = proc::status_mb("VmHWM").filter(|_| fresh) {
                        eprintln!("train_step/{}/{id}: peak RSS {peak} MB", set.name());
                    }
                    (trainer, theta)
                });
                pool.install(|| b.iter(|| trainer.step(theta, &data, None, 1e-4).expect("a step")));
            });
        }
    }
}

criterion_group!(benches, train_step);
criterion_main!(benches);
