//! `trimtab train`: labelled lines into a bias file.

use super::verdict::{self, Verdict};
use super::{args, print, terminal};
use clap::ValueEnum;
use indicatif::ProgressBar;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Instant;
use trimtab::data::{self, Example};
use trimtab::params::{Role, Term, Terms};
use trimtab::quant::Base;
use trimtab::task::Kind;
use trimtab::train::memory::parse_size;
use trimtab::train::metrics::Metrics;
use trimtab::train::{Criterion, Head, Progress, Report, TrainConfig};
use trimtab::{Error, Personal, Result, plots, train};

/// Train biases and a head on labelled lines, and write them to a bias file
///
/// The int8 base stays as it is. Settings that are not given are chosen from the data. With --dev every epoch is scored, the
/// best one kept, and shown beside a head alone and the bias file that --out would replace; without, the last is kept.
/// Ctrl-C ends the run and keeps what was learned so far.
#[derive(clap::Args)]
pub struct Args {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// Labelled lines to learn from: .tsv, .csv or .jsonl; .conll for tag, .json for qa
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Labelled lines to score each epoch on
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// Share of --data to score on instead of learning from it, where there is no --dev; 0 learns from all
    /// [default: 0.1 of 200 examples or more]
    #[arg(long, value_name = "X", conflicts_with = "dev", value_parser = share)]
    hold_out: Option<f64>,
    /// Bias file to write, by custom NAME.bias.safetensors
    #[arg(long, value_name = "BIAS")]
    out: PathBuf,
    /// Learn from the first N examples only: lines, or sentences, or questions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    columns: args::Data,
    /// What to learn: `classify`, one label a text; `multilabel`, any number of labels, between commas; `regress`, a
    /// number; `tag`, a tag for each token, from .conll files; `qa`, where in a text the answer to a question stands, from
    /// .json files as SQuAD 1.1; `contrastive`, which texts belong together, from pairs: for `embed` and `search`
    #[arg(long, default_value = "classify", value_name = "TASK")]
    task: Kind,

    /// With few examples of each label: tune the biases on pairs of texts, near each other where their labels are the
    /// same (the SetFit recipe: one pass over pairs), then the head on the vectors that come of it
    #[arg(long, conflicts_with_all = ["epochs", "patience", "class_weights"])]
    setfit: bool,
    /// Passes over the data [default: 20 for few examples, 4 for 1,000, 3 for more]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Peak learning rate [default: 3e-3; 6e-3 with fewer than ten examples of a label]
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// The head's learning rate, as a factor of --lr
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    head_rate: f32,
    /// Texts a step
    #[arg(long, default_value_t = 16, value_name = "N")]
    batch: usize,
    /// Longest text in tokens; longer ones are cut, for qa into several windows
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_len: usize,
    /// Tokens that a window of a text shares with the next, at most half of it; for qa [default: a third of --max-len]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Decides the order of the data, the head's first values and the dropout
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Where the head begins
    #[arg(long, value_enum, default_value_t = HeadInit::Random)]
    head: HeadInit,
    /// Biases to train, by the paper's symbols: emb_ln emb_proj q k v m1 ln1 m2 m3 ln2 pooler, `all` (every one but
    /// k, whose gradient is zero because softmax ignores it) or `none` (the head only); emb_proj is ELECTRA's
    #[arg(long, default_value = "all", value_name = "TERMS")]
    terms: Terms,
    /// Layers to train, such as 3..6 (the last not included) [default: all]
    #[arg(long, value_name = "FROM..TO", value_parser = layers)]
    layers: Option<Range<usize>>,
    /// How a text becomes one vector
    #[arg(long, value_enum, default_value_t = args::Pool::Auto)]
    pool: args::Pool,
    /// Share of the steps that warm up
    #[arg(long, default_value_t = 0.06, value_name = "X")]
    warmup: f64,
    /// Largest norm of a gradient; 0 for no limit
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    clip: f32,
    /// Decoupled decay of the head's weight; biases do not decay
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    weight_decay: f32,
    /// Dropout before the head
    #[arg(long, default_value_t = 0.1, value_name = "P")]
    dropout: f32,
    /// Dropout inside the encoder
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    encoder_dropout: f32,
    /// Weigh classes by the inverse of their frequency
    #[arg(long)]
    class_weights: bool,
    /// Stop after N epochs without a better score on dev
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Which score on dev decides the epoch that is kept [default: the one that tells most of the task]
    #[arg(long, value_enum)]
    keep: Option<Keep>,
    /// Most memory for keeping what the layers below the lowest trained bias give, from epoch to epoch; 0 computes it
    /// again each time. Results do not depend on it
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = parse_size)]
    prefix_cache: usize,
    /// Most memory of the whole process, such as 96MiB: picks smaller micro-batches, and fewer at a time, where it must.
    /// Results do not depend on it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<usize>,
    /// Write the bias file in f16: half the size
    #[arg(long)]
    half: bool,
    /// Write a learning curve and the change of the biases (the paper's figure 1) as SVG files there
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Replace --out even where the bias file that is there scores better on the held-out examples
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: args::Run,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Share of the examples that is set aside to score on.
const HOLD_OUT: f64 = 0.1;
/// Fewest examples of which some are set aside unasked: the score of less than 20 would say little.
const HOLD_OUT_FROM: usize = 200;

