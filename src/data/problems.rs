//! Lines of a file that cannot be used: they are collected, so that a user sees all of them at once.

use super::shorten;
use crate::error::{Error, Result};
use crate::text::count;
use std::path::Path;

/// Units that problems are counted in.
pub(super) const LINE: &str = "line";
pub(super) const QUESTION: &str = "question";

/// Problems that are shown.
const SHOWN: usize = 10;
/// Longest description that is shown, in characters.
const LONGEST: usize = 160;

/// The lines of one file that cannot be used.
pub(super) struct Problems<'p> {
    path: &'p Path,
    /// What is counted, such as [`LINE`].
    unit: &'static str,
    shown: Vec<(usize, String)>,
    n: usize,
}

impl<'p> Problems<'p> {
    pub fn new(path: &'p Path, unit: &'static str) -> Problems<'p> {
        Problems { path, unit, shown: Vec::new(), n: 0 }
    }

    /// A line that cannot be used, and why.
    pub fn add(&mut self, line: usize, what: impl Into<String>) {
        self.n += 1;
        if self.shown.len() < SHOWN {
            self.shown.push((line, what.into()));
        }
    }

    /// What was read, unless a line could not be. Errors: those that are not of one line.
    pub fn take<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Error::Data { line: Some(line), what, .. }) => {
                self.add(line, what);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// A remark about the lines that were left out, if `skip`; none if there were none.
    ///
    /// Errors: there are such lines, and they may not be left out.
    pub fn end(self, skip: bool) -> Result<Option<String>> {
        let Problems { path, unit, shown, n } = self;
        if n == 0 {
            return Ok(None);
        }
        let units = match unit.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{unit}s"),
        };
        // A question is named in what is said of it, and has no line.
        let is_question = unit == QUESTION;
        if let [(line, what)] = shown.as_slice()
            && !skip
        {
            let what = format!("{what} (--skip-bad-lines leaves such {units} out)");
            return Err(Error::data(path, (!is_question).then_some(*line), what));
        }
        let named = |(line, what): &(usize, String)| match is_question {
            true => shorten(what, LONGEST),
            false => format!("{unit} {line}: {}", shorten(what, LONGEST)),
        };
        let mut listed: Vec<String> = shown.iter().map(named).collect();
        if n > shown.len() {
            listed.push(format!("and {} more", count(n - shown.len())));
        }
        let listed = listed.join("\n  ");
        let counted = if n == 1 { unit } else { &units };
        match skip {
            true => Ok(Some(format!("{}: {} {counted} left out:\n  {listed}", path.display(), count(n)))),
            false => {
                let what = format!(
                    "{} {units} cannot be used; mend them, or leave them out with --skip-bad-lines:\n  {listed}",
                    count(n)
                );
                Err(Error::data(path, None, what))
            }
        }
    }
}

/// serde_json's message without its "at line 1 column n": a line of the file may be its line 1.
pub(super) fn json_error(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(n: usize, skip: bool) -> Result<Option<String>> {
        let mut problems = Problems::new(Path::new("f"), "line");
        (0..n).for_each(|i| problems.add(i + 2, "bad"));
        problems.end(skip)
    }

    #[test]
    fn all_are_listed_or_counted() {
        assert_eq!(end(0, false).unwrap(), None);
        assert_eq!(
            end(1, false).unwrap_err().to_string(),
            "f:2: bad (--skip-bad-lines leaves such lines out)"
        );
        let e = end(2, false).unwrap_err().to_string();
        assert_eq!(
            e,
            "f: 2 lines cannot be used; mend them, or leave them out with --skip-bad-lines:\n  line 2: bad\n  line 3: bad"
        );
        assert!(end(1000, false).unwrap_err().to_string().ends_with("line 11: bad\n  and 990 more"));
        assert_eq!(end(1, true).unwrap().unwrap(), "f: 1 line left out:\n  line 2: bad");
    }
}
