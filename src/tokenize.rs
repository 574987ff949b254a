//! Text to token ids, by the tokenizer that belongs to the base.

mod fit;

use crate::data::Example;
use crate::error::{Error, Result};
use crate::guard;
pub(crate) use fit::check_fit;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::{
    DecoderWrapper, Encoding, InputSequence, NormalizerWrapper, PostProcessor, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer, TokenizerImpl, TruncationDirection,
};

/// Most windows that a long text is read in: 2,000 tokens or so.
pub(crate) const WINDOWS_MAX: usize = 16;
/// Most pieces one word can become: WordPiece's `max_input_chars_per_word`. BPE has no bound; a longer word is no text.
const WORD_PIECES_MAX: usize = 100;
/// First guess of how many bytes of a text give one token, on the high side.
const TOKEN_BYTES: usize = 16;
/// Bytes of a text that are looked at for each token wanted: a bound on the time for what is not text, such
/// as a megabyte without a space.
const TOKEN_BYTES_MAX: usize = 1024;

/// Token ids of one text or pair, with the special tokens around them; never empty.
///
/// A pair is one sequence with a separator between its texts, or two sequences one after another, read apart. A text in
/// windows is as many sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Rows of the word table, `[seq]`.
    pub ids: Vec<i32>,
    /// Rows of the token type table, `[seq]`.
    pub types: Vec<i32>,
    /// Where the sequences behind the first one begin.
    pub more: Vec<usize>,
}

impl Encoded {
    /// One sequence, all of it of token type 0.
    pub fn plain(ids: Vec<i32>) -> Encoded {
        Encoded { types: vec![0; ids.len()], ids, more: Vec::new() }
    }

    /// The rows of its sequences: one, or several.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.more.iter().copied().chain([self.ids.len()]);
        let mut start = 0;
        ends.map(move |end| std::mem::replace(&mut start, end)..end)
    }

    /// Adds sequences behind its own.
    fn append(&mut self, other: Encoded) {
        let first = self.ids.len();
        self.more.push(first);
        self.more.extend(other.more.iter().map(|start| first + start));
        self.ids.extend(other.ids);
        self.types.extend(other.types);
    }
}

/// A question before a part of its context, which may be too long for one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Both, with the special tokens.
    pub text: Encoded,
    /// Bytes of the context that each row stands for, from and to; none for the question's tokens and special ones.
    pub places: Vec<Option<(u32, u32)>>,
}

/// What texts are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Texts, or pairs.
    pub texts: usize,
    /// Their tokens, without special ones.
    pub tokens: usize,
    /// Tokens that the vocabulary does not have.
    pub unknown: usize,
    /// Texts with more tokens than the model reads.
    pub truncated: usize,
}

impl Survey {
    /// Of both.
    pub fn and(self, other: Survey) -> Survey {
        Survey {
            texts: self.texts + other.texts,
            tokens: self.tokens + other.tokens,
            unknown: self.unknown + other.unknown,
            truncated: self.truncated + other.truncated,
        }
    }
}

/// A tokenizer with its settings for one model.
pub struct TextEncoder {
    tokenizer: Inner,
    path: PathBuf,
    seq_max: usize,
    vocab: usize,
    types: usize,
}

type WordPieceTokenizer =
    TokenizerImpl<WordPiece, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// `tokenizers::Tokenizer` reads its model through two generic JSON values; named by its type, a WordPiece
/// vocabulary is read at once: for 30,522 pieces in 8 ms instead of 19.
enum Inner {
    WordPiece(Box<WordPieceTokenizer>),
    Any(Box<Tokenizer>),
}

/// What the tokenizers crate gives or says, or that it panics, as it does on some broken files.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    guard::caught(work).unwrap_or_else(|| Err("the tokenizers library panics on it".into()))
}

impl Inner {
    fn from_bytes(json: &[u8]) -> tokenizers::Result<Inner> {
        caught(|| Inner::parse(json))
    }