#[derive(Clone, Copy, ValueEnum)]
enum HeadInit {
    /// Small random weights
    Random,
    /// Fitted in closed form to what the encoder gives before training
    Fitted,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    /// Share of right answers
    Accuracy,
    /// Mean over the classes of their F1
    MacroF1,
    /// Matthews correlation
    Mcc,
    /// Loss, the lower the better
    Loss,
    /// The last epoch, whatever its score
    Last,
}

fn share(s: &str) -> std::result::Result<f64, String> {
    match s.parse() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err("a share lies between 0 and 1".to_owned()),
    }
}

fn layers(s: &str) -> std::result::Result<Range<usize>, String> {
    let parsed = s.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.ok_or_else(|| "write FROM..TO, such as 3..6".to_owned())
}

impl Args {
    /// What is learned from and what is scored on, where both are in one file.
    fn hold_out(&self, examples: Vec<Example>) -> (Vec<Example>, Option<Vec<Example>>) {
        let n = examples.len();
        let share = self.hold_out.unwrap_or(if n < HOLD_OUT_FROM { 0.0 } else { HOLD_OUT });
        if share == 0.0 || n < 2 {
            return (examples, None);
        }
        let (learned, scored) = data::hold_out(examples.clone(), share, self.seed, self.task == Kind::Qa);
        if self.task.of(&learned, &self.data).is_err() {
            // Of so rare an answer none was left to learn from.
            return (examples, None);
        }
        let scored_on = terminal::count(scored.len());
        let all = terminal::count(n);
        terminal::say(format_args!(
            "held out: {scored_on} of the {all} examples, to score on (--hold-out 0 learns from all)"
        ));
        (learned, Some(scored))
    }

