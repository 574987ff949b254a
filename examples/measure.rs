//! One measurement in a fresh process, one JSON line: how long training or inference takes and how much memory.
//!
//! ```sh
//! cargo build --profile fast --example measure
//! target/fast/examples/measure train --base BASE.q8.safetensors --batch 8 --seq 128 --threads 1
//! target/fast/examples/measure infer --base BASE.q8.safetensors --batch 1 --seq 16 --threads 1 --budget 6
//! ```
//!
//! A training step is forward, loss, backward, clip and AdamW over every default bias and a head of two classes,
//! without dropout; inference is the forward to the pooled vector, with the base's pooling. Texts are full-length
//! random ids. Two warm-up steps, then at least four and at most thirty timed ones until the budget (in seconds)
//! is used, or with `--reps N` exactly N (one or more). `benches/compare.py` runs this beside other runtimes.
//!
//! | field | meaning |
//! |---|---|
//! | `predicted_mb`, `micro_rows`, `lanes` | training: foretold peak, tokens of a micro-batch, micro-batches at a time |
//! | `p50_ms`, `min_ms`, `max_ms`, `reps` | one step: median, fastest, slowest; number of timed steps |
//! | `examples_per_s` | texts a second, from the median |
//! | `import_rss_mb` | resident memory before anything is loaded |
//! | `loaded_rss_mb` | with base, graph and, for training, plan and optimizer |
//! | `steady_peak_rss_mb` | highest during the timed steps |
//! | `peak_rss_mb` | highest of the whole process; above `import_rss_mb` it is what the work costs |
//! | `own_cpus`, `other_cpus` | CPUs that this process, and everybody else, kept busy during the timed steps |
//!
//! Memory is in units of 2^20 bytes and null where the system does not tell; so are the CPUs.

#[path = "../benches/support/proc.rs"]
mod proc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::time::Instant;
use trimtab::graph::{DropoutRates, Graph};
use trimtab::ops::Numerics;
use trimtab::ops::loss::Target;
use trimtab::sys::resident;
use trimtab::tokenize::Encoded;
use trimtab::train::step::Stepper;
use trimtab::train::{self, Labelled, MicroBatching, memory};
use trimtab::{Base, TrainConfig, kernels};

const USAGE: &str = "usage: measure train|infer --base FILE --batch TEXTS --seq TOKENS --threads N \
     [--budget SECONDS | --reps N] [--memory SIZE]";
const WARM_UP: usize = 2;
const REPS_MIN: usize = 4;
const REPS_MAX: usize = 30;
const LEARNING_RATE: f64 = 1e-4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Args {
    train: bool,
    base: String,
    batch: usize,
    seq: usize,
    threads: usize,
    budget_s: f64,
    memory: Option<usize>,
    /// Timed steps whatever the budget says.
    reps: Option<usize>,
}

fn main() {
    let import_rss_mb = proc::mb(resident::now());
    trimtab::sys::heap::keep_freed_memory(); // as the `trimtab` command does
    match arguments().and_then(|args| measure(&args, import_rss_mb)) {
        Ok(row) => println!("{row}"),
        Err(e) => {
            eprintln!("measure: error: {e}");
            std::process::exit(1);
        }
    }
}

fn arguments() -> Result<Args, Failure> {
    let mut given = std::env::args().skip(1);
    let kind = given.next().ok_or(USAGE)?;
    if kind != "train" && kind != "infer" {
        return Err(USAGE.into());
    }
    let mut args = Args {
        train: kind == "train",
        base: String::new(),
        batch: 0,
        seq: 0,
        threads: 0,
        budget_s: 6.0,
        reps: None,
        memory: None,
    };
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} wants a value; {USAGE}"))?;
        let count = || value.parse::<usize>().map_err(|e| format!("{name} {value}: {e}"));
        match name.as_str() {
            "--base" => args.base = value,
            "--batch" => args.batch = count()?,
            "--seq" => args.seq = count()?,
            "--threads" => args.threads = count()?,
            "--budget" => args.budget_s = value.parse().map_err(|e| format!("{name} {value}: {e}"))?,
            "--memory" => args.memory = Some(memory::parse_size(&value)?),
            "--reps" => args.reps = Some(count()?),
            _ => return Err(format!("unknown argument {name}; {USAGE}").into()),
        }
    }
    if args.base.is_empty() || args.batch == 0 || args.seq < 3 || args.threads == 0 {
        return Err(format!("--base, --batch, --seq (3 or more) and --threads are needed; {USAGE}").into());
    }
    if args.reps == Some(0) {
        return Err(format!("--reps must be one or more; {USAGE}").into());
    }
    Ok(args)
}

