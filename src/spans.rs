//! Spans of tags, such as names by BIO tags, and their F1 as `seqeval` 1.2.2 counts it in its default mode.
//!
//! A tag is a prefix of one letter, a hyphen and the type of the span. `seqeval` reads all sentences as one sequence, with an
//! `O` behind each, and knows the prefixes B, I, E and S; any other letter continues a span of its type. So of BILOU and
//! BMEWO tags two spans of one type that touch can become one, or the first of them be lost (`U-x U-x`, `L-x B-x`). To score
//! these apart, write the tags as BIOES.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// How the spans of a tag set are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// IOB2: a span begins with B.
    Bio,
    /// IOB1: B only begins a span that follows another of its type.
    Iob1,
    /// IOE: E ends a span.
    Ioe,
    /// BIOES: E ends a span, S is one token.
    Bioes,
    /// BILOU: L ends a span, U is one token.
    Bilou,
    /// BMEWO or BMES: M is inside, E ends a span, W or S is one token.
    Bmewo,
    /// Prefixes of no known scheme.
    Other,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scheme::Bio => "BIO",
            Scheme::Iob1 => "IOB1",
            Scheme::Ioe => "IOE",
            Scheme::Bioes => "BIOES",
            Scheme::Bilou => "BILOU",
            Scheme::Bmewo => "BMEWO",
            Scheme::Other => "mixed prefixes",
        })
    }
}

/// The prefix of a tag and the type of its span, `_` where it has none; of a tag of another form both are empty.
fn parts(tag: &str) -> (&str, &str) {
    match tag.split_at_checked(1) {
        Some((prefix, "")) if is_prefix(prefix) || prefix == "O" => (prefix, "_"),
        Some((prefix, rest)) if is_prefix(prefix) && rest.len() > 1 && rest.starts_with('-') => {
            (prefix, &rest[1..])
        }
        _ => ("", ""),
    }
}

fn is_prefix(prefix: &str) -> bool {
    matches!(prefix, "B" | "I" | "E" | "S" | "L" | "U" | "M" | "W")
}

impl Scheme {
    /// The scheme of these tags; `None` if they are not of spans, such as parts of speech. Which of BIO and IOB1 it is, the
    /// set does not tell: it is BIO if there is a B.
    pub fn of_names<S: AsRef<str>>(names: &[S]) -> Option<Scheme> {
        let tags = || names.iter().map(AsRef::as_ref).filter(|tag| *tag != "O");
        let typed = |tag: &str| tag.len() > 1 && !parts(tag).0.is_empty();
        // Tags of one letter are prefixes only where all of them are: `M` and `I` are parts of speech too.
        let are_bare = || tags().all(is_prefix) && tags().any(|tag| tag == "B" || tag == "I");
        if !(tags().any(typed) || are_bare()) {
            return None;
        }
        let has = |prefix: &str| tags().any(|tag| parts(tag).0 == prefix);
        let is_within =
            |known: &str| tags().all(|tag| known.contains(parts(tag).0) && !parts(tag).0.is_empty());
        Some(match () {
            _ if is_within("BI") => {
                if has("B") {
                    Scheme::Bio
                } else {
                    Scheme::Iob1
                }
            }
            _ if is_within("IE") => Scheme::Ioe,
            _ if is_within("BIES") => Scheme::Bioes,
            _ if is_within("BILU") => Scheme::Bilou,
            _ if is_within("BMESW") => Scheme::Bmewo,
            _ => Scheme::Other,
        })
    }

    /// The scheme of the tags of some sentences, which also tell BIO from IOB1.
    pub fn of<'a>(sentences: impl Iterator<Item = &'a [&'a str]> + Clone) -> Option<Scheme> {
        let names: HashSet<&str> = sentences.clone().flatten().copied().collect();
        let names: Vec<&str> = names.into_iter().collect();
        let scheme = Scheme::of_names(&names)?;
        if scheme != Scheme::Bio {
            return Some(scheme);
        }
        // In BIO an I always continues a span of its type; in IOB1 a B always follows one.
        let (mut begins_with_i, mut needless_b) = (false, false);
        for sentence in sentences {
            let mut last = "";
            for tag in sentence {
                let (prefix, kind) = parts(tag);
                let kind = if prefix == "O" { "" } else { kind };
                begins_with_i |= prefix == "I" && kind != last;
                needless_b |= prefix == "B" && kind != last;
                last = kind;
            }
        }
        Some(if begins_with_i && !needless_b { Scheme::Iob1 } else { Scheme::Bio })
    }
}

/// A tag as `seqeval` takes it apart: the first letter, and what is behind the first hyphen, by number.
type Tag = (char, usize);

/// `seqeval`'s `chunk[0]` and `chunk[1:].split('-', maxsplit=1)[-1] or '_'`.
fn chunk(tag: &str) -> (char, &str) {
    let first = tag.chars().next().unwrap_or('O');
    let rest = tag.get(first.len_utf8()..).unwrap_or_default();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (first, if kind.is_empty() { "_" } else { kind })
}

