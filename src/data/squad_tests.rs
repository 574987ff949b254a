use super::super::problems::QUESTION;
use super::*;

fn with(json: &str, want: LabelForm, skip: bool) -> Result<(Vec<Example>, Option<String>)> {
    let path = Path::new("f");
    let mut problems = Problems::new(Path::new("f"), QUESTION);
    let got = read(json.as_bytes(), path, want, &mut problems)?;
    Ok((got, problems.end(skip)?))
}

fn text(json: &str, want: LabelForm) -> Result<Vec<Example>> {
    with(json, want, false).map(|(got, _)| got)
}

fn file(qas: &str) -> String {
    format!(
        r#"{{"version":"1.1","data":[{{"title":"t","paragraphs":[{{"context":"Ö is é, né","qas":[{qas}]}}]}}]}}"#
    )
}

fn answer(text: &str, start: usize) -> Answer {
    Answer { text: text.into(), start }
}

/// The answers of each question, `None` for an unanswerable one.
fn answers(json: &str) -> Vec<Option<Vec<Answer>>> {
    let got = text(json, LabelForm::Answers).unwrap_or_else(|e| panic!("{e}\n{json}"));
    let asked = got.into_iter().map(|e| e.asked.unwrap());
    asked.map(|asked| (!asked.unanswerable).then_some(asked.answers)).collect()
}