    fn parse(json: &[u8]) -> tokenizers::Result<Inner> {
        if let Ok(mut t) = serde_json::from_slice::<WordPieceTokenizer>(json) {
            t.with_padding(None).with_truncation(None)?;
            return Ok(Inner::WordPiece(Box::new(t)));
        }
        let mut t = Tokenizer::from_bytes(json)?;
        t.with_padding(None).with_truncation(None)?;
        Ok(Inner::Any(Box::new(t)))
    }

    fn words(&self) -> usize {
        match self {
            Inner::WordPiece(t) => t.get_vocab_size(true),
            Inner::Any(t) => t.get_vocab_size(true),
        }
    }

    /// Every token, added ones included, and its id.
    fn vocabulary(&self) -> HashMap<String, u32> {
        match self {
            Inner::WordPiece(t) => t.get_vocab(true),
            Inner::Any(t) => t.get_vocab(true),
        }
    }

    /// How many special tokens stand around a text or a pair.
    fn special(&self, pair: bool) -> usize {
        let processor = match self {
            Inner::WordPiece(t) => t.get_post_processor(),
            Inner::Any(t) => t.get_post_processor(),
        };
        processor.map_or(0, |p| p.added_tokens(pair))
    }

    /// The tokens of a text alone, all of them and without special tokens.
    fn tokens(&self, text: &str) -> tokenizers::Result<Encoding> {
        caught(|| match self {
            Inner::WordPiece(t) => t.encode_fast(text, false),
            Inner::Any(t) => t.encode_fast(text, false),
        })
    }

    /// As [`Inner::tokens`], with the bytes of the text that each token stands for.
    fn placed_tokens(&self, text: &str) -> tokenizers::Result<Encoding> {
        caught(|| match self {
            Inner::WordPiece(t) => t.encode(text, false),
            Inner::Any(t) => t.encode(text, false),
        })
    }

    /// The special tokens.
    fn special_tokens(&self) -> Vec<(u32, String)> {
        let all = match self {
            Inner::WordPiece(t) => t.get_added_tokens_decoder(),
            Inner::Any(t) => t.get_added_tokens_decoder(),
        };
        all.into_iter().filter(|(_, token)| token.special).map(|(id, token)| (id, token.content)).collect()
    }

    fn decode(&self, id: u32) -> tokenizers::Result<String> {
        caught(|| match self {
            Inner::WordPiece(t) => t.decode(&[id], false),
            Inner::Any(t) => t.decode(&[id], false),
        })
    }

    /// The tokens of words, without special tokens.
    fn word_tokens(&self, words: &[&str]) -> tokenizers::Result<Encoding> {
        // A byte-level BPE counts the space before a word to it; transformers then asks for `add_prefix_space`.
        let spaced: Vec<String>;
        let mut words = words.to_vec();
        if let Inner::Any(t) = self
            && let Some(PreTokenizerWrapper::ByteLevel(level)) = t.get_pre_tokenizer()
            && !level.add_prefix_space
        {
            spaced = words.iter().map(|word| format!(" {word}")).collect();
            words = spaced.iter().map(String::as_str).collect();
        }
        // `encode_fast` does not tell which word a piece is of.
        let words = InputSequence::PreTokenized(words.into());
        caught(|| match self {
            Inner::WordPiece(t) => t.encode(words, false),
            Inner::Any(t) => t.encode(words, false),
        })
    }

    /// Puts the special tokens around what [`Inner::tokens`] gave.
    fn join(&self, a: Encoding, b: Option<Encoding>) -> tokenizers::Result<Encoding> {
        caught(|| match self {
            Inner::WordPiece(t) => t.post_process(a, b, true),
            Inner::Any(t) => t.post_process(a, b, true),
        })
    }
}