/// F1 of the spans of `(truth, predicted)`, indices into `names`, of the tokens of each text; over all texts. 0 where the
/// names are not of spans.
pub fn f1(texts: &[Vec<(usize, usize)>], names: &[String]) -> f64 {
    if Scheme::of_names(names).is_none() {
        return 0.0;
    }
    let mut kinds: HashMap<&str, usize> = HashMap::from([("_", 0)]);
    let mut tag = |name| {
        let (prefix, kind) = chunk(name);
        let next = kinds.len();
        (prefix, *kinds.entry(kind).or_insert(next))
    };
    let tags: Vec<Tag> = names.iter().map(|name| tag(name)).collect();
    let outside = ('O', 0);
    let of = |i: usize| tags.get(i).copied().unwrap_or(outside);
    let ends = || std::iter::once((outside, outside));
    let all = || texts.iter().flat_map(|text| text.iter().map(|&(t, p)| (of(t), of(p))).chain(ends()));
    let truth = spans(all().map(|(t, _)| t));
    let predicted = spans(all().map(|(_, p)| p));
    // Both are sorted, so they can be merged.
    let (mut both, mut i, mut j) = (0usize, 0, 0);
    while let (Some(t), Some(p)) = (truth.get(i), predicted.get(j)) {
        match t.cmp(p) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (both, i, j) = (both + 1, i + 1, j + 1),
        }
    }
    match truth.len() + predicted.len() {
        0 => 0.0,
        all => 2.0 * both as f64 / all as f64,
    }
}

/// The spans of a sequence that ends with `O`: first token, last token and type, sorted, each once.
fn spans(tags: impl Iterator<Item = Tag>) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    // No type is equal to that before the first tag.
    let (mut last, mut begin) = (('O', usize::MAX), 0);
    for (i, now) in tags.enumerate() {
        if ends(last, now) {
            found.push((begin, i - 1, last.1));
        }
        if begins(last, now) {
            begin = i;
        }
        last = now;
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// `seqeval`'s `end_of_chunk`.
fn ends((last, last_kind): Tag, (now, kind): Tag) -> bool {
    matches!(last, 'E' | 'S')
        || (matches!(last, 'B' | 'I') && matches!(now, 'B' | 'S' | 'O'))
        || (!matches!(last, 'O' | '.') && last_kind != kind)
}

/// `seqeval`'s `start_of_chunk`.
fn begins((last, last_kind): Tag, (now, kind): Tag) -> bool {
    matches!(now, 'B' | 'S')
        || (matches!(last, 'E' | 'S' | 'O') && matches!(now, 'E' | 'I'))
        || (!matches!(now, 'O' | '.') && last_kind != kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sentences: &[&str]) -> Option<Scheme> {
        let sentences: Vec<Vec<&str>> = sentences.iter().map(|s| s.split(' ').collect()).collect();
        Scheme::of(sentences.iter().map(|s| &s[..]))
    }

    #[test]
    fn schemes() {
        for (sentences, wanted) in [
            (&["B-a I-a O B-a", "O"][..], Some(Scheme::Bio)),
            (&["B-a O B-b"], Some(Scheme::Bio)),
            (&["I-a I-a O", "O I-b B-b"], Some(Scheme::Iob1)),
            (&["I-a I-b"], Some(Scheme::Iob1)),
            (&["I-a B-b O"], Some(Scheme::Bio)),
            (&["I-a E-a O E-b"], Some(Scheme::Ioe)),
            (&["S-a O B-b E-b", "B-b I-b E-b"], Some(Scheme::Bioes)),
            (&["S-a O"], Some(Scheme::Bioes)),
            (&["U-a O B-b L-b"], Some(Scheme::Bilou)),
            (&["W-a O B-b M-b E-b"], Some(Scheme::Bmewo)),
            (&["B M E S B E"], Some(Scheme::Bmewo)),
            (&["B I O B"], Some(Scheme::Bio)),
            (&["B-a L-a E-a"], Some(Scheme::Other)),
            (&["B-a MISC O"], Some(Scheme::Other)),
            (&["NOUN VERB O"], None),
            (&["NP-SBJ -LRB- M I O"], None),
            (&["O O"], None),
            (&["O-"], None),
            (&["X-a Y-b"], None),
        ] {
            assert_eq!(of(sentences), wanted, "{sentences:?}");
        }
    }

    #[test]
    fn spans_of_tags() {
        let of = |tags: &'static str| {
            let kinds: Vec<(char, &str)> = tags.split(' ').map(chunk).collect();
            let number = |kind| kinds.iter().position(|(_, k)| *k == kind).unwrap();
            let tags: Vec<Tag> = kinds.iter().map(|(prefix, kind)| (*prefix, number(*kind))).collect();
            let all = spans(tags.into_iter().chain([('O', usize::MAX - 1)]));
            all.into_iter().map(|(from, to, kind)| (from, to, kinds[kind].1)).collect::<Vec<_>>()
        };
        assert_eq!(of("B-a I-a O B-a B-a I-b"), [(0, 1, "a"), (3, 3, "a"), (4, 4, "a"), (5, 5, "b")]);
        assert_eq!(of("I-a I-a I-b O I-b B I"), [(0, 1, "a"), (2, 2, "b"), (4, 4, "b"), (5, 6, "_")]);
        assert_eq!(of("B-creative-work I-creative-work"), [(0, 1, "creative-work")]);
        assert_eq!(of("S-a S-a B-a I-a E-a E-a"), [(0, 0, "a"), (1, 1, "a"), (2, 4, "a"), (5, 5, "a")]);
        assert_eq!(of("B-a L-a O U-b"), [(0, 1, "a"), (3, 3, "b")]);
        assert_eq!(of("U-a U-a O L-a B-a"), [(0, 1, "a"), (4, 4, "a")], "as seqeval has it");
    }

    #[test]
    fn tags_without_prefixes_have_no_spans() {
        let names = ["NOUN", "VERB"].map(String::from);
        assert_eq!(f1(&[vec![(0, 0), (1, 1)]], &names), 0.0);
        let names = ["O", "S-a"].map(String::from);
        assert_eq!(f1(&[vec![(1, 1), (0, 0)]], &names), 1.0, "every tag is right");
    }
}
