//! `trimtab train`: labelled lines into a bias file.

use super::train_job::{Settings, TrainData, TrainJob};
use super::{args, print_beside, progress, results, terminal};
use clap::ValueEnum;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trimtab::config::Pooling;
use trimtab::output::Room;
use trimtab::params::{Term, Terms};
use trimtab::recipe::{self, Effort, Trained, Trainer};
use trimtab::spans::Scheme;
use trimtab::sys::resident;
use trimtab::task::Kind;
use trimtab::train::memory::parse_size;
use trimtab::train::metrics::Metrics;
use trimtab::train::{Checkpoints, Report};
use trimtab::{Error, Model, Result, Task, output, plots, task};

/// Train biases and a head on labelled lines, and write them to a bias file
///
/// The int8 base stays as it is. Settings that are not given are chosen from the data. The run learns from all lines: the score
/// it prints comes from cross-validation, which trains on two thirds of the lines and answers the rest, three times. With
/// --dev every epoch is scored on those lines instead, and the best one is kept. A bias file that --out would replace stays if
/// it is better on lines that neither file was trained on. Ctrl-C ends the final run and keeps what was learned so far.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    job: TrainJob,
    /// Labelled lines to score each epoch on
    #[arg(long, value_name = "FILE")]
    dev: Option<PathBuf>,
    /// Share of --data to hold out: every epoch is scored on it, and the best one is kept [default: 0, learn from all lines]
    #[arg(long, value_name = "X", conflicts_with = "dev", value_parser = share)]
    hold_out: Option<f64>,
    /// Bias file to write, by custom NAME.bias.safetensors. Hashes of the lines it was trained on go to OUT.lines. - or
    /// /dev/stdout writes to standard output, and the result is printed on standard error
    #[arg(long, value_name = "BIAS", value_parser = args::out_file())]
    out: PathBuf,
    /// How much work to spend on choosing settings and on scoring
    #[arg(long, value_enum, default_value_t = EffortName::Normal)]
    effort: EffortName,
    /// Print the N wrong answers that the model was most confident of
    #[arg(long, value_name = "N", default_value_t = 5)]
    mistakes: usize,

    /// Begin with the encoder's biases of this bias file, of whatever task: adapted to plain text by mlm, say. The head
    /// begins as ever
    #[arg(long, value_name = "BIAS")]
    start: Option<PathBuf>,
    /// Tune the biases by comparing texts, near each other where their labels are the same, before they learn to answer
    /// (SetFit) [default: for fewer than 10 single texts of each label, of up to 9 labels]
    #[arg(long, conflicts_with_all = ["patience", "class_weights"])]
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
    /// Early stopping: end after N epochs without a better score on held-out lines; 0 never does [default: 5 without --epochs,
    /// else 0]
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Most memory of the whole process, such as 96MiB: picks smaller micro-batches, and fewer at a time, where it must.
    /// Results do not depend on it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<usize>,
    /// Keep the run's state in this folder, so that --resume goes on after a power cut, to the same bytes as without one.
    /// The last two checkpoints are kept, until --out is written
    #[arg(long, value_name = "DIR")]
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
    /// Replace --out whatever it is: a better bias file, one of another base or task, or another kind of file
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

    fn settings(&self) -> recipe::Settings {
        recipe::Settings {
            seed: self.seed,
            effort: self.effort.into(),
            hold_out: self.hold_out,
            patience: self.patience,
            terms: self.terms.clone(),
            layers: self.layers.clone(),
            start: self.start.clone(),
            setfit: self.setfit,
            memory: self.memory,
            checkpoints: self.checkpoints(),
            ..self.settings.settings()
        }
    }
}

/// What to spend on choosing and scoring.
#[derive(Clone, Copy, ValueEnum)]
enum EffortName {
    /// One training run; only the linear probe is cross-validated
    Quick,
    /// Cross-validates the run on three folds: about three times the steps of quick
    Normal,
    /// Tries several settings on five folds: about ten times the steps of quick
    Thorough,
}

