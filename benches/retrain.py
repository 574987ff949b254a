#!/usr/bin/env python3
"""More lines every day and the same command: does the file that stays in place get better?

  retrain.py --exe EXE --base BASE --data DIR --out retrain.jsonl --tasks tweet_emotion sms_spam --seeds 0 1

Draws 400 lines of a set's `train`, trains, adds 50 lines a day for --days days and repeats the command. Each new file, also a
refused one, is scored once on a separate test part (`dev` and undrawn lines, 2,000 in all), beside the file that was in place.
A refusal is wrong if the refused file is better there by more than the interval of the difference; so is a replacement by a
file that is worse by as much. Prints one JSON line a day, and the counts.
"""
import argparse
import json
import math
import os
import random
import subprocess
import tempfile

import blind
import sets

FIRST, MORE = 400, 50
NOT_BETTER = 4


def answers(a, bias, path, kind):
    command = [a.exe, "predict", "--base", a.base, "--bias", bias, "--data", path, "--json", "--threads", str(a.threads)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    field = {"classify": "label", "regress": "value"}[kind]
    return [json.loads(line)[field] for line in printed.splitlines()]


def lead(kind, scored, new, old):
    """How much better `new` is than `old`, and half the width of the 95 % interval (bootstrap over the scored lines)."""
    name = sets.measure(kind, scored)
    marks = [sets.marks(kind, scored, given) for given in (new, old)]
    score = lambda which, lines: sets.score(name, [marks[which][i] for i in lines])
    everything, rng = range(len(scored)), random.Random(0)
    drawn = sorted(score(0, draw) - score(1, draw)
                   for draw in ([rng.randrange(len(scored)) for _ in scored] for _ in range(200)))
    return score(0, everything) - score(1, everything), (drawn[194] - drawn[5]) / 2


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("exe", "base", "data", "out"):
        ap.add_argument(f"--{name}", required=True)
    ap.add_argument("--tasks", nargs="+", required=True, choices=[t for t, kind in sets.KINDS.items() if kind in ("classify", "regress")])
    ap.add_argument("--seeds", nargs="+", type=int, default=[0])
    ap.add_argument("--days", type=int, default=3)
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    counts = {"runs": 0, "refused": 0, "wrongly refused": 0, "wrongly replaced": 0}
    for task in a.tasks:
        for seed in a.seeds:
            kind = sets.KINDS[task]
            lines, dev = (sets.read(kind, sets.path_of(a.data, task, part)) for part in ("train", "dev"))
            training, scored = blind.draw(task, lines, dev, FIRST + a.days * MORE, 0, seed, 2000)
            scored = [line for _, line in scored]
            with tempfile.TemporaryDirectory() as folder:
                train, test, bias = (os.path.join(folder, name) for name in ("train.tsv", "test.tsv", "me.bias.safetensors"))
                sets.write(kind, scored, test)
                before = None
                for day in range(a.days + 1):
                    sets.write(kind, training[:FIRST + day * MORE], train)
                    command = [a.exe, "train", "--base", a.base, "--data", train, "--out", bias, "--task", kind, "--seed", str(seed),
                               "--threads", str(a.threads), "--json"]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode not in (0, NOT_BETTER):
                        raise SystemExit(done.stderr)
                    refused = done.returncode == NOT_BETTER
                    new = answers(a, bias.replace("me.bias", "me.new.bias") if refused else bias, test, kind)
                    row = {"task": task, "seed": seed, "day": day, "refused": refused}
                    if before is not None:
                        better, half = lead(kind, scored, new, before)
                        row |= {"lead": round(better, 4), "half_interval": round(half, 4)}
                        counts["runs"] += 1
                        counts["refused"] += refused
                        counts["wrongly refused"] += refused and better > half
                        counts["wrongly replaced"] += not refused and better < -half
                    before = before if refused else new
                    print(json.dumps(row), flush=True)
                    with open(a.out, "a", encoding="utf-8") as to:
                        to.write(json.dumps(row) + "\n")
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
