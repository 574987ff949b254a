//! Labels that differ only in white space or in how Unicode writes them are one label.

use super::{Example, LabelForm, list};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use unicode_normalization::{UnicodeNormalization, is_nfc};

fn invisible(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// Whether nothing would be left of a label.
pub(super) fn is_blank(label: &str) -> bool {
    label.chars().all(invisible)
}

/// A label without white space around it, with single spaces in it, in Unicode's composed form (NFC).
pub(crate) fn clean(label: &str) -> Cow<'_, str> {
    let spaces_are_fine = label.split(' ').all(|part| !part.is_empty() && !part.contains(invisible));
    if spaces_are_fine && is_nfc(label) {
        return Cow::Borrowed(label);
    }
    let parts: Vec<&str> = label.split(invisible).filter(|part| !part.is_empty()).collect();
    Cow::Owned(parts.join(" ").nfc().collect())
}

/// Merged labels that a remark shows.
const SHOWN: usize = 5;

/// Cleans the labels of examples; a remark about those that were written in several ways.
pub(super) fn clean_all(examples: &mut [Example], want: LabelForm) -> Option<String> {
    // Nearly all files have no other labels.
    let is_plain = |e: &Example| e.label.as_ref().is_none_or(|l| l.bytes().all(|b| b.is_ascii_graphic()));
    if examples.iter().all(is_plain) {
        return None;
    }
    // What each way of writing is cleaned to: most lines have a label that was there before.
    let mut known: HashMap<String, String> = HashMap::new();
    let mut clean_one = |label: &mut String| match known.get(label.as_str()) {
        Some(cleaned) => {
            if cleaned != label {
                label.clone_from(cleaned);
            }
        }
        None => {
            let cleaned = clean(label).into_owned();
            known.insert(std::mem::replace(label, cleaned.clone()), cleaned);
        }
    };
    for label in examples.iter_mut().filter_map(|e| e.label.as_mut()) {
        match want {
            LabelForm::Name | LabelForm::Nothing => clean_one(label),
            // White space behind a comma is no part of a name.
            LabelForm::Several => {
                let mut names: Vec<String> = label.split(',').map(|name| name.trim().to_owned()).collect();
                names.iter_mut().for_each(&mut clean_one);
                *label = names.join(",");
            }
            LabelForm::Number => {
                if let Cow::Owned(cleaned) = clean(label) {
                    *label = cleaned;
                }
            }
            LabelForm::Tags | LabelForm::Answers => {}
        }
    }
    let mut ways: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (way, cleaned) in known {
        ways.entry(cleaned).or_default().insert(way);
    }
    let several: Vec<String> = ways
        .into_iter()
        .filter(|(_, ways)| ways.len() > 1)
        .map(|(label, ways)| {
            let ways: Vec<String> = ways.iter().map(|way| way.replace('\u{a0}', "\\u{a0}")).collect();
            format!("{} are one label, `{label}`", list(&ways, 4))
        })
        .collect();
    if several.is_empty() {
        return None;
    }
    let more = several.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let shown = several[..several.len().min(SHOWN)].join("; ");
    Some(format!("labels that differ only in white space or Unicode's form are merged: {shown}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_and_form() {
        for (label, wanted) in [
            ("later", "later"),
            ("later ", "later"),
            ("\u{feff}later\u{a0}", "later"),
            ("very  good", "very good"),
            ("very\u{a0}good", "very good"),
            ("cafe\u{301}", "café"),
            ("", ""),
            ("a b c", "a b c"),
        ] {
            assert_eq!(clean(label), wanted);
        }
        assert!(matches!(clean("a b c"), Cow::Borrowed(_)));
    }

    #[test]
    fn one_remark_for_all_labels() {
        let of = |label: &str| Example { label: Some(label.into()), ..Example::default() };
        let mut examples = ["later", "later ", "now", "later ", " now"].map(of);
        let remark = clean_all(&mut examples, LabelForm::Name).unwrap();
        let words = "merged: `later`, `later ` are one label, `later`; ` now`, `now` are one label, `now`";
        assert!(remark.ends_with(words), "{remark}");
        assert_eq!(examples.map(|e| e.label.unwrap()), ["later", "later", "now", "later", "now"]);
        let mut several = ["a, b", "a ,b", ""].map(of);
        assert_eq!(clean_all(&mut several, LabelForm::Several), None);
        assert_eq!(several.map(|e| e.label.unwrap()), ["a,b", "a,b", ""]);
        let mut plain = ["a", "b,a", "", "a"].map(of);
        assert_eq!(clean_all(&mut plain, LabelForm::Several), None);
        assert_eq!(plain.map(|e| e.label.unwrap()), ["a", "b,a", "", "a"]);
        let mut tags = ["O  B-x"].map(of);
        assert_eq!(clean_all(&mut tags, LabelForm::Tags), None);
        assert_eq!(tags[0].label.as_deref(), Some("O  B-x"));
    }
}
