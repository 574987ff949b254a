"""Exports answer as trimtab does: ONNX files in ONNX Runtime, and with --torch directories in transformers and peft.

    pip install numpy onnxruntime tokenizers
    python tests/exports.py TRIMTAB                                        tiny models of every family and task
    python tests/exports.py TRIMTAB --base B --bias M --data dev.tsv       one model on real lines
                            [--from MODEL.onnx]                            and the file that B was made from, patched

TRIMTAB is the binary. With --torch (pip install torch transformers, and peft for its adapters; CHECKPOINT is what the
base was made from) the other formats are checked too. Ends with an error where a figure is outside its bound:

    f32 exports against `predict --exact`: every label the same, probabilities within EXACT
    int8 exports against `predict --exact`: labels as of AGREE, probabilities within APART on average
    both against `predict`, whose own rounding is added: labels as of AGREE_INT8, probabilities within APART
    patched files, whose weights are not rounded, against `predict --exact`: AGREE_INT8 and APART

Of several labels the probability is that of the one that trimtab answers.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import BertProcessing

GOLDEN = Path(__file__).parent / "golden"
AGREE = 0.995  # labels; of a few lines one may differ
AGREE_INT8 = 0.98
APART = 0.02
EXACT = 1e-4
BATCH = 32

WORDS = "it this that he she we they you sunday station box time mile day restaurant anyone".split()


def softmax(y):
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(y):
    return 1 / (1 + np.exp(-y))


class Command:
    def __init__(self, binary, folder):
        self.binary, self.folder = str(Path(binary).resolve()), folder

    def __call__(self, *words, stdin=None):
        command = [self.binary, *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout


def predicted(trimtab, base, bias, task, texts, *flags):
    """What `predict` says: one row of probabilities, or of numbers, a text (a tag's, a word)."""
    if task == "contrastive":
        lines = trimtab("embed", "--base", base, "--bias", bias, "-", *flags, stdin="\n".join(texts) + "\n").splitlines()
        return [np.array([json.loads(line)["embedding"]]) for line in lines]
    lines = trimtab("predict", "--base", base, "--bias", bias, "--json", *flags, stdin="\n".join(texts) + "\n")
    rows = [json.loads(line) for line in lines.splitlines()]
    if task == "regress":
        return [np.array([[row["value"]]]) for row in rows]
    if task == "tag":
        return [(row["tags"], np.array(row["probabilities"])) for row in rows]
    return [np.array([list(row["probabilities"].values())]) for row in rows]


def batches(tokenizer, texts, words, pad, apart=False):
    """Batches as a user makes them: texts of like lengths, padded to the longest; each with the places of its texts.
    With `apart` the two texts of a pair are one behind the other."""
    texts = [t.split() if words else tuple(t.split("\t")) if "\t" in t else t for t in texts]
    lengths = [len(e.ids) for e in tokenizer.encode_batch(texts, is_pretokenized=words)]
    order = sorted(range(len(texts)), key=lambda i: lengths[i])
    tokenizer.enable_padding(pad_id=pad)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        some = [text for i in places for text in texts[i]] if apart else [texts[i] for i in places]
        some = tokenizer.encode_batch(some, is_pretokenized=words)
        inputs = {
            "input_ids": np.array([e.ids for e in some]),
            "attention_mask": np.array([e.attention_mask for e in some]),
            "token_type_ids": np.array([e.type_ids for e in some]),
        }
        yield places, inputs, some


def answers(run, folder, task, texts, label_names, apart=False):
    """The same rows as `predicted`, of an export: `run` gives its outputs for a batch."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    if settings.get("add_prefix_space"):
        from tokenizers.pre_tokenizers import ByteLevel

        tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    tokenizer.enable_truncation(settings["model_max_length"])
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    found = [None] * len(texts)
    for places, inputs, encodings in batches(tokenizer, texts, task == "tag", pad, apart):
        y = run({name: v for name, v in inputs.items() if name in settings["model_input_names"]})
        for row, place in enumerate(places):
            if task == "tag":
                words = encodings[row].word_ids
                first = [words.index(w) for w in range(len(texts[place].split())) if w in words]
                p = softmax(y[row])[first]
                found[place] = ([label_names[i] for i in p.argmax(-1)], p.max(-1))
            elif task == "classify":
                found[place] = softmax(y[row])[None]
            elif task == "multilabel":
                found[place] = sigmoid(y[row])[None]
            else:
                found[place] = y[row][None]
    return found


def compare(name, task, wanted, found, against, share, apart_mean, apart_most=1):
    """Prints how near they are and returns whether that is near enough."""
    if task == "tag":
        same = [a == b for w, f in zip(wanted, found) for a, b in zip(w[0], f[0])]
        apart = np.concatenate([np.abs(w[1] - f[1]) for w, f in zip(wanted, found)])
    else:
        w, f = np.concatenate(wanted), np.concatenate(found)
        same, apart = [], np.abs(w - f)
        if task in ("regress", "contrastive"):
            apart = apart / np.abs(w).max()
        elif task == "multilabel":
            same = ((w > 0.5) == (f > 0.5)).ravel()
        else:
            same = w.argmax(-1) == f.argmax(-1)
            apart = apart[np.arange(len(w)), w.argmax(-1)]
    others = len(same) - np.sum(same)
    good = others <= max((1 - share) * len(same), share < 1) and apart.mean() <= apart_mean and apart.max() <= apart_most
    labels = f"{100 - 100 * others / len(same):6.2f} % of {len(same):4} labels" if len(same) else "no labels"
    print(
        f"{'ok ' if good else 'BAD'} {name:46} against {against:7} {labels:24} "
        f"apart {apart.mean():.5f} on average, {apart.max():.5f} at most",
        flush=True,
    )
    return good


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def in_transformers(folder, task):
    import torch
    import transformers

    kind = {"tag": "TokenClassification"}.get(task, "SequenceClassification")
    load = getattr(transformers, f"AutoModelFor{kind}" if task != "contrastive" else "AutoModel").from_pretrained
    model = load(folder, trust_remote_code=True).eval()
    return in_torch(model, folder, task), model


def in_torch(model, folder, task):
    import torch

    def run(inputs):
        with torch.no_grad():
            out = model(**{name: torch.tensor(v) for name, v in inputs.items()})
        if task != "contrastive":
            return out.logits.numpy()
        hidden, mask = out.last_hidden_state, torch.tensor(inputs["attention_mask"])[..., None]
        pooling = json.loads((folder / "1_Pooling/config.json").read_text())
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return (mean if pooling["pooling_mode_mean_tokens"] else hidden[:, 0]).numpy()

    return run


def in_peft(folder, hf, checkpoint, task, labels):
    import peft
    import transformers

    kind = {"tag": "TokenClassification"}.get(task, "SequenceClassification")
    load = getattr(transformers, f"AutoModelFor{kind}" if task != "contrastive" else "AutoModel").from_pretrained
    model = load(checkpoint, **({} if task == "contrastive" else {"num_labels": labels}))
    return in_torch(peft.PeftModel.from_pretrained(model, folder).eval(), hf, task)


def check(trimtab, work, name, base, bias, task, texts, torch=False, checkpoint=None, source=None):
    """Every format of one model, whose base was made from `source`. Returns whether all is good."""
    facts = json.loads(trimtab("inspect", bias, "--json"))
    labels, apart = facts["labels"], facts["pooling"] == "apart"
    exact = predicted(trimtab, base, bias, task, texts, "--exact")
    int8 = predicted(trimtab, base, bias, task, texts)
    hf = work / f"{name}-hf"
    trimtab("export", "--base", base, "--bias", bias, "--format", "hf", "--output", hf)
    good = True
    for form in ("onnx", "onnx-int8"):
        path = work / f"{name}-{form}.onnx"
        trimtab("export", "--base", base, "--bias", bias, "--format", form, "--output", path)
        runner = session(path)
        run = lambda inputs: runner.run(None, inputs)[0]
        found = answers(run, hf, task, texts, labels, apart)
        bounds = (1, EXACT, EXACT) if form == "onnx" else (AGREE, APART)
        good &= compare(f"{name} {form}", task, exact, found, "--exact", *bounds)
        good &= compare(f"{name} {form}", task, int8, found, "int8", AGREE_INT8, APART)
    if source:
        path = work / f"{name}-patched.onnx"
        trimtab("export", "--base", base, "--bias", bias, "--format", "onnx", "--from", source, "--output", path)
        runner = session(path)
        inputs = {i.name for i in runner.get_inputs()}
        run = lambda all: runner.run(None, {n: v for n, v in all.items() if n in inputs})[0]
        good &= compare(f"{name} patched", task, exact, answers(run, hf, task, texts, labels, apart), "--exact", AGREE_INT8, APART)
    if torch:
        run, model = in_transformers(hf, task)
        found = answers(run, hf, task, texts, labels, apart)
        good &= compare(f"{name} {type(model).__name__}", task, exact, found, "--exact", 1, EXACT, EXACT)
        if facts["pooling"] not in ("mean", "apart") or task == "contrastive":
            adapter = work / f"{name}-peft"
            trimtab("export", "--base", base, "--bias", bias, "--format", "peft", "--output", adapter)
            run = in_peft(adapter, hf, checkpoint, task, max(1, len(labels)))
            # Over the checkpoint's own weights, which are not rounded.
            found = answers(run, hf, task, texts, labels, apart)
            good &= compare(f"{name} peft", task, exact, found, "--exact", AGREE_INT8, APART)
    return good


def tiny_data(task, pairs=False):
    """Labelled lines of words that the tiny models know, of different lengths."""
    lines = []
    for i, word in enumerate(WORDS):
        label, text = ("good", "bad")[i % 2], f"{word} was a very good movie" + " and we love it" * (i % 4)
        label, text = (label, text.replace("good", label))
        if task == "tag":
            lines.append("\n".join(f"{w} {'B-X' if w == label else 'O'}" for w in text.split()) + "\n")
        elif task == "contrastive":
            lines.append(f"{text}\t{word} we {label}")
        else:
            lines.append(f"{ {'classify': label, 'multilabel': (label, 'a,b')[i % 3 == 0], 'regress': i / 4}[task] }\t{text}")
            lines[-1] += f"\tit was {label}" * pairs
    if task == "tag":
        return "data.conll", "\n".join(lines)
    header = "text_a\ttext_b" if task == "contrastive" else "label\ttext_a\ttext_b" if pairs else "label\ttext"
    return "data.tsv", "\n".join([header, *lines]) + "\n"


def tiny(trimtab, work, torch):
    """Every family and task, on the models of tests/golden."""
    good = True
    texts = [f"{word} was a {'very ' * (i % 5)}good day" + f"\t{word} and me" * (i % 3 > 0) for i, word in enumerate(WORDS)]
    for family in ("bert", "roberta", "distilbert", "electra"):
        checkpoint = GOLDEN / f"tiny-{family}"
        trimtab("quantize", checkpoint, "--output", f"{family}.q8")
        for task, pool in [("classify", "cls"), ("classify", "mean"), ("multilabel", "cls"), ("regress", "mean"), ("tag", "auto"), ("contrastive", "mean"), ("contrastive", "cls"), ("classify", "apart"), ("regress", "apart")]:
            file, text = tiny_data(task, pool == "apart")
            (work / file).write_text(text)
            name = f"{family}-{task}-{pool}"
            settings = ["--task", task, "--pool", pool, "--epochs", 3, "--lr", 0.01, "--head", "random", "--hold-out", 0]
            trimtab("train", "--base", f"{family}.q8", "--data", file, "--out", f"{name}.bias", *settings)
            some = [t.split("\t")[0] for t in texts] if task in ("tag", "contrastive") else texts
            some = [t if "\t" in t else f"{t}\tnever" for t in texts] if pool == "apart" else some
            good &= check(trimtab, work, name, f"{family}.q8", f"{name}.bias", task, some, torch, checkpoint)
    return good


def patched(trimtab, work):
    """The files of tests/onnx, with biases and heads of ours."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*WORDS, *"a was very good bad movie and we love it day me".split()})]
    tokenizer = Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(work / "patched-tokenizer.json"))
    good = True
    texts = [f"{word} was a {'very ' * (i % 5)}good day" for i, word in enumerate(WORDS)]
    for fixture, task, pool in [
        ("ts-eager-13", "classify", "cls"),
        ("ts-eager-17", "tag", "auto"),
        ("ts-sdpa-14", "contrastive", "mean"),
        ("ts-classifier", "regress", "mean"),
        ("dynamo-eager-18", "multilabel", "cls"),
        ("dynamo-sdpa-20", "classify", "mean"),
        ("distilbert", "classify", "mean"),
        ("electra", "classify", "mean"),
        ("ts-no-pooler", "classify", "apart"),
    ]:
        source = GOLDEN.parent / "onnx" / f"{fixture}.onnx"
        trimtab("quantize", source, "--tokenizer", "patched-tokenizer.json", "--output", "patched.q8")
        file, text = tiny_data(task, pool == "apart")
        (work / file).write_text(text)
        settings = ["--task", task, "--pool", pool, "--epochs", 3, "--lr", 0.01, "--head", "random", "--hold-out", 0]
        trimtab("train", "--base", "patched.q8", "--data", file, "--out", f"{fixture}.bias", *settings)
        some = [f"{t}\tit was bad" for t in texts] if pool == "apart" else texts
        good &= check(trimtab, work, fixture, "patched.q8", f"{fixture}.bias", task, some, source=source.resolve())
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trimtab")
    parser.add_argument("--base")
    parser.add_argument("--bias")
    parser.add_argument("--data")
    parser.add_argument("--from", dest="source", type=Path)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trimtab = Command(args.trimtab, work)
        if not args.data:
            good = tiny(trimtab, work, args.torch) & patched(trimtab, work)
        else:
            with open(args.data, newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
            texts = [r.get("text_a") or r["text"] for r in rows]
            texts = [f"{t}\t{r['text_b']}" if r.get("text_b") else t for t, r in zip(texts, rows)]
            base, bias = Path(args.base).resolve(), Path(args.bias).resolve()
            task = json.loads(trimtab("inspect", bias, "--json"))["task"]
            good = check(trimtab, work, bias.name.split(".")[0], base, bias, task, texts, args.torch, args.checkpoint, args.source and args.source.resolve())
    sys.exit(0 if good else "an export answers otherwise than trimtab")


if __name__ == "__main__":
    main()
