//! A run of [`super::Trainer`], once it is clear what is learned: cross-validation, choice, final training, assessment.

use super::assessment::{Assessment, Baseline, Source};
use super::candidate::{Candidate, Method, Tell};
use super::checks::{Warning, WarningKind};
use super::crossval::{self, Folds, OutOfFold};
use super::lines::Lines;
use super::previous::{Comparison, Previous};
use super::settings::{Effort, Settings};
use super::{Choice, OnProgress, Trained, introduction};
use crate::data::Example;
use crate::error::{Error, Result};
use crate::model::{Model, Reading, Ways, setfit_phases};
use crate::output::Room;
use crate::quant::Base;
use crate::task::{self, Task};
use crate::text::count;
use crate::train::{self, Head, HeldOut, Progress, Report, calibration};
use std::time::Instant;

/// A training step takes about this many times as long as a forward pass over the same texts.
const STEP_PER_FORWARD: f64 = 3.2;
/// Prior of the lead of trained biases over the linear probe, in points of the main score: mean and deviation over the
/// development sets. A measured lead counts against it by its own uncertainty.
const PRIOR_LEAD: (f64, f64) = (0.03, 0.03);
/// The same for SetFit with 8 examples of each label. A fold leaves it five of each label. With so few, SetFit loses more than
/// the probe does, so the folds show too small a lead.
const PRIOR_LEAD_SETFIT: (f64, f64) = (0.05, 0.02);

/// A run, once it is clear what is learned.
pub(super) struct Run<'r, 'a> {
    pub(super) base: &'r Base,
    pub(super) task: &'r Task,
    pub(super) settings: &'r Settings,
    pub(super) train: &'r [Example],
    pub(super) tell: &'r mut OnProgress<'a>,
    /// Steps of all parts: done, and planned.
    pub(super) done: usize,
    pub(super) total: usize,
    pub(super) warnings: Vec<Warning>,
    pub(super) diverged: Option<String>,
}

impl Run<'_, '_> {
    fn note(&mut self, text: &str) {
        let _ = (self.tell)(Progress::Note(text));
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        let _ = (self.tell)(Progress::Warning(&warning.message));
        self.warnings.push(warning);
    }

    /// Says what is learned, and how.
    pub(super) fn introduce(&mut self, model: &Model, reading: Option<Reading>) {
        self.note(&introduction(model, self.train.len()));
        if let (Task::Tag(_), Some(scheme)) = (self.task, task::scheme(self.train)) {
            self.note(&format!("tags: {scheme}"));
        }
        let is_unanswerable = |e: &&Example| e.asked.as_ref().is_some_and(|asked| asked.unanswerable);
        match self.train.iter().filter(is_unanswerable).count() {
            0 => {}
            n => self.note(&format!("{} of these questions are unanswerable", count(n))),
        }
        let Some(reading @ Reading { usual, other, .. }) = reading else { return };
        let (what, of, ways) = match reading.choice {
            Ways::Pairs => ("pairs", "pairs", ["a cross-encoder", "a bi-encoder"]),
            Ways::LongTexts => ("long texts", "texts", ["truncation", "windows"]),
        };
        let chosen = ways[usize::from(reading.is_other())].trim_start_matches("a ");
        self.note(&format!(
            "{what}: {chosen}; the probe's loss on unseen {of} is {other:.3} with {}, {usual:.3} with {}",
            ways[1], ways[0]
        ));
    }

    /// Predicts what the run takes, and cuts batches so that it fits the budget.
    pub(super) fn fit_memory(
        &mut self,
        model: &Model,
        first: &mut Candidate,
        dev: Option<&[Example]>,
    ) -> Result<()> {
        let budget = self.settings.memory;
        if first.options.exact && budget.is_none() {
            return Ok(());
        }
        let scored = dev.or((self.is_cross_validated(first)).then_some(&[][..]));
        let memory = model.memory(self.train, scored, &first.config, budget)?;
        self.note(&format!("memory: {memory}"));
        if budget.is_some() {
            (first.config.cut, first.config.prefix_cache) = (Some(memory.cut), memory.prefix_cache);
        }
        Ok(())
    }

    /// Whether out-of-fold answers are made of it.
    fn is_cross_validated(&self, candidate: &Candidate) -> bool {
        candidate.method != Method::Probe
            && self.settings.effort != Effort::Quick
            && self.train.len() >= crossval::EXAMPLES_MIN
    }

