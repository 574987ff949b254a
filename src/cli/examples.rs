//! `trimtab examples`: what is in a store.

use super::{print, terminal};
use std::path::PathBuf;
use trimtab::Result;
use trimtab::data::Store;

/// List the examples of a store: number, label, text
#[derive(clap::Args)]
pub struct Args {
    /// The store, made by `learn`
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Those of one label only
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Print the number of examples of each label instead
    #[arg(long)]
    count: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let store = Store::open_existing(&args.store)?;
    let wanted = |label: &str| args.label.as_deref().is_none_or(|wanted| wanted == label);
    if args.count {
        for (label, n) in store.labels()?.into_iter().filter(|(label, _)| wanted(label)) {
            print(&match args.json {
                true => serde_json::json!({ "label": label, "examples": n }).to_string(),
                false => format!("{n}\t{}", terminal::one_line(&label)),
            })?;
        }
        return Ok(());
    }
    for e in store.examples()? {
        let json_label = e.label.clone();
        let label = e.label.unwrap_or_default();
        if !wanted(&label) {
            continue;
        }
        print(&match args.json {
            true => serde_json::json!({ "number": e.line, "label": json_label, "text_a": e.text_a, "text_b": e.text_b })
                .to_string(),
            false => {
                let text = [Some(e.text_a), e.text_b].into_iter().flatten().collect::<Vec<_>>().join("\t");
                format!("{}\t{}\t{}", e.line, terminal::one_line(&label), terminal::one_line(&text))
            }
        })?;
    }
    Ok(())
}
