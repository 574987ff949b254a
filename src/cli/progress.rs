//! A training run as it goes: a bar on a terminal, lines everywhere.

use super::cooling::Cooling;
use super::terminal;
use indicatif::ProgressBar;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use trimtab::Result;
use trimtab::train::{Epoch, Progress};

/// Who is told how a run goes.
pub type Watch<'a> = &'a mut (dyn FnMut(Progress) -> ControlFlow<()> + Send);

/// Runs with a bar on a terminal, and a line for each note, fold and epoch everywhere; Ctrl-C ends it, and `cooling` has it
/// rest.
pub fn watched<T>(cooling: Option<Cooling>, run: impl FnOnce(Watch) -> Result<T>) -> Result<T> {
    let epochs = AtomicUsize::new(0);
    with_bar(cooling, run, |bar, p| match p {
        Progress::Note(text) => terminal::line(bar, text),
        Progress::Warning(text) => terminal::line(bar, &format!("warning: {text}")),
        Progress::Fold { name, fold, folds } => {
            terminal::line(bar, &format!("fold {fold} of {folds}: {name}"));
        }
        Progress::Begin { before, baseline, epochs: n } => {
            epochs.store(*n, Ordering::Relaxed);
            if let Some(m) = before {
                terminal::line(bar, &format!("{baseline}: dev loss {:.4}, {m}", m.loss));
            }
        }
        Progress::Epoch(e) => epoch_line(bar, e, epochs.load(Ordering::Relaxed)),
        Progress::Step { .. } => {}
    })
}

/// The same without lines, for one run of many.
pub fn watched_quietly<T>(cooling: Option<Cooling>, run: impl FnOnce(Watch) -> Result<T>) -> Result<T> {
    with_bar(cooling, run, |_, _| {})
}

fn with_bar<T>(
    mut cooling: Option<Cooling>,
    run: impl FnOnce(Watch) -> Result<T>,
    tell: impl Fn(&ProgressBar, &Progress) + Sync,
) -> Result<T> {
    let bar = terminal::bar(0, "{msg:28} {wide_bar} {pos}/{len} steps, {eta} left");
    let start = Instant::now();
    let mut texts_done = 0;
    let mut smooth = None;
    let result = run(&mut |p| {
        if let Progress::Step { done, total, loss, texts } = p {
            texts_done += texts;
            let s = smooth.map_or(loss, |s: f64| 0.9 * s + 0.1 * loss);
            smooth = Some(s);
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            let rate = texts_done as f64 / start.elapsed().as_secs_f64();
            bar.set_message(format!("loss {s:.3}, {rate:.0} examples/s"));
            if let Some(cooling) = &mut cooling {
                cooling.rest(|why| terminal::line(&bar, &format!("note: {why}")), terminal::interrupted);
            }
        }
        tell(&bar, &p);
        if terminal::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    result
}

fn epoch_line(bar: &ProgressBar, e: &Epoch, epochs: usize) {
    let mut text = format!("epoch {}/{epochs}: training loss {:.4}", e.epoch, e.train_loss);
    if let Some(m) = &e.dev {
        text += &format!(", dev loss {:.4}, {m}", m.loss);
    }
    terminal::line(bar, &format!("{text} ({:.1} s so far)", e.train_s));
}
