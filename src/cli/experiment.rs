//! `trimtab experiment`: the BitFit paper's tables on data of one's own.

use super::train_job::{Settings, TrainData, TrainJob};
use super::{args, print, progress, terminal};
use clap::ValueEnum;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use trimtab::experiment::{self, Findings, Lab, Run, Setup};
use trimtab::train::{Head, Schedule, TrainConfig};
use trimtab::{Error, Model, Result, plots, recipe};

/// Try on your data what the BitFit paper tried: which biases to train, and on how many examples
///
/// Trains some dozens of models from one base, scores each on --dev, and writes tables with means and standard deviations
/// over the seeds to DIR/experiment.md, and plots beside it. No bias file is written. Rows of the table of subsets: all
/// biases; those of the intermediate layer and the queries, together and alone; as many random values; those of the values
/// alone; of the layer norms; a head alone.
///
/// Settings are those of `train` and the same in every row, but the last epoch counts, so that no score is the best of several.
/// Passes and learning rate go by the number of examples, unless they are given. Ctrl-C ends it and keeps what is done; every
/// finished row is kept too.
#[derive(clap::Args)]
#[command(mut_arg("keep", |arg| arg.default_value("last").help("Which score on dev decides the epoch that counts")))]
pub struct Args {
    #[command(flatten)]
    job: TrainJob,
    /// Labelled lines to score on
    #[arg(long, value_name = "FILE")]
    dev: PathBuf,
    /// Directory for experiment.md, size.svg and change.svg
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Which experiments
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Subsets, What::Sizes, What::Change])]
    what: Vec<What>,
    /// Runs a row, with the seeds 0 to N-1: they decide the order of the data, the head's first values, the dropout, and
    /// which examples and values are drawn
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Numbers of examples for `sizes`, between commas [default: 50, doubled up to all]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    sizes: Vec<u64>,
    #[command(flatten)]
    settings: Settings,
    /// Print the result as one JSON object, with every run
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// Subsets of biases: the paper's table
    Subsets,
    /// All biases and a head alone, by number of examples: figure 2
    Sizes,
    /// How far each bias moved, by layer: figure 1
    Change,
}

/// The experiments that were asked for; one that was not has no setup.
struct Plan {
    subsets: Vec<Setup>,
    sizes: Vec<Setup>,
    change: Option<Setup>,
}

impl Plan {
    fn of(args: &Args, model: &Model, examples: usize) -> Plan {
        let asked = |what| args.what.contains(&what);
        let graph = model.graph();
        Plan {
            subsets: if asked(What::Subsets) { Setup::subsets(graph, examples) } else { vec![] },
            sizes: if asked(What::Sizes) { Setup::sizes(graph, &sizes(args, examples)) } else { vec![] },
            change: asked(What::Change).then(|| Setup::all(examples)),
        }
    }

    fn setups(&self) -> Vec<Setup> {
        self.subsets.iter().chain(&self.change).chain(&self.sizes).cloned().collect()
    }
}

/// Rising numbers of examples, each once.
fn sizes(args: &Args, examples: usize) -> Vec<usize> {
    if args.sizes.is_empty() {
        return experiment::doubling(examples);
    }
    let asked = args.sizes.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX));
    let mut sizes: Vec<usize> = asked.map(|n| n.min(examples)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if args.sizes.iter().any(|n| *n > examples as u64) {
        let all = terminal::count(examples);
        terminal::say(format_args!("note: there are {all} examples; larger --sizes are cut to that"));
    }
    sizes
}

pub fn run(args: Args) -> Result<()> {
    terminal::catch_interrupt();
    let room = args::check_dir("--out", &args.out, plots::ROOM)?;
    let TrainData { base, train, dev, task } = args.job.read(Some(&args.dev))?;
    let dev = dev.unwrap_or_default();
    args.settings.check(task.kind(), &base)?;
    let mut options = args.settings.options();
    Model::choose_reading(&base, &task, &train, &mut options, None)?;
    let model = Model::new(&base, task.clone(), &options)?;
    let course = Schedule::of(&task, model.pooling());
    let config = |examples| args.settings.config(examples, task.labels().len(), course);
    config(train.len()).selection(model.graph().layers())?;
    args::make_dir(&args.out)?;
    [REPORT, SIZES, CHANGE].iter().try_for_each(|name| args::check_out(&args.out.join(name), &[]))?;

    terminal::say(recipe::introduction(&model, train.len()));
    let plan = Plan::of(&args, &model, train.len());
    let mut findings = Findings::new(&base, model.graph(), task.kind(), &plan.setups());
    let about = about(&args, &model, &config(train.len()), train.len(), dev.len());
    drop(model);
    let lab = Lab { base: &base, task: &task, options: &options, config: &config, train: &train, dev: &dev };
    let setups: Vec<Setup> = findings.rows().iter().map(|row| row.setup.clone()).collect();
    let runs = setups.len() * args.seeds as usize;
    let mut done = 0;
    'rows: for (row, setup) in setups.iter().enumerate() {
        for seed in 0..args.seeds {
            let Some(run) =
                progress::watched_quietly(args.settings.cooling(), |watch| lab.run(setup, seed, watch))?
            else {
                break 'rows;
            };
            done += 1;
            terminal::say(format_args!("run {done}/{runs}: {}", run_line(setup, &run)));
            findings.add(row, run);
        }
        room.release();
        write(&args.out, &plan, &findings, &markdown(&about, &plan, &findings, done, runs))?;
    }
    let text = markdown(&about, &plan, &findings, done, runs);
    if done < runs && done > 0 {
        write(&args.out, &plan, &findings, &text)?;
    }
    if args.json {
        let mut object = findings.json();
        object["out"] = args.out.display().to_string().into();
        object["task"] = task.kind().name().into();
        object["interrupted"] = (done < runs).into();
        print(&object.to_string())?;
    } else if done > 0 {
        print(text.trim_end())?;
    }
    match (done == runs, done) {
        (true, _) => Ok(()),
        (false, 0) => Err(Error::Interrupted("no run was finished; nothing was written".into())),
        (false, _) => Err(Error::Interrupted(format!(
            "{} holds {done} of {runs} runs",
            args.out.join(REPORT).display()
        ))),
    }
}

