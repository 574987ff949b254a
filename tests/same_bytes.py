#!/usr/bin/env python3
"""Shows that two builds of trimtab train the same models: equal tensors, byte for byte.

    tests/same_bytes.py OLD NEW

OLD and NEW are two programs, such as those of the commits before and after a refactoring. Each makes its own base files of the
tiny checkpoints in tests/, and trains every task, every way to read texts, and every setting that changes what is computed. A line
is printed for each run; the exit code is 1 if any tensor differs. Python's standard library is enough.
"""
import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "golden", "tiny-bert")
ONNX = os.path.join(HERE, "onnx", "ts-eager-17.onnx")
SUBJECTS = "it this that he she we they you sunday station box time mile day restaurant anyone".split()


def texts():
    for i, word in enumerate(SUBJECTS):
        label = "bad" if i % 2 else "good"
        yield label, f"{word} was a very {label} movie" + " and we love it" * (i % 4)


def data(folder):
    """Files of every kind that the runs read."""
    rows = list(texts())

    def write(name, text):
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as f:
            f.write(text)

    def table(name, header, lines):
        write(name, "".join("\t".join(line) + "\n" for line in [header, *lines]))

    table("classify.tsv", ["label", "text"], rows)
    table("dev.tsv", ["label", "text"], rows[:6])
    table("few.tsv", ["label", "text"], rows[:12])
    table("multilabel.tsv", ["label", "text"], [(f"{a},long" if len(t) > 30 else a, t) for a, t in rows])
    table("regress.tsv", ["label", "text"], [(str(len(t) / 10), t) for _, t in rows])
    table("pairs.tsv", ["label", "text_a", "text_b"], [(a, t, u) for (a, t), (_, u) in zip(rows, rows[3:] + rows[:3])])
    table("contrastive.tsv", ["text_a", "text_b"], [(t, " ".join(reversed(t.split()))) for _, t in rows])
    table("long.tsv", ["label", "text"], [(a, " ".join([t] * 9)) for a, t in rows])
    write("mlm.txt", "".join(t + "\n" for _, t in rows))
    write("tags.conll", "".join(
        "".join(f"{w} {'B-x' if w in ('good', 'bad') else 'O'}\n" for w in t.split()) + "\n" for _, t in rows))
    questions = [{"context": t, "qas": [{"id": str(i), "question": "what was it", "answers": [
        {"text": a, "answer_start": t.index(a)}]}]} for i, (a, t) in enumerate(rows)]
    write("qa.json", json.dumps({"data": [{"title": "t", "paragraphs": questions}]}))


def tensors(path):
    """Name, type, shape and bytes of each tensor of a safetensors file."""
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + n])
    header.pop("__metadata__", None)
    body = raw[8 + n:]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items()}


def with_mlm_head(folder):
    """The tiny checkpoint with a masked-LM head of made-up weights, from the same seed each time."""
    shutil.copytree(TINY, folder)
    path = os.path.join(folder, "model.safetensors")
    all_tensors = tensors(path)
    with open(os.path.join(TINY, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    hidden, words = config["hidden_size"], config["vocab_size"]
    rng = random.Random(7)

    def f32(name, shape, values):
        all_tensors[f"cls.predictions.{name}"] = ("F32", shape, struct.pack(f"<{len(values)}f", *values))

    def normal(n):
        return [rng.gauss(0, 0.1) for _ in range(n)]

    all_tensors = {f"bert.{name}" if not name.startswith("bert.") else name: t for name, t in all_tensors.items()}
    f32("transform.dense.weight", [hidden, hidden], normal(hidden * hidden))
    f32("transform.dense.bias", [hidden], normal(hidden))
    f32("transform.LayerNorm.weight", [hidden], [1.0] * hidden)
    f32("transform.LayerNorm.bias", [hidden], normal(hidden))
    f32("bias", [words], normal(words))
    header, body = {}, b""
    for name, (dtype, shape, raw) in all_tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    raw = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw + body)
    config["architectures"] = ["BertForMaskedLM"]
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)


def onnx_tokenizer(path):
    """The tiny checkpoint's tokenizer with the first words only: the ONNX fixture has 110."""
    with open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8") as f:
        tokenizer = json.load(f)
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: i for word, i in vocab.items() if i < 110}
    with open(path, "w", encoding="utf-8") as f:
        json.dump(tokenizer, f)


