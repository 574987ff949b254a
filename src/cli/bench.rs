//! `trimtab bench`: how fast this machine is, in a table short enough to send to somebody.

use super::machine::{Machine, State, throttling};
use super::{print, rates, terminal};
use indicatif::ProgressBar;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trimtab::graph::{DropoutRates, Graph};
use trimtab::kernels::{self, Kernels, peak};
use trimtab::ops::Numerics;
use trimtab::quant::Base;
use trimtab::sys::resident;
use trimtab::{Error, Result};

/// Measure how fast this machine is: multiplications of each kernel set and, with --base, texts
///
/// Takes under a minute; other work on the machine slows it. With --base also the forward pass and the training
/// step at 1 and at all threads, and the peak of memory. Random texts are used; nothing is written and nothing is
/// sent anywhere: send the output yourself if you want us to see it.
#[derive(clap::Args)]
pub struct Args {
    /// Base file, made by `quantize`; without one only the multiplications are measured
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Threads to measure beside 1 [default: one for each performance core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Measure this kernel set alone [default: every one's multiplications, the best one's texts]
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// A few seconds: whether it runs rather than how fast
    #[arg(long)]
    quick: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Rows, inputs, outputs of the products: a short text and a long one in MiniLM's widest layer, a long one in BERT-base's.
const PRODUCTS: [(usize, usize, usize); 3] = [(16, 384, 1536), (128, 384, 1536), (128, 768, 3072)];
/// Texts and tokens: a short message, a long one, a batch.
const TEXTS: [(usize, usize); 3] = [(1, 16), (1, 128), (8, 128)];

/// Seconds for a loop of one instruction, a product, a forward, a step.
struct Budgets {
    peak: Duration,
    product: Duration,
    forward: Duration,
    step: Duration,
    /// From then on nothing new is begun, so that slow boards come to an end too.
    all: Duration,
}

impl Budgets {
    fn new(quick: bool) -> Budgets {
        let ms = Duration::from_millis;
        match quick {
            true => Budgets { peak: ms(10), product: ms(10), forward: ms(10), step: ms(10), all: ms(10_000) },
            false => Budgets {
                peak: ms(300),
                product: ms(600),
                forward: ms(1500),
                step: ms(2500),
                all: ms(50_000),
            },
        }
    }
}

/// Everything, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    trimtab: &'static str,
    machine: Machine,
    before: State,
    after: State,
    /// Available kernel sets, best first.
    kernels: Vec<&'static str>,
    /// The one that runs the texts.
    kernel: &'static str,
    products: Vec<SetRates>,
    base: Option<BaseRates>,
    /// Of the whole process.
    peak_memory_bytes: Option<u64>,
    seconds: f64,
}

/// One kernel set on one thread; rates in multiply-adds a second.
#[derive(Serialize)]
struct SetRates {
    kernel: &'static str,
    /// The instructions that bound its int8 products, and what they reach by themselves.
    instruction: Option<&'static str>,
    peak_per_s: Option<f64>,
    shapes: Vec<ShapeRate>,
}

#[derive(Serialize)]
struct ShapeRate {
    rows: usize,
    inputs: usize,
    outputs: usize,
    per_s: f64,
}

#[derive(Serialize)]
struct BaseRates {
    name: String,
    file_bytes: u64,
    texts: Vec<TextRates>,
}

/// Null where there was no time left.
#[derive(Serialize)]
struct TextRates {
    texts: usize,
    tokens: usize,
    threads: usize,
    forward_texts_per_s: Option<f64>,
    step_s: Option<f64>,
}

pub fn run(args: Args) -> Result<()> {
    let start = Instant::now();
    let chosen = kernels::select(args.kernel.as_deref())?;
    let base = args.base.as_deref().map(Base::open).transpose()?;
    let machine = Machine::look();
    let threads = args.threads.map_or_else(trimtab::sys::cores::performance, usize::from);
    let available = kernels::available();
    let names = available.iter().map(|k| k.name()).collect();
    let sets = if args.kernel.is_some() { vec![chosen.clone()] } else { available };
    let budgets = Budgets::new(args.quick);
    let work = Work { budgets, start, threads, bar: bar(&sets, base.is_some(), threads, args.quick) };

    let before = State::look();
    let products = work.products(&sets)?;
    let kernel = chosen.name();
    let base = base.map(|base| work.base(&base, chosen)).transpose()?;
    work.bar.finish_and_clear();
    let report = Report {
        trimtab: env!("CARGO_PKG_VERSION"),
        machine,
        before,
        after: State::look(),
        kernels: names,
        kernel,
        products,
        base,
        peak_memory_bytes: resident::peak(),
        seconds: start.elapsed().as_secs_f64(),
    };
    match args.json {
        true => print(&serde_json::to_string(&report).expect("plain data")),
        false => print(&text(&report)),
    }
}

/// A step of the bar is one measurement.
fn bar(sets: &[Arc<dyn Kernels>], base: bool, threads: usize, quick: bool) -> ProgressBar {
    let of_base = if base { 2 * TEXTS.len() * thread_counts(threads).len() } else { 0 };
    let total = sets.len() * (1 + PRODUCTS.len()) + of_base;
    let bar = terminal::bar(total as u64, "measuring {wide_bar} {pos}/{len}");
    if bar.is_hidden() && !quick {
        terminal::say("measuring, for under a minute");
    }
    bar
}

fn thread_counts(threads: usize) -> Vec<usize> {
    if threads == 1 { vec![1] } else { vec![1, threads] }
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::Config(format!("cannot start {threads} threads: {e}")))
}