impl TextEncoder {
    /// The tokenizer of `json` (a `tokenizer.json`), for a model with `vocab` words and `types` token types; with 0 types
    /// every token is of type 0, whatever the tokenizer says.
    ///
    /// Padding and truncation settings in the file are ignored: texts are cut to `max_len` tokens including
    /// the special ones, the longer text of a pair first, and never padded.
    /// Errors: `Error::Format` if it is no tokenizer or knows more words than the model;
    /// `Error::Config` if `max_len` leaves no room for text.
    pub fn from_bytes(
        json: &[u8],
        path: &Path,
        max_len: usize,
        vocab: usize,
        types: usize,
    ) -> Result<TextEncoder> {
        let tokenizer =
            Inner::from_bytes(json).map_err(|e| Error::format(path, format!("not a tokenizer: {e}")))?;
        let special = tokenizer.special(true).max(tokenizer.special(false));
        if max_len <= special {
            return Err(Error::Config(format!(
                "a maximum length of {max_len} tokens leaves no room beside {special} special tokens"
            )));
        }
        let words = tokenizer.words();
        if words > vocab {
            let what = format!("the tokenizer has {words} words but the model's table only {vocab}");
            return Err(Error::format(path, what));
        }
        Ok(TextEncoder { tokenizer, path: path.to_owned(), seq_max: max_len, vocab, types })
    }

    /// Longest sequence it makes, in tokens.
    pub fn max_len(&self) -> usize {
        self.seq_max
    }

    /// Token ids of a text or a pair of texts.
    ///
    /// Errors: `Error::Format`, naming the tokenizer's file, if it fails, gives no token at all, or gives an
    /// id or a type that the model's tables do not have.
    pub fn encode(&self, a: &str, b: Option<&str>) -> Result<Encoded> {
        let mut a = self.tokens(a)?;
        let mut b = b.map(|b| self.tokens(b)).transpose()?;
        let room = self.seq_max - self.tokenizer.special(b.is_some());
        let (keep_a, keep_b) = longest_first(a.len(), b.as_ref().map_or(0, Encoding::len), room);
        cut(&mut a, keep_a);
        if let Some(b) = &mut b {
            cut(b, keep_b);
        }
        self.checked(&self.joined(a, b)?)
    }

    /// Token ids of the two texts of a pair, each as [`TextEncoder::encode`] gives it alone.
    ///
    /// Errors: likewise.
    pub fn encode_apart(&self, a: &str, b: &str) -> Result<Encoded> {
        let (mut pair, b) = (self.encode(a, None)?, self.encode(b, None)?);
        pair.append(b);
        Ok(pair)
    }

    /// Token ids of a text in as few windows of about equal length as it takes, at most 16. What is longer is
    /// truncated.
    ///
    /// Errors: as [`TextEncoder::encode`].
    pub fn encode_long(&self, text: &str) -> Result<Encoded> {
        let room = self.seq_max - self.tokenizer.special(false);
        let mut tokens = self.tokens_for(text, WINDOWS_MAX * room)?;
        cut(&mut tokens, WINDOWS_MAX * room);
        let windows = tokens.len().div_ceil(room).max(1);
        tokens.truncate(tokens.len().div_ceil(windows).max(1), 0, TruncationDirection::Right);
        let more = tokens.take_overflowing();
        let mut all = self.checked(&self.joined(tokens, None)?)?;
        for window in more {
            all.append(self.checked(&self.joined(window, None)?)?);
        }
        all.ids.shrink_to_fit();
        all.types.shrink_to_fit();
        Ok(all)
    }

    fn joined(&self, a: Encoding, b: Option<Encoding>) -> Result<Encoding> {
        let fail = |what: String| Error::format(&self.path, what);
        let encoding = self.tokenizer.join(a, b).map_err(|e| fail(format!("tokenizing failed: {e}")))?;
        if encoding.is_empty() {
            return Err(fail("the tokenizer gives no token for an empty text".into()));
        }
        Ok(encoding)
    }

