//! `trimtab forget`: examples out of a store, and out of what was learned from them.

use super::{args, print, terminal, train};
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;
use trimtab::data::{Forget, Store};
use trimtab::{Result, bias_file::BiasFile};

/// Remove examples from a store, and train anew on the rest
///
/// A bias file that has learned from them still has: with --base and --bias it is trained anew without them, and replaced
/// whatever its score. What is forgotten is overwritten in the store.
#[derive(clap::Args)]
pub struct Args {
    /// The store, made by `learn`
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Forget the examples of these numbers, as `examples` prints them
    #[arg(long, value_name = "N", num_args = 1..)]
    number: Vec<i64>,
    /// Forget all examples of a label
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Forget everything
    #[arg(long, conflicts_with_all = ["number", "label", "texts"])]
    all: bool,
    /// Base file, to train anew
    #[arg(long, value_name = "FILE", requires = "bias")]
    base: Option<PathBuf>,
    /// Bias file that has learned from the store, to be trained anew and replaced, with the task it has and the settings that
    /// `train` chooses
    #[arg(long, value_name = "BIAS", requires = "base")]
    bias: Option<PathBuf>,
    /// Print the result as JSON: how many were forgotten, and, where it trains, as `train` does
    #[arg(long)]
    json: bool,
    /// Forget these texts, a tab between the two of a pair
    #[arg(value_name = "TEXT", required_unless_present_any = ["number", "label", "all"])]
    texts: Vec<String>,
}

/// `train` as if it had been typed.
#[derive(clap::Parser)]
struct Again {
    #[command(flatten)]
    args: train::Args,
}

pub fn run(args: Args) -> Result<()> {
    // What is to be replaced is looked at first: afterwards the examples are gone.
    let task =
        args.bias.as_deref().map(|path| BiasFile::open(path).map(|file| file.task.kind())).transpose()?;
    if let Some(bias) = &args.bias {
        args::check_out(bias, &[])?;
    }
    let mut store = Store::open_existing(&args.store)?;
    let mut which: Vec<Forget> = args.number.iter().map(|n| Forget::Number(*n)).collect();
    which.extend(args.label.as_deref().map(Forget::Label));
    which.extend(args.texts.iter().map(|text| match text.split_once('\t') {
        Some((a, b)) => Forget::Text(a, Some(b)),
        None => Forget::Text(text, None),
    }));
    if args.all {
        which.push(Forget::All);
    }
    let mut forgotten = 0;
    for which in which {
        forgotten += store.forget(which)?;
    }
    let left: usize = store.labels()?.iter().map(|(_, n)| n).sum();
    if args.json {
        print(&serde_json::json!({ "forgotten": forgotten, "examples": left }).to_string())?;
    } else {
        let (n, left, file) = (terminal::count(forgotten), terminal::count(left), args.store.display());
        print(&format!("{n} forgotten; {left} examples left in {file}"))?;
    }
    let (Some(base), Some(bias), Some(task)) = (args.base, args.bias, task) else {
        if forgotten > 0 {
            terminal::say("note: bias files that have learned from them still have; train them anew");
        }
        return Ok(());
    };
    let words: [(&str, OsString); 5] = [
        ("--base", base.into()),
        ("--data", args.store.into()),
        ("--format", "store".into()),
        ("--out", bias.clone().into()),
        ("--task", task.to_string().into()),
    ];
    let line = words.into_iter().flat_map(|(flag, value)| [flag.into(), value]);
    let line = [OsString::from("train")].into_iter().chain(line).chain(["--force".into()]);
    let json = args.json.then(|| OsString::from("--json"));
    // The same words that a user may type, and valid: every value is of its kind.
    let again = Again::parse_from(line.chain(json));
    train::run(again.args).inspect_err(|_| {
        terminal::say(format_args!(
            "{} still has what was forgotten: train it anew, or delete it",
            bias.display()
        ));
    })
}
