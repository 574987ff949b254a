#!/usr/bin/env python3
"""What training learns, against a head alone and against PyTorch, over data sets, sizes and seeds.

  learn.py --exe target/release/trimtab --base minilm.q8.safetensors --data DIR --out learn.jsonl
  learn.py ... --rows torch-bitfit torch-full --peers DIR --python EXE --model DIR --seeds 0
  learn.py --out learn.jsonl --table

DIR has a folder for each data set, with train and dev (.tsv, .conll, .json). Every run is a line of --out: its score on dev
(of the epoch that does best there, for all rows alike) and the seconds of the whole process. What --out has already is not
run again. --per-label 8 replaces --sizes: it draws 8 lines of each label by the seed (classify only). --table prints
what it has of --rows and --sizes as Markdown: mean and deviation over the seeds, in percent.

Rows: `head`, the head alone, trained; `default`, no flags; `paper`, the paper's settings (a pair as one sequence, learning
rate 1e-3, 16 epochs, dropout in the encoder); `exact` and `setfit`, the default with that flag; `torch-bitfit` and
`torch-full`, fp32 by bitfit_ref.py of --peers, with as many epochs as the default and learning rates 1e-3 and 5e-5. --threads
for each. With --last a run of ours sees no dev, so that its last epoch is kept, which is then scored: as where examples are
few, and much sooner done. Such rows have names of their own: `default, last` and so on.

With --blind the scored lines play no part in training; benches/blind.py says how.
"""
import argparse
import collections
import itertools
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

import blind

CLASSIFY = ["sst2", "cola", "mrpc", "rte", "qnli", "mnli", "sms_spam", "tweet_emotion", "clinc150", "snips_intent"]
TASKS = {name: "classify" for name in CLASSIFY}
TASKS |= {"stsb": "regress", "wnut17": "tag", "ewt_pos": "tag", "snips_slots": "tag", "squad": "qa"}
MAIN = {"classify": "accuracy", "regress": "pearson", "tag": "span_f1", "qa": "f1"}
NO_SPANS = ["ewt_pos"]
ENDING = {"tag": "conll", "qa": "json"}
ROWS = {
    "head": ["--terms", "none"],
    "default": [],
    "paper": "--pool mean --head random --lr 1e-3 --epochs 16 --encoder-dropout 0.1".split(),
    "exact": ["--exact"],
    "setfit": ["--setfit"],
}
AVERAGED = ["head", "default", "torch-full"]
TORCH = {"torch-bitfit": ["--mode", "bitfit", "--lr", "1e-3"], "torch-full": ["--mode", "full", "--lr", "5e-5"]}


def score(task, metrics):
    """The task's main score."""
    return metrics["accuracy" if task in NO_SPANS else MAIN[TASKS[task]]]


def named(row, a):
    """As it stands in --out."""
    return f"{row}, last" if a.last and row not in TORCH else row


def files(a, task):
    ending = ENDING.get(TASKS[task], "tsv")
    return [os.path.join(a.data, task, f"{part}.{ending}") for part in ("train", "dev")]


def few_of_each(path, number, seed, folder):
    """A copy of a .tsv with so many lines of each label, drawn by the seed."""
    with open(path, encoding="utf-8", newline="\n") as f:
        header, *lines = f.read().splitlines()
    by_label = collections.defaultdict(list)
    for line in lines:
        by_label[line.split("\t", 1)[0]].append(line)
    draw = random.Random(seed)
    drawn = [line for label in sorted(by_label) for line in draw.sample(by_label[label], number)]
    draw.shuffle(drawn)
    out = os.path.join(folder, "train.tsv")
    with open(out, "w", encoding="utf-8", newline="\n") as f:
        f.write("\n".join([header, *drawn]) + "\n")
    return out


def ours(a, task, size, seed, row, folder):
    train, dev = files(a, task)
    out = os.path.join(folder, "out.bias.safetensors")
    if isinstance(size, str):
        train, size = few_of_each(train, a.per_label, seed, folder), 0
    common = ["--threads", str(a.threads), "--json"]
    command = [a.exe, "train", "--base", a.base, "--data", train, "--out", out, "--task", TASKS[task], "--seed", str(seed),
               *common, *ROWS[row]]
    command += ["--limit", str(size)] if size else []
    command += ["--hold-out", "0"] if a.last else ["--dev", dev]
    report = result_of(command)
    found = {"train_s": report["train_s"], "epochs": len(report["epochs"])}
    if not a.last:
        scores, last = report["result"]["metrics"], report["epochs"][-1]["dev"]
        return {"score": score(task, scores), "last": score(task, last)} | found
    command = [a.exe, "eval", "--base", a.base, "--bias", out, "--data", dev, *common]
    command += ["--exact"] if row == "exact" else []
    return {"score": score(task, result_of(command))} | found