    /// Ids and types that the model's tables have.
    fn checked(&self, encoding: &Encoding) -> Result<Encoded> {
        let fail = |what: String| Error::format(&self.path, what);
        let checked = |values: &[u32], limit: usize, what: &str| {
            let row = |&v: &u32| match i32::try_from(v) {
                Ok(row) if (v as usize) < limit => Ok(row),
                _ => Err(fail(format!("the tokenizer gives {what} {v} but the model has {limit}"))),
            };
            values.iter().map(row).collect::<Result<Vec<i32>>>()
        };
        Ok(Encoded {
            ids: checked(encoding.get_ids(), self.vocab, "token id")?,
            types: match self.types {
                0 => vec![0; encoding.len()],
                types => checked(encoding.get_type_ids(), types, "token type")?,
            },
            more: Vec::new(),
        })
    }

    /// Token ids of words, and the row of each word's first piece: none for a word without any, or one that was cut off.
    ///
    /// Errors: as [`TextEncoder::encode`].
    pub fn encode_words(&self, words: &[&str]) -> Result<(Encoded, Vec<Option<usize>>)> {
        // Beyond these no piece is kept, but for words that have none.
        let some = &words[..words.len().min(4 * self.seq_max + WORD_PIECES_MAX)];
        let tokens = self.tokenizer.word_tokens(some);
        let mut tokens = tokens.map_err(|e| Error::format(&self.path, format!("tokenizing failed: {e}")))?;
        cut(&mut tokens, self.seq_max - self.tokenizer.special(false));
        let encoding = self.joined(tokens, None)?;
        let mut starts = vec![None; words.len()];
        let pieces = encoding.get_word_ids().iter().zip(encoding.get_special_tokens_mask()).enumerate();
        for (row, (word, special)) in pieces {
            if let (Some(word), 0) = (word, special) {
                starts[*word as usize].get_or_insert(row);
            }
        }
        Ok((self.checked(&encoding)?, starts))
    }

    /// A question and its context as windows that share up to `stride` tokens of the context with the next: at least one,
    /// and all of the context together.
    ///
    /// The question gets half of a window at most, and windows share at most half of what is left: so their number is
    /// bounded by the context's tokens. Errors: as [`TextEncoder::encode`].
    pub fn encode_windows(&self, question: &str, context: &str, stride: usize) -> Result<Vec<Window>> {
        let room = self.seq_max - self.tokenizer.special(true);
        let mut question = self.tokens(question)?;
        cut(&mut question, room / 2);
        let room = room - question.len();
        let part = self.tokenizer.placed_tokens(context);
        let mut part = part.map_err(|e| Error::format(&self.path, format!("tokenizing failed: {e}")))?;
        part.truncate(room, stride.min(room / 2), TruncationDirection::Right);
        let more = part.take_overflowing();
        let window = |part| {
            let encoding = self.joined(question.clone(), Some(part))?;
            let rows = encoding.get_sequence_ids().into_iter().zip(encoding.get_offsets());
            let place = |(sequence, &(from, to))| (sequence == Some(1)).then_some((from as u32, to as u32));
            Ok(Window { places: rows.map(place).collect(), text: self.checked(&encoding)? })
        };
        std::iter::once(part).chain(more).map(window).collect()
    }

    /// All of a text as one sequence, or as several that follow one another where it is longer.
    ///
    /// Errors: as [`TextEncoder::encode`].
    pub fn encode_parts(&self, text: &str) -> Result<Vec<Encoded>> {
        let fail = |e| Error::format(&self.path, format!("tokenizing failed: {e}"));
        let mut part = self.tokenizer.tokens(text).map_err(fail)?;
        part.truncate(self.seq_max - self.tokenizer.special(false), 0, TruncationDirection::Right);
        let more = part.take_overflowing();
        std::iter::once(part).chain(more).map(|part| self.checked(&self.joined(part, None)?)).collect()
    }

