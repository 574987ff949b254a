//! Which columns of a table, or keys of a JSON object, hold the label and the texts.

use super::list;

/// Which labels a file of examples must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelForm {
    /// None: they are taken where they are found.
    Nothing,
    /// A name for each example.
    Name,
    /// Any number of names for each example: between commas, or in JSON an array.
    Several,
    /// A number for each example.
    Number,
    /// A tag for each token of the text, between spaces as the tokens are, or in JSON an array.
    Tags,
    /// The answers to each question, parts of its context.
    Answers,
}

/// Which columns (or JSON keys) to read; `None` means the usual names. Upper and lower case do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Usually `label` or `labels`; of tags also `tags` or `ner_tags`. In a file of tagged tokens the number of the column,
    /// from 1, or its name in CoNLL-U.
    pub label: Option<String>,
    /// Usually `text_a`, `text` or `sentence`, for tags also `tokens` or `words`. In a file of tagged tokens as `label`. Several names between commas: their texts are joined by a space.
    pub text_a: Option<String>,
    /// Usually `text_b`; a file without it has single texts. May be several, as `text_a`.
    pub text_b: Option<String>,
}

/// A column that is looked for.
pub(super) struct Column<'a> {
    wanted: Option<&'a str>,
    usual: &'static [&'static str],
    what: &'static str,
    flag: &'static str,
}

impl Columns {
    pub(super) fn label(&self, want: LabelForm) -> Column<'_> {
        let usual: &[&str] = match want {
            LabelForm::Tags => &["label", "labels", "tags", "ner_tags"],
            _ => &["label", "labels"],
        };
        let (what, flag) = ("label", "--label-column");
        Column { wanted: self.label.as_deref(), usual, what, flag }
    }

    pub(super) fn text_a(&self, want: LabelForm) -> Column<'_> {
        let usual: &[&str] = match want {
            LabelForm::Tags => &["tokens", "words", "text_a", "text", "sentence"],
            LabelForm::Nothing => &["text_a", "text", "sentence", "tokens", "words"],
            _ => &["text_a", "text", "sentence"],
        };
        let (what, flag) = ("text", "--text-column");
        Column { wanted: self.text_a.as_deref(), usual, what, flag }
    }

    pub(super) fn text_b(&self) -> Column<'_> {
        let (usual, what, flag) = (&["text_b"][..], "second text", "--text-b-column");
        Column { wanted: self.text_b.as_deref(), usual, what, flag }
    }
}

impl Column<'_> {
    /// Whether the user named it.
    pub fn is_named(&self) -> bool {
        self.wanted.is_some()
    }

    /// Where it is among `names`; several places if the user named several, none if it is not there.
    ///
    /// Errors: what is wrong, in words.
    pub fn places<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<usize>, String> {
        if let Some(i) = self.one(names)? {
            return Ok(vec![i]);
        }
        let parts =
            || self.wanted.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
        if parts().count() < 2 {
            return Ok(Vec::new());
        }
        let mut places = Vec::new();
        for part in parts() {
            match place(names, part)? {
                Some(i) => places.push(i),
                None => return Err(format!("no column `{part}`; there is {}", list(names, 20))),
            }
        }
        Ok(places)
    }

    /// The place of the name, or of the first of the usual ones. Errors: it is there twice.
    pub fn one<S: AsRef<str>>(&self, names: &[S]) -> Result<Option<usize>, String> {
        match self.wanted {
            Some(wanted) => place(names, wanted),
            None => {
                for usual in self.usual {
                    if let Some(i) = place(names, usual)? {
                        return Ok(Some(i));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The one place where it is, or none. Errors: also if the user named several.
    pub fn place<S: AsRef<str>>(&self, names: &[S]) -> Result<Option<usize>, String> {
        if let Some(i) = self.one(names)? {
            return Ok(Some(i));
        }
        match self.places(names)?.as_slice() {
            [] => Ok(None),
            _ => Err(format!("{} takes one name", self.flag)),
        }
    }

    /// That it is not there. `names` are those that are, of a `whole`.
    pub fn missing<S: AsRef<str>>(&self, no: &str, whole: &str, names: &[S]) -> String {
        let looked_for = self.wanted.map_or_else(|| list(self.usual, 9), |name| list(&[name], 1));
        let has = match names.is_empty() {
            true => "no key".into(),
            false => list(names, 20),
        };
        format!(
            "{no} {} (looked for {looked_for}); the {whole} has {has}; name one with {}",
            self.what, self.flag
        )
    }
}

/// The place of a name: as it is written, else without regard to case and to white space around it.
fn place<S: AsRef<str>>(names: &[S], wanted: &str) -> Result<Option<usize>, String> {
    let exact = |name: &str| name == wanted;
    let folded = |name: &str| {
        let (a, b) = (name.trim(), wanted.trim());
        a.eq_ignore_ascii_case(b) || (!a.is_ascii() && a.to_lowercase() == b.to_lowercase())
    };
    let tests: [&dyn Fn(&str) -> bool; 2] = [&exact, &folded];
    for test in tests {
        let mut at = names.iter().enumerate().filter(|(_, name)| test(name.as_ref()));
        if let Some((i, _)) = at.next() {
            return match at.next() {
                Some(_) => Err(format!("the header has two columns `{wanted}`")),
                None => Ok(Some(i)),
            };
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_white_space_do_not_matter_but_the_exact_name_goes_first() {
        let columns = Columns::default();
        assert_eq!(columns.label(LabelForm::Name).place(&["ID", " Label "]), Ok(Some(1)));
        assert_eq!(columns.label(LabelForm::Name).place(&["LABEL", "label"]), Ok(Some(1)));
        assert!(
            columns.label(LabelForm::Name).place(&["LABEL", "Label"]).unwrap_err().contains("two columns")
        );
        assert_eq!(columns.text_a(LabelForm::Name).place(&["Text", "label"]), Ok(Some(0)));
        assert_eq!(columns.text_b().place(&["text", "label"]), Ok(None));
    }

    #[test]
    fn several_names() {
        let header = ["Subject", "body", "a,b"];
        let named = |name: &str| Columns { text_a: Some(name.into()), ..Columns::default() };
        assert_eq!(named("subject, Body").text_a(LabelForm::Name).places(&header), Ok(vec![0, 1]));
        assert_eq!(named("a,b").text_a(LabelForm::Name).places(&header), Ok(vec![2]));
        assert_eq!(named("none").text_a(LabelForm::Name).places(&header), Ok(vec![]));
        let e = named("Subject,none").text_a(LabelForm::Name).places(&header).unwrap_err();
        assert_eq!(e, "no column `none`; there is `Subject`, `body`, `a,b`");
        assert!(
            named("Subject,body")
                .text_a(LabelForm::Name)
                .place(&header)
                .unwrap_err()
                .contains("--text-column takes one")
        );
    }
}
