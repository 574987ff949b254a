//! Reads tagged sentences: a token and its tag a line, a blank line behind each sentence.

use super::lines::Lines;
use super::{Example, Wanted, shorten};
use crate::error::{Error, Result};
use std::io::BufRead;
use std::path::Path;

/// Most tokens of a sentence: a file without blank lines is no such file.
const WORDS_MAX: usize = 10_000;

/// Sentences as examples: the tokens joined by spaces are the text, the tags likewise the label.
///
/// The first column is the token and the last one the tag, between tabs, or between spaces where a line has no tab.
/// `-DOCSTART-` lines and comments (`# `, as in CoNLL-U) are left out. Without tags wanted, a line may have no tag.
pub(super) fn read(reader: impl BufRead, path: &Path, want: Wanted) -> Result<Vec<Example>> {
    let mut lines = Lines::new(reader, path).keep_blank();
    let mut sentences = Vec::new();
    let (mut words, mut tags, mut first) = (Vec::new(), Vec::new(), 0);
    loop {
        let line = lines.next_line()?;
        let columns: Vec<&str> = match line {
            Some((_, text)) if text.contains('\t') => text.split('\t').map(str::trim).collect(),
            Some((_, text)) => text.split_ascii_whitespace().collect(),
            None => Vec::new(),
        };
        if columns.iter().all(|c| c.is_empty()) {
            if !words.is_empty() {
                let label = (want != Wanted::Nothing).then(|| tags.join(" "));
                let text_a = words.join(" ");
                sentences.push(Example { text_a, label, line: first, ..Example::default() });
                (words, tags) = (Vec::new(), Vec::new());
            }
            if line.is_none() {
                return Ok(sentences);
            }
            continue;
        }
        let Some((number, text)) = line else { continue };
        let fail = |what: String| Err(Error::data(path, Some(number), what));
        if text.starts_with("-DOCSTART-") || text.starts_with("# ") {
            continue;
        }
        let (word, tag) = (columns[0], columns[columns.len() - 1]);
        if word.is_empty() || word.contains(char::is_whitespace) {
            return fail(format!("`{}` is not one token", shorten(word, 40)));
        }
        if want != Wanted::Nothing {
            if columns.len() < 2 || tag.is_empty() {
                return fail(format!("no tag behind `{}`", shorten(word, 40)));
            }
            if tag.contains(char::is_whitespace) {
                return fail(format!("`{}` is not one tag", shorten(tag, 40)));
            }
            tags.push(tag.to_owned());
        }
        if words.is_empty() {
            first = number;
        }
        words.push(word.to_owned());
        if words.len() > WORDS_MAX {
            return fail(format!("a sentence of more than {WORDS_MAX} tokens; a blank line ends a sentence"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, want: Wanted) -> Result<Vec<Example>> {
        read(text.as_bytes(), Path::new("f"), want)
    }

    fn sentence(words: &str, tags: Option<&str>, line: usize) -> Example {
        Example { text_a: words.into(), label: tags.map(str::to_owned), line, ..Example::default() }
    }

    #[test]
    fn tabs_or_spaces() {
        let got = text(
            "-DOCSTART- O\n\n# text = Jo\nJo\tx\tB-per\nruns\ty\tO\n\t\n\n\nyes  X\r\nno X",
            Wanted::Tags,
        )
        .unwrap();
        assert_eq!(got, [sentence("Jo runs", Some("B-per O"), 4), sentence("yes no", Some("X X"), 9)]);
        assert_eq!(text("a\nb\n\n# c\n", Wanted::Nothing).unwrap(), [sentence("a b", None, 1)]);
        assert!(text("\n \n\n", Wanted::Tags).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_names_the_line() {
        for (file, wanted) in [
            ("a\tO\nb\n", "f:2: no tag behind `b`"),
            ("a\tO\nb\t\n", "f:2: no tag behind `b`"),
            ("a b\tO\n", "f:1: `a b` is not one token"),
            ("a\tB x\n", "f:1: `B x` is not one tag"),
            ("\tO\n", "f:1: `` is not one token"),
        ] {
            assert_eq!(text(file, Wanted::Tags).unwrap_err().to_string(), wanted);
        }
        let e = text(&"a\tO\n".repeat(WORDS_MAX + 1), Wanted::Tags).unwrap_err().to_string();
        assert!(e.starts_with("f:10001: a sentence of more than 10000 tokens"), "{e}");
    }
}