    /// A candidate's settings, for people.
    fn describe(&self, candidate: &Candidate) -> String {
        let c = &candidate.config;
        match candidate.method {
            Method::Probe => "linear probe: the head alone".into(),
            Method::Setfit => format!(
                "SetFit: {} epochs of comparing texts in batches of {}, learning rate {}, then {} epochs from the linear probe",
                c.epochs,
                c.batch,
                c.lr,
                setfit_phases(c)[1].epochs
            ),
            Method::Steps => {
                let head = match c.head {
                    Head::Fitted => ", head from the linear probe",
                    Head::Random => "",
                };
                let dropout = match candidate.options.encoder_dropout {
                    0.0 => String::new(),
                    p => format!(", encoder dropout {p}"),
                };
                format!(
                    "{} epochs in batches of {}, learning rate {}{head}{dropout}",
                    c.epochs, c.batch, c.lr
                )
            }
        }
    }

    /// Scores held-out examples after each epoch and keeps the best one.
    pub(super) fn with_dev(
        mut self,
        candidate: Candidate,
        dev: &[Example],
        previous: Option<&Previous>,
    ) -> Result<Trained> {
        let mut about = self.describe(&candidate);
        if let Some(patience) = candidate.config.patience.filter(|n| *n < candidate.config.epochs) {
            about += &format!("; early stopping, patience {patience}");
        }
        self.note(&format!("chosen: {about}"));
        let mut model = candidate.model(self.base, self.task, self.settings)?;
        let report = self.final_run(&candidate, &mut model, Some(dev))?;
        let answers = crossval::answers(&model, dev)?;
        let (assessment, comparison) = match &answers {
            Some(answers) => {
                let probe = model.answers_of_head_alone(dev)?;
                let all: Vec<usize> = (0..dev.len()).collect();
                let assessment =
                    Assessment::of(Source::HeldOut, answers, probe.as_ref().map(|p| (p, &all[..])));
                let compared = previous.map(|p| p.compare(dev, answers, true)).transpose()?.flatten();
                (assessment, compared)
            }
            None => {
                let metrics = model.evaluate(dev)?;
                let base = model.evaluate_untrained(&model.encode(dev)?)?;
                let compared = previous.map(|p| p.compare_scores(dev, &metrics)).transpose()?.flatten();
                (Assessment::of_metrics(Source::HeldOut, metrics, base), compared)
            }
        };
        self.say_if_not_compared(previous, comparison.as_ref());
        let choice =
            Choice { name: candidate.name, folds: 0, bi_encoder: None, windows: None, temperature: None };
        Ok(self.trained(model, report, Some(assessment), dev.to_vec(), comparison, choice))
    }

    /// Learns from all examples, after cross-validation.
    pub(super) fn on_all(mut self, first: Candidate, previous: Option<&Previous>) -> Result<Trained> {
        let start = Instant::now();
        let folds = Folds::of(self.task, self.train, self.settings.effort);
        let probe_model = Candidate { method: Method::Probe, ..first.clone() };
        let probe = match self.task.has_probe() && self.train.len() >= crossval::EXAMPLES_MIN {
            true => {
                let model = probe_model.model(self.base, self.task, self.settings)?;
                // As many folds as the biases get: each is to learn from the same share of the examples.
                model.probe_answers(self.train, &first.config, folds.all)?
            }
            false => None,
        };
        let probed_s = start.elapsed().as_secs_f64();
        let mut chosen = first.clone();
        let mut crossed = None;
        let mut rejected = None;
        if self.is_cross_validated(&first) {
            let mut candidates = vec![first.clone()];
            if self.settings.effort == Effort::Thorough {
                candidates.extend(first.variants(self.settings));
            }
            self.plan(&candidates, &folds, probe.as_ref().map(|_| probed_s));
            let (index, out_of_fold) = self.cross_validate(&candidates, &folds)?;
            chosen = candidates.swap_remove(index);
            crossed = Some(out_of_fold);
        } else {
            self.total = first.steps(self.train.len());
        }
        let prior = if chosen.method == Method::Setfit { PRIOR_LEAD_SETFIT } else { PRIOR_LEAD };
        if let (Some(out_of_fold), Some((answers, which))) = (&crossed, &probe)
            && self.settings.may_keep_probe()
            && probe_is_better(out_of_fold, answers, which, prior)
        {
            chosen = Candidate { name: "linear probe".into(), method: Method::Probe, ..first.clone() };
            self.note("the linear probe answers unseen lines better than trained biases: it is kept");
            self.total = self.done;
        }
        let about = self.describe(&chosen);
        self.note(&format!("chosen: {about}"));
        let mut model = chosen.model(self.base, self.task, self.settings)?;
        let report = self.final_run(&chosen, &mut model, None)?;

        // The probe's own answers stand for a probe.
        let scored_folds = crossed.as_ref().map_or(0, |_| folds.scored);
        if chosen.method == Method::Probe
            && let Some((answers, which)) = &probe
        {
            rejected = crossed.take();
            crossed = Some(OutOfFold {
                which: which.clone(),
                metrics: answers.metrics(),
                answers: Some(answers.clone()),
                before: None,
            });
        }
        let mut temperature = None;
        if let Some(answers) = crossed.as_mut().and_then(|c| c.answers.as_mut()) {
            temperature = calibration::temperature(&calibration::learnable(answers));
            if let Some(t) = temperature {
                calibration::divide(answers, t);
                model.soften(t);
            }
            model.set_curve(calibration::Curve::of(&calibration::learnable(answers)));
        }
        let scored: Vec<Example> = match &crossed {
            Some(crossed) => crossed.which.iter().map(|&i| self.train[i].clone()).collect(),
            None => Vec::new(),
        };
        let mut assessment = crossed.as_ref().map(|crossed| match &crossed.answers {
            Some(answers) => {
                let beside = (chosen.method != Method::Probe)
                    .then(|| shared(&crossed.which, probe.as_ref()))
                    .flatten();
                let beside = beside.as_ref().map(|(probe, places)| (probe, &places[..]));
                Assessment::of(Source::CrossValidation, answers, beside)
            }
            None => Assessment::of_metrics(
                Source::CrossValidation,
                crossed.metrics.clone(),
                crossed.before.clone(),
            ),
        });
        if let (Some(assessment), Some(rejected), Some((probe, which))) = (&mut assessment, rejected, &probe)
            && let Some((probe, places)) = shared(&rejected.which, Some(&(probe.clone(), which.clone())))
            && let Some(answers) = &rejected.answers
        {
            assessment.biases = Some(Baseline::of(&probe, &answers.some(&places)));
        }
        if let Some(assessment) = &assessment {
            let probe = assessment.probe.as_ref().map(|p| &p.metrics);
            model.set_metrics(&assessment.metrics, probe, report.epochs.last().map(|e| e.train_loss));
        }
        let comparison = match (previous, crossed.as_ref().and_then(|c| c.answers.as_ref())) {
            (Some(previous), Some(answers)) => previous.compare(&scored, answers, false)?,
            _ => None,
        };
        self.say_if_not_compared(previous, comparison.as_ref());
        let choice =
            Choice { name: chosen.name, folds: scored_folds, bi_encoder: None, windows: None, temperature };
        Ok(self.trained(model, report, assessment, scored, comparison, choice))
    }

