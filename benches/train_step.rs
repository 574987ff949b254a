//! One training step, texts a second: forward, loss, backward, clip, AdamW; one thread, the kernel sets of this CPU.
//!
//! `cargo bench --bench train_step -- 16x32/avx2` runs one. Groups are `train_step/{batch}x{seq}`, ids the kernel sets.
//! Before each, the peak of resident memory over a few steps is printed, where the system tells: memory is what
//! bias-only training is about. The heap keeps what earlier benches freed, so for a figure of its own run one id,
//! or the example `measure`.

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::proc;
use trimtab::TrainConfig;
use trimtab::sys::resident;
use trimtab::train::Labelled;
use trimtab::train::step::Stepper;

fn train_step(c: &mut Criterion) {
    let (base, pool) = (support::base(), support::one_thread());
    for (batch, seq) in support::SHAPES {
        let name = format!("train_step/{batch}x{seq}");
        let mut group = c.benchmark_group(&name);
        group.throughput(Throughput::Elements(batch as u64));
        let data = support::texts(batch, seq);
        let data: Vec<&Labelled> = data.iter().collect();
        for set in support::sets((batch, seq)) {
            let graph = support::graph(&base, set.clone());
            // Criterion calls the closure many times; what it trains is made once, and only if it is not filtered out.
            let mut made = None;
            group.bench_function(set.name(), |b| {
                let (trainer, theta) = made.get_or_insert_with(|| {
                    let mut theta = graph.initial_theta(&base).expect("the base has every bias");
                    let mut trainer = Stepper::new(&graph, &TrainConfig::default(), None).expect("a plan");
                    let fresh = resident::reset_peak();
                    for _ in 0..3 {
                        let step =
                            pool.install(|| trainer.step(&mut theta, &data, None, 1e-4)).expect("a step");
                        assert!(step.is_finite(), "a step that diverged does less work");
                    }
                    if let Some(peak) = proc::mb(resident::peak()).filter(|_| fresh) {
                        eprintln!("{name}/{}: peak RSS {peak} MB", set.name());
                    }
                    (trainer, theta)
                });
                pool.install(|| b.iter(|| trainer.step(theta, &data, None, 1e-4).expect("a step")));
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = support::short();
    targets = train_step
}
criterion_main!(benches);