fn measure(args: &Args, import_rss_mb: Option<f64>) -> Result<serde_json::Value, Failure> {
    let base = Base::open(&args.base)?;
    let set = kernels::select(None)?;
    let kernel = set.name();
    let rates = DropoutRates { head: 0.0, encoder: 0.0 };
    let graph = Graph::new(&base, Numerics::Int8(set), base.pooling(), 2, rates)?;
    let mut theta = graph.initial_theta(&base)?;
    let texts = texts(args, base.config().vocab)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build()?;

    let mut row = json!({
        "kind": if args.train { "train" } else { "infer" }, "backend": "trimtab", "model": base.name(),
        "batch": args.batch, "seq": args.seq, "threads": args.threads, "kernel": kernel,
        "versions": concat!("trimtab ", env!("CARGO_PKG_VERSION")), "import_rss_mb": import_rss_mb,
    });
    let timed = if args.train {
        let mut config = TrainConfig { batch: args.batch, ..TrainConfig::default() };
        let setting = memory::Setting {
            base: &base,
            graph: &graph,
            config: &config,
            threads: args.threads,
            longest: args.seq,
            sequence: args.seq,
            data_bytes: 0,
            fitted_rows: 0,
        };
        let predicted = match args.memory {
            Some(bytes) => memory::fit(&setting, bytes)?,
            None => memory::predict(&setting, MicroBatching::of_threads(args.threads))?,
        };
        row["predicted_mb"] = rounded(predicted.total() as f64 / (1u64 << 20) as f64).into();
        (row["micro_rows"], row["lanes"]) = (predicted.rows.into(), predicted.lanes.into());
        config.cut = Some(predicted.cut);
        let mut trainer = Stepper::new(&graph, &config, None)?;
        let (biases, head) = trainer.trained();
        row["trainable_params"] = (biases + head).into();
        row["loaded_rss_mb"] = json!(proc::mb(resident::now()));
        let batch: Vec<&Labelled> = texts.iter().collect();
        let mut losses = Vec::new();
        let timed = pool.install(|| {
            timed(args, || {
                let step = trainer.step(&mut theta, &batch, None, LEARNING_RATE)?;
                losses.push(step.loss);
                match step.is_finite() {
                    true => Ok(()),
                    false => Err(format!("diverged: {step:?}").into()),
                }
            })
        })?;
        (row["loss_first"], row["loss_last"]) = (losses[0].into(), losses[losses.len() - 1].into());
        timed
    } else {
        row["loaded_rss_mb"] = json!(proc::mb(resident::now()));
        let batch: Vec<&Encoded> = texts.iter().map(|d| &d.text).collect();
        pool.install(|| {
            timed(args, || {
                let out = train::forward_all(&graph, &theta, &batch)?;
                match out.iter().all(|(_, pooled)| pooled.iter().all(|v| v.is_finite())) {
                    true => Ok(()),
                    false => Err("a pooled vector is not finite".into()),
                }
            })
        })?
    };

    let Timed { mut ms, peak_rss_mb, steady_peak_rss_mb, own_cpus, other_cpus } = timed;
    ms.sort_by(f64::total_cmp);
    let n = ms.len();
    let p50 = (ms[(n - 1) / 2] + ms[n / 2]) / 2.0;
    let rest = json!({
        "p50_ms": rounded(p50), "min_ms": rounded(ms[0]), "max_ms": rounded(ms[n - 1]), "reps": n,
        "examples_per_s": rounded(args.batch as f64 / p50 * 1e3),
        "examples_per_s_best": rounded(args.batch as f64 / ms[0] * 1e3),
        "own_cpus": own_cpus, "other_cpus": other_cpus,
        "steady_peak_rss_mb": steady_peak_rss_mb, "peak_rss_mb": peak_rss_mb,
    });
    if let (Some(row), serde_json::Value::Object(rest)) = (row.as_object_mut(), rest) {
        row.extend(rest);
    }
    Ok(row)
}

/// Full-length texts of random ids between BERT's `[CLS]` (101) and `[SEP]` (102), labelled at random.
fn texts(args: &Args, vocab: usize) -> Result<Vec<Labelled>, Failure> {
    const FIRST_WORD: i32 = 1000; // in front of it stand special and unused tokens
    let vocab = i32::try_from(vocab)?;
    if vocab <= FIRST_WORD {
        return Err(format!("a vocabulary of {vocab} tokens is not BERT's").into());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut text = || {
        let mut ids: Vec<i32> = (0..args.seq).map(|_| rng.random_range(FIRST_WORD..vocab)).collect();
        (ids[0], ids[args.seq - 1]) = (101, 102);
        Labelled {
            text: Encoded::plain(ids),
            target: Target::Class(rng.random_range(0..2)),
            partner: None,
            part: None,
        }
    };
    Ok((0..args.batch).map(|_| text()).collect())
}

/// What the timed steps gave.
struct Timed {
    /// Each step's time.
    ms: Vec<f64>,
    peak_rss_mb: Option<f64>,
    steady_peak_rss_mb: Option<f64>,
    own_cpus: Option<f64>,
    other_cpus: Option<f64>,
}

fn timed(args: &Args, mut step: impl FnMut() -> Result<(), Failure> + Send) -> Result<Timed, Failure> {
    for _ in 0..WARM_UP {
        step()?;
    }
    // Linux forgets the peak so far on a reset, so it is read before.
    let peak_before = proc::mb(resident::peak());
    let fresh = resident::reset_peak();
    let (busy, start) = (proc::busy_s(), Instant::now());
    let mut ms = Vec::new();
    let more = |done: usize| match args.reps {
        Some(reps) => done < reps,
        None => done < REPS_MIN || (done < REPS_MAX && start.elapsed().as_secs_f64() < args.budget_s),
    };
    while more(ms.len()) {
        let step_start = Instant::now();
        step()?;
        ms.push(step_start.elapsed().as_secs_f64() * 1e3);
    }
    let wall = start.elapsed().as_secs_f64();
    let used = busy.zip(proc::busy_s()).map(|(a, b)| (b.0 - a.0, b.1 - a.1));
    let peak_after = proc::mb(resident::peak());
    Ok(Timed {
        ms,
        peak_rss_mb: peak_before.zip(peak_after).map(|(a, b)| a.max(b)),
        steady_peak_rss_mb: peak_after.filter(|_| fresh),
        own_cpus: used.map(|(_, own)| rounded(own / wall)),
        other_cpus: used.map(|(all, own)| rounded(((all - own) / wall).max(0.0))),
    })
}

/// To three decimals.
fn rounded(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}