    /// Says what is coming, and how long it takes: known from how long the probe's forward passes took.
    fn plan(&mut self, candidates: &[Candidate], folds: &Folds, probed_s: Option<f64>) {
        let n = self.train.len();
        let part = n - n / folds.all;
        let mut steps = 0;
        let mut left = candidates.len();
        for _ in 0..folds.scored {
            // Each fold halves the candidates.
            let fold = candidates.iter().take(left).map(|c| c.steps(part));
            steps = fold.fold(steps, usize::saturating_add);
            left = left.div_ceil(2);
        }
        self.total = candidates[0].steps(n).saturating_add(steps);
        let passes = self.total as f64 * candidates[0].config.batch as f64 / n as f64;
        let rows = n.min(train::FEATURE_ROWS) as f64 / n as f64;
        let seconds = probed_s.map(|s| passes * STEP_PER_FORWARD * s / rows);
        let time = match seconds {
            Some(s) if s >= 90.0 => format!("; about {:.0} minutes in all", (s / 60.0).ceil()),
            Some(s) => format!("; about {:.0} s in all", s.ceil()),
            None => String::new(),
        };
        let what = match (folds.scored, candidates.len()) {
            (1, 1) => format!("every {}th line is scored by a model that has not seen it", folds.all),
            (folds, 1) => format!("cross-validation on {folds} folds"),
            (folds, n) => format!("cross-validation of {n} candidates on {folds} folds"),
        };
        self.note(&format!("plan: {what}, then training on all lines{time}"));
    }

    /// Out-of-fold answers of the best candidate, and which it is: successive halving, a fold a round.
    fn cross_validate(&mut self, candidates: &[Candidate], folds: &Folds) -> Result<(usize, OutOfFold)> {
        let mut alive: Vec<(usize, Vec<OutOfFold>)> =
            (0..candidates.len()).map(|i| (i, Vec::new())).collect();
        for fold in 0..folds.scored {
            for (i, parts) in &mut alive {
                let at = Progress::Fold { name: &candidates[*i].name, fold: fold + 1, folds: folds.scored };
                if (self.tell)(at).is_break() {
                    return Err(Error::Interrupted("nothing was written".into()));
                }
                let (base, task, settings, train) = (self.base, self.task, self.settings, self.train);
                let part = self.counted(|tell| {
                    OutOfFold::fold(&candidates[*i], (base, task, settings), train, folds, fold, tell)
                })?;
                parts.push(part);
            }
            // The lower loss; a loss after the best temperature would need more answers than a fold has.
            let loss = |parts: &Vec<OutOfFold>| parts.iter().map(|p| p.metrics.loss).sum::<f64>();
            alive.sort_by(|a, b| loss(&a.1).total_cmp(&loss(&b.1)).then(a.0.cmp(&b.0)));
            alive.truncate(alive.len().div_ceil(2));
        }
        let (index, parts) = alive.swap_remove(0);
        let joined = OutOfFold::join(parts).ok_or_else(|| Error::Internal("no fold was scored".into()))?;
        Ok((index, joined))
    }

