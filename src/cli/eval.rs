//! `trimtab eval`: scores of a bias file on labelled examples.

use super::{args, print, results, terminal};
use std::path::PathBuf;
use std::time::Instant;
use trimtab::quant::Base;
use trimtab::recipe::lines::Lines;
use trimtab::recipe::{Assessment, Source};
use trimtab::text::count;
use trimtab::{Model, Options, Result, Task, task};

/// Score a bias file on labelled lines
///
/// Use lines that the bias file was not trained on: on others it scores better than it is. The run says so if the hashes of
/// its training lines, BIAS.lines, are there. Labels that were not in training count as wrong, and the run says how many
/// there are; the loss is that of the other lines. F1 of spans is that of seqeval's default mode; the scheme of the tags (BIO,
/// IOB1, BIOES, BILOU and so on) is detected and told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: args::ModelFiles,
    /// Labelled lines: .tsv, .csv or .jsonl; .conll or .jsonl for tag, .json or .jsonl for qa; for mlm also .txt
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    columns: args::Data,
    /// Print the N wrong answers that the model was most confident of
    #[arg(long, value_name = "N", default_value_t = 5)]
    mistakes: usize,
    #[command(flatten)]
    run: args::Run,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let base = Base::open(&args.model.base)?;
    let model = Model::open(&base, &args.model.bias, &args.run.options())?;
    let examples = args.columns.read(&args.data, model.task().kind().wanted())?;
    let unseen = model.task().unseen(&examples);
    model.task().scored_targets(&examples, &unseen, &args.data)?;
    let scheme = match model.task() {
        Task::Tag(_) => task::scheme(&examples),
        _ => None,
    };
    args::warn_of_single_texts(&model, &examples);
    let trained_on =
        Lines::read(&args.model.bias).map_or(0, |lines| examples.iter().filter(|e| lines.has(e)).count());
    if trained_on > 0 {
        terminal::say(format_args!(
            "warning: {} of the {} lines were used to train this bias file; the score is higher than it would be on new \
             lines. `train` prints a cross-validated score",
            count(trained_on),
            count(examples.len())
        ));
    }
    let start = Instant::now();
    let source = if trained_on > 0 { Source::PartlyTrained } else { Source::Unseen };
    let assessment = match model.task().has_probe() {
        true => model.answers(&examples)?.map(|a| Assessment::of(source, &a, None)),
        false => None,
    };
    let assessment = match assessment {
        Some(assessment) => assessment,
        // What the base does by itself, where no head had to be trained.
        None => {
            let untrained = match model.task().outputs() {
                0 => {
                    let options = Options {
                        pooling: Some(model.pooling()),
                        max_len: model.max_len(),
                        ..args.run.options()
                    };
                    Some(Model::new(&base, model.task().clone(), &options)?.evaluate(&examples)?)
                }
                _ => None,
            };
            Assessment::of_metrics(source, model.evaluate(&examples)?, untrained)
        }
    };
    let examples_per_s = assessment.metrics.examples as f64 / start.elapsed().as_secs_f64();
    if args.json {
        let mut object = serde_json::to_value(&assessment.metrics).expect("plain data");
        object["examples_per_s"] = examples_per_s.into();
        object["trained_on"] = trained_on.into();
        object["unseen_labels"] = serde_json::json!(unseen);
        if let Task::Tag(_) = model.task() {
            object["scheme"] = scheme.map(|scheme| scheme.to_string()).into();
        }
        let [crossed, probe] = model.cross_validated();
        object["when_trained"] = serde_json::json!({ "cross_validation": crossed, "linear_probe": probe });
        object["result"] = results::assessment_json(&assessment, &examples, args.mistakes);
        return print(&object.to_string());
    }
    let scheme = scheme.map(|scheme| format!("tags: {scheme}"));
    let about: Vec<String> = [scheme, unseen.sentence(model.task())].into_iter().flatten().collect();
    let about = if about.is_empty() { String::new() } else { terminal::one_line(&about.join("; ")) + "\n" };
    print(&format!(
        "{}\n{about}{}\n({examples_per_s:.0} examples/s)",
        results::of(&assessment, &examples, args.mistakes),
        results::when_trained(&model, &assessment)
    ))
}
