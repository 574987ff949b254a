//! Reads tagged sentences: a token and its tag a line, a blank line behind each sentence.
//!
//! CoNLL-2000, 2002 and 2003, WNUT and the like: the first column is the token and the last one the tag. CoNLL-U (and
//! CoNLL-X): FORM and UPOS, without the lines of multiword tokens (`1-2`) and empty nodes (`1.1`).

use super::columns::Columns;
use super::lines::Lines;
use super::problems::Problems;
use super::{Example, LabelForm, shorten};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::io::BufRead;
use std::path::Path;

/// Most tokens of a sentence: a file without blank lines is no such file.
const WORDS_MAX: usize = 10_000;
/// The columns of CoNLL-U, in their order.
const CONLL_U: [&str; 10] =
    ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"];

/// Sentences as examples: the tokens joined by spaces are the text, the tags likewise the label. Tokens that hold white
/// space are kept apart in [`Example::words`].
///
/// Columns stand between tabs, or between spaces where a line has no tab. `-DOCSTART-` lines and comments are left out; a
/// line that begins with `#` and has the columns of a token is a token. Without tags wanted, a line may have no tag. A
/// sentence with a bad line is left out, and the line goes to `problems`.
pub(super) fn read(
    reader: impl BufRead,
    path: &Path,
    want: LabelForm,
    columns: &Columns,
    problems: &mut Problems,
) -> Result<Vec<Example>> {
    let mut all = Vec::new();
    let mut reader = Lines::new(reader, path).keep_blank();
    while let Some((number, text)) = reader.next_line()? {
        all.push((number, text.to_owned()));
    }
    let layout = Layout::of(&all, columns, path)?;
    let mut sentences = Vec::new();
    let mut sentence = Sentence::default();
    for (number, text) in &all {
        let cells = cells(text);
        if is_blank(&cells) {
            sentences.extend(std::mem::take(&mut sentence).finish(want));
            continue;
        }
        if text.starts_with("-DOCSTART-") || (text.starts_with('#') && layout.is_comment(text, &cells)) {
            continue;
        }
        if layout.has_ids && is_no_word(cells[0]) {
            continue;
        }
        if sentence.line == 0 {
            sentence.line = *number;
        }
        match layout.row(&cells, text.contains('\t'), want, sentence.width) {
            Ok((word, tag)) => {
                sentence.words.push(word.to_owned());
                sentence.tags.extend(tag.map(str::to_owned));
            }
            Err(what) => {
                problems.add(*number, what);
                sentence.is_bad = true;
            }
        }
        sentence.width.get_or_insert(cells.len());
        sentence.lines += 1;
        if sentence.lines > WORDS_MAX {
            let what = format!("a sentence of more than {WORDS_MAX} tokens; a blank line ends a sentence");
            return Err(Error::data(path, Some(*number), what));
        }
    }
    sentences.extend(sentence.finish(want));
    Ok(sentences)
}

/// A sentence as far as it was read.
#[derive(Default)]
struct Sentence {
    words: Vec<String>,
    tags: Vec<String>,
    /// Where it begins; 0 before its first line.
    line: usize,
    /// Lines of it, bad ones too.
    lines: usize,
    /// Columns of its first line.
    width: Option<usize>,
    is_bad: bool,
}

impl Sentence {
    /// None for a sentence without words, or with a bad line.
    fn finish(self, want: LabelForm) -> Option<Example> {
        if self.words.is_empty() || self.is_bad {
            return None;
        }
        let label = (want != LabelForm::Nothing).then(|| self.tags.join(" "));
        Some(Example { label, line: self.line, ..Example::of_words(self.words) })
    }
}

fn cells(text: &str) -> Vec<&str> {
    match text.contains('\t') {
        true => text.split('\t').collect(),
        false => text.split_ascii_whitespace().collect(),
    }
}

/// A no-break space alone is a token, not a blank line.
fn is_blank(cells: &[&str]) -> bool {
    cells.iter().all(|c| c.trim_ascii().is_empty())
}

/// Which columns of a file are what.
struct Layout<'a> {
    word: usize,
    /// The last one if `None`.
    tag: Option<usize>,
    /// Whether the first column is the number of the token.
    has_ids: bool,
    /// Columns that every line must have, if known.
    width: Option<usize>,
    /// Widths of the lines that do not begin with `#`, and whether they have tabs; empty where no line begins so.
    widths: HashSet<(bool, usize)>,
    /// Last columns of these lines.
    tags: HashSet<&'a str>,
}

