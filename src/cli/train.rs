//! `trimtab train`: labelled lines into a bias file.

use super::lesson::{self, Lesson, Material, Settings};
use super::verdict::{self, Verdict};
use super::{args, print, progress, terminal};
use std::ops::Range;
use std::path::{Path, PathBuf};
use trimtab::data::Example;
use trimtab::params::{Term, Terms};
use trimtab::task::Kind;
use trimtab::train::memory::parse_size;
use trimtab::train::metrics::Metrics;
use trimtab::train::{self, Checkpoints, Course, Head, Report, TrainConfig};
use trimtab::{Error, Pairing, Personal, Result, plots};

/// Train biases and a head on labelled lines, and write them to a bias file
///
/// The int8 base stays as it is. Settings that are not given are chosen from the data. With --dev every epoch is scored, the
/// best one kept, and shown beside a head alone and the bias file that --out would replace; without, the last is kept.
/// Ctrl-C ends the run and keeps what was learned so far.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    lesson: Lesson,
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

    /// Begin with the encoder's biases of this bias file, of whatever task: adapted to plain text by mlm, say. The head
    /// begins as ever
    #[arg(long, value_name = "BIAS")]
    start: Option<PathBuf>,
    /// With few examples of each label: tune the biases on pairs of texts, near each other where their labels are the
    /// same (the SetFit recipe: one pass over pairs), then the head on the vectors that come of it
    #[arg(long, conflicts_with_all = ["epochs", "patience", "class_weights"])]
    setfit: bool,
    /// Decides the order of the data, the head's first values and the dropout
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Biases to train, by the paper's symbols: emb_ln emb_proj q k v m1 ln1 m2 m3 ln2 pooler, `all` (every one but
    /// k, whose gradient is zero because softmax ignores it) or `none` (the head only); emb_proj is ELECTRA's
    #[arg(long, default_value = "all", value_name = "TERMS")]
    terms: Terms,
    /// Layers to train, such as 3..6 (the last not included) [default: all]
    #[arg(long, value_name = "FROM..TO", value_parser = layers)]
    layers: Option<Range<usize>>,
    /// Stop after N epochs without a better score on dev; 0 never does [default: 5 without --epochs, else 0]
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Most memory of the whole process, such as 96MiB: picks smaller micro-batches, and fewer at a time, where it must.
    /// Results do not depend on it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<usize>,
    /// Keep the run's state in this folder, so that --resume goes on after a power cut, to the same bytes as without one.
    /// The last two checkpoints are kept, until --out is written
    #[arg(long, value_name = "DIR", conflicts_with = "setfit")]
    checkpoint: Option<PathBuf>,
    /// Steps between two checkpoints
    #[arg(long, value_name = "N", default_value_t = 100, requires = "checkpoint",
          value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Go on from the newest checkpoint, with the same command; where there is none, begin anew
    #[arg(long, requires = "checkpoint")]
    resume: bool,
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
    settings: Settings,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
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
    fn checkpoints(&self) -> Option<Checkpoints> {
        let dir = self.checkpoint.clone()?;
        Some(Checkpoints { dir, every: self.every.try_into().unwrap_or(usize::MAX), resume: self.resume })
    }

    /// What is learned from and what is scored on, where both are in one file.
    fn hold_out(&self, examples: Vec<Example>) -> (Vec<Example>, Option<Vec<Example>>) {
        let all = terminal::count(examples.len());
        let (learned, scored) = train::hold_out(self.lesson.task, examples, self.hold_out, self.seed);
        let Some(scored) = scored else { return (learned, None) };
        let scored_on = terminal::count(scored.len());
        terminal::say(format_args!(
            "held out: {scored_on} of the {all} examples, to score on (--hold-out 0 learns from all)"
        ));
        (learned, Some(scored))
    }
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    check_targets(&args)?;
    let Material { base, train, dev, task } = args.lesson.read(args.dev.as_deref())?;
    let (train, dev) = match dev {
        Some(dev) => (train, Some(dev)),
        None => args.hold_out(train),
    };
    args.settings.check(task.kind())?;
    if dev.is_none() && (args.patience.is_some() || args.settings.keeps_by_score()) {
        let what = "--patience and --keep go by held-out examples: give --dev FILE, or --hold-out X";
        return Err(Error::Config(what.into()));
    }
    let mut options = args.settings.options();
    let pairing = match args.setfit {
        true => None,
        false => Personal::choose_pairing(&base, &task, &train, &mut options, args.memory)?,
    };
    let mut model = Personal::new(&base, task, &options)?;
    let (labels, course) = match args.setfit {
        true => (0, Course::Batches),
        false => (model.labels().len(), Course::of(model.task(), model.pooling())),
    };
    let chosen_config = args.settings.config(train.len(), labels, course);
    let mut config = TrainConfig {
        seed: args.seed,
        terms: args.terms.clone(),
        layers: args.layers.clone(),
        patience: args.patience.map_or(chosen_config.patience, |n| (n > 0).then_some(n)),
        checkpoints: args.checkpoints(),
        ..chosen_config
    };
    if let Some(start) = &args.start {
        model.start_from(start)?;
    }
    if args.terms.contains(Term::K) {
        terminal::say("note: b_k cannot learn: softmax ignores a constant per row, so its gradient is zero");
    }
    let below = config.selection(model.graph().layers())?.lowest_layer();
    if below > 0 && options.encoder_dropout > 0.0 && config.prefix_cache > 0 {
        terminal::say(
            "note: with --encoder-dropout the layers below the trained ones differ each time; none is kept",
        );
    }
    lesson::introduce(&model, &train);
    if !options.exact || args.memory.is_some() {
        // Of a pair two texts go through.
        let texts = if args.setfit { config.batch.saturating_mul(2) } else { config.batch };
        let of_texts = TrainConfig { batch: texts, ..config.clone() };
        let memory = model.memory(&train, dev.as_deref(), &of_texts, args.memory)?;
        terminal::say(format_args!("memory: {memory}"));
        if args.memory.is_some() {
            (config.cut, config.prefix_cache) = (Some(memory.cut), memory.prefix_cache);
        }
    }

    if let Some(pairing @ Pairing { together, apart, .. }) = pairing {
        let how = match (pairing.is_apart(), apart < together) {
            (true, _) => "apart",
            (false, true) => "together, for they are many",
            (false, false) => "together",
        };
        terminal::say(format_args!(
            "pairs: read {how}; a head's loss on unseen pairs is {apart:.3} where they are read apart, {together:.3} together (--pool)"
        ));
    }
    let Settings { lr, epochs, batch, .. } = &args.settings;
    if lr.is_none() || epochs.is_none() || batch.is_none() {
        let chosen = chosen(&args, &config, train.len(), dev.is_some() && !args.setfit, labels, course);
        terminal::say(format_args!("chosen: {chosen}"));
    }
    let previous = verdict::previous(&base, &args.out, &model, &options);
    let board = args.settings.board();
    let result = match args.setfit {
        true => {
            progress::watched(1, board, |watch| model.train_setfit(&train, dev.as_deref(), &config, watch))
        }
        false => progress::watched(config.epochs, board, |watch| {
            model.train(&train, dev.as_deref(), &config, watch)
        }),
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
            // Gone on from, it would diverge again.
            config.checkpoints.as_ref().map_or(Ok(()), Checkpoints::remove)?;
            return Err(e);
        }
        Err(e) => return Err(e),
    };
    let saved = save(&model);
    // What was learned is in a file, under whichever name: the next run, on more examples, begins anew.
    let in_place = matches!(saved, Ok(_) | Err(Error::NotBetter(_)));
    if let Some(checkpoints) = config.checkpoints.as_ref().filter(|_| in_place && !report.interrupted) {
        checkpoints.remove()?;
    }
    saved?;
    if let Some(dir) = &args.plots {
        write_plots(dir, &model, &report)?;
    }
    print(&summary(&args, &model, &report, verdict.as_ref())?)?;
    if report.interrupted {
        let what = match report.kept {
            0 => format!("what was learned in {} steps", report.steps),
            epoch => format!("epoch {epoch}"),
        };
        let go_on = match &args.checkpoint {
            Some(dir) => format!("; --resume goes on from {}", dir.display()),
            None => String::new(),
        };
        let what = format!("{} holds {what}{go_on}", args.out.display());
        return Err(Error::Interrupted(what));
    }
    Ok(())
}