/// What the measurements share.
struct Work {
    budgets: Budgets,
    start: Instant,
    threads: usize,
    bar: ProgressBar,
}

impl Work {
    fn products(&self, sets: &[Arc<dyn Kernels>]) -> Result<Vec<SetRates>> {
        let (pool, peaks) = (pool(1)?, peak::peaks());
        let of_set = |set: &Arc<dyn Kernels>| {
            let found = peak::of_set(set.name()).and_then(|(int8, _)| peaks.iter().find(|p| p.0 == int8));
            let peak_per_s = found
                .map(|(_, multiply_adds, run)| {
                    rates::seconds(self.budgets.peak, || {
                        run();
                        Ok(())
                    })
                    .map(|s| *multiply_adds as f64 / s)
                })
                .transpose()?;
            self.bar.inc(1);
            let of_shape = |shape: &(usize, usize, usize)| {
                let per_s = pool.install(|| rates::product(&**set, *shape, self.budgets.product))?;
                self.bar.inc(1);
                let (rows, inputs, outputs) = *shape;
                Ok(ShapeRate { rows, inputs, outputs, per_s })
            };
            let shapes = PRODUCTS.iter().map(of_shape).collect::<Result<_>>()?;
            Ok(SetRates { kernel: set.name(), instruction: found.map(|p| p.0), peak_per_s, shapes })
        };
        sets.iter().map(of_set).collect()
    }

    fn base(&self, base: &Base, set: Arc<dyn Kernels>) -> Result<BaseRates> {
        let rates = DropoutRates { head: 0.0, encoder: 0.0 };
        let graph = Graph::new(base, Numerics::Int8(set), base.pooling(), 2, rates)?;
        let mut shapes = TEXTS.map(|(texts, tokens)| (texts, tokens.min(base.config().seq_max()))).to_vec();
        shapes.dedup();
        let mut rows = Vec::new();
        for threads in thread_counts(self.threads) {
            let pool = pool(threads)?;
            for &(texts, tokens) in &shapes {
                let data = rates::texts(texts, tokens, base.config().vocab);
                let forward = self
                    .if_time(|| pool.install(|| rates::forward(base, &graph, &data, self.budgets.forward)))?;
                let step_s =
                    self.if_time(|| pool.install(|| rates::step(base, &graph, &data, self.budgets.step)))?;
                let forward_texts_per_s = forward.map(|s| texts as f64 / s);
                rows.push(TextRates { texts, tokens, threads, forward_texts_per_s, step_s });
            }
        }
        Ok(BaseRates { name: base.name().to_owned(), file_bytes: base.file_bytes(), texts: rows })
    }

    /// Nothing where the time is up.
    fn if_time(&self, measure: impl FnOnce() -> Result<f64>) -> Result<Option<f64>> {
        let value = (self.start.elapsed() < self.budgets.all).then(measure).transpose();
        self.bar.inc(1);
        value
    }
}

