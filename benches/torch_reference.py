#!/usr/bin/env python3
"""Fine-tunes a BERT in PyTorch, fp32, for a fixed number of epochs, and answers lines with what the last epoch left.

  torch_reference.py --model DIR --train FILE --score FILE --task classify --mode full --lr 5e-5 --epochs 10 --answers OUT

`--mode full` trains every weight, `bitfit` the biases and the head. classify and regress: mean of the tokens, dropout, one
linear layer; a pair is one sequence; numbers are standardized for training. tag: a linear layer over each token, loss on the
first piece of a word. qa: start and end of the answer, in windows of --max-len tokens that overlap by --stride;
the best span of at most 30 tokens, as run_qa.py. AdamW without weight decay, warm-up over 6 % of the steps, then linear
decay to 0, gradient norm clipped at 1, dropout 0.1.

OUT gets one answer as JSON for each line of --score. Standard output gets one JSON object: the score, and the wall and CPU
seconds from the start of the process to the end of training.
"""
import time

START = time.perf_counter()

import argparse
import json
import math
import os

import torch
import transformers
from tokenizers import Tokenizer

import sets

ANSWER_TOKENS, ANSWER_CANDIDATES = 30, 20
IGNORED = -100


class Model(torch.nn.Module):
    def __init__(self, path, kind, outputs):
        super().__init__()
        config = transformers.BertConfig.from_pretrained(path, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
        self.bert = transformers.BertModel.from_pretrained(path, config=config, add_pooling_layer=False)
        self.is_mean = kind in ("classify", "regress")
        self.dropout = torch.nn.Dropout(0.0 if kind == "qa" else 0.1)
        self.head = torch.nn.Linear(config.hidden_size, outputs)
        torch.nn.init.normal_(self.head.weight, std=config.initializer_range)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, ids, types, mask):
        hidden = self.bert(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        if self.is_mean:
            m = mask.unsqueeze(-1).to(hidden.dtype)
            hidden = (hidden * m).sum(1) / m.sum(1)
        return self.head(self.dropout(hidden))


def tokenizer(a, kind):
    t = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
    t.no_padding()
    if kind == "qa":
        t.enable_truncation(a.max_len, stride=a.stride, strategy="only_second")
    else:
        t.enable_truncation(a.max_len, strategy="longest_first")
    return t


def encode(t, kind, lines):
    """One encoding a line; of qa a list of them, its windows."""
    if kind == "tag":
        return t.encode_batch([list(line.texts) for line in lines], is_pretokenized=True)
    texts = [line.texts if len(line.texts) == 2 else line.texts[0] for line in lines]
    encoded = t.encode_batch(texts)
    return [[e, *e.overflowing] for e in encoded] if kind == "qa" else encoded


def batch_of(encoded):
    """Padded ids, types and mask."""
    n = max(len(e.ids) for e in encoded)
    pad = lambda values: list(values) + [0] * (n - len(values))
    columns = ([pad(e.ids) for e in encoded], [pad(e.type_ids) for e in encoded], [pad([1] * len(e.ids)) for e in encoded])
    return [torch.tensor(column) for column in columns]


class Targets:
    """What an encoding should give, and what the outputs say."""

    def __init__(self, kind, lines):
        self.kind = kind
        if kind == "classify":
            self.names = sorted({line.label for line in lines})
        elif kind == "tag":
            self.names = sorted({tag for line in lines for tag in line.label})
        elif kind == "regress":
            values = torch.tensor([line.label for line in lines])
            self.mean, self.deviation = float(values.mean()), float(values.std()) or 1.0
        self.outputs = {"regress": 1, "qa": 2}.get(kind) or max(2, len(self.names))

    def of(self, encoded, line):
        if self.kind == "classify":
            return self.names.index(line.label)
        if self.kind == "regress":
            return (line.label - self.mean) / self.deviation
        if self.kind == "tag":
            return [IGNORED if w is None else self.names.index(line.label[w]) for w in first_pieces(encoded)]
        return span_of(encoded, line.label[0])

    def loss(self, outputs, targets):
        if self.kind == "regress":
            return torch.nn.functional.mse_loss(outputs[:, 0], torch.tensor(targets))
        if self.kind == "tag":
            n = outputs.shape[1]
            targets = torch.tensor([t + [IGNORED] * (n - len(t)) for t in targets])
            return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        targets = torch.tensor(targets)
        if self.kind == "qa":
            return sum(torch.nn.functional.cross_entropy(outputs[..., i], targets[:, i]) for i in (0, 1)) / 2
        return torch.nn.functional.cross_entropy(outputs, targets)

    def answer(self, encoded, outputs, line):
        if self.kind == "classify":
            return self.names[int(outputs[:len(self.names)].argmax())]
        if self.kind == "regress":
            return float(outputs[0]) * self.deviation + self.mean
        # A word that was cut off has no answer of its own.
        tags = [sets.NO_TAG] * len(line.texts)
        for w, row in zip(first_pieces(encoded), outputs[:, :len(self.names)]):
            if w is not None:
                tags[w] = self.names[int(row.argmax())]
        return tags


def first_pieces(encoded):
    """For each token, the word that begins with it, or None."""
    words, last = [], None
    for w in encoded.word_ids:
        words.append(w if w != last else None)
        last = w
    return words


def context_tokens(encoded):
    """Indices of a window's tokens that belong to the context."""
    return [i for i, s in enumerate(encoded.sequence_ids) if s == 1]


def span_of(window, answer):
    """First and last token of the answer; 0 and 0 where this window does not have it all."""
    first, last = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    inside = context_tokens(window)
    offsets = window.offsets
    if not inside or offsets[inside[0]][0] > first or offsets[inside[-1]][1] < last:
        return 0, 0
    return (max(i for i in inside if offsets[i][0] <= first), min(i for i in inside if offsets[i][1] >= last))


def best_span(windows, outputs, line):
    best, text = -math.inf, ""
    for window, rows in zip(windows, outputs):
        inside = set(context_tokens(window))
        starts, ends = rows[:, 0].tolist(), rows[:, 1].tolist()
        top = lambda values: sorted(inside, key=lambda i: -values[i])[:ANSWER_CANDIDATES]
        for i in top(starts):
            for j in top(ends):
                if i <= j < i + ANSWER_TOKENS and starts[i] + ends[j] > best:
                    best, text = starts[i] + ends[j], line.texts[1][window.offsets[i][0]:window.offsets[j][1]]
    return text


def train(a, model, targets, pairs):
    """`pairs` of an encoding and its target."""
    wanted = [p for name, p in model.named_parameters() if a.mode == "full" or name.startswith("head") or "bias" in name]
    chosen = {id(p) for p in wanted}
    for p in model.parameters():
        p.requires_grad = id(p) in chosen
    optimizer = torch.optim.AdamW(wanted, lr=a.lr, weight_decay=0.0, fused=True)
    steps = math.ceil(len(pairs) / a.batch) * a.epochs
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(0.06 * steps), steps)
    model.train()
    for _ in range(a.epochs):
        order = torch.randperm(len(pairs)).tolist()
        for start in range(0, len(order), a.batch):
            some = [pairs[i] for i in order[start:start + a.batch]]
            loss = targets.loss(model(*batch_of([e for e, _ in some])), [t for _, t in some])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(wanted, 1.0)
            optimizer.step()
            schedule.step()
    return sum(p.numel() for p in wanted)


