//! What `train` and `experiment` have in common: what is learned from, and how.

use super::args;
use super::cooling::Cooling;
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use trimtab::config::DEFAULT_MAX_LEN;
use trimtab::data::Example;
use trimtab::quant::Base;
use trimtab::scores::Better;
use trimtab::task::Kind;
use trimtab::train::memory::parse_size;
use trimtab::train::{Criterion, Head, Schedule, TrainConfig};
use trimtab::{Error, Options, Result, Task, recipe};

/// What is learned from.
#[derive(clap::Args)]
pub struct TrainJob {
    /// Base file, made by `quantize`
    #[arg(long, value_name = "FILE")]
    pub base: PathBuf,
    /// Labelled lines to learn from: .tsv, .csv or .jsonl; .conll (CoNLL-2000, 2003, CoNLL-U and the like) or .jsonl with
    /// `tokens` and `tags` for tag; SQuAD's .json, or the .jsonl that `datasets` makes of it, for qa; for mlm also .txt, a
    /// text a line
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Learn from the first N examples only: lines, or sentences, or questions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    columns: args::Data,
    /// What to learn: `classify`, one label a text; `multilabel`, any number of labels, between commas; `regress`, a
    /// number; `tag`, a tag for each token; `qa`, where in a text the answer to a question stands, or that there
    /// is none, as in SQuAD 1.1 and 2.0; `contrastive`, which texts belong together, from pairs: for `embed` and `search`;
    /// `mlm`, hidden words of plain text, of any columns or lines: for --start, where the base has a masked-LM head
    #[arg(long, default_value = "classify", value_name = "TASK")]
    pub task: Kind,
}

/// What was read of it.
pub struct TrainData {
    pub base: Base,
    pub train: Vec<Example>,
    pub dev: Option<Vec<Example>>,
    pub task: Task,
}

impl TrainJob {
    /// Errors: files that cannot be read; examples that do not fit the task.
    pub fn read(&self, dev: Option<&Path>) -> Result<TrainData> {
        let base = Base::open(&self.base)?;
        let read = |path: &Path| self.columns.read(path, self.task.wanted());
        let mut train = read(&self.data)?;
        let dev = dev.map(|path| Ok((read(path)?, path))).transpose()?;
        // The labels are those of the whole file: with fewer examples of it, a model answers the same question.
        let task = self.task.of(&train, &self.data)?;
        train.truncate(self.limit.map_or(usize::MAX, |n| n as usize));
        self.task.of(&train, &self.data)?;
        if let Some((examples, path)) = &dev {
            task.scored_targets(examples, &task.unseen(examples), path)?;
        }
        Ok(TrainData { base, train, dev: dev.map(|(examples, _)| examples), task })
    }
}

/// How it is learned.
#[derive(clap::Args)]
pub struct Settings {
    /// Passes over the data [default: 20 for few examples, 4 for 1,000, 3 for more]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Peak learning rate [default: 3e-3; 2e-3 for 2,000 examples or more; 6e-3 for ten labels or more with fewer than ten
    /// examples each; 1e-3 where the texts of a pair are read apart]
    #[arg(long, value_name = "X")]
    pub lr: Option<f64>,
    /// The head's learning rate, as a factor of --lr
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    head_rate: f32,
    /// Texts a step [default: 4 for 100 examples, 8 for 200 to 1,300, 16 for 2,700 or more, and for contrastive and setfit]
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Longest text in tokens; longer ones are cut, for qa and mlm into several windows [default: 128, or the model's
    /// positions, if it has fewer]
    #[arg(long, value_name = "N")]
    max_len: Option<usize>,
    /// Tokens that a window of a text shares with the next, at most half of it; for qa [default: a third of --max-len]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Where the head begins [default: random; fitted for 2,000 examples or more, and where the texts of a pair are read apart]
    #[arg(long, value_enum)]
    head: Option<HeadInit>,
    /// How a text or a pair becomes one vector
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
    /// Dropout inside the encoder [default: 0.1; 0 where the lowest layers are not trained, whose results are then cached]
    #[arg(long, value_name = "P")]
    encoder_dropout: Option<f32>,
    /// Weigh classes by the inverse of their frequency
    #[arg(long)]
    class_weights: bool,
    /// Which score on dev decides the epoch that is kept [default: the one that tells most of the task]
    #[arg(long, value_enum)]
    keep: Option<Keep>,
    /// Most memory for keeping what the layers below the lowest trained bias give, from epoch to epoch; 0 computes it
    /// again each time. Results do not depend on it
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = parse_size)]
    prefix_cache: usize,
    /// Go on at full speed on a machine that is too hot or short of memory; without, a run then rests up to half of the time
    /// (where Linux tells)
    #[arg(long)]
    never_rest: bool,
    #[command(flatten)]
    run: args::Run,
}

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

impl Settings {
    /// Errors: what the task does not have: a score to keep by, windows; what the base does not have: positions.
    pub fn check(&self, task: Kind, base: &Base) -> Result<()> {
        args::max_len(base, self.max_len)?;
        if self.stride.is_some() && task != Kind::Qa {
            return Err(Error::Config(format!("--stride is for qa, not for {task}")));
        }
        if let Some(name) = self.criterion().name()
            && !task.scores().iter().any(|known| known.name == name)
        {
            let known: Vec<_> = task
                .scores()
                .iter()
                .filter(|known| known.better != Better::Neither)
                .map(|known| known.name)
                .collect();
            let known = known.join(", ");
            return Err(Error::Config(format!("--keep: {task} has no {name}; it has {known}, loss")));
        }
        Ok(())
    }

    /// What has a run rest.
    pub fn cooling(&self) -> Option<Cooling> {
        (!self.never_rest).then(Cooling::new)
    }

    fn criterion(&self) -> Criterion {
        match self.keep {
            None => Criterion::Main,
            Some(Keep::Accuracy) => Criterion::Accuracy,
            Some(Keep::MacroF1) => Criterion::MacroF1,
            Some(Keep::Mcc) => Criterion::Mcc,
            Some(Keep::Loss) => Criterion::Loss,
            Some(Keep::Last) => Criterion::Last,
        }
    }

    /// Whether an epoch is kept by its score.
    pub fn keeps_by_score(&self) -> bool {
        !matches!(self.keep, None | Some(Keep::Last))
    }

    /// As the library takes them.
    pub fn settings(&self) -> recipe::Settings {
        recipe::Settings {
            epochs: self.epochs,
            lr: self.lr,
            head_rate: self.head_rate,
            batch: self.batch,
            head: self.head.map(|head| match head {
                HeadInit::Random => Head::Random,
                HeadInit::Fitted => Head::Fitted,
            }),
            encoder_dropout: self.encoder_dropout,
            warmup: self.warmup,
            clip: self.clip,
            weight_decay: self.weight_decay,
            class_weights: self.class_weights,
            keep: self.criterion(),
            prefix_cache: self.prefix_cache,
            ..recipe::Settings::default()
        }
    }

    /// The run that these settings give for this number of examples and labels (0 if there are none).
    pub fn config(&self, examples: usize, labels: usize, course: Schedule) -> TrainConfig {
        self.settings().config(examples, labels, course)
    }

    pub fn options(&self) -> Options {
        Options {
            pooling: self.pool.pooling(),
            max_len: self.max_len.unwrap_or(DEFAULT_MAX_LEN),
            stride: self.stride,
            head_dropout: self.dropout,
            encoder_dropout: self.encoder_dropout.unwrap_or(0.0),
            ..self.run.options()
        }
    }
}