    fn config(&self, examples: usize, labels: usize) -> TrainConfig {
        TrainConfig {
            epochs: self.epochs.unwrap_or_else(|| train::epochs_for(examples)),
            lr: self.lr.unwrap_or_else(|| train::lr_for(examples, if self.setfit { 0 } else { labels })),
            head_rate: self.head_rate,
            batch: self.batch,
            seed: self.seed,
            head: match self.head {
                HeadInit::Random => Head::Random,
                HeadInit::Fitted => Head::Fitted,
            },
            terms: self.terms.clone(),
            layers: self.layers.clone(),
            warmup: self.warmup,
            clip: self.clip,
            weight_decay: self.weight_decay,
            class_weights: self.class_weights,
            patience: self.patience,
            keep: match self.keep {
                None => Criterion::Main,
                Some(Keep::Accuracy) => Criterion::Accuracy,
                Some(Keep::MacroF1) => Criterion::MacroF1,
                Some(Keep::Mcc) => Criterion::Mcc,
                Some(Keep::Loss) => Criterion::Loss,
                Some(Keep::Last) => Criterion::Last,
            },
            prefix_cache: self.prefix_cache,
            cut: None,
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    check_targets(&args)?;
    let base = Base::open(&args.base)?;
    let mut train = args.columns.read(&args.data, args.task.wanted())?;
    let dev = args.dev.as_ref().map(|path| args.columns.read(path, args.task.wanted())).transpose()?;
    // The labels are those of the whole file: with fewer examples of it, a model answers the same question.
    let task = args.task.of(&train, &args.data)?.with_tags_of(dev.as_deref().unwrap_or_default());
    train.truncate(args.limit.map_or(usize::MAX, |n| n as usize));
    args.task.of(&train, &args.data)?;
    if let (Some(dev), Some(path)) = (&dev, &args.dev) {
        task.targets(dev, path)?;
    }
    let (train, dev) = match dev {
        Some(dev) => (train, Some(dev)),
        None => args.hold_out(train),
    };
    if args.stride.is_some() && args.task != Kind::Qa {
        return Err(Error::Config(format!("--stride is for qa, not for {}", args.task)));
    }
    let mut config = args.config(train.len(), task.labels().len());
    if dev.is_none() && (config.patience.is_some() || !matches!(args.keep, None | Some(Keep::Last))) {
        let what = "--patience and --keep go by held-out examples: give --dev FILE, or --hold-out X";
        return Err(Error::Config(what.into()));
    }
    if let Some(name) = config.keep.name().filter(|name| !args.task.scores().contains(name)) {
        let known = args.task.scores().join(", ");
        return Err(Error::Config(format!("--keep: {} has no {name}; it has {known}, loss", args.task)));
    }
    let mut options = args.run.options();
    options.pooling = args.pool.pooling();
    options.max_len = args.max_len;
    options.stride = args.stride;
    options.head_dropout = args.dropout;
    options.encoder_dropout = args.encoder_dropout;
    let mut model = Personal::new(&base, task, &options)?;
    if args.terms.contains(Term::K) {
        terminal::say("note: b_k cannot learn: softmax ignores a constant per row, so its gradient is zero");
    }
    let below = config.selection(model.graph().layers())?.lowest_layer();
    if below > 0 && args.encoder_dropout > 0.0 && args.prefix_cache > 0 {
        terminal::say(
            "note: with --encoder-dropout the layers below the trained ones differ each time; none is kept",
        );
    }
    let answers = match (args.task, model.labels().len()) {
        (Kind::Contrastive, _) => "a pair each".into(),
        (Kind::Qa, _) => "a part of a text each".into(),
        (_, 0) => "a number each".into(),
        (_, n) => format!("{n} labels"),
    };
    if args.task == Kind::Contrastive && train.iter().any(|e| e.label != train[0].label) {
        terminal::say("note: labels are not looked at: the two texts of every line belong together");
    }
    terminal::say(format_args!(
        "{} examples, {answers}, {}, {} threads",
        terminal::count(train.len()),
        model.graph().numerics().describe(),
        model.threads()
    ));
    if !args.run.exact() || args.memory.is_some() {
        // Of a pair two texts go through.
        let texts = if args.setfit { config.batch.saturating_mul(2) } else { config.batch };
        let of_texts = TrainConfig { batch: texts, ..config.clone() };
        let memory = model.memory(&train, dev.as_deref(), &of_texts, args.memory)?;
        terminal::say(format_args!("memory: {memory}"));
        if args.memory.is_some() {
            (config.cut, config.prefix_cache) = (Some(memory.cut), memory.prefix_cache);
        }
    }

    if args.lr.is_none() || args.epochs.is_none() {
        terminal::say(format_args!("chosen: {}", chosen(&args, &config, train.len(), model.labels().len())));
    }
    let previous = verdict::previous(&base, &args.out, &model, &options);
    let result = match args.setfit {
        true => watched(1, |watch| model.train_setfit(&train, dev.as_deref(), &config, watch)),
        false => with_progress(&mut model, &train, dev.as_deref(), &config),
    };
    let verdict = dev.as_deref().map(|dev| Verdict::of(&model, previous.as_ref(), dev)).transpose()?;
    let save = |model: &Personal| verdict::save(model, &args.out, args.half, verdict.as_ref(), args.force);
    let report = match result {
        Ok(report) => report,
        Err(e @ Error::Diverged(_)) => {
            // The best finished epoch is in the model; an existing file is replaced only by one.
            if model.has_finished_epoch() {
                save(&model)?;
                terminal::say(format_args!("kept the best finished epoch in {}", args.out.display()));
            }
            return Err(e);
        }
        Err(e) => return Err(e),
    };
    save(&model)?;
    if let Some(dir) = &args.plots {
        write_plots(dir, &model, &report)?;
    }
    print(&summary(&args, &model, &report, verdict.as_ref())?)?;
    if report.interrupted {
        let what = match report.kept {
            0 => format!("what was learned in {} steps", report.steps),
            epoch => format!("epoch {epoch}"),
        };
        let what = format!("{} holds {what}", args.out.display());
        return Err(Error::Interrupted(what));
    }
    Ok(())
}

/// Fails early where a result could not be written.
fn check_targets(args: &Args) -> Result<()> {
    let inputs = [Some(&args.base), Some(&args.data), args.dev.as_ref()];
    args::check_out(&args.out, &inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    if let Some(plots) = args.plots.as_ref().filter(|p| p.exists() && !p.is_dir()) {
        return Err(Error::Config(format!("--plots {}: not a directory", plots.display())));
    }
    Ok(())
}

/// Trains with a bar on a terminal and a line an epoch everywhere.
pub fn with_progress(
    model: &mut Personal,
    train: &[Example],
    dev: Option<&[Example]>,
    config: &TrainConfig,
) -> Result<Report> {
    watched(config.epochs, |watch| model.train(train, dev, config, watch))
}

/// Who is told how a run goes.
type Watch<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

fn watched(epochs: usize, run: impl FnOnce(Watch) -> Result<Report>) -> Result<Report> {
    let bar = terminal::bar(0, "{msg:28} {wide_bar} {pos}/{len} steps, {eta} left");
    let start = Instant::now();
    let mut texts_done = 0;
    let mut smooth = None;
    let result = run(&mut |p| {
        match p {
            Progress::Begin(None) => {}
            Progress::Begin(Some(m)) => {
                terminal::line(&bar, &format!("head alone: dev loss {:.4}, {m}", m.loss));
            }
            Progress::Step { done, total, loss, texts } => {
                texts_done += texts;
                let s = smooth.map_or(loss, |s: f64| 0.9 * s + 0.1 * loss);
                smooth = Some(s);
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                let rate = texts_done as f64 / start.elapsed().as_secs_f64();
                bar.set_message(format!("loss {s:.3}, {rate:.0} examples/s"));
            }
            Progress::Epoch(e) => epoch_line(&bar, e, epochs),
        }
        if terminal::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    result
}

/// What was chosen where nothing was given, and why.
fn chosen(args: &Args, config: &TrainConfig, examples: usize, labels: usize) -> String {
    let mut chosen = Vec::new();
    if args.epochs.is_none() && !args.setfit {
        chosen.push(format!("{} epochs, for {} examples", config.epochs, terminal::count(examples)));
    }
    if args.lr.is_none() {
        let few = examples < 10 * labels && !args.setfit;
        let why = if few { ", for there are fewer than ten examples of a label" } else { "" };
        chosen.push(format!("learning rate {}{why}", config.lr));
    }
    chosen.join("; ")
}

fn epoch_line(bar: &ProgressBar, e: &trimtab::train::Epoch, epochs: usize) {
    let mut text = format!("epoch {}/{epochs}: training loss {:.4}", e.epoch, e.train_loss);
    if let Some(m) = &e.dev {
        text += &format!(", dev loss {:.4}, {m}", m.loss);
    }
    terminal::line(bar, &format!("{text} ({:.1} s so far)", e.train_s));
}

fn summary(args: &Args, model: &Personal, report: &Report, verdict: Option<&Verdict>) -> Result<String> {
    let bytes = std::fs::metadata(&args.out).map_or(0, |m| m.len());
    if args.json {
        let mut object = serde_json::to_value(report).expect("plain data");
        object["out"] = args.out.display().to_string().into();
        object["file_bytes"] = bytes.into();
        object["labels"] = model.labels().into();
        object["held_out"] = verdict.map(Verdict::json).into();
        object["peak_memory_bytes"] = terminal::peak_memory().into();
        return Ok(object.to_string());
    }
    let kept = report.epochs.iter().find(|e| e.epoch == report.kept);
    let score = kept
        .map_or(report.before.as_ref(), |e| e.dev.as_ref())
        .map_or(String::new(), |m| format!(", dev {m}"));
    let compared = verdict.map_or(String::new(), |v| format!("\n{}", v.lines()));
    let stopped = report.stopped.as_ref().map_or(String::new(), |why| format!(" (stopped: {why})"));
    let peak =
        terminal::peak_memory().map_or(String::new(), |b| format!(", peak memory {}", terminal::size(b)));
    let kept = match (report.kept, report.epochs.len()) {
        (0, epochs) if report.before.is_some() => {
            format!("the fitted head alone, for none of {epochs} epochs was better")
        }
        (kept, epochs) => format!("epoch {kept} of {epochs}"),
    };
    Ok(format!(
        "{}: {}, {kept}{stopped}{score}\n{} biases and {} head values trained in {:.1} s, {:.0} examples/s{peak}{compared}",
        args.out.display(),
        terminal::size(bytes),
        terminal::count(report.trained_biases),
        terminal::count(report.trained_head),
        report.train_s,
        report.examples_per_s,
    ))
}

fn write_plots(dir: &Path, model: &Personal, report: &Report) -> Result<()> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let curve: Vec<_> = report
        .epochs
        .iter()
        .map(|e| (e.epoch as f64, e.train_loss, e.dev.as_ref().map(Metrics::main)))
        .collect();
    let layers = model.graph().layers();
    let mut rows: Vec<(String, Vec<Option<f64>>)> =
        Term::ALL.iter().map(|t| (t.symbol().to_owned(), vec![None; layers])).collect();
    for (role, change) in model.bias_change() {
        if let Role::Bias(term, layer) = role {
            let at = layer.unwrap_or(if term == Term::Pooler { layers - 1 } else { 0 });
            let row = Term::ALL.iter().position(|t| *t == term).expect("a term");
            rows[row].1[at] = Some(change);
        }
    }
    rows.retain(|(_, values)| values.iter().any(Option::is_some));
    for (name, svg) in [
        ("learning-curve.svg", plots::learning_curve(&curve)),
        ("bias-change.svg", plots::bias_change(layers, &rows)),
    ] {
        let path = dir.join(name);
        plots::write(&path, &svg)?;
    }
    Ok(())
}
