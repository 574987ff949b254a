//! Scores of answers and of tags against the official SQuAD script's and seqeval's, on the same answers:
//! `tests/metrics/gen.py` writes the files.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use trimtab::train::answers::{exact_match, over_golds, squad_2, token_f1};
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

#[derive(Deserialize)]
struct Squad2 {
    all: HashMap<String, f64>,
    rows: Vec<Squad2Row>,
}

#[derive(Deserialize)]
struct Squad2Row {
    answer: String,
    golds: Vec<String>,
    exact: f64,
    f1: f64,
}

/// Where a question may have no answer.
#[test]
fn answers_score_as_by_the_script_of_squad_2() {
    let Squad2 { all, rows } = read("squad2.json");
    let mut of: HashMap<&str, Vec<[f64; 2]>> = HashMap::new();
    for row in &rows {
        let ours = squad_2(&row.answer, &row.golds);
        assert_near(ours[0], row.exact, &format!("exact of {:?}", (&row.answer, &row.golds)));
        assert_near(ours[1], row.f1, &format!("F1 of {:?}", (&row.answer, &row.golds)));
        let part = if row.golds.is_empty() { "NoAns_" } else { "HasAns_" };
        of.entry(part).or_default().push(ours);
        of.entry("").or_default().push(ours);
    }
    assert!(of["NoAns_"].len() > 20 && of["HasAns_"].len() > 100);
    for (part, scores) in of {
        for (i, name) in ["exact", "f1"].into_iter().enumerate() {
            let mean = scores.iter().map(|s| s[i]).sum::<f64>() / scores.len() as f64;
            assert_near(mean, all[&format!("{part}{name}")], &format!("{part}{name}"));
        }
    }
}

#[derive(Deserialize)]
struct File {
    scheme: String,
    truth: Vec<Vec<String>>,
    predicted: Vec<Vec<String>>,
    span_f1: f64,
}

impl File {
    fn check(&self) {
        let tags = self.truth.iter().chain(&self.predicted).flatten();
        let names: Vec<String> = tags.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let index = |tag: &String| names.binary_search(tag).unwrap();
        let pair =
            |(t, p): (&Vec<String>, &Vec<String>)| t.iter().map(index).zip(p.iter().map(index)).collect();
        let texts: Vec<Vec<(usize, usize)>> = self.truth.iter().zip(&self.predicted).map(pair).collect();
        let ours = tagging(&texts, &names, 0.0).get("span_f1").unwrap();
        assert_near(ours, self.span_f1, &format!("{} {:?} {:?}", self.scheme, self.truth, self.predicted));
    }
}

#[derive(Deserialize)]
struct Files {
    rows: Vec<File>,
}

#[test]
fn every_scheme_scores_as_by_seqeval() {
    let Files { rows } = read("schemes.json");
    let mut schemes: HashMap<&str, usize> = HashMap::new();
    for file in &rows {
        file.check();
        *schemes.entry(&file.scheme).or_default() += 1;
    }
    assert_eq!((schemes.len(), schemes.values().min()), (6, Some(&30)));
}

/// More files, where there are some: `TRIMTAB_SEQEVAL` names what `gen.py --many` wrote.
#[test]
fn thousands_of_files_score_as_by_seqeval() {
    let Ok(path) = std::env::var("TRIMTAB_SEQEVAL") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().for_each(|line| serde_json::from_str::<File>(line).unwrap().check());
    println!("{} files", text.lines().count());
}