    /// The mask token as it is written and its number, and the words that can be hidden behind it: all but special tokens.
    ///
    /// Errors: `Error::Format` for a tokenizer without a mask token, or without words.
    pub fn words(&self) -> Result<(String, i32, Vec<i32>)> {
        let special = self.tokenizer.special_tokens();
        let mask = special.iter().find(|(_, token)| matches!(&token[..], "[MASK]" | "<mask>"));
        let what = "its tokenizer has no mask token ([MASK] or <mask>), so no word can be hidden";
        let (mask, name) = mask.ok_or_else(|| Error::format(&self.path, what))?.clone();
        let is_word = |id: &i32| special.iter().all(|(s, _)| i64::from(*s) != i64::from(*id));
        let ordinary: Vec<i32> = (0..self.tokenizer.words() as i32).filter(is_word).collect();
        if ordinary.is_empty() || mask as usize >= self.vocab {
            return Err(Error::format(
                &self.path,
                "its tokenizer's special tokens leave no word, or lie outside the model's table",
            ));
        }
        Ok((name, mask as i32, ordinary))
    }

    /// A token as text. Errors: `Error::Format` where the tokenizer cannot say.
    pub fn decode(&self, id: usize) -> Result<String> {
        let decoded = self.tokenizer.decode(u32::try_from(id).unwrap_or(u32::MAX));
        decoded.map_err(|e| Error::format(&self.path, format!("decoding token {id} failed: {e}")))
    }

    /// Counts the tokens of a text or a pair, and tells whether they exceed this number of windows. Counting stops a little
    /// behind the last window.
    pub(crate) fn survey(&self, a: &str, b: Option<&str>, windows: usize) -> Result<Survey> {
        let unknown: Vec<u32> = self
            .tokenizer
            .special_tokens()
            .into_iter()
            .filter(|(_, token)| matches!(&token[..], "[UNK]" | "<unk>"))
            .map(|(id, _)| id)
            .collect();
        let mut found = Survey { texts: 1, ..Survey::default() };
        for text in std::iter::once(a).chain(b) {
            let tokens = self.tokens_for(text, windows * self.seq_max)?;
            found.tokens += tokens.len();
            found.unknown += tokens.get_ids().iter().filter(|id| unknown.contains(id)).count();
        }
        let room = self.seq_max - self.tokenizer.special(b.is_some());
        found.truncated = usize::from(found.tokens > windows * room);
        Ok(found)
    }

    /// Token ids of every example, in order; on all threads.
    pub fn encode_all(&self, examples: &[Example]) -> Result<Vec<Encoded>> {
        examples.par_iter().map(|e| self.encode(&e.text_a, e.text_b.as_deref())).collect()
    }

    /// The tokens of as much of the start of `text` as decides which of one sequence are kept.
    fn tokens(&self, text: &str) -> Result<Encoding> {
        self.tokens_for(text, self.seq_max)
    }

    /// The first `wanted` tokens of `text`, or some more.
    ///
    /// A text of a megabyte need not be normalized and looked up to keep 128 tokens of it. The last word of
    /// a shortened text may be cut in two and its pieces be wrong, hence the margin: the first `wanted`
    /// tokens are those of the whole text, and there are as many.
    fn tokens_for(&self, text: &str, wanted: usize) -> Result<Encoding> {
        let enough = wanted + WORD_PIECES_MAX;
        let mut bytes = enough * TOKEN_BYTES;
        loop {
            let head = &text[..text.ceil_char_boundary(bytes)];
            let tokens = self.tokenizer.tokens(head);
            let tokens = tokens.map_err(|e| Error::format(&self.path, format!("tokenizing failed: {e}")))?;
            let looked_enough = tokens.len() >= enough || bytes >= enough * TOKEN_BYTES_MAX;
            if head.len() == text.len() || looked_enough {
                return Ok(tokens);
            }
            bytes *= 8;
        }
    }
}

/// How many tokens of a pair to keep so that they are `room` together: the longer text gives way first.
///
/// Equal to `longest_first` of the Hugging Face tokenizers, down to which text gets the odd token. (Two
/// texts that are both shortened before tokenizing count as they are then.)
fn longest_first(a: usize, b: usize, room: usize) -> (usize, usize) {
    if a + b <= room {
        return (a, b);
    }
    let (short, long) = (a.min(b), a.max(b));
    let (short, long) = match short + short <= room {
        true => (short, long.min(room - short)),
        false => (room / 2, room - room / 2),
    };
    if a > b { (long, short) } else { (short, long) }
}

