"""The blind protocol: `learn.py --blind`.

  learn.py --blind --exe EXE --base BASE --data DIR --out blind.jsonl --answers DIR --rows head default --sizes 100 500
  learn.py --blind ... --rows logreg torch-full --python EXE --model DIR       the rows that run in Python
  learn.py --blind --out blind.jsonl --table --rows head default --sizes 100
  learn.py --blind --out blind.jsonl --answers DIR --compare default torch-full --sizes 100

A seed draws the training lines from a set's `train`. The scored lines are `dev`, then lines of `train` that were not drawn,
2,000 in all (--scored). Every row trains on the same lines and is scored once, after training. No row sees a scored line
earlier, so no epoch, setting or recipe is chosen by one; a row that needs a held-out part takes it from the drawn lines. A
scored line is left out if its label was not drawn (classify) or if its texts are those of a drawn line. A tag that was not
drawn stays and counts as missed.

The tasks are names of sets, or `development` (choices may be made on these), `blind` (these are scored once, when all choices
are made) and `tokens`. Size 0 is all lines, at most 10,000. --per-label 8 replaces --sizes: it draws 8 lines of each
label.

Rows: `head`, `default`, `no-hold-out` and `setfit` are `trimtab train` with `--terms none`, no flags, `--hold-out 0` and
`--setfit`. `logreg` is probe_reference.py, `torch-full` and `torch-bitfit` are torch_reference.py, `setfit-library` is
setfit_reference.py. Rows that do not apply to a task are skipped. --suffix is appended to the names of trimtab's rows, and
--flags are further flags for them, so that two builds or settings can be compared.

Every run is one line of --out: score, seconds of the training process (`wall_s`, `cpu_s`), number of scored lines, report.
Runs that --out has are skipped. --answers keeps how each scored line was answered; --compare needs it. --table prints the
mean and deviation over draws, in percent. --compare prints, in points, how much the first row leads the second, over the
draws that both have, with a 95 % interval: a bootstrap over draws and over scored lines, where a line that is scored in
several draws is resampled in all of them together. It needs numpy.
"""
import collections
import itertools
import json
import math
import os
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import sets

ALL = 10_000
DRAWS = 2000
PRECISION = 0.95
OURS = {"head": ["--terms", "none"], "default": [], "no-hold-out": ["--hold-out", "0"], "setfit": ["--setfit"]}
# (lines at most, learning rate, epochs). Settled on tweet_emotion, snips_intent and stsb at 100 lines and on tweet_emotion at
# 500; the epochs beyond were not tuned.
TORCH = {
    "torch-full": [(250, 5e-5, 20), (750, 5e-5, 10), (2000, 5e-5, 8), (math.inf, 5e-5, 3)],
    "torch-bitfit": [(250, 3e-3, 20), (750, 3e-3, 10), (2000, 3e-3, 8), (math.inf, 1e-3, 3)],
}
SCRIPTS = {"logreg": "probe_reference.py", "setfit-library": "setfit_reference.py"}
SCRIPTS |= {row: "torch_reference.py" for row in TORCH}
ROWS = [*OURS, *SCRIPTS]


def applies(row, kind, lines):
    if row in ("setfit", "setfit-library"):
        return kind == "classify" and (row == "setfit" or len(lines[0].texts) == 1)
    return row != "logreg" or kind in ("classify", "regress")


def draw(task, lines, dev, size, per_label, seed, most):
    """The training lines, and (number, line) of each scored one; `dev` is numbered from 0, then comes `train`.

    Draws of one seed are nested: a smaller one is the beginning of a larger one. Only `random()` is called, whose values
    Python promises to keep.
    """
    numbers = random.Random(f"{task} {seed}")
    keys = [numbers.random() for _ in lines]
    order = sorted(range(len(lines)), key=keys.__getitem__)
    if per_label:
        seen, drawn = collections.Counter(), []
        for i in order:
            seen[lines[i].label] += 1
            if seen[lines[i].label] <= per_label:
                drawn.append(i)
    else:
        drawn = order[:size or ALL]
    taken = set(drawn)
    training = [lines[i] for i in drawn]
    texts = {line.texts for line in training}
    labels = {line.label for line in training} if sets.KINDS[task] == "classify" else None
    candidates = [*enumerate(dev), *((len(dev) + i, lines[i]) for i in reversed(order) if i not in taken)]
    scored = [(n, line) for n, line in candidates
              if line.texts not in texts and (labels is None or line.label in labels)]
    return training, scored[:most]


