use super::super::problems::LINE;
use super::*;

fn with(
    text: &str,
    want: LabelForm,
    columns: &Columns,
    skip: bool,
) -> Result<(Vec<Example>, Option<String>)> {
    let path = Path::new("f");
    let mut problems = Problems::new(Path::new("f"), LINE);
    let got = read(text.as_bytes(), path, want, columns, &mut problems)?;
    Ok((got, problems.end(skip)?))
}

fn text(text: &str, want: LabelForm) -> Result<Vec<Example>> {
    with(text, want, &Columns::default(), false).map(|(got, _)| got)
}

/// `words|tags` of each sentence.
fn told(file: &str, columns: &Columns) -> Vec<String> {
    let (got, _) = with(file, LabelForm::Tags, columns, false).unwrap();
    got.iter().map(|e| format!("{}|{}", e.word_list().join("·"), e.label.as_deref().unwrap())).collect()
}

fn sentence(words: &str, tags: Option<&str>, line: usize) -> Example {
    Example { text_a: words.into(), label: tags.map(str::to_owned), line, ..Example::default() }
}

#[test]
fn tabs_or_spaces() {
    let got = text(
        "-DOCSTART- O\n\n# text = Jo\nJo\tx\tB-per\nruns\ty\tO\n\t\n\n\nyes  X\r\nno X",
        LabelForm::Tags,
    )
    .unwrap();
    assert_eq!(got, [sentence("Jo runs", Some("B-per O"), 4), sentence("yes no", Some("X X"), 9)]);
    assert_eq!(text("a\nb\n\n# c\n", LabelForm::Nothing).unwrap(), [sentence("a b", None, 1)]);
    assert!(text("\n \n\n", LabelForm::Tags).unwrap().is_empty());
}

#[test]
fn what_is_wrong_names_the_line() {
    for (file, wanted) in [
        ("a\tO\nb\n", "f:2: no tag behind `b` (--skip"),
        ("a\tO\nb\t\n", "f:2: no tag behind `b` (--skip"),
        ("a\tB x\n", "f:1: `B x` is not one tag (--skip"),
        ("\tO\n", "f:1: `` is not one token (--skip"),
        (
            "a O\n10 000 O\n",
            "f:2: 3 columns where the sentence begins with 2; a token with a space needs tabs",
        ),
        (
            "a\tO\nb\n\nc\nd\n",
            "f: 3 lines cannot be used; mend them, or leave them out with --skip-bad-lines:\n  line 2: no tag behind `b`\n  \
             line 4: no tag behind `c`\n  line 5",
        ),
        ("1\ta\ta\tX\t_\t_\t_\t_\t_\t_\n2\tb\tb\tX\n", "f:2: 4 columns where the format has 10 (--skip"),
        (
            "1\ta\ta\tX\t_\t_\t_\t_\t_\t_\nb\tb\tb\tX\t_\t_\t_\t_\t_\t_\n",
            "f:2: `b` is not the number of a token",
        ),
    ] {
        let e = text(file, LabelForm::Tags).unwrap_err().to_string();
        assert!(e.starts_with(wanted), "{e}");
    }
    let e = text(&"a\tO\n".repeat(WORDS_MAX + 1), LabelForm::Tags).unwrap_err().to_string();
    assert!(e.starts_with("f:10001: a sentence of more than 10000 tokens"), "{e}");
}

#[test]
fn sentences_with_bad_lines_can_be_left_out() {
    let (got, skipped) =
        with("a\tO\nb\n\nc\tO\nd\tO\n\n\tO\n", LabelForm::Tags, &Columns::default(), true).unwrap();
    assert_eq!(got, [sentence("c d", Some("O O"), 4)]);
    let skipped = skipped.unwrap();
    assert!(skipped.ends_with("line 2: no tag behind `b`\n  line 7: `` is not one token"), "{skipped}");
}

/// Tokens may hold spaces of every kind where tabs part the columns, and are kept one for one.
#[test]
fn spaces_in_tokens() {
    let columns = Columns::default();
    for word in ["10 000", "10\u{a0}000", "\u{a0}", "\u{3000}", "a\u{3000}b", " ", "a  b\u{2009}c"] {
        let got = told(&format!("a\tO\n{word}\tB-x\nb\tO\n"), &columns);
        assert_eq!(got, [format!("a·{word}·b|O B-x O")]);
    }
    assert_eq!(told("Jo  \tB-x\n", &columns), ["Jo|B-x"], "padding");
    // No-break spaces do not part columns.
    assert_eq!(told("10\u{a0}000 O\nx O\n", &columns), ["10\u{a0}000·x|O O"]);
    assert_eq!(
        with("\u{a0}\na\n", LabelForm::Nothing, &columns, false).unwrap().0[0].word_list(),
        ["\u{a0}", "a"]
    );
}

