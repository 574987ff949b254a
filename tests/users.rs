//! Many users on one base: what a further one costs, and that none gets in another's way.

#[path = "common/mod.rs"]
mod common;

use common::Tiny;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use trimtab::data::Example;
use trimtab::import::Checkpoint;
use trimtab::{Base, Model, Options, Prediction, Task, TrainConfig, quant};

/// Examples that tell one user from the others: what is good to one is bad to the next.
fn examples(user: u64) -> Vec<Example> {
    let text = |i: u64| {
        format!(
            "{} was a very {} movie",
            ["it", "this", "that", "he"][i as usize % 4],
            ["good", "bad"][i as usize / 4 % 2]
        )
    };
    let label = |i: u64| ["good", "bad"][((i / 4 + user) % 2) as usize].to_owned();
    (0..8).map(|i| Example { text_a: text(i), label: Some(label(i)), ..Example::default() }).collect()
}

fn trained(base: &Base, user: u64, options: &Options) -> Model {
    let mut model = Model::new(base, Task::classify(["bad", "good"]), options).unwrap();
    let config = TrainConfig { seed: user, epochs: 3, lr: 1e-2, ..TrainConfig::default() };
    model.train(&examples(user), None, &config, |_| ControlFlow::Continue(())).unwrap();
    model
}

fn answers(model: &Model) -> Vec<Prediction> {
    examples(0).iter().map(|e| model.predict(&e.text_a, None).unwrap()).collect()
}

/// Eight threads ask for eight users while another trains and takes the place of a ninth: every answer is one that the user's
/// whole model gives alone.
#[test]
fn side_by_side() {
    fn shared<T: Send + Sync>() {}
    shared::<Base>();
    shared::<Model>();
    let dir = tempfile::tempdir().unwrap();
    let base = Tiny::new(7).base(dir.path());
    let options = Options { threads: Some(2), ..Options::default() };
    // On bases of their own, which share nothing.
    let alone = |user| answers(&trained(&Base::open(base.path()).unwrap(), user, &options));
    let alone: Vec<Vec<Prediction>> = (0..9).map(alone).collect();
    assert!(alone.windows(2).all(|two| two[0] != two[1]), "users differ");
    let models: Vec<Model> = (0..8).map(|user| trained(&base, user, &options)).collect();
    let ninth = RwLock::new(Arc::new(trained(&base, 0, &options)));
    let over = AtomicBool::new(false);
    let ask = |user: usize| {
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds == 0 {
            assert_eq!(answers(&models[user]), alone[user], "user {user}");
            let now = ninth.read().unwrap().clone();
            let now = answers(&now);
            assert!(
                now == alone[0] || now == alone[8],
                "a model that is neither the old nor the new: {now:?}"
            );
            rounds += 1;
        }
    };
    let ask = &ask;
    std::thread::scope(|s| {
        let askers: Vec<_> = (0..8).map(|user| s.spawn(move || ask(user))).collect();
        for user in [8, 0].into_iter().cycle().take(20) {
            let new = trained(&base, user, &options);
            *ninth.write().unwrap() = Arc::new(new);
        }
        over.store(true, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().unwrap());
    });
}

/// Opening another user's file, and what a thousand of them cost, on the real MiniLM where it is.
#[test]
fn a_thousand_sets_on_one_base() {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    let checkpoint = std::env::var_os("TRIMTAB_MINILM").map_or_else(default, PathBuf::from);
    let dir = tempfile::tempdir().unwrap();
    let real = checkpoint.join("config.json").exists();
    let base = match real {
        true => {
            let path = dir.path().join("base");
            let checkpoint = Checkpoint::open(&checkpoint).unwrap();
            quant::quantize(&checkpoint, &path, &mut |_, _| ControlFlow::Continue(())).unwrap();
            Base::open(path).unwrap()
        }
        false => {
            eprintln!("no MiniLM (models/get-minilm.py fetches it): a tiny model in its place");
            Tiny::new(7).base(dir.path())
        }
    };
    let options = Options { threads: Some(1), ..Options::default() };
    let file = dir.path().join("me.bias");
    let first = trained(&base, 0, &options);
    first.save(&file, false).unwrap();
    let other = dir.path().join("other.bias");
    trained(&base, 1, &options).save(&other, false).unwrap();
    let open = |file: &Path| Model::open(&base, file, &options).unwrap();

    let mut current = open(&file);
    let mut times = Vec::new();
    for file in [&other, &file].into_iter().cycle().take(400) {
        let start = Instant::now();
        current = open(file);
        times.push(start.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    drop(current);

    let before = resident();
    let users: Vec<Model> = (0..1000).map(|_| open(&file)).collect();
    let grown = resident().saturating_sub(before);
    let own = std::fs::metadata(&file).unwrap().len() as usize;
    println!(
        "swap: median {median:?}; 1,000 sets of {own} bytes: {grown} bytes more, {:.2} times their own",
        grown as f64 / 1000.0 / own as f64
    );
    // Ten times what it takes on a quiet machine: this one may not be, or be emulated.
    assert!(median < Duration::from_millis(2), "{median:?}");
    // b_k, which is not in the file, and of each 4 KiB for labels, settings and the allocator.
    assert!(grown < 1000 * (own * 11 / 10 + 4096), "{grown} bytes for 1,000 sets of {own}");
    assert_eq!(answers(&users[999]), answers(&first));
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident() -> usize {
    trimtab::sys::resident::now().unwrap_or(0) as usize
}