def called(command, env=None):
    """Standard output, and wall and CPU seconds of a process."""
    used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    start, before = time.monotonic(), used()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    seconds = {"wall_s": round(time.monotonic() - start, 2), "cpu_s": round(used() - before, 2)}
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout, seconds


def ours(a, row, kind, seed, train, score, folder):
    """What to record, and the answers."""
    out = os.path.join(folder, "out.bias.safetensors")
    threads = ["--threads", str(a.threads), "--json"]
    printed, seconds = called([a.exe, "train", "--base", a.base, "--data", train, "--out", out, "--task", kind, "--seed",
                               str(seed), *threads, *OURS[row], *shlex.split(a.flags)])
    report = json.loads(printed)
    result = report.get("result", {})
    kept = {"epochs": len(report.get("epochs", [])), "steps": report.get("steps"), "peak_memory_bytes": report["peak_memory_bytes"]}
    kept |= {name: result[name] for name in ("choice", "metrics", "interval", "calibration_error") if name in result}
    # Answers of ten lines or fewer say nothing of precision.
    sure = kind == "classify" and result.get("source") == "cross_validation" and result["metrics"]["examples"] >= 20
    flags = ["--min-precision", str(PRECISION)] if sure else []
    printed, _ = called([a.exe, "predict", "--base", a.base, "--bias", out, "--data", score, *threads, *flags])
    field = {"classify": "label", "regress": "value", "tag": "tags", "qa": "answer"}[kind]
    answers = [json.loads(line) for line in printed.splitlines()]
    if sure:
        kept |= calibration(answers, [line.label for line in sets.read(kind, score)])
    return seconds | {"report": kept}, [answer[field] for answer in answers]


def calibration(answers, labels):
    """Of the scored lines: expected calibration error over ten bins; of the answers that are sure, their share and precision."""
    bins, sure = collections.defaultdict(list), []
    for answer, label in zip(answers, labels):
        confidence, right = max(answer["probabilities"].values()), answer["label"] == label
        bins[min(9, int(10 * confidence))].append((confidence, right))
        sure += [right] if answer["sure"] else []
    error = sum(abs(sum(confidence - right for confidence, right in bin)) for bin in bins.values()) / len(answers)
    return {"scored_ece": round(error, 4), "sure_share": round(len(sure) / len(answers), 4),
            "sure_precision": round(statistics.mean(sure), 4) if sure else None}


