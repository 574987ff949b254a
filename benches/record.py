#!/usr/bin/env python3
"""Turns what criterion measured on this machine into one text file to commit.

  cargo bench --profile fast          some three minutes when built; leave the machine alone
  python3 benches/record.py           writes benches/records/YYYY-MM-DD-CPU.md

Reads `new/benchmark.json` and `new/estimates.json` of every bench under target/criterion. What was measured more than
--minutes before the newest result is from another run and left out. A share of the peak is a rate divided by that of
the set's own instruction in a loop over registers, measured in the same run: clocks change from minute to minute. It
is measured first and last, and the faster one counts; where the two differ much, so did the machine.
"""
import argparse
import datetime
import glob
import json
import os
import platform
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
# What multiplies, and by which instruction; the rest has no multiply-adds to speak of.
INT8 = ("gemm_forward", "gemm_forward_f16", "gemm_gelu", "gemm_gelu_inference", "gemm_backward",
        "gemm_backward_add", "gemm_gelu_backward")
F32 = ("gemm_f32", "attention_forward", "attention_backward")
WHOLE = {"forward": "texts", "train_step": "texts"}
TITLES = (("peak", "What the instructions reach by themselves"),
          ("int8", "Products in int8: rows × contraction × columns, with what follows"),
          ("f32", "Products in f32, and attention (two heads of 32 or one of 64)"),
          ("rows", "Row by row"), ("whole", "MiniLM, random weights: texts × tokens, one thread"))


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    ap.add_argument("--criterion", default=os.path.join(target, "criterion"), metavar="DIR",
                    help="criterion's directory [target/criterion, or in CARGO_TARGET_DIR]")
    ap.add_argument("--out", metavar="FILE", help="file to write, - for stdout [benches/records/YYYY-MM-DD-CPU.md]")
    ap.add_argument("--minutes", type=float, default=30, metavar="N", help="longest run [30]")
    ap.add_argument("--note", default="", help="a line for the head of the file, such as what else ran")
    return ap.parse_args()


def results(folder, minutes):
    """(group, set, instruction or None, seconds, elements) of every bench of the last run, and the run's end."""
    found = []
    for path in glob.glob(os.path.join(glob.escape(folder), "**", "new", "estimates.json"), recursive=True):
        try:
            with open(path) as f:
                estimates = json.load(f)
            with open(os.path.join(os.path.dirname(path), "benchmark.json")) as f:
                bench = json.load(f)
            seconds = estimates["median"]["point_estimate"] / 1e9
            elements = (bench["throughput"] or {}).get("Elements")
            row = (bench["group_id"], bench["function_id"], bench["value_str"], seconds, elements)
        except (OSError, ValueError, KeyError, TypeError) as e:
            sys.exit("record: error: %s: %s" % (path, e))
        found.append((os.path.getmtime(path), row))
    if not found:
        sys.exit("record: error: nothing in %s: run `cargo bench --profile fast` first" % folder)
    end = max(time for time, _ in found)
    kept = [row for time, row in found if time >= end - 60 * minutes]
    if len(kept) < len(found):
        print("record: %d results of earlier runs left out" % (len(found) - len(kept)), file=sys.stderr)
    return kept, end


def natural(text):
    """Orders numbers in a text by their size."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def first_line(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.split("\n", 1)[0].strip() if done.returncode == 0 else ""


def cpu():
    try:
        with open("/proc/device-tree/model") as f:
            return f.read().strip("\0\n ")
    except OSError:
        pass
    try:
        with open("/proc/cpuinfo") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def commit():
    head = first_line("git", "rev-parse", "--short", "HEAD")
    changed = first_line("git", "status", "--porcelain", "--untracked-files=no")
    return (head or "unknown") + (" with changes" if changed else "")


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return "%.3g %s" % (seconds * factor, unit) if seconds * factor < 1000 else "%.0f %s" % (seconds * factor, unit)
    return "%.3g ns" % (seconds * 1e9)


def rate(per_second, what):
    if what:
        return "%.1f %s/s" % (per_second, what)
    return "%.3g G/s" % (per_second / 1e9)


def kind(op):
    if op in INT8:
        return "int8"
    if op in F32:
        return "f32"
    return "peak" if op.startswith("peak_") else "whole" if op in WHOLE else "rows"


def record(rows, end, note):
    peaks = {}
    for group, name, _, seconds, elements in rows:
        if group.startswith("peak_"):
            key = (group.split("/")[1], name)
            peaks[key] = max(peaks.get(key, 0), elements / seconds)
    sets = []
    for name in [n for g, n, i, _, _ in sorted(rows, key=lambda r: r[3]) if g.startswith("gemm_forward/")] + \
            [r[1] for r in rows]:
        if name not in sets:
            sets.append(name)  # the fastest first
    tables = {}
    for group, name, instruction, seconds, elements in rows:
        op = group.split("/")[0]
        share = ""
        peak = peaks.get((kind(op), name))
        if peak and elements:
            share = "%.0f %%" % (100 * elements / seconds / peak)
        label = group + (" " + instruction if instruction else "")
        cells = (label, name, duration(seconds), rate(elements / seconds, WHOLE.get(op)) if elements else "", share)
        tables.setdefault(kind(op), []).append(((natural(group), sets.index(name)), cells))
    day = datetime.datetime.fromtimestamp(end, datetime.timezone.utc)
    text = ["# %s, %s" % (cpu(), day.strftime("%Y-%m-%d")), ""]
    text += ["trimtab at %s, %s, %s %s, %d CPUs, load %.2f over the last quarter of an hour; one thread." % (
        commit(), first_line("rustc", "--version"), platform.system(), platform.release(), os.cpu_count() or 0,
        os.getloadavg()[2])]
    text += [note] if note else []
    text += ["", "Medians of ten samples; G/s are 10⁹ multiply-adds, or values where nothing is multiplied. The share is of "
             "what the set's", "instruction reaches by itself, measured in the same run. By `cargo bench` and "
             "`benches/record.py`."]
    for key, title in TITLES:
        if key in tables:
            text += ["", "## " + title, "", "| group | set | median | rate | of the peak |", "|---|---|--:|--:|--:|"]
            text += ["| %s |" % " | ".join(cells) for _, cells in sorted(tables[key])]
    return "\n".join(text) + "\n"


def main():
    a = arguments()
    rows, end = results(a.criterion, a.minutes)
    text = record(rows, end, a.note)
    if a.out == "-":
        sys.stdout.write(text)
        return
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", cpu().lower())).strip("-")
    day = datetime.datetime.fromtimestamp(end, datetime.timezone.utc).strftime("%Y-%m-%d")
    path = a.out or os.path.join(HERE, "records", "%s-%s.md" % (day, slug))
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    print(os.path.relpath(path))


if __name__ == "__main__":
    main()
