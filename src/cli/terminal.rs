//! What a person sees while waiting: bars on a terminal, plain lines when piped; Ctrl-C; sizes and peaks.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
pub use trimtab::text::count;

static STOP: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C asks for an orderly end; a second one ends at once.
pub fn catch_interrupt() {
    // An error means that a handler is there already, which does the same.
    let _ = ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        say("\ntrimtab: stopping (Ctrl-C again to stop at once)");
    });
}

/// Whether Ctrl-C was pressed.
pub fn interrupted() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// A bar on stderr where that is a terminal, hidden elsewhere.
pub fn bar(total: u64, template: &str) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template).expect("a fixed template");
    ProgressBar::with_draw_target(Some(total), target).with_style(style.progress_chars("=> "))
}

/// A line on stderr. One that cannot be written (a full disk, a closed pipe) is no reason to end the work.
pub fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line of progress on stderr, above the bar where there is one.
pub fn line(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        say(text);
    } else {
        bar.println(text);
    }
}

/// Text on one line, without what could steer a terminal; tabs stay.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// `1.2 MB`, powers of ten.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