# Name, base, and what `train` is told. Two epochs show as much as twenty.
SHORT = "--epochs 2 --batch 5 --threads 2"
RUNS = [
    ("classify", "base", f"--data classify.tsv {SHORT}"),
    ("classify, no settings", "base", "--data classify.tsv"),
    ("classify, thorough", "base", "--data classify.tsv --effort thorough"),
    ("dev file", "base", f"--data classify.tsv --dev dev.tsv {SHORT}"),
    ("hold-out", "base", f"--data classify.tsv --hold-out 0.25 {SHORT}"),
    ("class weights", "base", f"--data classify.tsv --class-weights {SHORT}"),
    ("multilabel", "base", f"--task multilabel --data multilabel.tsv {SHORT}"),
    ("regress", "base", f"--task regress --data regress.tsv {SHORT}"),
    ("tag", "base", f"--task tag --data tags.conll {SHORT}"),
    ("qa", "base", f"--task qa --data qa.json {SHORT}"),
    ("contrastive", "base", f"--task contrastive --data contrastive.tsv {SHORT}"),
    ("mlm", "mlm-base", f"--task mlm --data mlm.txt {SHORT}"),
    ("SetFit", "base", "--data few.tsv --setfit --epochs 1"),
    ("few lines, no settings", "base", "--data few.tsv"),
    ("pairs, no settings", "base", "--data pairs.tsv"),
    ("pairs, cross-encoder", "base", f"--data pairs.tsv --pool cls {SHORT}"),
    ("pairs, bi-encoder", "base", f"--data pairs.tsv --pool apart {SHORT}"),
    ("windows", "base", f"--data long.tsv --pool windows {SHORT}"),
    ("mean", "base", f"--data classify.tsv --pool mean {SHORT}"),
    ("linear probe", "base", "--data classify.tsv --terms none"),
    ("some terms", "base", f"--data classify.tsv --terms q,m2 {SHORT}"),
    ("upper layers", "base", f"--data classify.tsv --layers 1..2 {SHORT}"),
    ("dropout", "base", f"--data classify.tsv --encoder-dropout 0.2 {SHORT}"),
    ("budget", "base", f"--data classify.tsv --memory 256MiB {SHORT}"),
    ("f32", "base", f"--data classify.tsv --exact {SHORT}"),
    ("from ONNX", "onnx-base", f"--data classify.tsv {SHORT}"),
    ("half", "base", f"--data classify.tsv --half {SHORT}"),
]


class Side:
    """One program, in a folder of its own."""

    def __init__(self, exe, folder, mlm):
        self.exe, self.folder = os.path.abspath(exe), folder
        os.makedirs(folder)
        data(folder)
        onnx_tokenizer(os.path.join(folder, "tokenizer.json"))
        for model, base in ((TINY, "base"), (mlm, "mlm-base"), (ONNX, "onnx-base")):
            more = ["--tokenizer", "tokenizer.json"] if base == "onnx-base" else []
            self.run(["quantize", model, "-o", base, *more])

    def start(self, args):
        return subprocess.Popen([self.exe, *args], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, args):
        process = self.start(args)
        _, err = process.communicate()
        if process.returncode:
            sys.exit(f"{self.exe} {' '.join(args)}\n{err}")

    def train(self, base, flags):
        """Tensors of a new bias file: one that is there would be compared with."""
        out = "x.bias"
        if os.path.exists(os.path.join(self.folder, out)):
            os.remove(os.path.join(self.folder, out))
        self.run(["train", "--base", base, "--out", out, *flags.split()])
        return tensors(os.path.join(self.folder, out))

    def killed(self, flags):
        """A run that is killed in its middle, and goes on."""
        args = ["train", "--base", "base", "--out", "k.bias", "--checkpoint", "ck", "--every", "1", *flags.split()]
        process = self.start(args)
        ck = os.path.join(self.folder, "ck")
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if os.path.isdir(ck) and any(name.endswith(".safetensors") for name in os.listdir(ck)):
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        print(f"    killed with code {process.returncode}")
        self.run([*args, "--resume", "--force"])
        return tensors(os.path.join(self.folder, "k.bias"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("old")
    ap.add_argument("new")
    a = ap.parse_args()
    differ = 0

    def compare(name, old, new):
        nonlocal differ
        equal = old == new
        size = sum(len(raw) for _, _, raw in new.values())
        print(f"{'same' if equal else 'DIFFERENT':9} {name} ({len(new)} tensors, {size} bytes)", flush=True)
        differ += not equal

    with tempfile.TemporaryDirectory() as folder:
        mlm = os.path.join(folder, "mlm")
        with_mlm_head(mlm)
        old, new = Side(a.old, os.path.join(folder, "old"), mlm), Side(a.new, os.path.join(folder, "new"), mlm)
        for name in ("base", "mlm-base", "onnx-base"):
            compare(name, *(tensors(os.path.join(side.folder, name)) for side in (old, new)))
        for name, base, flags in RUNS:
            compare(name, *(side.train(base, flags) for side in (old, new)))
        whole = "--data classify.tsv --epochs 20 --batch 2 --threads 1"
        expected = old.train("base", whole)
        compare("killed and resumed", expected, new.killed(whole))
        # A file of the old program under the new one.
        shutil.copy(os.path.join(old.folder, "x.bias"), os.path.join(new.folder, "old.bias"))
        new.run(["eval", "--base", "base", "--bias", "old.bias", "--data", "dev.tsv"])
        print("a bias file of the old program opens in the new one")
    sys.exit(f"{differ} differ" if differ else 0)


if __name__ == "__main__":
    main()
