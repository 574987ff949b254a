#!/usr/bin/env python3
"""Measures trimtab and other runtimes alternately on the same machine, and prints the medians as Markdown.

  cargo build --profile fast --example measure
  python3 benches/compare.py --peers DIR --python PY --base minilm=minilm.q8.safetensors \\
      --base bert-base=bert-base.q8.safetensors > table.md

DIR holds `bench_train.py` and `bench_infer.py`, which take --backend, --model, --batch, --seq, --threads and
--budget and print one JSON line with the fields of `examples/measure.rs`; PY is the Python that has their libraries.
A backend NAME=PATH (such as `ort=venv/bin/python` for --train) runs under a Python of its own. Without --peers only
trimtab is measured.

Clouds and laptops change their clock from minute to minute. So every round runs each candidate once, in turn, and
each cell is the median over the rounds; a ratio is the median over the rounds of the ratio within a round. Above 0.3
CPUs busy with others, a cell is marked with ~: look again on a quieter machine. Progress and failures go to stderr;
--out keeps every row as JSON lines.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CONTENDED = 0.3
OURS = "trimtab"


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--measure", default=os.path.join(HERE, "..", "target", "fast", "examples", "measure"),
                    help="the measure example [target/fast/examples/measure]")
    ap.add_argument("--peers", help="directory of bench_train.py and bench_infer.py")
    ap.add_argument("--python", default=sys.executable, help="the Python that runs them [this one]")
    ap.add_argument("--base", action="append", required=True, metavar="MODEL=FILE",
                    help="base file of a model the peers know by that name; repeat for more")
    ap.add_argument("--train", nargs="*", default=["torch"], metavar="BACKEND", help="peers that train [torch]")
    ap.add_argument("--infer", nargs="*", default=["torch-fp32", "ort-fused-int8-pc", "ov-int8"],
                    metavar="BACKEND", help="peers that infer [torch-fp32 ort-fused-int8-pc ov-int8]")
    ap.add_argument("--train-shapes", nargs="*", default=["8x128", "32x64", "16x32"], metavar="BxS")
    ap.add_argument("--infer-shapes", nargs="*", default=["1x16", "1x128", "8x128", "32x64"], metavar="BxS")
    ap.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--budget", type=float, default=4.0, help="seconds of timed steps a measurement [4]")
    ap.add_argument("--timeout", type=float, default=900.0, help="seconds a measurement may take in all [900]")
    ap.add_argument("--out", help="file that gets every row, as JSON lines")
    return ap.parse_args()


def command(a, kind, backend, model, base, batch, seq, threads):
    """The command of one measurement."""
    shape = ["--batch", str(batch), "--seq", str(seq), "--threads", str(threads), "--budget", str(a.budget)]
    if backend == OURS:
        return [a.measure, kind, "--base", base] + shape
    name, _, python = backend.partition("=")
    script = os.path.join(a.peers, "bench_%s.py" % kind)
    return [python or a.python, script, "--backend", name, "--model", model] + shape


def run(a, cmd):
    """One measurement in a fresh process: its row, or None with the reason on stderr."""
    try:
        p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                           timeout=a.timeout)
    except subprocess.TimeoutExpired:
        print("  timed out: " + " ".join(cmd), file=sys.stderr)
        return None
    except OSError as e:
        sys.exit("compare: error: cannot run %s: %s" % (cmd[0], e))
    lines = [line for line in p.stdout.splitlines() if line.startswith("{")]
    if p.returncode or not lines:
        reason = (p.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        print("  failed: %s: %s" % (" ".join(cmd), reason[:300]), file=sys.stderr)
        return None
    return json.loads(lines[-1])


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def speed(rows):
    """Texts a second, marked where others were busy."""
    value = median(r["examples_per_s"] for r in rows)
    busy = median(r.get("other_cpus") for r in rows)
    mark = "~" if busy is not None and busy > CONTENDED else ""
    return mark + (("%.1f" if value < 100 else "%.0f") % value)


def memory(rows):
    """Peak of resident memory, and in brackets what of it lies above the imports."""
    peak = median(r.get("peak_rss_mb") for r in rows)
    above = median(r["peak_rss_mb"] - r["import_rss_mb"] for r in rows
                   if r.get("peak_rss_mb") is not None and r.get("import_rss_mb") is not None)
    if peak is None:
        return "?"
    return "%.0f MB" % peak + ("" if above is None else " (%.0f)" % above)


def ratio(ours, theirs):
    """How many times faster ours is, within each round."""
    value = median(o["examples_per_s"] / t["examples_per_s"] for o, t in zip(ours, theirs) if o and t)
    return "?" if value is None else "%.2f×" % value


def less_memory(ours, theirs):
    """How many times more memory above the imports theirs takes."""
    def above(r):
        return None if not r or r.get("peak_rss_mb") is None else r["peak_rss_mb"] - r["import_rss_mb"]
    pairs = [(above(o), above(t)) for o, t in zip(ours, theirs)]
    value = median(t / o for o, t in pairs if o and t)
    return "?" if value is None else "%.1f×" % value


def cell(ours, rows, backend):
    """One backend's part of a line: speed, memory, and how ours compares."""
    good = [r for r in rows if r]
    if not good:
        return "fails"
    text = "%s/s, %s" % (speed(good), memory(good))
    if backend != OURS and any(ours):
        text += ": %s, %s" % (ratio(ours, rows), less_memory(ours, rows))
    return text


def table(title, results, backends, rounds):
    names = [b.partition("=")[0] for b in backends]
    print("### %s\n" % title)
    print("Texts a second, peak memory (in brackets above the imports)%s; medians of %d rounds.\n" % (
        ": how many times faster trimtab is, how many times less memory it takes above the imports"
        if len(names) > 1 else "", rounds))
    print("| model | batch×seq | threads | " + " | ".join(names) + " |")
    print("|" + "---|" * (3 + len(names)))
    for (model, batch, seq, threads), by_backend in results.items():
        cells = [cell(by_backend[OURS], by_backend[b], b) for b in backends]
        print("| %s | %d×%d | %d | %s |" % (model, batch, seq, threads, " | ".join(cells)))
    print(flush=True)


def main():
    a = arguments()
    bases = []
    for base in a.base:
        model, equals, path = base.partition("=")
        if not equals or not os.path.isfile(path):
            sys.exit("compare: error: --base %s: give MODEL=FILE with a file that is there" % base)
        bases.append((model, path))
    out = open(a.out, "a") if a.out else None
    for kind, title, peers, shapes in (("train", "Training step", a.train, a.train_shapes),
                                       ("infer", "Inference", a.infer, a.infer_shapes)):
        backends = [OURS] + (peers if a.peers else [])
        cases = [(model, path, *map(int, shape.split("x")), threads)
                 for model, path in bases for shape in shapes for threads in a.threads]
        results = {}
        for model, path, batch, seq, threads in cases:
            rows = results.setdefault((model, batch, seq, threads), {b: [] for b in backends})
            for n in range(a.rounds):
                for backend in backends:
                    row = run(a, command(a, kind, backend, model, path, batch, seq, threads))
                    rows[backend].append(row)
                    if row is None:
                        continue
                    row.update(model=model, round=n + 1)
                    print("%s %s %dx%d, %d threads, round %d: %s %.1f/s" % (
                        kind, model, batch, seq, threads, n + 1, backend, row["examples_per_s"]), file=sys.stderr)
                    if out:
                        print(json.dumps(row), file=out, flush=True)
        if results:
            table(title, results, backends, a.rounds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("compare: interrupted")
