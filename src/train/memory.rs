//! What a run will take at its peak, and the micro-batches that fit a budget.

use super::TrainConfig;
use super::micro_batches::{MICRO_ROWS, MicroBatching};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::{Block, blocks};
use crate::ops::Numerics;
use crate::quant::Base;
use crate::sys;

const MIB: f64 = (1u64 << 20) as f64;
/// Fewest tokens of a micro-batch that runs beside others; below that, threads do better inside one.
const ROWS_BESIDE: usize = 128;
/// Pages of the program and its libraries that only training reads, and what the heap does not give back: the same run
/// differs by some 2 MiB.
const PROGRAM_BYTES: usize = 4 << 20;
/// Process before training where the system does not tell: tokenizer, data, graph.
const PROCESS_BYTES: usize = 24 << 20;
/// Stack, queues and heap of a thread.
const THREAD_BYTES: usize = 512 << 10;

/// What a prediction goes by.
pub struct Setting<'a> {
    /// The base.
    pub base: &'a Base,
    /// The graph made from it.
    pub graph: &'a Graph,
    /// What is trained, in batches of which size.
    pub config: &'a TrainConfig,
    /// Threads of the run.
    pub threads: usize,
    /// Longest example in tokens.
    pub longest: usize,
    /// Longest sequence in tokens: of pairs that are read apart and of windows an example has several.
    pub sequence: usize,
    /// Tokens and labels of all examples, which are still to be allocated.
    pub data_bytes: usize,
    /// Rows of features that a head is fitted to, 0 where none is.
    pub fitted_rows: usize,
}

/// Memory of a run at its peak, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// How batches are cut.
    pub cut: MicroBatching,
    /// The base's mapped file, all of it.
    pub base: usize,
    /// All micro-batches that run at a time.
    pub micro_batches: usize,
    /// How many these are.
    pub lanes: usize,
    /// Tokens of each.
    pub rows: usize,
    /// The process, vectors as long as theta, the data, and what each thread has for itself.
    pub rest: usize,
    /// Room for hidden states of the frozen part, on top of the others.
    pub prefix_cache: usize,
    /// Bytes saved for the backward, per token and layer.
    pub saved: usize,
}

impl Prediction {
    /// All but the cache of hidden states.
    pub fn total(&self) -> usize {
        self.base.saturating_add(self.micro_batches).saturating_add(self.rest)
    }
}

impl std::fmt::Display for Prediction {
    /// `about 84 MiB: base 31, 1 micro-batch of 256 tokens 38, rest 15; 5,384 bytes saved per token and layer`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: usize| (bytes as f64 / MIB).ceil();
        let s = if self.lanes == 1 { "" } else { "es" };
        write!(
            f,
            "about {} MiB: base {}, {} micro-batch{s} of {} tokens {}, rest {}; saved per token and layer {} bytes",
            mib(self.total()),
            mib(self.base),
            self.lanes,
            self.rows,
            mib(self.micro_batches),
            mib(self.rest),
            self.saved
        )
    }
}

