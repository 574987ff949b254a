//! Many users at once: every answer is of one whole set of biases, while others train and swap.

use crate::handles::{Base, Examples, Model, chosen};
use crate::sandbox::Sandbox;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use trimtab::capi::trimtab_reply::Continue;
use trimtab::capi::trimtab_train_options;

const TEXT: &str = "they love a very good movie";
const THREADS: usize = 8;

/// Eight threads, a user each, and one model that all of them ask, which is trained, swapped and shared meanwhile.
#[test]
fn answers_are_of_one_whole_set() {
    let s = Sandbox::new();
    s.ok("train --base base --data train.tsv --out other.bias --epochs 2 --seed 9");
    let base = Base::open(&s.path("base"));
    let examples = Examples::of(&s.path("train.tsv"), "classify");
    let few = trimtab_train_options { epochs: 1, ..chosen() };
    let of = |file: &str| Model::open(&base, &s.path(file));
    let (me, other, trained) = (of("me.bias"), of("other.bias"), Model::new(&base, "classify", &[]));
    trained.learn(&examples, &few);
    let whole: BTreeSet<String> = [&me, &other, &trained].map(|m| m.predict(TEXT).json()).into();
    assert_eq!(whole.len(), 3, "three sets with an answer each");

    let common = of("me.bias");
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..THREADS)
            .map(|i| {
                let (common, whole, done, rounds) = (&common, &whole, &done, &rounds);
                let own = Model::open(&base, &s.path(["me.bias", "other.bias"][i % 2]));
                scope.spawn(move || {
                    let mine = own.predict(TEXT).json();
                    let mut seen = BTreeSet::new();
                    while !done.load(Ordering::Relaxed) {
                        assert_eq!(own.predict(TEXT).json(), mine, "a user's own model");
                        let answer = common.predict(TEXT).json();
                        assert!(whole.contains(&answer), "{answer} is of no whole set");
                        seen.insert(answer);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    seen
                })
            })
            .collect();
        // Some rounds of each set; fewer where one of the threads failed.
        let wait = || {
            let enough = rounds.load(Ordering::Relaxed) + 2 * THREADS;
            while rounds.load(Ordering::Relaxed) < enough && !askers.iter().any(|a| a.is_finished()) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        for _ in 0..10 {
            common.train(&examples, None, &few, |_| Continue).unwrap();
            wait();
            common.swap(&s.path("other.bias")).unwrap();
            wait();
            common.share(&me).unwrap();
            wait();
        }
        done.store(true, Ordering::Relaxed);
        let seen: BTreeSet<String> = askers.into_iter().flat_map(|a| a.join().unwrap()).collect();
        assert_eq!(seen, whole, "every set was asked");
    });
    assert_eq!(common.predict(TEXT).json(), me.predict(TEXT).json());
}

/// Two models that share with each other at once do not wait for each other for ever.
#[test]
fn sharing_both_ways() {
    let s = Sandbox::new();
    let base = Base::open(&s.path("base"));
    let (a, b) = (Model::open(&base, &s.path("me.bias")), Model::open(&base, &s.path("me.bias")));
    std::thread::scope(|scope| {
        scope.spawn(|| (0..1000).for_each(|_| a.share(&b).unwrap()));
        scope.spawn(|| (0..1000).for_each(|_| b.share(&a).unwrap()));
    });
    a.share(&a).unwrap();
    assert_eq!(a.predict(TEXT).json(), b.predict(TEXT).json());
}
