//! `trimtab inspect`: a base, a bias file, or this machine.

use super::{print, terminal};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use trimtab::bias_file::BiasFile;
use trimtab::config::MlmHead;
use trimtab::graph::{DropoutRates, Graph};
use trimtab::ops::Numerics;
use trimtab::params::{Layout, Role, Term};
use trimtab::quant::Base;
use trimtab::{Result, kernels};

/// Show what a base or a bias file holds, or what this machine can do
#[derive(clap::Args)]
pub struct Args {
    /// Base or bias file; without one, the machine
    file: Option<PathBuf>,
    /// Compute the base's fingerprint again and compare
    #[arg(long)]
    verify: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let facts = match &args.file {
        None => machine()?,
        Some(path) if is_bias_file(path) => bias_file(path)?,
        Some(path) => base(path, args.verify)?,
    };
    if args.json {
        return print(&facts.to_string());
    }
    print(&text(&facts))
}

/// By its metadata's format line, so that a renamed file is known all the same; anything else is for `Base` to refuse.
fn is_bias_file(path: &Path) -> bool {
    let mut start = [0u8; 4096];
    let read = std::fs::File::open(path).and_then(|mut f| std::io::Read::read(&mut f, &mut start));
    read.is_ok_and(|n| start[..n].windows(12).any(|w| w == b"trimtab-bias"))
}

fn machine() -> Result<Value> {
    let chosen = kernels::select(None)?;
    Ok(json!({
        "kind": "machine",
        "version": env!("CARGO_PKG_VERSION"),
        "arch": std::env::consts::ARCH,
        "os": std::env::consts::OS,
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "kernels": kernel_names(),
        "kernel": chosen.name(),
    }))
}

fn kernel_names() -> Vec<&'static str> {
    kernels::available().iter().map(|k| k.name()).collect()
}

fn base(path: &Path, verify: bool) -> Result<Value> {
    let base = Base::open(path)?;
    if verify {
        base.verify()?;
    }
    let config = base.config();
    let chosen = kernels::select(None)?;
    let kernel = chosen.name();
    let rates = DropoutRates { head: 0.0, encoder: 0.0 };
    let graph = Graph::new(&base, Numerics::Int8(chosen), base.pooling(), 2, rates)?;
    let layout = Layout::new(config, base.pooling(), 2);
    let trainable: Vec<Value> = Term::ALL
        .iter()
        .filter_map(|term| {
            let of_term = |p: &&trimtab::params::Param| matches!(p.role, Role::Bias(t, _) if t == *term);
            let values: usize = layout.iter().filter(of_term).map(|p| p.range.len()).sum();
            (values > 0)
                .then(|| json!({ "term": term.symbol(), "values": values, "default": *term != Term::K }))
        })
        .collect();
    let biases: usize =
        layout.iter().filter(|p| matches!(p.role, Role::Bias(..))).map(|p| p.range.len()).sum();
    let elements = |dtype: &str| -> usize {
        base.tensors().iter().filter(|t| t.dtype == dtype).map(|t| t.shape.iter().product::<usize>()).sum()
    };
    let int8 = elements("I8");
    let mut facts = json!({
        "kind": "base",
        "path": path.display().to_string(),
        "name": base.name(),
        "file_bytes": base.file_bytes(),
        "family": config.family,
        "config": config,
        "pooling": base.pooling(),
        "pooler": base.has_pooler(),
        "fingerprint": base.fingerprint(),
        "verified": verify,
        "weights_sha256": base.weights_sha256(),
        "int8_parameters": int8,
        "bias_parameters": biases,
        "trainable": trainable,
        "saved_per_token_and_layer_bytes": graph.saved_bytes(),
        "kernels": kernel_names(),
        "kernel": kernel,
    });
    if !base.modules().is_empty() {
        facts["modules"] = json!(base.modules());
        facts["embedding_width"] = base.embedding_width().into();
    }
    facts["max_seq_length"] = base.max_seq_length().into();
    if base.mlm_head() != MlmHead::None {
        facts["mlm_head"] = base.mlm_head().name().into();
    }
    Ok(facts)
}

fn bias_file(path: &Path) -> Result<Value> {
    let file = BiasFile::open(path)?;
    let values: usize = file.tensors.values().map(|(_, v)| v.len()).sum();
    let mut facts = json!({
        "kind": "bias",
        "path": path.display().to_string(),
        "file_bytes": std::fs::metadata(path).map_or(0, |m| m.len()),
        "task": "classify",
        "task": file.task.kind().name(),
        "labels": file.task.labels(),
        "pooling": file.pooling,
        "terms": file.terms,
        "layers": format!("{}..{}", file.layers.0, file.layers.1),
        "max_len": file.max_len,
        "values": values,
        "tensors": file.tensors.len(),
        "base_name": file.base_name,
        "base_fingerprint": file.base_fingerprint,
        "metrics": file.metrics,
        "settings": file.settings,
    });
    if let Some(stride) = file.stride {
        facts["stride"] = stride.into();
    }
    Ok(facts)
}

/// `key  value` lines, what it is first; nested objects in one line each.
fn text(facts: &Value) -> String {
    let Value::Object(map) = facts else { return facts.to_string() };
    let width = map.keys().map(String::len).max().unwrap_or(0);
    let first = ["kind", "path", "name"];
    let order = map.iter().filter(|(key, _)| first.contains(&key.as_str()));
    let rest = map.iter().filter(|(key, _)| !first.contains(&key.as_str()));
    let lines = order.chain(rest).map(|(key, value)| {
        let shown = match value {
            Value::Array(terms) if key == "trainable" => {
                terms.iter().map(term).collect::<Vec<_>>().join(", ")
            }
            Value::String(s) => s.clone(),
            Value::Number(n) if key.ends_with("_bytes") => terminal::size(n.as_u64().unwrap_or(0)),
            Value::Number(n) => n.as_u64().map_or(n.to_string(), |n| terminal::count(n as usize)),
            Value::Array(items) => items.iter().map(inline).collect::<Vec<_>>().join(", "),
            other => inline(other),
        };
        format!("{key:width$}  {}", terminal::one_line(&shown))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A trainable term: its symbol and how many values it has.
fn term(fact: &Value) -> String {
    let values = terminal::count(fact["values"].as_u64().unwrap_or(0) as usize);
    let by_name = if fact["default"] == true { "" } else { " (only if asked for)" };
    format!("{} {values}{by_name}", inline(&fact["term"]))
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        // for people: no more digits than an f32 has
        Value::Number(n) if n.is_f64() => format!("{:?}", n.as_f64().unwrap_or(f64::NAN) as f32),
        Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{k} {}", inline(v))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