/// The same for people. Names come from files and firmware: control characters are taken out at the end.
fn text(r: &Report) -> String {
    let mut out = String::new();
    let m = &r.machine;
    let mut line = |key: &str, value: String| {
        let _ = writeln!(out, "{key:<12}{}", terminal::one_line(&value));
    };
    let told = |value: Option<String>| value.unwrap_or_else(|| "not told".into());
    let mhz = |value: Option<u64>| told(value.map(|mhz| format!("{mhz} MHz")));
    line("trimtab", format!("{}, {}", r.trimtab, m.arch));
    line("cpu", format!("{}; CPUs we may use: {}", told(m.cpu.clone()), m.cpus));
    if let Some(board) = &m.board {
        line("board", board.clone());
    }
    line(
        "clock",
        format!("at most {}; before {}, after {}", mhz(m.mhz_max), mhz(r.before.mhz), mhz(r.after.mhz)),
    );
    line("memory", told(m.memory_bytes.map(terminal::size)));
    line("system", m.os.clone());
    line("load before", told(r.before.load.map(|l| l.to_string())));
    let sets = r.kernels.iter().map(|k| format!("{k}{}", if *k == r.kernel { " (chosen)" } else { "" }));
    line("kernels", sets.collect::<Vec<_>>().join(", "));
    line("temperature", told(temperatures(&r.before, &r.after)));
    line(
        "throttling",
        told(r.after.throttled.map(|bits| match throttling(bits) {
            none if none.is_empty() => "none".into(),
            what => what,
        })),
    );
    products(&mut out, &r.products);
    match &r.base {
        None => out.push_str("\nno --base, so no texts were measured"),
        Some(base) => texts(&mut out, base),
    }
    let peak = r.peak_memory_bytes.map_or("not told".into(), terminal::size);
    let _ = write!(out, "\npeak memory {peak}; measured in {:.0} s", r.seconds);
    out
}

fn temperatures(before: &State, after: &State) -> Option<String> {
    let of = |s: &super::machine::Sensor| {
        let then = before.celsius.iter().find(|b| b.name == s.name).unwrap_or(s);
        format!("{} {:.0} °C before, {:.0} °C after", s.name, then.celsius, s.celsius)
    };
    let all: Vec<_> = after.celsius.iter().map(of).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn products(out: &mut String, sets: &[SetRates]) {
    let _ = write!(
        out,
        "\nint8 products on one thread, 10⁹ multiply-adds/s (share of what the instruction alone reaches)\n{:<12}",
        "kernels"
    );
    for (m, k, n) in PRODUCTS {
        let _ = write!(out, "{:>18}", format!("{m}×{k}×{n}"));
    }
    let _ = writeln!(out, "   instruction");
    for set in sets {
        let _ = write!(out, "{:<12}", set.kernel);
        for shape in &set.shapes {
            let share =
                set.peak_per_s.map_or(String::new(), |p| format!(" ({:.0} %)", 100.0 * shape.per_s / p));
            let _ = write!(out, "{:>18}", format!("{:.1}{share}", shape.per_s / 1e9));
        }
        let _ = match (set.instruction, set.peak_per_s) {
            (Some(name), Some(peak)) => writeln!(out, "   {name} {:.1}", peak / 1e9),
            _ => writeln!(out, "   the compiler's choice"),
        };
    }
}

fn texts(out: &mut String, base: &BaseRates) {
    let (name, size) = (terminal::one_line(&base.name), terminal::size(base.file_bytes));
    let _ = writeln!(
        out,
        "\n{name}, {size}\n{:<16}{:>8}{:>18}{:>18}",
        "texts × tokens", "threads", "forward", "training step"
    );
    let no_time = || "no time left".to_owned();
    for row in &base.texts {
        let shape = format!("{} × {}", row.texts, row.tokens);
        let forward = row.forward_texts_per_s.map_or_else(no_time, |v| format!("{v:.1} texts/s"));
        let step = row.step_s.map_or_else(no_time, |s| format!("{:.1} ms", 1e3 * s));
        let _ = writeln!(out, "{shape:<16}{:>8}{forward:>18}{step:>18}", row.threads);
    }
}