/// Predicts the peak of a run that is cut like this.
///
/// With `h` and `i` the widths, `q(n)` the bytes of `n` quantized columns, `P` the parameters, `L` the layers that save:
///
/// | what | bytes | times |
/// |---|---|---|
/// | base | the file: every page of it is read sooner or later | 1 |
/// | saved: q, k and v; n of two norms; gelu'; rstd | `6h + 4h + i + 8` (the outlets' own sizes) | `L` · tokens of a micro-batch · lanes |
/// | graph: three f32 activations, x, h and ctx quantized, f quantized | `12h + 3q(h) + q(i)` | tokens · lanes |
/// | backward: d_x, d_s; what goes into m3, m2 and qkv; dropout's mask | `8h + 4q(h) + q(i) [+ 4h]` | tokens · lanes |
/// | attention: results of all heads before they are laid out | `3q(h)` | tokens · lanes |
/// | hidden state at the cut, computed and as an input | `4h`, where layers are frozen | tokens · lanes |
/// | product: rows packed for kernels that do not read them in place | `2·max(3h, i)` | tokens · threads |
/// | product: a strip of 64 columns | `128·max(3h, i)` | threads |
/// | attention: a group of heads `w` wide of a text of `t` tokens | `4t·(5w + 2t + 3w)` | threads |
/// | gradient, two moments, best epoch | `4P · 4` | 1 |
/// | exact sums, and theta as an input | `8P + 4P` | lanes + 1 |
/// | features that a head is fitted to, `f` of them, and squares of them | `8f · rows + 16f²` | 1 |
/// | data, program, what the process holds already | as told | 1 |
///
/// Checked against `VmHWM` by `examples/measure.rs --memory` and `tests/cli/memory.rs`.
pub fn predict(s: &Setting, cut: MicroBatching) -> Result<Prediction> {
    if !matches!(s.graph.numerics(), Numerics::Int8(_)) {
        return Err(Error::Config("the memory of a run with --exact cannot be told in advance".into()));
    }
    let c = s.base.config();
    let (h, i, q) = (c.hidden, c.intermediate, |n: usize| blocks(n) * size_of::<Block>());
    let lowest = s.config.selection(c.layers)?.lowest_layer();
    let dropout = if s.graph.is_fixed() { 0 } else { 4 * h };
    let frozen = if lowest > 0 && s.graph.is_fixed() { 4 * h } else { 0 };

    let batch_rows = s.config.batch.saturating_mul(s.longest);
    let rows = cut.rows.max(s.longest).min(batch_rows);
    let lanes = cut.lanes.min(s.threads).min(batch_rows.div_ceil(rows)).max(1);
    let saved = s.graph.saved_bytes();
    let graph = 12 * h + 3 * q(h) + q(i);
    let backward = 8 * h + 4 * q(h) + q(i) + dropout;
    let lane = rows.saturating_mul((c.layers - lowest) * saved + graph + backward + 3 * q(h) + frozen);
    // Scoring runs as many rows whatever the batch is, but saves nothing.
    let scoring = (cut.lanes.min(s.threads) * cut.rows.max(s.longest)).saturating_mul(graph + q(h) + frozen);

    // A head is fitted before the first step: the features, twice while they are gathered, and two squares in f64. The heap
    // does not always give back what they took.
    let read = s.graph.features();
    let fitting = if s.fitted_rows > 0 { 16 * read * read + 8 * read * s.fitted_rows } else { 0 };

    let widest = i.max(3 * h);
    let group = c.head_dim().next_multiple_of(64).min(h.next_multiple_of(64));
    let attention = (4 * s.sequence).saturating_mul(8 * group + 2 * s.sequence);
    let per_thread = (2 * widest).saturating_mul(rows + 64).saturating_add(attention + THREAD_BYTES);
    let params = s.graph.layout().len();
    let vectors = params * (16 + 12 * (lanes + 1));
    let process = resident().map_or(PROCESS_BYTES, |now| now + PROGRAM_BYTES);
    Ok(Prediction {
        cut,
        base: s.base.file_bytes() as usize,
        micro_batches: lanes.saturating_mul(lane).max(scoring),
        lanes,
        rows,
        rest: s.threads.saturating_mul(per_thread).saturating_add(vectors + fitting + s.data_bytes + process),
        prefix_cache: s.config.prefix_cache,
        saved,
    })
}

/// The largest cut whose predicted peak fits `budget` bytes; what is left may keep hidden states of the frozen part.
///
/// Errors: `Error::Config` naming the smallest budget that works where one text of the longest kind does not fit.
pub fn fit(s: &Setting, budget: usize) -> Result<Prediction> {
    let mut last = None;
    for cut in cuts(s.threads, s.longest) {
        let p = predict(s, cut)?;
        if p.total() <= budget {
            // The heap's own overhead comes on top of many small states.
            let left = (budget - p.total()).saturating_sub(budget / 32);
            let prefix_cache = s.config.prefix_cache.min(left);
            return Ok(Prediction { prefix_cache, ..p });
        }
        last = Some(p);
    }
    // What the process holds differs by some pages from run to run; the budget named must do in the next one.
    let smallest = last.map_or(0, |p| p.total()).div_ceil(1 << 20) + 1;
    Err(Error::Config(format!(
        "a budget of {:.1} MiB is too small: texts of {} tokens need --memory {smallest}MiB; a smaller --max-len, \
         fewer --layers or fewer --threads need less{}",
        budget as f64 / MIB,
        s.longest,
        if s.graph.reads_windows() { ", and --pool mean, which truncates long texts" } else { "" }
    )))
}

