//! Words: those of a raw text, and those that a file gives one by one.

use super::Example;
use serde_json::Value;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

impl Example {
    /// The words that a tagger tags: [`Example::words`], or what stands between white space in [`Example::text_a`].
    pub fn word_list(&self) -> Vec<&str> {
        match &self.words {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => self.text_a.split_whitespace().collect(),
        }
    }

    /// A sentence of words that are known one by one; the text is the words between spaces.
    ///
    /// `words` is set only where the text does not tell them: where one holds white space, or is empty.
    pub fn of_words(words: Vec<String>) -> Example {
        let text_a = words.join(" ");
        let told = words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace));
        Example { text_a, words: (!told).then_some(words), ..Example::default() }
    }

    /// A text as people write it, for a tagger: its words are found by [`split_words`].
    pub fn raw_sentence(text: &str) -> Example {
        Example { text_a: text.to_owned(), words: Some(split_words(text)), ..Example::default() }
    }
}

/// The words of a raw text, as BERT's basic tokenizer finds them: white space separates words, every punctuation mark and
/// every CJK character is a word. Unlike there, an apostrophe or a hyphen between two letters or digits, and a `.`, `,` or
/// `:` between two digits, do not split the word: `don't`, `well-known`, `3.5`.
pub fn split_words(text: &str) -> Vec<String> {
    let mut split = PreTokenizedString::from(text);
    if BertPreTokenizer.pre_tokenize(&mut split).is_err() {
        return text.split_whitespace().map(str::to_owned).collect();
    }
    let pieces = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let mut words: Vec<(usize, usize)> = Vec::new();
    for (_, (from, to), _) in pieces {
        let mut start = from;
        for (at, c) in text[from..to].char_indices().filter(|(_, c)| is_cjk(*c)) {
            let at = from + at;
            words.extend((start < at).then_some((start, at)));
            words.push((at, at + c.len_utf8()));
            start = at + c.len_utf8();
        }
        words.extend((start < to).then_some((start, to)));
    }
    let mut joined: Vec<(usize, usize)> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        let (from, to) = words[i];
        let before =
            joined.last().filter(|last| last.1 == from).and_then(|_| text[..from].chars().next_back());
        let after = words.get(i + 1).filter(|next| next.0 == to).and_then(|_| text[to..].chars().next());
        match (before, after, joined.last_mut()) {
            (Some(before), Some(after), Some(last)) if binds(before, &text[from..to], after) => {
                last.1 = words[i + 1].1;
                i += 2;
            }
            _ => {
                joined.push((from, to));
                i += 1;
            }
        }
    }
    joined.into_iter().map(|(from, to)| text[from..to].to_owned()).collect()
}

/// Whether a punctuation mark is a part of the word around it.
fn binds(before: char, mark: &str, after: char) -> bool {
    let in_word = |c: char| c.is_alphanumeric() && !is_cjk(c);
    match mark {
        "'" | "\u{2019}" | "-" | "\u{2010}" | "\u{2011}" => in_word(before) && in_word(after),
        "." | "," | ":" => before.is_numeric() && after.is_numeric(),
        _ => false,
    }
}

/// The blocks that BERT's basic tokenizer takes for CJK.
fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x20000..=0x2a6df | 0x2a700..=0x2b73f | 0x2b740..=0x2b81f
        | 0x2b820..=0x2ceaf | 0xf900..=0xfaff | 0x2f800..=0x2fa1f)
}

/// The strings of a JSON array; none if it holds anything else.
pub(super) fn strings(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_raw_texts() {
        for (text, wanted) in [
            ("Anna lives in Berlin.", "Anna|lives|in|Berlin|."),
            (
                "\u{201c}Wait,\u{201d} said O'Neil\u{2019}s well-known friend!",
                "\u{201c}|Wait|,|\u{201d}|said|O'Neil\u{2019}s|well-known|friend|!",
            ),
            ("don't - stop-, 'quoted' -x", "don't|-|stop|-|,|'|quoted|'|-|x"),
            ("3.5 % of 10,000 at 12:30.", "3.5|%|of|10,000|at|12:30|."),
            ("U.S. wow... (a/b) a@b.de", "U|.|S|.|wow|.|.|.|(|a|/|b|)|a|@|b|.|de"),
            ("我住在Berlin。 \u{a0}é", "我|住|在|Berlin|。|é"),
            ("a-b-c x--y '", "a-b-c|x|-|-|y|'"),
            (" \t\n", ""),
            ("", ""),
        ] {
            let words = split_words(text);
            assert_eq!(words.join("|"), wanted);
            assert!(
                words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)),
                "{text}"
            );
        }
    }

    #[test]
    fn words_are_kept_apart_where_the_text_does_not_tell() {
        let owned = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        for words in [&["a", "b"][..], &["10 000", "x"], &["\u{a0}", "x"], &["a\u{3000}b"], &[" "]] {
            let e = Example::of_words(owned(words));
            assert_eq!(e.word_list(), words);
            assert_eq!(e.text_a, words.join(" "));
        }
        assert_eq!(Example::of_words(owned(&["a", "b"])).words, None);
        assert_eq!(Example::raw_sentence("Berlin.").word_list(), ["Berlin", "."]);
    }
}