/// Fails early where a result could not be written.
fn check_targets(args: &Args) -> Result<()> {
    let inputs = [Some(&args.lesson.base), Some(&args.lesson.data), args.dev.as_ref(), args.start.as_ref()];
    args::check_out(&args.out, &inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    args.plots.as_ref().map_or(Ok(()), |dir| args::check_dir("--plots", dir))
}

/// What was chosen where nothing was given, and why.
fn chosen(
    args: &Args,
    config: &TrainConfig,
    examples: usize,
    is_scored: bool,
    labels: usize,
    course: Course,
) -> String {
    let mut chosen = Vec::new();
    let mut by_size = Vec::new();
    if args.settings.epochs.is_none() && !args.setfit {
        by_size.push(format!("{} epochs", config.epochs));
    }
    if args.settings.batch.is_none() {
        by_size.push(format!("batches of {}", config.batch));
    }
    if !by_size.is_empty() {
        chosen.push(format!("{}, for {} examples", by_size.join(" in "), terminal::count(examples)));
    }
    if args.settings.lr.is_none() {
        let why = match (course, config.head) {
            (_, Head::Fitted) => ", from the fitted head on",
            (Course::Single | Course::Tokens, _) if train::has_few_of_many_labels(examples, labels) => {
                ", for there are many labels and fewer than ten examples of each"
            }
            _ => "",
        };
        chosen.push(format!("learning rate {}{why}", config.lr));
    }
    if let Some(patience) =
        config.patience.filter(|n| is_scored && args.patience.is_none() && *n < config.epochs)
    {
        chosen.push(format!("over after {patience} epochs without a better score"));
    }
    chosen.join("; ")
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
    let score = report.scores().map_or(String::new(), |m| format!(", dev {m}"));
    let compared = verdict.map_or(String::new(), |v| format!("\n{}", v.lines()));
    let stopped = report.stopped.as_ref().map_or(String::new(), |why| format!(" (stopped: {why})"));
    let peak =
        terminal::peak_memory().map_or(String::new(), |b| format!(", peak memory {}", terminal::size(b)));
    let kept = match (report.kept, report.epochs.len()) {
        (0, epochs) if report.before.is_some() => {
            let before =
                if args.lesson.task == Kind::Mlm { "what it began with" } else { "the fitted head alone" };
            format!("{before}, for none of {epochs} epochs was better")
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
    args::make_dir(dir)?;
    let curve: Vec<_> = report
        .epochs
        .iter()
        .map(|e| (e.epoch as f64, e.train_loss, e.dev.as_ref().map(Metrics::main)))
        .collect();
    let layers = model.graph().layers();
    let rows = plots::by_term(layers, &model.bias_change());
    for (name, svg) in [
        ("learning-curve.svg", plots::learning_curve(&curve)),
        ("bias-change.svg", plots::bias_change(layers, &rows)),
    ] {
        let path = dir.join(name);
        plots::write(&path, &svg)?;
    }
    Ok(())
}
