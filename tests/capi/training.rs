//! What a run tells, how it is ended, and what is there afterwards.

use crate::handles::{Base, Examples, Model, chosen};
use crate::sandbox::Sandbox;
use trimtab::capi::trimtab_reply::{Cancel, Continue, Stop};
use trimtab::capi::*;

fn few(s: &Sandbox) -> (Base, Examples, trimtab_train_options) {
    let examples = Examples::of(&s.path("train.tsv"), "classify");
    (
        Base::open(&s.path("base")),
        examples,
        trimtab_train_options { epochs: 3, batch: 4, effort: trimtab_effort::Quick as i32, ..chosen() },
    )
}

#[test]
fn progress() {
    let s = Sandbox::new();
    let (base, examples, options) = few(&s);
    let model = Model::new(&base, "classify", &[]);
    let dev = Examples::of(&s.path("dev.tsv"), "classify");
    let here = std::thread::current().id();
    let mut seen = Vec::new();
    let report = model
        .train(&examples, Some(&dev), &options, |p| {
            assert_eq!(std::thread::current().id(), here, "the callback is at home on the caller's thread");
            seen.push(*p);
            Continue
        })
        .unwrap();
    let events: Vec<trimtab_event> = seen.iter().map(|p| p.event).collect();
    let epoch = [vec![trimtab_event::Step; 4], vec![trimtab_event::Epoch]].concat();
    assert_eq!(events, [vec![trimtab_event::Begin], epoch.repeat(3)].concat());
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    assert!(first.loss.is_nan() && first.scores.examples == 6, "a head alone: {first:?}");
    assert_eq!((last.step, last.steps, last.epoch, last.epochs), (12, 12, 3, 3));
    assert_eq!((seen[4].epoch, seen[4].step, seen[4].scores.examples), (0, 4, 0));
    assert!(seen[1..].iter().all(|p| p.loss.is_finite() && p.epochs == 3));
    assert_eq!((report.examples, report.epochs, report.steps, report.stopped), (16, 3, 12, 0));
    assert!(report.biases > 0 && report.seconds > 0.0);
    assert_eq!(report.head_alone.main, first.scores.main);
    let best = seen.iter().filter(|p| p.scores.examples == 6).map(|p| p.scores.main).fold(0.0, f64::max);
    assert_eq!(report.scores.main, best);
    assert_eq!(model.evaluate(&dev).main, best, "the best epoch is what the model has");
}

#[test]
fn cancelled_leaves_the_model_as_it_was() {
    let s = Sandbox::new();
    let (base, examples, options) = few(&s);
    let model = Model::open(&base, &s.path("me.bias"));
    let answer = |model: &Model| model.predict("it was a very bad movie").json();
    let before = answer(&model);
    for at in [0, 1, 5, 14] {
        let mut calls = 0;
        let e = model
            .train(&examples, None, &options, |_| {
                calls += 1;
                if calls > at { Cancel } else { Continue }
            })
            .unwrap_err();
        assert_eq!(e.0, trimtab_status::Cancelled, "{}", e.1);
        assert_eq!((calls, answer(&model)), (at + 1, before.clone()), "asked once more, and not again");
    }
    let untrained = Model::new(&base, "classify", &[]);
    assert!(untrained.train(&examples, None, &options, |_| Cancel).is_err());
    assert!(untrained.try_predict("it").is_err());
}

#[test]
fn stopped_keeps_what_was_learned() {
    let s = Sandbox::new();
    let (base, examples, options) = few(&s);
    let model = Model::new(&base, "classify", &[]);
    let stop_at = |event, step| {
        move |p: &trimtab_progress| if p.event == event && p.step == step { Stop } else { Continue }
    };
    let report = model.train(&examples, None, &options, stop_at(trimtab_event::Epoch, 4)).unwrap();
    assert_eq!((report.stopped, report.epochs, report.kept, report.steps), (1, 1, 1, 4));
    let one = model.predict("it was").json();
    let report = model.train(&examples, None, &options, stop_at(trimtab_event::Step, 2)).unwrap();
    assert_eq!((report.stopped, report.kept, report.steps), (1, 0, 2));
    let two = model.predict("it was").json();
    assert!(one != two);
    let e = model.train(&examples, None, &options, |_| Stop).unwrap_err();
    assert_eq!(e.0, trimtab_status::Cancelled, "before the first step there is nothing to keep");
    assert_eq!(model.predict("it was").json(), two);
}

#[test]
fn diverged_leaves_the_model_as_it_was() {
    let s = Sandbox::new();
    let (base, examples, options) = few(&s);
    let model = Model::open(&base, &s.path("me.bias"));
    let before = model.predict("it").json();
    let options = trimtab_train_options { lr: 1e30, ..options };
    let e = model.train(&examples, None, &options, |_| Continue).unwrap_err();
    assert_eq!(e.0, trimtab_status::Diverged, "{}", e.1);
    assert_eq!(model.predict("it").json(), before);
}

/// A callback may use the library: the model that trains answers with what it had before. On one thread too, where the
/// answer must not wait for the run, which waits for the callback.
#[test]
fn a_callback_calls_back() {
    let s = Sandbox::new();
    let (base, examples, options) = few(&s);
    let model = Model::open_on(&base, &s.path("me.bias"), 1);
    let before = model.predict("it").json();
    let mut answers = Vec::new();
    model
        .train(&examples, None, &options, |_| {
            examples.add("added meanwhile", None, Some("neither"));
            answers.push(model.predict("it").json());
            Continue
        })
        .unwrap();
    assert!(answers.len() > 12 && answers.iter().all(|answer| *answer == before));
    assert!(model.predict("it").json() != before);
    assert_eq!(model.predict("it").labels().len(), 2, "learned from what was there when it began");
}

/// Handles may end in any order.
#[test]
fn lifetimes() {
    let s = Sandbox::new();
    let base = Base::open(&s.path("base"));
    let model = Model::open(&base, &s.path("me.bias"));
    drop(base);
    let answer = model.predict("it");
    let text = answer.text();
    drop(model);
    assert_eq!(answer.text(), text);
    assert_eq!(answer.labels().len(), 2);
}
