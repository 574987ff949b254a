#!/usr/bin/env python3
"""Are texts unlike anything in training told from the others?

  out_of_scope.py --exe EXE --base BASE --data DIR --lines 1000 --left-out 30 --seeds 0 1 2

Trains on lines of clinc150 without some of its labels, drawn by the seed, and without `oos`. Then it scores, by the probability of
the answer alone, how well `dev`'s lines of the left-out labels and of `oos` are told from those of the labels that were learned:
AUROC, the share of pairs of one line of each kind in which the learned one has the higher probability.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile

import sets


def auroc(inside, outside):
    order = sorted([(p, 1) for p in inside] + [(p, 0) for p in outside])
    below = wins = 0
    for _, is_inside in order:
        below += not is_inside
        wins += below * is_inside
    return wins / (len(inside) * len(outside))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("exe", "base", "data"):
        ap.add_argument(f"--{name}", required=True)
    ap.add_argument("--lines", type=int, default=1000)
    ap.add_argument("--left-out", type=int, default=30)
    ap.add_argument("--seeds", nargs="+", type=int, default=[0])
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    train, dev = (sets.read("classify", sets.path_of(a.data, "clinc150", part)) for part in ("train", "dev"))
    labels = sorted({line.label for line in train} - {"oos"})
    for seed in a.seeds:
        rng = random.Random(f"out of scope {seed}")
        order = sorted(labels, key=lambda _: rng.random())
        out = set(order[:a.left_out]) | {"oos"}
        known = [line for line in train if line.label not in out]
        drawn = sorted(known, key=lambda _: rng.random())[:a.lines]
        with tempfile.TemporaryDirectory() as folder:
            learned, asked, bias = (os.path.join(folder, name) for name in ("train.tsv", "dev.tsv", "x.bias.safetensors"))
            sets.write("classify", drawn, learned)
            sets.write("classify", dev, asked)
            common = ["--base", a.base, "--threads", str(a.threads), "--json"]
            subprocess.run([a.exe, "train", *common, "--data", learned, "--out", bias, "--seed", str(seed)],
                           check=True, capture_output=True)
            printed = subprocess.run([a.exe, "predict", *common, "--bias", bias, "--data", asked],
                                     check=True, capture_output=True, text=True).stdout
        confidence = [max(json.loads(line)["probabilities"].values()) for line in printed.splitlines()]
        inside, outside = ([p for p, line in zip(confidence, dev) if (line.label in out) == is_out] for is_out in (False, True))
        print(json.dumps({"seed": seed, "lines": len(drawn), "labels": len(labels) - a.left_out, "inside": len(inside),
                          "outside": len(outside), "auroc": round(auroc(inside, outside), 4)}), flush=True)


if __name__ == "__main__":
    main()
