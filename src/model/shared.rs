//! What models of one base have in common, made once as long as any of them lives: the graph and its plans, the
//! tokenizer, the threads. A model of its own is then its biases and its head.

use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::graph::{DropoutRates, Graph};
use crate::ops::Numerics;
use crate::quant::Base;
use crate::task::Task;
use crate::tokenize::TextEncoder;
use rayon::ThreadPool;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Things that are in use, to be used again. What no model uses any more is freed.
struct InUse<T>(Mutex<Vec<Weak<T>>>);

impl<T> Default for InUse<T> {
    fn default() -> InUse<T> {
        InUse(Mutex::default())
    }
}

impl<T> InUse<T> {
    /// The one that `fits`, or else the one that `make` makes.
    fn get(&self, fits: impl Fn(&T) -> bool, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        // A panic in `make` leaves the list as it was.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.strong_count() > 0);
        if let Some(one) = known.iter().filter_map(Weak::upgrade).find(|one| fits(one)) {
            return Ok(one);
        }
        let one = Arc::new(make()?);
        known.push(Arc::downgrade(&one));
        Ok(one)
    }
}

/// A base wired for tasks of one shape.
pub(super) struct Wired {
    of: Shape,
    pub graph: Graph,
    /// The base's own biases and a head of zeros.
    pub initial: Vec<f32>,
}

/// What tells graphs of one base apart.
#[derive(Clone, PartialEq)]
struct Shape {
    numerics: String,
    pooling: Pooling,
    outputs: usize,
    head: Option<&'static str>,
    mlm: bool,
    rates: DropoutRates,
}

impl Wired {
    /// Errors: as of [`Graph::new`] and [`Graph::with_mlm_head`].
    pub fn get(
        base: &Base,
        task: &Task,
        numerics: Numerics,
        pooling: Pooling,
        rates: DropoutRates,
    ) -> Result<Arc<Wired>> {
        let of = Shape {
            numerics: numerics.describe(),
            pooling,
            outputs: task.outputs(),
            head: task.kind().head(),
            mlm: *task == Task::Mlm,
            rates,
        };
        base.attached::<InUse<Wired>>().get(
            |one| one.of == of,
            || {
                let mut graph = Graph::new(base, numerics, pooling, of.outputs, rates)?;
                if let Some(head) = of.head {
                    graph = graph.with_head(head);
                }
                if of.mlm {
                    graph = graph.with_mlm_head(base)?;
                }
                let initial = graph.initial_theta(base)?;
                Ok(Wired { of: of.clone(), graph, initial })
            },
        )
    }
}

/// A base's tokenizer, for texts of one length.
pub(super) struct Texts {
    pub encoder: TextEncoder,
}

impl Texts {
    /// Errors: as of [`TextEncoder::from_bytes`].
    pub fn get(base: &Base, max_len: usize) -> Result<Arc<Texts>> {
        base.attached::<InUse<Texts>>().get(
            |one| one.encoder.max_len() == max_len,
            || {
                let (config, path) = (base.config(), base.path());
                let json = base.tokenizer_bytes();
                let encoder =
                    TextEncoder::from_bytes(json, path, max_len, config.vocab, config.types_told())?;
                Ok(Texts { encoder })
            },
        )
    }
}

/// So many threads, for all models of the base that want as many. Errors: the system has none left.
pub(super) fn threads(base: &Base, n: usize) -> Result<Arc<ThreadPool>> {
    // rayon takes 0 for as many as there are cores.
    base.attached::<InUse<ThreadPool>>().get(|pool| pool.current_num_threads() == n, || new_threads(n))
}

/// So many threads for one run alone. Errors: the system has none left.
pub(super) fn new_threads(n: usize) -> Result<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .build()
        .map_err(|e| Error::Config(format!("cannot start {n} threads: {e}")))
}