#[test]
fn offsets_are_characters_and_become_bytes() {
    let json = file(
        r#"{"id":"1","question":"what?","answers":[{"answer_start":5,"text":"é"},{"text":"né","answer_start":8}]},
           {"id":2,"question":"","answers":[{"answer_start":0,"text":"Ö is"}],"is_impossible":false}"#,
    );
    let got = text(&format!("\u{feff}{json}"), LabelForm::Answers).unwrap();
    let example = |line, id: &str, question: &str, answers| Example {
        text_a: question.into(),
        text_b: Some("Ö is é, né".into()),
        asked: Some(Box::new(Asked { id: id.into(), answers, unanswerable: false })),
        line,
        ..Example::default()
    };
    let wanted = [
        example(1, "1", "what?", vec![answer("é", 6), answer("né", 10)]),
        example(2, "2", "", vec![answer("Ö is", 0)]),
    ];
    assert_eq!(got, wanted);
    let bare = file(r#"{"id":"1","question":"q"}"#);
    let asked = text(&bare, LabelForm::Nothing).unwrap()[0].asked.clone().unwrap();
    assert_eq!((asked.answers, asked.unanswerable), (vec![], false));
    let e = text(&bare, LabelForm::Answers).unwrap_err().to_string();
    assert!(e.starts_with("f: question `1` (number 1): it has no `answers`"), "{e}");
}

#[test]
fn an_answer_is_taken_where_it_stands() {
    let one = |answers: &str| file(&format!(r#"{{"id":"7","question":"q","answers":{answers}}}"#));
    for (json, wanted) in [
        (r#"[{"answer_start":9,"text":"né"}]"#, answer("né", 10)),
        (r#"[{"answer_start":-1,"text":"né"}]"#, answer("né", 10)),
        (r#"[{"answer_start":8.0,"text":"né"}]"#, answer("né", 10)),
        (r#"[{"answer_start":5.0,"text":"é"}]"#, answer("é", 6)),
        (r#"[{"answer_start":"8","text":"né"}]"#, answer("né", 10)),
        (r#"[{"answer_start":1e300,"text":"né"}]"#, answer("né", 10)),
        (r#"[{"answer_start":null,"text":"is"}]"#, answer("is", 3)),
        (r#"[{"text":"is"}]"#, answer("is", 3)),
        (r#"[{"answer_start":0,"text":" is\n"}]"#, answer("is", 3)),
        (r#"[{"answer_start":1,"text":" is "}]"#, answer(" is ", 2)),
        (r#"{"text":["né"],"answer_start":[3]}"#, answer("né", 10)),
    ] {
        assert_eq!(answers(&one(json)), [Some(vec![wanted])], "{json}");
    }
}

#[test]
fn unanswerable_questions() {
    let json = file(
        r#"{"id":"1","question":"a","answers":[],"is_impossible":true,"plausible_answers":[{"text":"é","answer_start":5}]},
           {"id":"2","question":"b","is_impossible":true},
           {"id":"3","question":"c","answers":[]},
           {"id":"4","question":"d","answers":[{"text":"","answer_start":-1}],"is_impossible":true},
           {"id":"5","question":"e","answers":{"text":[],"answer_start":[]}},
           {"id":"6","question":"f","answers":[{"text":"is","answer_start":2}]}"#,
    );
    let none = || None;
    assert_eq!(answers(&json), [none(), none(), none(), none(), none(), Some(vec![answer("is", 3)])]);
}

#[test]
fn layouts_of_datasets() {
    let row = |id: &str, answers: &str| {
        format!(r#"{{"id":"{id}","title":"t","context":"Ö is é","question":"q","answers":{answers}}}"#)
    };
    let rows = [
        row("a", r#"{"text":["is","é"],"answer_start":[2,5]}"#),
        row("b", r#"{"text":[],"answer_start":[]}"#),
        row("c", r#"[{"text":"Ö","answer_start":0}]"#),
    ];
    let wanted = [Some(vec![answer("is", 3), answer("é", 6)]), None, Some(vec![answer("Ö", 0)])];
    for json in [
        rows.join("\n"),
        rows.join("\r\n") + "\n",
        format!("[{}]", rows.join(",")),
        format!("{{\"version\":\"1\",\"data\":[{}]}}", rows.join(",")),
    ] {
        assert_eq!(answers(&json), wanted, "{json}");
        let got = text(&json, LabelForm::Nothing).unwrap();
        assert_eq!(
            got.iter().map(|e| (e.line, &e.asked.as_ref().unwrap().id[..])).collect::<Vec<_>>(),
            [(1, "a"), (2, "b"), (3, "c")]
        );
    }
}

#[test]
fn questions_with_problems_are_listed_or_left_out() {
    let json = file(
        r#"{"id":"1","question":"a","answers":[{"text":"é","answer_start":0}]},
           {"id":"2","question":"b","answers":[{"text":"é","answer_start":5}]},
           {"id":"3","answers":[]},
           {"id":"4","question":"d","answers":[{"text":"x","answer_start":0}],"is_impossible":false}"#,
    );
    let e = text(&json, LabelForm::Answers).unwrap_err().to_string();
    let wanted = "f: 3 questions cannot be used; mend them, or leave them out with --skip-bad-lines:\n  \
                  question `1` (number 1): the answer `é` does not stand at character 0, and stands 2 times in the context\n  \
                  question `3` (number 3): it has no `question`\n  \
                  question `4` (number 4): the answer `x` does not stand at character 0, nor anywhere in the context";
    assert_eq!(e, wanted);
    let (got, skipped) = with(&json, LabelForm::Answers, true).unwrap();
    assert_eq!(got.iter().map(|e| e.line).collect::<Vec<_>>(), [2]);
    let skipped = skipped.unwrap();
    assert!(
        skipped.starts_with("f: 3 questions left out:") && skipped.contains("`4` (number 4)"),
        "{skipped}"
    );
}

#[test]
fn what_is_wrong_is_told() {
    let answer = |start: &str, text: &str| {
        file(&format!(
            r#"{{"id":"7","question":"q","answers":[{{"answer_start":{start},"text":"{text}"}}]}}"#
        ))
    };
    let seven = "f: question `7` (number 1): ";
    for (json, wanted) in [
        (String::new(), "f: the file is empty".to_owned()),
        ("\u{feff} \n".into(), "f: the file is empty".into()),
        (r#"{"data":[]}"#.into(), "f: there is no question in the file".into()),
        ("[]".into(), "f: there is no question in the file".into()),
        (file(""), "f: there is no question in the file".into()),
        ("{\n".into(), "f:2: bad JSON at column 0: EOF".into()),
        (
            "3".into(),
            "f:1: not as SQuAD has it at column 1: invalid type: integer `3`, expected an object".into(),
        ),
        ("{}".into(), "f: not as SQuAD has it: an object without `data`".into()),
        (r#"{"data":[{"title":"t"}]}"#.into(), "f: not as SQuAD has it: an object without `data`".into()),
        (r#"{"qas":[]}"#.into(), "f: not as SQuAD has it: a paragraph without `context`".into()),
        (r#"{"question":"q"}"#.into(), "f: not as SQuAD has it: a question without `context`".into()),
        (file(r#"{"id":"1"}"#), "f: question `1` (number 1): it has no `question`".into()),
        (
            answer("6", "é"),
            format!("{seven}the answer `é` does not stand at character 6, and stands 2 times"),
        ),
        (answer("-1", "é"), format!("{seven}the answer `é` does not stand at `-1`, and stands 2 times")),
        (answer("8", "né!"), format!("{seven}the answer `né!` does not stand at character 8, nor anywhere")),
        (answer("8", ""), format!("{seven}an answer is empty")),
        (
            file(r#"{"id":"7","question":"q","answers":[],"is_impossible":false}"#),
            format!("{seven}it has no answer, and"),
        ),
        (
            file(
                r#"{"id":"7","question":"q","answers":[{"text":"is","answer_start":2}],"is_impossible":true}"#,
            ),
            format!("{seven}it has an answer, and `is_impossible` is true"),
        ),
        (file(r#"{"id":"7","question":"q","answers":"is"}"#), "f:1: not as SQuAD has it at column".into()),
        ("[".repeat(100_000), "f:1: ".into()),
        (format!("{{\"data\":{}", "[".repeat(100_000)), "f:1: ".into()),
        (format!("{{\"x\":{}", "[".repeat(100_000)), "f:1: bad JSON".into()),
        (format!("{{\"x\":{}", "{\"x\":".repeat(100_000)), "f:1: bad JSON".into()),
    ] {
        let e = text(&json, LabelForm::Answers).unwrap_err().to_string();
        assert!(e.starts_with(&wanted), "{e}\n{wanted}");
    }
    let e = text("{\"context\":\"a\",\"question\":\"b\",\"answers\":[]}\n{\"context\":", LabelForm::Answers);
    assert!(e.unwrap_err().to_string().starts_with("f:2: bad JSON"));
    let mut problems = Problems::new(Path::new("f"), QUESTION);
    let bytes = &b"{\"data\":[{\"paragraphs\":[{\"context\":\"\xff\",\"qas\":[]}]}]}"[..];
    let e = read(bytes, Path::new("f"), LabelForm::Answers, &mut problems);
    assert!(e.unwrap_err().to_string().contains("unicode"));
}