@torch.inference_mode()
def outputs_of(model, encoded):
    """The model's outputs, in the order of `encoded`, without those of padding."""
    model.eval()
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].ids))
    found = [None] * len(encoded)
    for start in range(0, len(order), 64):
        some = order[start:start + 64]
        for i, y in zip(some, model(*batch_of([encoded[i] for i in some]))):
            found[i] = y if model.is_mean else y[:len(encoded[i].ids)]
    return found


def answers(model, kind, targets, t, lines):
    encoded = encode(t, kind, lines)
    if kind != "qa":
        return [targets.answer(e, y, line) for e, y, line in zip(encoded, outputs_of(model, encoded), lines)]
    outputs = iter(outputs_of(model, [window for windows in encoded for window in windows]))
    return [best_span(windows, [next(outputs) for _ in windows], line) for windows, line in zip(encoded, lines)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, metavar="DIR")
    ap.add_argument("--train", required=True, metavar="FILE")
    ap.add_argument("--score", required=True, metavar="FILE")
    ap.add_argument("--task", required=True, choices=["classify", "regress", "tag", "qa"])
    ap.add_argument("--mode", required=True, choices=["full", "bitfit"])
    ap.add_argument("--lr", type=float, required=True)
    ap.add_argument("--epochs", type=int, required=True)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--max-len", type=int, default=128)
    ap.add_argument("--stride", type=int, default=42)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--answers", metavar="FILE")
    a = ap.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)

    lines, scored = sets.read(a.task, a.train), sets.read(a.task, a.score)
    t, targets = tokenizer(a, a.task), Targets(a.task, lines)
    encoded = encode(t, a.task, lines)
    windows = encoded if a.task == "qa" else [[e] for e in encoded]
    pairs = [(e, targets.of(e, line)) for some, line in zip(windows, lines) for e in some]
    model = Model(a.model, a.task, targets.outputs)
    started = time.perf_counter()
    trained = train(a, model, targets, pairs)
    now = time.perf_counter()
    report = {"wall_s": round(now - START, 2), "cpu_s": round(time.process_time(), 2), "train_s": round(now - started, 2)}

    found = answers(model, a.task, targets, t, scored)
    if a.answers:
        with open(a.answers, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(answer) + "\n" for answer in found)
    name = sets.measure(a.task, scored)
    report |= {"score": round(sets.score(name, sets.marks(a.task, scored, found)), 5), "lr": a.lr, "epochs": a.epochs,
               "batch": a.batch, "trained": trained}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