def in_python(a, row, kind, seed, lines, train, score, folder):
    """The same of the rows that have a script."""
    out = os.path.join(folder, "answers.jsonl")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), SCRIPTS[row])
    command = [a.python, script, "--model", a.model, "--train", train, "--score", score, "--task", kind, "--threads",
               str(a.threads), "--answers", out]
    if row in TORCH:
        _, lr, epochs = next(setting for setting in TORCH[row] if lines <= setting[0])
        command += ["--mode", row.removeprefix("torch-"), "--lr", str(a.lr or lr), "--epochs", str(a.epochs or epochs)]
    if row != "logreg":
        command += ["--seed", str(seed)]
    few = {name: str(a.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}
    printed, _ = called(command, os.environ | few)
    report = json.loads(printed)
    seconds = {name: report.pop(name) for name in ("wall_s", "cpu_s")}
    with open(out, encoding="utf-8") as f:
        return seconds | {"report": report}, [json.loads(line) for line in f]


def run(a, task, size, seed, row, lines, dev):
    """One run: what to record, and the numbers and marks of the scored lines."""
    kind = sets.KINDS[task]
    training, scored = draw(task, lines, dev, size, a.per_label, seed, a.scored)
    numbers, scored = zip(*scored)
    with tempfile.TemporaryDirectory() as folder:
        train, score = (os.path.join(folder, f"{part}.{sets.ENDINGS.get(kind, 'tsv')}") for part in ("train", "scored"))
        sets.write(kind, training, train)
        sets.write(kind, scored, score)
        if row in OURS:
            found, answers = ours(a, row, kind, seed, train, score, folder)
        else:
            found, answers = in_python(a, row, kind, seed, len(training), train, score, folder)
    name = sets.measure(kind, scored)
    marks = sets.marks(kind, scored, answers)
    counts = {"measure": name, "lines": len(training), "scored": len(scored)}
    return {"score": round(sets.score(name, marks), 6)} | counts | found, {"lines": numbers, "marks": marks}


def name_of(a, size):
    return f"{a.per_label} per label" if a.per_label else size


def answers_path(a, task, size, seed, row):
    return os.path.join(a.answers, f"{task}, {size}, {seed}, {row}.json".replace("/", "-"))


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def run_all(a):
    for seed, size, task, row in itertools.product(a.seeds, [0] if a.per_label else a.sizes, a.tasks, a.rows):
        kind, name, shown = sets.KINDS[task], row + (a.suffix if row in OURS else ""), name_of(a, size)
        known = {(r["task"], r["size"], r["seed"], r["row"]) for r in read(a.out)}
        if (task, shown, seed, name) in known or (a.per_label and kind != "classify"):
            continue
        lines, dev = (sets.read(kind, sets.path_of(a.data, task, part)) for part in ("train", "dev"))
        if not applies(row, kind, lines):
            continue
        found, answered = run(a, task, size, seed, row, lines, dev)
        if a.answers:
            os.makedirs(a.answers, exist_ok=True)
            with open(answers_path(a, task, shown, seed, name), "w", encoding="utf-8") as to:
                json.dump(answered, to, separators=(",", ":"))
        line = json.dumps({"task": task, "size": shown, "seed": seed, "row": name} | found)
        print(line, flush=True)
        with open(a.out, "a", encoding="utf-8") as to:
            to.write(line + "\n")


def groups(tasks):
    """The tasks by group, in the order of `sets.GROUPS`."""
    found = {name: [task for task in group if task in tasks] for name, group in sets.GROUPS.items()}
    return {name: group for name, group in found.items() if group}


def table(a, size):
    """Markdown of one size: a part for each group, with a mean over the sets that each row has."""
    cells = collections.defaultdict(list)
    for r in read(a.out):
        if r["size"] == size and r["seed"] in a.seeds:
            cells[r["task"], r["row"]].append(100 * r["score"])
    for group, tasks in groups(a.tasks).items():
        rows = [row for row in a.rows if any((task, row) in cells for task in tasks)]
        if not rows:
            continue
        print(f"\n| {size or 'all'} lines, {group} sets | {' | '.join(rows)} |\n|---|{'---|' * len(rows)}")
        for task in tasks:
            line = []
            for row in rows:
                scores = cells.get((task, row), [])
                deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
                line.append(f"{statistics.mean(scores):.1f}{deviation}" if scores else "–")
            if set(line) != {"–"}:
                print(f"| {task} | {' | '.join(line)} |")
        # A row that has only a few sets gets no mean, so that it does not shorten that of the others.
        number = max(sum((task, row) in cells for task in tasks) for row in rows)
        whole = [task for task in tasks
                 if all((task, row) in cells for row in rows if sum((t, row) in cells for t in tasks) == number)]
        mean = lambda row: f"{statistics.mean(statistics.mean(cells[task, row]) for task in whole):.1f}"
        means = [mean(row) if whole and all((task, row) in cells for task in whole) else "–" for row in rows]
        print(f"| mean of {len(whole)} | {' | '.join(means)} |")


def answers_of(a, task, size, row):
    """By seed: the measure, the scored lines' numbers and their marks."""
    found = {}
    for r in read(a.out):
        if (r["task"], r["size"], r["row"]) == (task, size, row) and r["seed"] in a.seeds:
            path = answers_path(a, task, size, r["seed"], row)
            if os.path.exists(path):
                with open(path, encoding="utf-8") as f:
                    found[r["seed"]] = (r["measure"], json.load(f))
    return found


def leads(a, task, size, rows, generator):
    """The lead of the first row: its mean over draws, and DRAWS bootstrap values of that mean; None without answers."""
    import numpy as np

    first, second = (answers_of(a, task, size, row) for row in rows)
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    numbers = sorted({n for seed in seeds for n in first[seed][1]["lines"]})
    # How often each line is drawn: one row for each bootstrap value, the same for all draws of training lines.
    weights = generator.poisson(1.0, (DRAWS, len(numbers))).astype(np.float64)
    points, values = [], []
    for seed in seeds:
        (measure, one), (_, other) = first[seed], second[seed]
        if one["lines"] != other["lines"]:
            raise SystemExit(f"{task}, {size}, seed {seed}: the two rows were scored on other lines")
        columns = np.searchsorted(numbers, one["lines"])
        sums = [sets.sums_of(measure, np.array(x["marks"], dtype=np.float64).T) for x in (one, other)]
        points.append(np.subtract(*(sets.score_of(measure, [s.sum() for s in x]) for x in sums)))
        drawn = weights[:, columns]
        values.append(np.subtract(*(sets.score_of(measure, [drawn @ s for s in x]) for x in sums)))
    which = generator.integers(len(seeds), size=(DRAWS, len(seeds)))
    values = np.take_along_axis(np.stack(values, axis=1), which, axis=1)
    return float(np.mean(points)), values.mean(axis=1), len(seeds)


def compare(a, size):
    import numpy as np

    generator = np.random.default_rng(0)
    interval = lambda values: "{:+.1f} to {:+.1f}".format(*(100 * np.percentile(values, [2.5, 97.5])))
    for group, tasks in groups(a.tasks).items():
        found = {task: leads(a, task, size, a.compare, generator) for task in tasks}
        found = {task: lead for task, lead in found.items() if lead}
        if not found:
            continue
        print(f"\n| {size or 'all'} lines, {group} sets | {a.compare[0]} − {a.compare[1]} | 95 % interval | draws |")
        print("|---|---|---|---|")
        for task, (point, values, number) in found.items():
            print(f"| {task} | {100 * point:+.1f} | {interval(values)} | {number} |")
        point = statistics.mean(point for point, _, _ in found.values())
        values = np.mean([values for _, values, _ in found.values()], axis=0)
        print(f"| mean of {len(found)} | {100 * point:+.1f} | {interval(values)} | |")


def add_arguments(ap):
    ap.add_argument("--blind", action="store_true", help="the blind protocol; see benches/blind.py")
    ap.add_argument("--answers", metavar="DIR", help="with --blind: how each scored line was answered")
    ap.add_argument("--compare", nargs=2, metavar="ROW", help="with --blind: the lead of the first row over the second")
    ap.add_argument("--scored", type=int, default=2000, metavar="N", help="with --blind: scored lines at most [2000]")
    ap.add_argument("--suffix", default="", help="with --blind: appended to the names of trimtab's rows")
    ap.add_argument("--flags", default="", help="with --blind: further flags of trimtab train")
    ap.add_argument("--lr", type=float, help="with --blind: of PyTorch's rows, to settle what it should be")
    ap.add_argument("--epochs", type=int, help="likewise")


def main(ap, a):
    names = a.tasks or (list(sets.KINDS) if a.table or a.compare else ["development"])
    unknown = [name for name in names if name not in sets.GROUPS and name not in sets.KINDS]
    if unknown:
        ap.error(f"no such tasks: {', '.join(unknown)}; there are {', '.join([*sets.GROUPS, *sets.KINDS])}")
    a.tasks = [task for name in names for task in sets.GROUPS.get(name, [name])]
    a.rows = a.rows or ["head", "default"]
    sizes = [name_of(a, 0)] if a.per_label else a.sizes
    if a.compare:
        if not a.answers:
            ap.error("--compare needs --answers")
        for size in sizes:
            compare(a, size)
    elif a.table:
        for size in sizes:
            table(a, size)
    else:
        unknown = [row for row in a.rows if row not in ROWS]
        if unknown:
            ap.error(f"no such rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
        wanted = {"exe": OURS, "base": OURS, "python": SCRIPTS, "model": SCRIPTS, "data": ROWS}
        for name, rows in wanted.items():
            if getattr(a, name) is None and any(row in rows for row in a.rows):
                ap.error(f"these rows need --{name}")
        run_all(a)