    /// The run whose model is kept.
    fn final_run(
        &mut self,
        candidate: &Candidate,
        model: &mut Model,
        dev: Option<&[Example]>,
    ) -> Result<Report> {
        let train = self.train;
        if self.total == 0 {
            self.total = candidate.steps(train.len());
        }
        let report = match self.counted(|tell| candidate.train(model, train, dev, tell)) {
            Err(Error::Diverged(what)) if model.has_finished_epoch() => {
                self.diverged = Some(what);
                return Ok(Report::default());
            }
            result => result?,
        };
        let losses: Vec<f64> = report.epochs.iter().map(|e| e.train_loss).collect();
        if let [first, .., last] = losses[..]
            && last > 0.98 * first
            && !report.interrupted
        {
            let what = format!(
                "the training loss did not fall ({first:.3} in the first epoch, {last:.3} in the last): the model found \
                 nothing in these texts that tells the answer"
            );
            self.warn(Warning::new(WarningKind::LossDoesNotFall, what));
        }
        Ok(report)
    }

    /// Runs a part whose steps count as part of the whole.
    fn counted<T>(&mut self, part: impl FnOnce(Tell) -> Result<T>) -> Result<T> {
        let (tell, done) = (&mut *self.tell, &mut self.done);
        let planned = self.total;
        part(&mut |p| match p {
            Progress::Step { loss, texts, .. } => {
                *done += 1;
                tell(Progress::Step { done: *done, total: planned.max(*done), loss, texts })
            }
            other => tell(other),
        })
    }

    fn say_if_not_compared(&mut self, previous: Option<&Previous>, comparison: Option<&Comparison>) {
        if let (Some(previous), None) = (previous, comparison) {
            let why = match previous.knows_lines() {
                _ if !self.task.has_probe() => {
                    "for this task, files are compared on held-out lines that it has not seen"
                }
                true => "there are too few lines here that it can read and was not trained on",
                false => "it is not known which lines it was trained on",
            };
            self.note(&format!("the bias file that is there is replaced without a comparison: {why}"));
        }
    }

    fn trained(
        self,
        model: Model,
        report: Report,
        assessment: Option<Assessment>,
        scored: Vec<Example>,
        comparison: Option<Comparison>,
        choice: Choice,
    ) -> Trained {
        let (learned, lines) = (self.train.len(), Lines::of(self.train));
        let Run { warnings, diverged, .. } = self;
        Trained {
            model,
            report,
            assessment,
            scored,
            comparison,
            choice,
            warnings,
            diverged,
            learned,
            lines,
            force: false,
            room: Room::default(),
        }
    }
}

/// Whether the probe is kept instead of trained biases: the posterior mean of the biases' lead is below zero. `prior` is its
/// mean and deviation; likelihood: normal, with the deviation that the bootstrap interval has.
fn probe_is_better(biases: &OutOfFold, probe: &HeldOut, which: &[usize], prior: (f64, f64)) -> bool {
    let Some((probe, places)) = shared(&biases.which, Some(&(probe.clone(), which.to_vec()))) else {
        return false;
    };
    let Some(answers) = &biases.answers else { return false };
    let answers = answers.some(&places);
    let lead = answers.metrics().main() - probe.metrics().main();
    let interval = answers.lead(&probe);
    // 95 % of a normal distribution lie within 1.96 deviations on either side.
    let variance = ((interval.high - interval.low) / (2.0 * 1.96)).powi(2);
    let (mean, deviation) = prior;
    mean * variance + lead * deviation * deviation < 0.0
}

/// The probe's answers to those of the examples `which` that it answered, and their places in `which`.
fn shared(which: &[usize], probe: Option<&(HeldOut, Vec<usize>)>) -> Option<(HeldOut, Vec<usize>)> {
    let (probe, answered) = probe?;
    let mut of_probe = Vec::new();
    let mut places = Vec::new();
    for (place, i) in which.iter().enumerate() {
        if let Ok(at) = answered.binary_search(i) {
            of_probe.push(at);
            places.push(place);
        }
    }
    (!places.is_empty()).then(|| (probe.some(&of_probe), places))
}