/// Cuts from the fastest to the smallest: as many lanes as threads while each has enough rows, then one.
fn cuts(threads: usize, longest: usize) -> impl Iterator<Item = MicroBatching> {
    let rows = move |least: usize| {
        let steps = [MICRO_ROWS, 192, ROWS_BESIDE, 96, 64, 32, 1].into_iter();
        steps.filter(move |rows| *rows >= least).map(move |rows| rows.max(longest))
    };
    let beside = (2..=threads)
        .rev()
        .flat_map(move |lanes| rows(ROWS_BESIDE).map(move |rows| MicroBatching { rows, lanes }));
    beside.chain(rows(1).map(|rows| MicroBatching { rows, lanes: 1 }))
}

/// Resident memory of the process now, where the system tells (Linux). What it has of the base so far, the vectors and
/// the tokenizer, counts twice.
fn resident() -> Option<usize> {
    usize::try_from(sys::resident::now()?).ok()
}

/// A size in memory, such as `96MiB`, `1.5 GB` or `0`, in bytes.
pub fn parse_size(s: &str) -> std::result::Result<usize, String> {
    const UNITS: [(&str, u32, i32); 7] = [
        ("b", 10, 0),
        ("kb", 10, 3),
        ("mb", 10, 6),
        ("gb", 10, 9),
        ("kib", 2, 10),
        ("mib", 2, 20),
        ("gib", 2, 30),
    ];
    let s = s.trim();
    let split = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (number, unit) = (&s[..split], s[split..].trim().to_ascii_lowercase());
    let fail = || "write a size with its unit (B, KB, MB, GB, KiB, MiB or GiB), such as 96MiB".to_owned();
    let number: f64 = number.parse().map_err(|_| fail())?;
    let unit = match UNITS.iter().find(|u| u.0 == unit) {
        Some((_, base, exponent)) => f64::from(*base).powi(*exponent),
        None if unit.is_empty() && number == 0.0 => 1.0,
        None => return Err(fail()),
    };
    let bytes = number * unit;
    // 2^53: beyond that, f64 counts in steps; and no machine has it
    if bytes < 9_007_199_254_740_992.0 && bytes < usize::MAX as f64 {
        Ok(bytes as usize)
    } else {
        Err(format!("{s} is more than this machine can address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [
            ("96MiB", 96u64 << 20),
            ("160MB", 160_000_000),
            ("1.5 GB", 1_500_000_000),
            ("2gib", 2 << 30),
            ("0", 0),
            ("0.0", 0),
            ("512B", 512),
            (" 3 kB", 3_000),
            ("0.5KiB", 512),
        ] {
            if let Ok(bytes) = usize::try_from(bytes) {
                assert_eq!(parse_size(text), Ok(bytes), "{text}");
            }
        }
        for text in [
            "",
            "96",
            "MiB",
            "-1MB",
            "1e3MB",
            "1.2.3MB",
            "5 MX",
            "5TB",
            "96 MiB x",
            "nan",
            "inf",
            "99999999999GB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cuts_get_smaller() {
        let all: Vec<MicroBatching> = cuts(2, 100).collect();
        assert_eq!(all[0], MicroBatching::of_threads(2));
        assert_eq!(all.last(), Some(&MicroBatching { rows: 100, lanes: 1 }), "one text of the longest kind");
        assert!(all.windows(2).all(|c| (c[0].lanes, c[0].rows) >= (c[1].lanes, c[1].rows)), "{all:?}");
    }
}