const REPORT: &str = "experiment.md";
const SIZES: &str = "size.svg";
const CHANGE: &str = "change.svg";

fn run_line(setup: &Setup, run: &Run) -> String {
    let (examples, seed) = (terminal::count(setup.examples), run.seed);
    let how = run.scores.as_ref().map_or("diverged".into(), ToString::to_string);
    format!("{setup}, {examples} examples, seed {seed}: {how} ({:.1} s)", run.train_s)
}

/// What was done, above the tables.
fn about(args: &Args, model: &Model, config: &TrainConfig, examples: usize, held_out: usize) -> String {
    let seeds = match args.seeds {
        1 => "one seed; deviations need more".to_owned(),
        n => format!("mean ± standard deviation over {n} seeds"),
    };
    let epochs = match args.settings.epochs {
        Some(n) => n.to_string(),
        None => format!("{} (more for fewer examples)", config.epochs),
    };
    let batch = match args.settings.batch {
        Some(n) => n.to_string(),
        None => format!("{} (less for fewer)", config.batch),
    };
    let lr = match args.settings.lr {
        Some(lr) => lr.to_string(),
        None => format!("{} (by the number of examples)", config.lr),
    };
    let head = match config.head {
        Head::Random => "a random head",
        Head::Fitted => "a fitted head",
    };
    format!(
        "# Which biases, how many examples\n\n{}, base `{}`, {}: {} examples of `{}`, scored on {} of `{}`; {seeds}. From {head}, \
         learning rate {lr}, epochs {epochs}, batches of {batch}.\n\n```sh\n{}\n```\n",
        model.task().kind(),
        args.job.base.display(),
        model.graph().numerics().describe(),
        terminal::count(examples),
        args.job.data.display(),
        terminal::count(held_out),
        args.dev.display(),
        command_line()
    )
}

/// This command, as a shell reads it.
fn command_line() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+".contains(c);
    let quoted = std::env::args_os().skip(1).map(|arg| {
        let arg = terminal::one_line(&arg.to_string_lossy());
        match !arg.is_empty() && arg.chars().all(plain) {
            true => arg,
            false => format!("'{}'", arg.replace('\'', r"'\''")),
        }
    });
    std::iter::once("trimtab".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

fn markdown(about: &str, plan: &Plan, findings: &Findings, done: usize, runs: usize) -> String {
    let mut text = about.to_owned();
    let mut section = |title: &str, table: &str| {
        let _ = write!(text, "\n## {title}\n\n{table}");
    };
    if !plan.subsets.is_empty() {
        section("Subsets of biases", &findings.subsets_table(&plan.subsets));
    }
    if !plan.sizes.is_empty() {
        section("Number of examples", &format!("{}\n![]({SIZES})\n", findings.sizes_table(&plan.sizes)));
    }
    if let Some(setup) = &plan.change {
        section("Change of the biases", &format!("{}\n![]({CHANGE})\n", findings.change_table(setup)));
    }
    if done < runs {
        let _ = write!(text, "\n{done} of {runs} runs are done.\n");
    }
    text
}

fn write(dir: &Path, plan: &Plan, findings: &Findings, markdown: &str) -> Result<()> {
    plots::write(&dir.join(REPORT), markdown)?;
    if !plan.sizes.is_empty() {
        plots::write(&dir.join(SIZES), &findings.sizes_plot(&plan.sizes))?;
    }
    plan.change.as_ref().map_or(Ok(()), |setup| plots::write(&dir.join(CHANGE), &findings.change_plot(setup)))
}