impl<'a> Layout<'a> {
    /// Errors: `Error::Data` for columns that the file cannot have.
    fn of(all: &'a [(usize, String)], columns: &Columns, path: &Path) -> Result<Layout<'a>> {
        let rows = || {
            let text = all.iter().map(|(_, text)| &text[..]);
            text.filter(|t| !t.starts_with('#') && !t.starts_with("-DOCSTART-"))
        };
        let first = rows().map(cells).find(|cells| !is_blank(cells)).unwrap_or_default();
        let mut layout = Layout {
            word: 0,
            tag: None,
            has_ids: false,
            width: None,
            widths: HashSet::new(),
            tags: HashSet::new(),
        };
        // CoNLL-U Plus names its columns.
        let plus = all.iter().map_while(|(_, text)| text.starts_with('#').then_some(&text[..]));
        let plus: Option<Vec<&str>> = plus
            .filter_map(|text| text.split_once("global.columns")?.1.trim_start().strip_prefix('='))
            .map(|names| names.split_ascii_whitespace().collect())
            .next();
        let is_u = first.len() == CONLL_U.len() && is_id(first[0]);
        let names: &[&str] = match &plus {
            Some(names) => names,
            None if is_u => &CONLL_U,
            None => &[],
        };
        let named = |name: &str| names.iter().position(|n| n.eq_ignore_ascii_case(name));
        if !names.is_empty() {
            layout.word = named("FORM").unwrap_or(0);
            layout.tag = named("UPOS");
            layout.has_ids = named("ID") == Some(0);
            layout.width = Some(names.len());
        } else if is_numbered(all) {
            (layout.word, layout.has_ids) = (1, true);
        }
        let place = |wanted: &Option<String>, flag: &str| {
            let Some(name) = wanted else { return Ok(None) };
            let number = name.parse::<usize>().ok().filter(|n| *n > 0).map(|n| n - 1);
            match number.or(named(name)) {
                Some(at) => Ok(Some(at)),
                None => {
                    let known = if names.is_empty() {
                        String::new()
                    } else {
                        format!(", or one of {}", names.join(" "))
                    };
                    let what = format!(
                        "no column `{}`; columns of this file have numbers, from 1{known} ({flag})",
                        shorten(name, 40)
                    );
                    Err(Error::data(path, None, what))
                }
            }
        };
        layout.word = place(&columns.text_a, "--text-column")?.unwrap_or(layout.word);
        layout.tag = place(&columns.label, "--label-column")?.or(layout.tag);
        if all.iter().any(|(_, text)| text.starts_with('#')) {
            for text in rows() {
                let cells = cells(text);
                layout.widths.insert((text.contains('\t'), cells.len()));
                layout.tags.extend(cells.last());
            }
        }
        Ok(layout)
    }

    /// Whether a line that begins with `#` is none of a token.
    fn is_comment(&self, text: &str, cells: &[&str]) -> bool {
        let has_tabs = text.contains('\t');
        if (self.has_ids && !is_id(cells[0])) || !self.widths.contains(&(has_tabs, cells.len())) {
            return true;
        }
        if has_tabs {
            return false;
        }
        // `# key = value`, `#key=value`
        if cells[1..].contains(&"=") || (cells[0].len() > 1 && cells[0].contains('=')) {
            return true;
        }
        // A comment could have as many words as there are columns, but its last one is no tag.
        let last = cells[cells.len() - 1];
        let is_tag =
            self.tags.contains(last) || (last.get(1..2) == Some("-") && "BIESLUMW".contains(&last[..1]));
        cells.len() > 1 && !is_tag && !cells[1..].contains(&"#")
    }

    /// The token and the tag of a line; `width` is that of the sentence's first line.
    fn row<'t>(
        &self,
        cells: &[&'t str],
        has_tabs: bool,
        want: LabelForm,
        width: Option<usize>,
    ) -> std::result::Result<(&'t str, Option<&'t str>), String> {
        let n = cells.len();
        let columns = |n: usize| if n == 1 { "1 column".into() } else { format!("{n} columns") };
        if let Some(width) = self.width.filter(|width| *width != n) {
            return Err(format!("{} where the format has {width}", columns(n)));
        }
        if self.has_ids && !is_id(cells[0]) {
            return Err(format!("`{}` is not the number of a token", shorten(cells[0], 40)));
        }
        let Some(&word) = cells.get(self.word) else {
            return Err(format!("{}, and the token is in column {}", columns(n), self.word + 1));
        };
        // Spaces around a token are none of it, unless it is made of them.
        let bare = word.trim_matches(' ');
        let word = if bare.is_empty() { word } else { bare };
        if word.is_empty() {
            return Err("`` is not one token".into());
        }
        if want == LabelForm::Nothing {
            return Ok((word, None));
        }
        let tag = cells.get(self.tag.unwrap_or(n - 1)).map(|tag| tag.trim()).unwrap_or_default();
        if tag.is_empty() || self.tag.unwrap_or(n - 1) == self.word {
            return Err(format!("no tag behind `{}`", shorten(word, 40)));
        }
        if tag.contains(char::is_whitespace) {
            return Err(format!("`{}` is not one tag", shorten(tag, 40)));
        }
        // A token with a space would lose its second half.
        if let Some(width) = width.filter(|width| *width != n && !has_tabs) {
            return Err(format!(
                "{} where the sentence begins with {width}; a token with a space needs tabs between the columns",
                columns(n)
            ));
        }
        Ok((word, Some(tag)))
    }
}

/// The number of a token, of a multiword token (`1-2`) or of an empty node (`1.1`).
fn is_id(cell: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match cell.split_once(['-', '.']) {
        Some((a, b)) => is_number(a) && is_number(b),
        None => is_number(cell),
    }
}

/// Whether a line with this number is not a word of its own.
fn is_no_word(id: &str) -> bool {
    is_id(id) && id.contains(['-', '.'])
}

/// Whether the first of three columns or more counts the tokens of each sentence.
fn is_numbered(all: &[(usize, String)]) -> bool {
    let (mut last, mut most) = (None, 0);
    for (_, text) in all.iter().filter(|(_, t)| !t.starts_with('#') && !t.starts_with("-DOCSTART-")) {
        let cells = cells(text);
        if is_blank(&cells) {
            last = None;
            continue;
        }
        let number = cells[0].parse::<usize>().ok().filter(|_| cells.len() > 2);
        let follows = match (last, number) {
            (None, Some(n)) => n < 2,
            (Some(last), Some(n)) => n == last + 1,
            (_, None) => false,
        };
        if !follows {
            return false;
        }
        last = number;
        most = most.max(number.unwrap_or(0));
    }
    most > 1
}

#[cfg(test)]
#[path = "conll_tests.rs"]
mod tests;