def result_of(command):
    """Standard output as JSON."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def torch(a, task, size, seed, row):
    train, dev = files(a, task)
    epochs = max(3, min(20, 4000 // size)) if size else 3
    command = [a.python, os.path.join(a.peers, "bitfit_ref.py"), "--model", a.model, "--train", train, "--dev", dev,
               "--epochs", str(epochs), "--batch", "16", "--max-len", "128", "--pool", "mean", "--seed", str(seed),
               "--threads", str(a.threads), *TORCH[row]]
    command += ["--limit", str(size)] if size else []
    command += ["--regression"] if TASKS[task] == "regress" else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    epochs = [json.loads(line) for line in done.stdout.splitlines()]
    epochs = [e for e in epochs if not e.get("final")]
    scores = [e["pearson" if TASKS[task] == "regress" else "acc"] for e in epochs]
    return {"score": max(s for s in scores if s == s), "last": scores[-1], "train_s": epochs[-1]["train_s"],
            "epochs": len(epochs)}


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def table(results, rows, size):
    """Markdown of one size; the last line is the mean over the tasks that all of AVERAGED have, of the rows that have them all."""
    cells = collections.defaultdict(list)
    for r in results:
        if r["size"] == size:
            cells[r["task"], r["row"]].append(100 * r["score"])
    rows = [r for r in rows if any(row == r for _, row in cells)]
    if not rows:
        return
    print(f"\n| {size or 'all'} examples | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}")
    for task in TASKS:
        line = []
        for row in rows:
            scores = cells[task, row]
            deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            line.append(f"{statistics.mean(scores):.1f}{deviation}" if scores else "–")
        if set(line) != {"–"}:
            print(f"| {task} | {' | '.join(line)} |")
    averaged = [row for row in rows if row in AVERAGED] or rows
    whole = [task for task in TASKS if all(cells[task, row] for row in averaged)]
    if whole:
        means = [f"{statistics.mean(statistics.mean(cells[task, row]) for task in whole):.1f}"
                 if all(cells[task, row] for task in whole) else "–" for row in rows]
        print(f"| mean of {len(whole)} | {' | '.join(means)} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--exe")
    ap.add_argument("--base")
    ap.add_argument("--data")
    ap.add_argument("--out", required=True)
    ap.add_argument("--rows", nargs="+", help=f"of {' '.join([*ROWS, *TORCH])} [head default paper]")
    ap.add_argument("--tasks", nargs="+", help="[all]")
    ap.add_argument("--sizes", nargs="+", type=int, default=[100, 500, 1000], help="0: all")
    ap.add_argument("--per-label", type=int, metavar="N")
    ap.add_argument("--last", action="store_true")
    ap.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--peers")
    ap.add_argument("--python")
    ap.add_argument("--model")
    ap.add_argument("--table", action="store_true")
    blind.add_arguments(ap)
    a = ap.parse_args()
    if a.blind:
        blind.main(ap, a)
        return
    a.rows, a.tasks = a.rows or ["head", "default", "paper"], a.tasks or list(TASKS)
    unknown = [*(row for row in a.rows if row not in ROWS | TORCH), *(task for task in a.tasks if task not in TASKS)]
    if unknown:
        ap.error(f"no such rows or tasks: {', '.join(unknown)}")
    results = read(a.out)
    sizes = [f"{a.per_label} a label"] if a.per_label else a.sizes
    if a.table:
        for size in sizes:
            table(results, [named(row, a) for row in a.rows], size)
        return
    known = {(r["task"], r["size"], r["seed"], r["row"]) for r in results}
    for seed, size, task, row in itertools.product(a.seeds, sizes, a.tasks, a.rows):
        is_torch, kind, name = row in TORCH, TASKS[task], named(row, a)
        if (task, size, seed, name) in known or (is_torch and kind not in ("classify", "regress")):
            continue
        if a.per_label and (is_torch or kind != "classify"):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = torch(a, task, size, seed, row) if is_torch else ours(a, task, size, seed, row, folder)
        found["wall_s"] = round(time.monotonic() - start, 2)
        line = json.dumps({"task": task, "size": size, "seed": seed, "row": name} | found)
        print(line, flush=True)
        with open(a.out, "a", encoding="utf-8") as to:
            to.write(line + "\n")


if __name__ == "__main__":
    main()
