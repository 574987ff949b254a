//! A random base in the shape of MiniLM, and texts of random ids: benches need no download.
#![allow(dead_code)] // each bench uses its part

#[path = "../../tests/common/mod.rs"]
mod common;
pub mod proc;

use common::{Sizes, Tiny, vocabulary};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::Arc;
use trimtab::Base;
use trimtab::config::Pooling;
use trimtab::graph::{DropoutRates, Graph};
use trimtab::kernels::Kernels;
use trimtab::ops::Numerics;
use trimtab::ops::loss::Target;
use trimtab::tokenize::Encoded;
use trimtab::train::Labelled;

/// Sizes of all-MiniLM-L6-v2, but for its vocabulary, whose size no timing depends on.
const MINILM: Sizes = Sizes { hidden: 384, heads: 12, layers: 6, intermediate: 1536, positions: 512 };

/// Texts and tokens of the batches: a sentence as it comes, a short batch, a long one.
pub const SHAPES: [(usize, usize); 3] = [(1, 16), (16, 32), (8, 128)];

/// The base; its file may go, its map stays. From then on the heap is as in the `trimtab` command; not before, or
/// it would keep the memory that the checkpoint was made in.
pub fn base() -> Base {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let base = Tiny::of_sizes(0, MINILM).base(dir.path());
    trimtab::sys::heap::keep_freed_memory();
    base
}

/// The sets to time at a shape: portable, which takes seconds for what the others do in milliseconds, only at the first.
pub fn sets(shape: (usize, usize)) -> Vec<Arc<dyn Kernels>> {
    let all = trimtab::kernels::available();
    let few = all.len() > 1 && shape != SHAPES[0];
    all.into_iter().filter(|k| !few || k.name() != "portable").collect()
}

/// The graph over a kernel set: mean pooling, two classes, no dropout.
pub fn graph(base: &Base, kernels: Arc<dyn Kernels>) -> Graph {
    let rates = DropoutRates { head: 0.0, encoder: 0.0 };
    Graph::new(base, Numerics::Int8(kernels), Pooling::Mean, 2, rates).expect("the base is whole")
}

/// `batch` texts of `seq` random tokens each, labelled at random; the same on every machine.
pub fn texts(batch: usize, seq: usize) -> Vec<Labelled> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let vocab = vocabulary().len() as i32;
    let mut text = || Encoded::plain((0..seq).map(|_| rng.random_range(5..vocab)).collect());
    (0..batch)
        .map(|i| Labelled { text: text(), target: Target::Class(i % 2), partner: None, part: None })
        .collect()
}

/// Ten samples of a step are enough for a median; portable's are slow.
pub fn short() -> criterion::Criterion {
    let ms = std::time::Duration::from_millis;
    criterion::Criterion::default()
        .sample_size(10)
        .nresamples(1_000)
        .warm_up_time(ms(200))
        .measurement_time(ms(1_500))
}

/// One thread: what is compared is kernels, not schedulers.
pub fn one_thread() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(1).build().expect("a thread")
}
