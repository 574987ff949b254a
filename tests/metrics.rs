//! Scores of answers and of tags against the official SQuAD script's and seqeval's, on the same answers:
//! `tests/metrics/gen.py` writes the files.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use trimtab::train::answers::{exact_match, over_golds, token_f1};
use trimtab::train::metrics::tagging;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn assert_near(ours: f64, theirs: f64, what: &str) {
    assert!((ours - theirs).abs() <= 1e-12, "{what}: {ours}, not {theirs}");
}

#[derive(Deserialize)]
struct Squad {
    all: SquadScores,
    rows: Vec<SquadRow>,
}

#[derive(Deserialize)]
struct SquadScores {
    exact_match: f64,
    f1: f64,
}

#[derive(Deserialize)]
struct SquadRow {
    answer: String,
    golds: Vec<String>,
    #[serde(flatten)]
    scores: SquadScores,
}

#[test]
fn answers_score_as_by_the_official_script() {
    let Squad { all, rows } = read("squad.json");
    assert!(rows.len() > 200);
    let (mut exact, mut f1) = (0.0, 0.0);
    for row in &rows {
        let ours = over_golds(&row.answer, &row.golds, exact_match);
        assert_near(ours, row.scores.exact_match, &format!("exact match of {:?}", (&row.answer, &row.golds)));
        exact += ours;
        let ours = over_golds(&row.answer, &row.golds, token_f1);
        assert_near(ours, row.scores.f1, &format!("F1 of {:?}", (&row.answer, &row.golds)));
        f1 += ours;
    }
    assert_near(exact / rows.len() as f64, all.exact_match, "all");
    assert_near(f1 / rows.len() as f64, all.f1, "all");
}

#[derive(Deserialize)]
struct Tags {
    names: Vec<String>,
    all: TagScores,
    rows: Vec<TagRow>,
}

#[derive(Deserialize)]
struct TagScores {
    span_f1: f64,
}

#[derive(Deserialize)]
struct TagRow {
    truth: Vec<String>,
    predicted: Vec<String>,
    span_f1: f64,
}

#[test]
fn spans_of_tags_score_as_by_seqeval() {
    let Tags { names, all, rows } = read("seqeval.json");
    let index = |tag: &String| names.iter().position(|name| name == tag).unwrap();
    let sentences: Vec<Vec<(usize, usize)>> = rows
        .iter()
        .map(|row| row.truth.iter().map(index).zip(row.predicted.iter().map(index)).collect())
        .collect();
    let span_f1 = |sentences: &[Vec<(usize, usize)>]| tagging(sentences, &names, 0.0).get("span_f1").unwrap();
    for (row, sentence) in rows.iter().zip(&sentences) {
        let ours = span_f1(std::slice::from_ref(sentence));
        assert_near(ours, row.span_f1, &format!("{:?}", (&row.truth, &row.predicted)));
    }
    assert_near(span_f1(&sentences), all.span_f1, "all");
}