/// A line that begins with `#` is a token if it has the columns of one.
#[test]
fn hashes() {
    let columns = Columns::default();
    for (file, wanted) in [
        ("It PRP B-NP\n# # B-NP\n1.5 CD I-NP\n. . O\n", "It·#·1.5·.|B-NP B-NP I-NP O"),
        ("# O\nwow O\n@bob B-PER\n", "#·wow·@bob|O O B-PER"),
        ("#\tO\n#tag\tB-x\nwow\tO\n", "#·#tag·wow|O B-x O"),
        ("#fun O\nwow O\n", "#fun·wow|O O"),
        ("# #\na DT\n", "#·a|# DT"),
        ("# # B-NP\na DT O\n", "#·a|B-NP O"),
        ("# SYM B-NP\na DT O\n", "#·a|B-NP O"),
        ("#sent_id=1\n#text=a b\na\tO\nb\tB-X\n", "a·b|O B-X"),
        ("# sent_id = 2\na\tO\nc\tB-X\n", "a·c|O B-X"),
        ("# text = Jo\nJo NNP B-NP B-PER\nran V B-VP O\n", "Jo·ran|B-PER O"),
        ("#text=a b\na O\nb O\n", "a·b|O O"),
        ("# newpar\na O\nb B-X\n", "a·b|O B-X"),
        // MultiCoNER
        ("# id 5239d808-f300\tdomain=en\nJo _ _ B-PER\nran _ _ O\n", "Jo·ran|B-PER O"),
        ("# id 5239d808-f300 domain=en\nJo _ _ B-PER\nran _ _ O\n", "Jo·ran|B-PER O"),
        // CoNLL-2012
        ("#begin document (bc/cctv/00); part 000\nJo NNP (PER)\nran VB *\n", "Jo·ran|(PER) *"),
        // GermEval 2014
        ("#\thttp://x.de [2009]\n1\tJo\tB-PER\tO\n2\tran\tO\tO\n3\t#\tO\tO\n", "Jo·ran·#|O O O"),
    ] {
        assert_eq!(told(file, &columns), [wanted], "{file}");
    }
    let got = with("a\n#\n# x = y\n", LabelForm::Nothing, &columns, false).unwrap().0;
    assert_eq!(got[0].word_list(), ["a", "#"]);
}

#[test]
fn conll_u() {
    let file = "# sent_id = 1\n# text = vámonos # al mar\n1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_\n\
        1\tvamos\tir\tVERB\tv\t_\t0\troot\t_\t_\n2\tnos\tnosotros\tPRON\tp\t_\t1\tobj\t_\t_\n\
        3\t#\t#\tSYM\ts\t_\t1\tx\t_\t_\n3.1\tir\tir\tVERB\tv\t_\t_\t_\t0:x\t_\n\
        4\tmar azul\tmar\tNOUN\tn\t_\t1\tobl\t_\tSpaceAfter=No\n\n# sent_id = 2\n1\tsí\tsí\tINTJ\ti\t_\t0\troot\t_\t_\n";
    let columns = Columns::default();
    assert_eq!(told(file, &columns), ["vamos·nos·#·mar azul|VERB PRON SYM NOUN", "sí|INTJ"]);
    let of = |text: Option<&str>, label: &str| Columns {
        text_a: text.map(str::to_owned),
        label: Some(label.into()),
        ..Columns::default()
    };
    assert_eq!(told(file, &of(None, "5"))[1], "sí|i");
    assert_eq!(
        told(file, &of(Some("lemma"), "deprel"))[0],
        "ir·nosotros·#·mar|VERB PRON SYM NOUN".replace("VERB PRON SYM NOUN", "root obj x obl")
    );
    let e = with(file, LabelForm::Tags, &of(None, "ner"), false).unwrap_err().to_string();
    assert!(e.contains("no column `ner`") && e.contains("UPOS") && e.contains("--label-column"), "{e}");
    // CoNLL-U Plus
    let plus = "# global.columns = ID FORM UPOS NER\n1\tJo\tPROPN\tB-PER\n1.1\tx\t_\t_\n2\truns\tVERB\tO\n";
    assert_eq!(told(plus, &columns), ["Jo·runs|PROPN VERB"]);
    assert_eq!(told(plus, &of(None, "ner")), ["Jo·runs|B-PER O"]);
}

#[test]
fn other_columns() {
    let of = |text: &str, label: &str| Columns {
        text_a: Some(text.into()),
        label: Some(label.into()),
        ..Columns::default()
    };
    assert_eq!(
        told("B-x\tJo\nO\tran\n", &of("2", "1")),
        ["Jo·ran|B-x O"],
        "MIT's corpora have the tag first"
    );
    assert_eq!(told("Jo NNP B-NP B-PER\nran V O O\n", &of("1", "3")), ["Jo·ran|B-NP O"]);
    for (columns, wanted) in [
        (of("0", "1"), "no column `0`"),
        (of("1", "9"), "no tag behind `a`"),
        (of("7", "1"), "the token is in column 7"),
    ] {
        let e = with("a O\n", LabelForm::Tags, &columns, false).unwrap_err().to_string();
        assert!(e.contains(wanted), "{e}");
    }
    // Numbers are tokens unless they count each sentence's tokens.
    let columns = Columns::default();
    assert_eq!(told("1 CD O\n2 CD O\n\n1 CD O\n5 CD O\n", &columns)[1], "1·5|O O");
}
