//! What is wrong with the lines of a file: all of it is found before the file is refused, or the lines are left out.

use super::shorten;
use crate::error::{Error, Result};
use std::path::Path;

/// Problems that a message names.
const SHOWN: usize = 10;

/// Lines (of questions: their numbers) that cannot be used, and why.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(usize, String)>);

impl Problems {
    pub fn add(&mut self, line: usize, what: impl Into<String>) {
        self.0.push((line, what.into()));
    }

    /// What was left out, if `skip` allows that.
    ///
    /// Errors: `Error::Data` that names up to ten of `unit`, if there are any and `skip` is not set.
    pub fn resolve(self, path: &Path, unit: Unit, skip: bool) -> Result<Vec<(usize, String)>> {
        match &self.0[..] {
            [] => {}
            _ if skip => {}
            [(line, what)] => {
                let place = (unit == Unit::Line).then_some(*line);
                return Err(Error::data(path, place, format!("{what}{HINT}")));
            }
            all => {
                let shown: Vec<String> = all[..all.len().min(SHOWN)]
                    .iter()
                    .map(|(line, what)| match unit {
                        Unit::Line => format!("line {line}: {}", shorten(what, 200)),
                        // A question is named in what is said of it.
                        Unit::Question => shorten(what, 200),
                    })
                    .collect();
                let more = match all.len().saturating_sub(SHOWN) {
                    0 => String::new(),
                    more => format!("; and {more} more"),
                };
                let (n, name) = (all.len(), unit.name());
                let what = format!("{n} {name}s cannot be used: {}{more}{HINT}", shown.join("; "));
                return Err(Error::data(path, None, what));
            }
        }
        Ok(self.0)
    }
}

/// What to do about it.
const HINT: &str = ". Correct the file, or leave them out with --skip-bad-lines";

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Line,
    Question,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Line => "line",
            Unit::Question => "question",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_named_and_all_are_counted() {
        let of = |n: usize| {
            let mut problems = Problems::default();
            (1..=n).for_each(|i| problems.add(i, format!("bad {i}")));
            problems
        };
        let path = Path::new("f");
        let error = |n, unit| of(n).resolve(path, unit, false).unwrap_err().to_string();
        assert!(of(0).resolve(path, Unit::Line, false).unwrap().is_empty());
        assert_eq!(
            error(1, Unit::Line),
            "f:1: bad 1. Correct the file, or leave them out with --skip-bad-lines"
        );
        assert!(
            error(2, Unit::Line).starts_with("f: 2 lines cannot be used: line 1: bad 1; line 2: bad 2. ")
        );
        assert!(
            error(12, Unit::Question).contains("12 questions")
                && error(12, Unit::Line).contains("; and 2 more")
        );
        assert!(!error(12, Unit::Line).contains("bad 11"));
        assert_eq!(of(12).resolve(path, Unit::Line, true).unwrap()[11], (12, "bad 12".into()));
    }
}
