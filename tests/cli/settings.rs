//! Settings that make no sense, and those that make training diverge.

use crate::sandbox::{DIVERGED, IO, Sandbox, TINY, USAGE};

const TRAIN: &str = "train --base base --data train.tsv --out me.bias";

fn refuses(flags: &str, words: &[&str]) {
    Sandbox::new().refuses(&format!("{TRAIN} {flags}"), USAGE, words);
}

#[test]
fn numbers_out_of_range() {
    refuses("--epochs 0", &["epochs"]);
    refuses("--epochs many", &["--epochs", "many"]);
    refuses("--batch 0", &["batch"]);
    refuses("--lr 0", &["learning rate", "0"]);
    refuses("--lr=-1", &["learning rate", "-1"]);
    refuses("--lr nan", &["learning rate", "NaN"]);
    refuses("--lr inf", &["learning rate", "inf"]);
    refuses("--max-len 0", &["max-len 0", "4 or more"]);
    refuses("--max-len 1", &["max-len 1", "4 or more"]);
    refuses("--threads 0", &["--threads", "1..=1024"]);
    refuses("--warmup 2", &["warm-up", "between 0 and 1"]);
    refuses("--clip nan", &["clip"]);
    refuses("--dropout 1", &["dropout", "[0, 1)"]);
    refuses("--dropout nan", &["dropout", "[0, 1)"]);
    refuses("--weight-decay nan", &["weight decay"]);
    refuses("--weight-decay=-1", &["weight decay"]);
    refuses("--seed=-1", &["--seed", "-1"]);
    refuses("--limit 0", &["--limit"]);
}

#[test]
fn numbers_up_to_the_largest() {
    let s = Sandbox::new();
    let max = usize::MAX;
    s.ok(&format!("{TRAIN} --epochs 1 --batch {max} --limit {max} --dev dev.tsv --patience {max}"));
}

#[test]
fn max_len_beyond_the_positions_is_refused() {
    let s = Sandbox::new();
    let limit = ["the 64 positions of base", "use 64 or less"];
    for len in ["65", "128", "100000"] {
        let given = format!("max-len {len} is more than");
        let words = [&[&given[..]][..], &limit].concat();
        for line in [
            format!("{TRAIN} --max-len {len}"),
            format!("embed --base base --max-len {len} train.tsv"),
            format!("search --base base --max-len {len} --in train.tsv movie"),
            format!("import-bias me.bias --base base --labels a,b --output x --max-len {len}"),
            format!("experiment --base base --data train.tsv --dev dev.tsv --out tables --max-len {len}"),
        ] {
            s.refuses(&line, USAGE, &words);
        }
    }
    s.ok(&format!("{TRAIN} --epochs 1"));
    assert_eq!(s.json("inspect me.bias --json")["max_len"], 64, "the tiny model's positions");
}

#[test]
fn terms_and_layers() {
    refuses("--terms bogus", &["`bogus`", "emb_ln emb_proj q k v m1 ln1 m2 m3 ln2 pooler", "none"]);
    refuses("--terms= ", &["none"]);
    for range in ["5..9", "1..1", "2..1", "0..3"] {
        refuses(&format!("--layers {range}"), &[range, "0..2"]);
    }
    refuses("--layers 3", &["FROM..TO"]);
    refuses("--layers=-1..2", &["FROM..TO"]);
    refuses("--terms emb_ln --layers 1..2", &["emb_ln", "layers 1..2"]);
    refuses("--terms pooler --pool mean", &["pooler", "cls pooling", "none"]);
}

#[test]
fn training_b_k_is_explained() {
    let done = Sandbox::new().ok(&format!("{TRAIN} --epochs 1 --terms k"));
    assert!(done.stderr.contains("b_k cannot learn") && done.stderr.contains("softmax"), "{}", done.stderr);
}