/// Keeps the first `n` tokens.
fn cut(encoding: &mut Encoding, n: usize) {
    encoding.truncate(n, 0, TruncationDirection::Right);
    // The rest is kept aside as further windows, and each would get its special tokens too.
    encoding.take_overflowing();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every letter is a piece; `hello` and `##llo` are words.
    fn json(model: &str) -> String {
        let mut pieces: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from).to_vec();
        pieces.extend(('a'..='z').map(String::from));
        pieces.extend(('a'..='z').map(|c| format!("##{c}")));
        pieces.extend(["hello", "##llo", "!"].map(String::from));
        let vocab: Vec<String> = pieces.iter().enumerate().map(|(i, p)| format!("\"{p}\":{i}")).collect();
        let special = |id: usize, name: &str| {
            format!(
                "{{\"id\":{id},\"content\":\"{name}\",\"single_word\":false,\"lstrip\":false,\
                 \"rstrip\":false,\"normalized\":false,\"special\":true}}"
            )
        };
        format!(
            r#"{{"version":"1.0","truncation":{{"direction":"Left","max_length":2,"strategy":"OnlyFirst","stride":0}},
            "padding":{{"strategy":{{"Fixed":99}},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,
            "pad_type_id":0,"pad_token":"[PAD]"}},
            "added_tokens":[{},{},{},{}],
            "normalizer":{{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,
            "strip_accents":null,"lowercase":true}},"pre_tokenizer":{{"type":"BertPreTokenizer"}},
            "post_processor":{{"type":"BertProcessing","sep":["[SEP]",3],"cls":["[CLS]",2]}},"decoder":null,
            "model":{{"type":"{model}","unk_token":"[UNK]","continuing_subword_prefix":"\#\#",
            "max_input_chars_per_word":100,"vocab":{{{}}}}}}}"#,
            special(0, "[PAD]"),
            special(1, "[UNK]"),
            special(2, "[CLS]"),
            special(3, "[SEP]"),
            vocab.join(",")
        )
        .replace("\\#", "#")
    }

    fn encoder(max_len: usize) -> TextEncoder {
        TextEncoder::from_bytes(json("WordPiece").as_bytes(), Path::new("t"), max_len, 59, 2).unwrap()
    }

    #[test]
    fn special_tokens_types_and_unknown_words() {
        let t = encoder(16);
        let e = t.encode("Hello HALLO!", Some("é [SEP] 9")).unwrap();
        // hello = 56, ##llo = 57, ! = 58, letters from 4, ##letters from 30
        assert_eq!(e.ids, [2, 56, 11, 30, 57, 58, 3, 8, 3, 1, 3]);
        assert_eq!(e.types, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(t.encode("", None).unwrap(), Encoded::plain(vec![2, 3]));
        assert_eq!(t.encode(" ", Some("")).unwrap().ids, [2, 3, 3]);
    }

    #[test]
    fn words_and_their_first_pieces() {
        let t = encoder(8);
        let words = |words: &[&str]| {
            let (text, starts) = t.encode_words(words).unwrap();
            (text.ids, starts)
        };
        // hello = 56, ##llo = 57, ! = 58, letters from 4, ##letters from 30
        assert_eq!(words(&["Hello", "ab!", "\u{200b}", "a"]).0, [2, 56, 4, 31, 58, 4, 3]);
        assert_eq!(words(&["Hello", "ab!", "\u{200b}", "a"]).1, [Some(1), Some(2), None, Some(5)]);
        let (ids, starts) = words(&["abcd", "[SEP]", "ab", "c"]);
        assert_eq!(ids.len(), 8, "cut to 8: {ids:?}");
        assert_eq!((starts[0], starts[2], starts[3]), (Some(1), Some(6), None), "of `ab` one piece is left");
        assert_eq!(words(&[]), (vec![2, 3], vec![]));
        let many = vec!["a"; 100_000];
        assert_eq!(words(&many).1.iter().filter(|s| s.is_some()).count(), 6);
    }

    #[test]
    fn windows_of_a_context() {
        let t = encoder(8);
        let windows = |question: &str, stride| {
            let windows = t.encode_windows(question, "é hello, d e f", stride).unwrap();
            let places =
                |w: &Window| w.places.iter().flatten().map(|(a, b)| a * 100 + b).collect::<Vec<u32>>();
            windows.iter().map(|w| (w.text.ids[..].to_vec(), places(w))).collect::<Vec<_>>()
        };
        // hello = 56, letters from 4; `,` is unknown, `é` has two bytes
        let [one, two] = &windows("a", 2)[..] else { panic!("{:?}", windows("a", 2)) };
        assert_eq!(*one, (vec![2, 4, 3, 8, 56, 1, 7, 3], vec![2, 308, 809, 1011]), "{one:?}");
        assert_eq!(*two, (vec![2, 4, 3, 1, 7, 8, 9, 3], vec![809, 1011, 1213, 1415]), "{two:?}");
        assert_eq!(windows("a", 99), windows("a", 2), "half is shared at most");
        assert_eq!(windows("a", 0).iter().map(|w| w.1.len()).collect::<Vec<_>>(), [4, 2]);
        assert_eq!(windows("a b c d e", 0)[0].0, [2, 4, 5, 3, 8, 56, 1, 3], "the question gets half");
        let empty = t.encode_windows("a", "", 2).unwrap();
        assert_eq!((empty.len(), &empty[0].places[..]), (1, &[None; 4][..]));
        let tiny = TextEncoder::from_bytes(json("WordPiece").as_bytes(), Path::new("t"), 4, 59, 2).unwrap();
        assert_eq!(
            tiny.encode_windows("a b", "c d e", 9).unwrap().len(),
            3,
            "one token of the context at a time"
        );
    }

    #[test]
    fn long_texts_are_read_in_windows() {
        let t = encoder(8);
        let long = |text: &str| t.encode_long(text).unwrap();
        assert_eq!(long("a b c"), t.encode("a b c", None).unwrap(), "one window");
        // Seven tokens: four and three, not six and one.
        let seven = long("a b c d e f g");
        assert_eq!(seven.ids, [2, 4, 5, 6, 7, 3, 2, 8, 9, 10, 3]);
        assert_eq!(seven.sequences().collect::<Vec<_>>(), [0..6, 6..11]);
        assert_eq!(seven.types.len(), 11);
        assert_eq!(long("").ids, [2, 3]);
        let most = long(&"a ".repeat(1_000));
        assert_eq!((most.sequences().count(), most.ids.len()), (WINDOWS_MAX, 8 * WINDOWS_MAX));
        let survey = |text: &str, windows| t.survey(text, None, windows).unwrap().truncated;
        assert_eq!([survey("a b c d e f g", 1), survey("a b c d e f g", 2)], [1, 0]);
        assert_eq!(survey(&"a ".repeat(1_000), WINDOWS_MAX), 1);
    }

    #[test]
    fn longer_text_gives_way_first() {
        let t = encoder(8);
        let ids = |a: &str, b: &str| t.encode(a, Some(b)).unwrap().ids;
        // Checked with tokenizers 0.22.2 in Python: enable_truncation(8, strategy="longest_first").
        assert_eq!(ids("a", "b c d e f g"), [2, 4, 3, 5, 6, 7, 8, 3]);
        assert_eq!(ids("b c d e f g", "a"), [2, 5, 6, 7, 8, 3, 4, 3]);
        assert_eq!(ids("a b c d", "a b c d"), [2, 4, 5, 3, 4, 5, 6, 3]);
        assert_eq!(ids("a b c d e", "a b c d"), [2, 4, 5, 6, 3, 4, 5, 3]);
        assert_eq!(t.encode("a b c d e f g h", None).unwrap().ids, [2, 4, 5, 6, 7, 8, 9, 3]);
    }

    #[test]
    fn long_text_is_cut_before_tokenizing_without_a_difference() {
        let t = encoder(32);
        let whole = |text: &str| {
            let mut all = t.tokenizer.tokens(text).unwrap();
            cut(&mut all, 30);
            t.tokenizer.join(all, None).unwrap().get_ids().iter().map(|&i| i as i32).collect::<Vec<_>>()
        };
        let word = "a".repeat(5_000); // one unknown word, then others
        for text in [
            "hello ".repeat(1_000),
            "x".repeat(99) + &"é".repeat(4_000),
            " ".repeat(50_000) + "hello you",
            format!("{word} hello {word} b c"),
            "abcdefghij".repeat(9) + " " + &"xyz".repeat(3_000),
        ] {
            assert_eq!(t.encode(&text, None).unwrap().ids, whole(&text), "{}", &text[..20]);
        }
    }

    #[test]
    fn ids_and_types_the_model_lacks_are_refused() {
        let bytes = json("WordPiece");
        let from = |json: &str, max_len, vocab, types| {
            TextEncoder::from_bytes(json.as_bytes(), Path::new("t.json"), max_len, vocab, types)
        };
        let e = from(&bytes, 16, 58, 2).err().unwrap().to_string();
        assert_eq!(e, "t.json: the tokenizer has 59 words but the model's table only 58");
        let sparse = bytes.replace("\"hello\":56", "\"hello\":3000000000");
        let e = from(&sparse, 16, 59, 2).unwrap().encode("hello", None).unwrap_err().to_string();
        assert_eq!(e, "t.json: the tokenizer gives token id 3000000000 but the model has 59");
        let single = from(&bytes, 16, 59, 1).unwrap();
        assert!(single.encode("a", None).is_ok());
        let e = single.encode("a", Some("b")).unwrap_err().to_string();
        assert_eq!(e, "t.json: the tokenizer gives token type 1 but the model has 1");
        assert!(matches!(from(&bytes, 3, 59, 2), Err(Error::Config(_))));
        assert!(from(&bytes, 4, 59, 2).is_ok());
        for bad in ["", "{}", "null", "[1]", &bytes[..bytes.len() / 2], &bytes.replace("\"1.0\"", "\"9\"")] {
            assert!(matches!(from(bad, 16, 59, 2), Err(Error::Format { .. })), "{bad:.40}");
        }
    }

    #[test]
    fn no_token_at_all_is_an_error() {
        let bytes = json("WordPiece");
        let (start, rest) = bytes.split_once("\"post_processor\":").unwrap();
        let (_, end) = rest.split_once("\"decoder\"").unwrap();
        let bare = format!("{start}\"post_processor\":null,\"decoder\"{end}");
        let t = TextEncoder::from_bytes(bare.as_bytes(), Path::new("t"), 4, 59, 2).unwrap();
        assert_eq!(t.encode("a", Some("b")).unwrap().ids, [4, 5]);
        assert!(t.encode("", None).unwrap_err().to_string().contains("no token"));
    }

    #[test]
    fn other_models_work_too() {
        let json = json("WordLevel");
        let t = TextEncoder::from_bytes(json.as_bytes(), Path::new("t"), 8, 59, 2).unwrap();
        assert!(matches!(t.tokenizer, Inner::Any(_)));
        assert_eq!(t.encode("hello hallo", None).unwrap().ids, [2, 56, 1, 3]);
    }

    #[test]
    fn many_keep_their_order() {
        let t = encoder(8);
        let example = |i: usize| Example {
            text_a: char::from(b'a' + (i % 26) as u8).into(),
            line: i,
            ..Example::default()
        };
        let all = t.encode_all(&(0..200).map(example).collect::<Vec<_>>()).unwrap();
        for (i, e) in all.iter().enumerate() {
            assert_eq!(e.ids, [2, 4 + (i % 26) as i32, 3]);
        }
    }
}