impl From<EffortName> for Effort {
    fn from(name: EffortName) -> Effort {
        match name {
            EffortName::Quick => Effort::Quick,
            EffortName::Normal => Effort::Normal,
            EffortName::Thorough => Effort::Thorough,
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    let plots_room = check_targets(&args)?;
    let TrainData { base, train, dev, task } = args.job.read(args.dev.as_deref())?;
    args.settings.check(task.kind(), &base)?;
    let is_scored = dev.is_some() || args.hold_out.is_some_and(|share| share > 0.0);
    if !is_scored && args.settings.keeps_by_score() {
        let what = "--keep goes by held-out examples: give --dev FILE, or --hold-out X";
        return Err(Error::Config(what.into()));
    }
    if args.terms.contains(Term::K) {
        terminal::say("note: b_k cannot learn: softmax ignores a constant per row, so its gradient is zero");
    }
    let asked = args.settings.options().pooling;
    if asked.unwrap_or(base.pooling()) == Pooling::First && !task.kind().reads_tokens() {
        terminal::say(
            "note: a text's vector is that of its first token: the checkpoint pools by cls and has no pooler layer",
        );
    }
    let is_labelled = train.iter().any(|e| e.label != train[0].label);
    if task.kind() == Kind::Contrastive && is_labelled {
        terminal::say("note: labels are ignored: the two texts of every line are a positive pair");
    }
    let scheme = match &task {
        Task::Tag(_) => Some(task::scheme(&train)),
        _ => None,
    };
    let start = Instant::now();
    let trained = progress::watched(args.settings.cooling(), |watch| {
        Trainer::new(&base, task.kind())
            .labels(Some(task.labels().to_vec()).filter(|labels| !labels.is_empty()))
            .named(&args.job.data, args.dev.as_deref())
            .examples(train)
            .dev(dev)
            .options(args.settings.options())
            .settings(args.settings())
            .replaces(Some(&args.out), args.force)
            .on_progress(watch)
            .train()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let checkpoints = args.checkpoints();
    if let Some(why) = &trained.diverged {
        // The best finished epoch is in the model.
        trained.save(&args.out, args.half)?;
        terminal::say(format_args!("kept the best finished epoch in {}", args.out.display()));
        // Gone on from, it would diverge again.
        checkpoints.as_ref().map_or(Ok(()), Checkpoints::remove)?;
        return Err(Error::Diverged(format!("{why} (--lr)")));
    }
    let saved = trained.save(&args.out, args.half);
    // What was learned is in a file, under whichever name: the next run, on more examples, starts over.
    let in_place = matches!(saved, Ok(_) | Err(Error::NotBetter(_)));
    if let Some(checkpoints) = checkpoints.as_ref().filter(|_| in_place && !trained.report.interrupted) {
        checkpoints.remove()?;
    }
    if let Err(Error::NotBetter(what)) = saved {
        terminal::say(results::compared(&trained));
        return Err(Error::NotBetter(format!("{what}. Use --force to replace it")));
    }
    saved?;
    if let Some(dir) = &args.plots {
        plots_room.release();
        write_plots(dir, &trained.model, &trained.report)?;
    }
    print_beside(&args.out, &summary(&args, &trained, scheme, seconds)?)?;
    if trained.report.interrupted {
        let what = match trained.report.kept {
            0 => format!("what was learned in {} steps", trained.report.steps),
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

/// Fails early if a result could not be written. Gives the room that is kept for plots.
fn check_targets(args: &Args) -> Result<Room> {
    let inputs = [Some(&args.job.base), Some(&args.job.data), args.dev.as_ref(), args.start.as_ref()];
    args::check_out(&args.out, &inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>())?;
    args::check_json(&args.out, args.json)?;
    let room = |flag, dir: Option<&PathBuf>, bytes| {
        dir.map_or_else(|| Ok(Room::default()), |dir| args::check_dir(flag, dir, bytes))
    };
    room("--checkpoint", args.checkpoint.as_ref(), 0)?; // how much they take is known later
    room("--plots", args.plots.as_ref(), plots::ROOM)
}

/// `scheme` is that of the tags, if a tagger was trained.
fn summary(args: &Args, trained: &Trained, scheme: Option<Option<Scheme>>, seconds: f64) -> Result<String> {
    let file = (!output::is_stream(&args.out)).then(|| std::fs::metadata(&args.out).ok()).flatten();
    let bytes = file.map(|m| m.len());
    let report = &trained.report;
    if args.json {
        let mut object = serde_json::to_value(report).expect("plain data");
        object["out"] = args.out.display().to_string().into();
        object["file_bytes"] = bytes.into();
        object["labels"] = trained.model.labels().into();
        object["result"] = results::json(trained, args.mistakes);
        if let Some(scheme) = scheme {
            object["scheme"] = scheme.map(|scheme| scheme.to_string()).into();
        }
        object["wall_s"] = seconds.into();
        object["peak_memory_bytes"] = resident::peak().into();
        return Ok(object.to_string());
    }
    let stopped = report.stopped.as_ref().map_or(String::new(), |why| format!(" (stopped: {why})"));
    let peak = resident::peak().map_or(String::new(), |b| format!(", peak memory {}", terminal::size(b)));
    let kept = match (report.kept, report.epochs.len()) {
        (0, 0) => "a linear probe".into(),
        (0, epochs) if report.before.is_some() => {
            let before = if args.job.task == Kind::Mlm { "the base's biases" } else { "the linear probe" };
            format!("{before}: none of {epochs} epochs was better")
        }
        (kept, epochs) => format!("epoch {kept} of {epochs}"),
    };
    let size = bytes.map_or(String::new(), |bytes| format!("{}, ", terminal::size(bytes)));
    Ok(format!(
        "{}: {size}{kept}{stopped}\n{} biases and {} head values trained in {seconds:.1} s{peak}\n\n{}",
        args.out.display(),
        terminal::count(report.trained_biases),
        terminal::count(report.trained_head),
        results::text(trained, args.mistakes),
    ))
}

fn write_plots(dir: &Path, model: &Model, report: &Report) -> Result<()> {
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
