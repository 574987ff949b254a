#!/usr/bin/env python3
"""Do windows help where the cue lies beyond the first sequence, and what do they cost?

  long_texts.py --exe EXE --base BASE --data DIR --lines 200 --seeds 0 1 2

Makes a set of long texts: each begins with --filler words of running text (wikitext2, drawn by the seed) and ends with a line
of snips_intent, whose intent is the label. MiniLM reads 128 tokens, the filler alone has more. Trains with `--pool mean`, which
truncates, and without flags, and scores 500 lines that were not drawn. `seconds` is the CPU time of the training process.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile

import blind
import sets

WAYS = {"truncated": ["--pool", "mean"], "default": []}
SCORED = 500


def lengthened(lines, words, filler, rng):
    """The lines, each behind some running text."""
    made = []
    for line in lines:
        start = rng.randrange(len(words) - filler)
        text = " ".join([*words[start:start + filler], *line.texts])
        made.append(sets.Line(f"{line.label}\t{text}", (text,), line.label))
    return made


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("exe", "base", "data"):
        ap.add_argument(f"--{name}", required=True)
    ap.add_argument("--lines", type=int, default=200)
    ap.add_argument("--filler", nargs="+", type=int, default=[150, 300, 600], metavar="WORDS")
    ap.add_argument("--seeds", nargs="+", type=int, default=[0])
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    lines = sets.read("classify", sets.path_of(a.data, "snips_intent", "train"))
    with open(os.path.join(a.data, "wikitext2", "train.txt"), encoding="utf-8") as f:
        words = f.read().split()
    for seed in a.seeds:
        for filler in a.filler:
            rng = random.Random(f"long texts {seed} {filler}")
            drawn = sorted(lines, key=lambda _: rng.random())[:a.lines + SCORED]
            made = lengthened(drawn, words, filler, rng)
            training, scored = made[:a.lines], made[a.lines:]
            for way, flags in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    learned, asked, bias = (os.path.join(folder, name) for name in ("train.tsv", "scored.tsv", "x.bias.safetensors"))
                    sets.write("classify", training, learned)
                    sets.write("classify", scored, asked)
                    common = ["--base", a.base, "--threads", str(a.threads), "--json"]
                    printed, seconds = blind.called([a.exe, "train", *common, "--data", learned, "--out", bias, "--seed",
                                                     str(seed), *flags])
                    answers = subprocess.run([a.exe, "predict", *common, "--bias", bias, "--data", asked],
                                             check=True, capture_output=True, text=True).stdout.splitlines()
                choice = json.loads(printed)["result"]["choice"]
                right = sum(json.loads(answer)["label"] == line.label for answer, line in zip(answers, scored))
                print(json.dumps({"seed": seed, "filler_words": filler, "lines": len(training), "way": way,
                                  "windows": choice["windows"], "accuracy": round(right / len(scored), 4),
                                  "train_cpu_s": seconds["cpu_s"]}), flush=True)


if __name__ == "__main__":
    main()