#[test]
fn pooling_without_a_pooler() {
    let s = Sandbox::new();
    let tensors = std::fs::read(format!("{TINY}/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.contains("pooler"));
    std::fs::create_dir(s.path("model")).unwrap();
    s.write("model/model.safetensors", safetensors::serialize(kept, None).unwrap());
    for name in ["config.json", "tokenizer.json"] {
        s.write(&format!("model/{name}"), std::fs::read(format!("{TINY}/{name}")).unwrap());
    }
    s.ok("quantize model --output poolerless");
    assert_eq!(s.json("inspect poolerless --json")["pooler"], false);
    let train = "train --base poolerless --data train.tsv --out x.bias";
    s.refuses(&format!("{train} --pool cls"), USAGE, &["poolerless", "pooler", "mean"]);
    s.refuses(&format!("{train} --pool best"), USAGE, &["best", "auto", "cls", "mean"]);
    s.ok(&format!("{train} --pool mean --epochs 1"));
    s.ok("predict --base poolerless --bias x.bias hello");
}

#[test]
fn target_that_cannot_be() {
    let s = Sandbox::new();
    let train = "train --base base --data train.tsv";
    s.refuses(&format!("{train} --out none/x.bias"), USAGE, &["none/x.bias", "no directory"]);
    std::fs::create_dir(s.path("folder")).unwrap();
    s.refuses(&format!("{train} --out folder"), USAGE, &["folder", "is a directory"]);
    s.refuses(&format!("quantize {TINY} --output none/x"), IO, &["none/x"]);
    s.refuses(&format!("quantize {TINY} --output folder"), USAGE, &["folder", "directory"]);
    // a file where the plots' folder should be is found before training, not after
    s.refuses(&format!("{TRAIN} --plots base"), USAGE, &["--plots base", "not a directory"]);
}

/// Before training, not after: nothing is said of an epoch.
#[cfg(target_os = "linux")]
#[test]
fn target_that_cannot_be_written_is_found_early() {
    let done = Sandbox::new().run("train --base base --data train.tsv --out /proc/x.bias");
    done.failed("--out /proc/x.bias", IO, &["/proc/x.bias"]);
    assert!(!done.stderr.contains("epoch"), "{}", done.stderr);
    let s = Sandbox::new();
    assert!(s.program("mkfifo", &["pipe"]).status().unwrap().success());
    s.run(&format!("quantize {TINY} --output pipe")).failed("--output pipe", USAGE, &["pipe", "name a file"]);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link() {
    let s = Sandbox::new();
    std::os::unix::fs::symlink("me.bias", s.path("link")).unwrap();
    let old = s.read("me.bias");
    s.ok("train --base base --data train.tsv --out link --epochs 1");
    assert!(s.path("link").is_symlink() && s.read("me.bias") != old);
    s.no_leftovers();
}

#[test]
fn a_file_is_not_its_own_target() {
    let s = Sandbox::new();
    s.refuses("train --base base --data train.tsv --out base", USAGE, &["base", "--out"]);
    s.refuses("train --base base --data train.tsv --out train.tsv", USAGE, &["train.tsv", "--out"]);
    s.refuses(
        "train --base base --data train.tsv --dev dev.tsv --out ./dev.tsv",
        USAGE,
        &["dev.tsv", "--out"],
    );
    std::fs::create_dir(s.path("model")).unwrap();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        s.write(&format!("model/{name}"), std::fs::read(format!("{TINY}/{name}")).unwrap());
    }
    for name in ["config.json", "model.safetensors"] {
        s.refuses(&format!("quantize model --output model/{name}"), USAGE, &[name, "checkpoint"]);
    }
    s.ok("quantize model --output model/base");
    s.ok("quantize model --output model/base");
}

#[test]
fn flags_that_need_another() {
    refuses("--patience 2", &["patience", "held-out"]);
    refuses("--keep mcc", &["--dev"]);
    let s = Sandbox::new();
    s.refuses("train --base base --data train.tsv", USAGE, &["--out"]);
    s.refuses("train --base base --data train.tsv --out x --bogus", USAGE, &["--bogus"]);
    s.refuses("retrain", USAGE, &["retrain"]);
}

#[test]
fn unknown_kernel() {
    let s = Sandbox::new();
    for line in [
        TRAIN,
        "eval --base base --bias me.bias --data dev.tsv",
        "predict --base base --bias me.bias hello",
        "inspect",
    ] {
        let mut command = s.command(line);
        command.env("TRIMTAB_KERNEL", "bogus");
        s.refuses_with(command, line, USAGE, &["`bogus`", "portable"]);
    }
}

#[test]
fn huge_learning_rates_diverge() {
    for flags in [
        "--lr 1e30 --epochs 4",
        "--lr 1e30 --epochs 4 --dev dev.tsv",
        "--lr 1e30 --epochs 1 --batch 100", // the only update is the last
        "--lr 1e30 --epochs 1 --batch 100 --dev dev.tsv",
        "--lr 1e300 --epochs 4",
        "--lr 1e39 --terms pooler --epochs 1 --batch 100", // hidden by tanh
    ] {
        // an existing bias file is replaced by a good epoch only, and here there is none
        let words = ["diverged in epoch 1", "no epoch was finished", "--lr"];
        Sandbox::new().refuses(&format!("{TRAIN} {flags}"), DIVERGED, &words);
    }
}

#[test]
fn large_learning_rate_ends_one_way_or_the_other() {
    let s = Sandbox::new();
    let done = s.run(&format!("{TRAIN} --lr 1e9"));
    match done.code {
        Some(0) => s.json("eval --base base --bias me.bias --data dev.tsv --json"),
        _ => {
            done.failed("--lr 1e9", DIVERGED, &["diverged", "--lr"]);
            s.json("inspect me.bias --json")
        }
    };
    s.no_leftovers();
}
