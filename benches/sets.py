"""The data sets: reading and writing their lines, and scoring the answers to them.

A set is a folder with `train` and `dev`, each a .tsv (label, text, perhaps a second text), a .conll (token and tag a line, a
blank line after a sentence) or a SQuAD v1.1 .json. A "line" is one labelled example of any of the three.

A score is a function of sums over lines: each line contributes a pair of numbers, its mark. Sums can be weighted, which is
what a bootstrap over lines needs.
"""
import collections
import dataclasses
import json
import os
import re
import string

KINDS = {
    "tweet_emotion": "classify", "cola": "classify", "snips_intent": "classify", "clinc150": "classify",
    "mrpc": "classify", "stsb": "regress",
    "sst2": "classify", "sms_spam": "classify", "rte": "classify", "qnli": "classify", "mnli": "classify",
    "sentiment_german": "classify", "sentiment_hindi": "classify",
    "wnut17": "tag", "snips_slots": "tag", "ewt_pos": "tag", "squad": "qa",
}
GROUPS = {
    # Choices of any kind may be made on these only.
    "development": ["tweet_emotion", "cola", "snips_intent", "clinc150", "mrpc", "stsb"],
    # Scored once, when all choices have been made.
    "blind": ["sst2", "sms_spam", "rte", "qnli", "mnli", "sentiment_german", "sentiment_hindi"],
    "tokens": ["wnut17", "snips_slots", "ewt_pos", "squad"],
}
ENDINGS = {"tag": "conll", "qa": "json"}
NO_TAG = "O"


@dataclasses.dataclass
class Line:
    """One example. `raw` is how the file has it; `label` is a name, a number, a list of tags or a list of answers."""
    raw: object
    texts: tuple
    label: object


def path_of(folder, task, part):
    return os.path.join(folder, task, f"{part}.{ENDINGS.get(KINDS[task], 'tsv')}")


def read(kind, path):
    with open(path, encoding="utf-8", newline="\n") as f:
        text = f.read()
    return {"tag": _read_conll, "qa": _read_squad}.get(kind, _read_tsv)(kind, text)


def _read_tsv(kind, text):
    rows = [row for row in text.split("\n")[1:] if row]
    columns = [row.split("\t") for row in rows]
    label = float if kind == "regress" else str
    return [Line(row, tuple(texts), label(first)) for row, (first, *texts) in zip(rows, columns)]


def _read_conll(_, text):
    blocks = [block.strip("\n") for block in re.split(r"\n\n+", text)]
    lines = []
    for block in filter(None, blocks):
        rows = [row.split("\t") for row in block.split("\n")]
        lines.append(Line(block, tuple(row[0].strip() for row in rows), [row[-1].strip() for row in rows]))
    return lines


def _read_squad(_, text):
    lines = []
    for article in json.loads(text)["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                raw = {"context": paragraph["context"], "qas": [qa]}
                lines.append(Line(raw, (qa["question"], paragraph["context"]), qa["answers"]))
    return lines


def write(kind, lines, path):
    if kind == "qa":
        text = json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": [line.raw for line in lines]}]})
    elif kind == "tag":
        text = "\n\n".join(line.raw for line in lines) + "\n"
    else:
        header = ["label", "text_a", "text_b"][:1 + len(lines[0].texts)]
        text = "\n".join(["\t".join(header), *(line.raw for line in lines)]) + "\n"
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write(text)


def measure(kind, lines):
    """The name of the score. Tags that are not BIO are scored token by token."""
    if kind == "tag":
        return "span_f1" if any(tag.startswith("B-") for line in lines for tag in line.label) else "token_accuracy"
    return {"classify": "accuracy", "regress": "pearson", "qa": "token_f1"}[kind]


def marks(kind, lines, answers):
    """A pair of numbers for each line. An answer is a label, a number, a list of tags or a text."""
    if len(lines) != len(answers):
        raise ValueError(f"{len(answers)} answers to {len(lines)} lines")
    one = {"accuracy": lambda gold, answer: (int(gold == answer), 1),
           "pearson": lambda gold, answer: (gold, round(answer, 5)),
           "span_f1": _span_mark, "token_accuracy": _tag_mark,
           "token_f1": lambda golds, answer: (round(max(_words_f1(g["text"], answer) for g in golds), 5), 1)}
    one = one[measure(kind, lines)]
    return [one(line.label, answer) for line, answer in zip(lines, answers)]


def sums_of(name, mark):
    """What of a mark is summed; `mark` may be a pair of arrays."""
    a, b = mark
    return (a * 0 + 1, a, b, a * a, b * b, a * b) if name == "pearson" else (a, b)


def score_of(name, sums):
    """The score from the sums over lines, which may be arrays."""
    if name != "pearson":
        return sums[0] / sums[1]
    n, a, b, aa, bb, ab = sums
    return (n * ab - a * b) / (((n * aa - a * a) * (n * bb - b * b)) ** 0.5 + 1e-12)


def score(name, pairs):
    return score_of(name, [sum(column) for column in zip(*(sums_of(name, pair) for pair in pairs))])


def _tag_mark(gold, answer):
    return sum(g == a for g, a in zip(gold, answer)), len(gold)


def _span_mark(gold, answer):
    gold, answer = spans(gold), spans(answer)
    return 2 * len(gold & answer), len(gold) + len(answer)


def spans(tags):
    """(first, end, type) of each span of BIO tags, as seqeval reads them: a stray I- begins a span. `end` is exclusive."""
    found, first, kind = set(), None, None
    for i, tag in enumerate([*tags, NO_TAG]):
        prefix, _, this = tag.partition("-")
        if first is not None and (prefix != "I" or this != kind):
            found.add((first, i, kind))
            first = None
        if prefix != NO_TAG and first is None:
            first, kind = i, this
    return found


def _words(text):
    """As SQuAD's script normalizes an answer."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _words_f1(gold, answer):
    gold, answer = _words(gold), _words(answer)
    if not gold or not answer:
        return float(gold == answer)
    same = sum((collections.Counter(gold) & collections.Counter(answer)).values())
    return 2 * same / (len(gold) + len(answer))
