#!/usr/bin/env python3
"""Answers and tags with the scores that others' scripts give them.

  python gen.py            writes, beside this script:
    squad.json   answers to questions, `exact_match` and `f1` of each and of all, as fractions
    squad2.json  the same of SQuAD 2.0, where a question may have no answer, and of all `HasAns_*` and `NoAns_*`
    seqeval.json sentences of BIO tags, true and predicted, and `span_f1` of each and of all
    schemes.json the same of other schemes of tags, in files of a few sentences
  python gen.py --many N > FILE   N more files of a few sentences of each scheme, a line each, as in schemes.json

The SQuAD figures are those of the official evaluate-v1.1.py (github.com/rajpurkar/SQuAD-explorer), whose functions stand
below as they are there but for the percentages, and of evaluate-v2.0.py as transformers 4.57 has it
(transformers.data.metrics.squad_metrics). Needs seqeval==1.2.2 and transformers. The seed is fixed.
"""
import json
import os
import random
import re
import string
import sys
import warnings
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))


def normalize_answer(s):
    """Lower text and remove punctuation, articles and extra whitespace."""
    def remove_articles(text):
        return re.sub(r'\b(a|an|the)\b', ' ', text)

    def white_space_fix(text):
        return ' '.join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return ''.join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def exact_match_score(prediction, ground_truth):
    return normalize_answer(prediction) == normalize_answer(ground_truth)


def metric_max_over_ground_truths(metric_fn, prediction, ground_truths):
    return max(metric_fn(prediction, ground_truth) for ground_truth in ground_truths)


CASES = [
    ("Denver Broncos", ["Denver Broncos", "The Denver Broncos"]),
    ("the Broncos", ["Denver Broncos"]),
    ("October 1973 when the members", ["October 1973"]),
    ("", ["x"]),
    ("the", ["an"]),
    ("the", ["The a."]),
    ("to be or not to be", ["to be to be to"]),
    ("$12", ["12"]),
    ("U.S.", ["US", "United States"]),
    ("10–12 \u201cthe end\u201d", ["10-12 the end", "\u201cend\u201d 10–12"]),
    ("A-10 a/the", ["a10 athe"]),
    ("a_the", ["athe", "the"]),
    ("İstanbul", ["istanbul", "i\u0307stanbul"]),
    ("Straße ΣΑΣ", ["straße σας"]),
    ("one\u00a0two\u2003three\x1ffour\tfive", ["one two three four five"]),
    ("東京 the 京都", ["東京京都", "東京 京都"]),
    ("théâtre", ["the âtre", "the\u0301âtre"]),
    ("½ of the 2² a²", ["½ of 2² a²"]),
    ("the’s an—a", ["’s —"]),
]
WORDS = "the a an The of king 1066 Hastings, battle (of) U.S. – é 'quoted' no-one".split()


def squad(rng):
    cases = list(CASES)
    for _ in range(200):
        golds = [" ".join(rng.choices(WORDS, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 4))]
        answer = " ".join(rng.choices(WORDS, k=rng.randint(0, 6)))
        cases.append((rng.choice([answer, golds[-1].lower(), "the " + golds[0]]), golds))
    rows = [{"answer": answer, "golds": golds,
             "exact_match": float(metric_max_over_ground_truths(exact_match_score, answer, golds)),
             "f1": float(metric_max_over_ground_truths(f1_score, answer, golds))} for answer, golds in cases]
    total = {key: sum(row[key] for row in rows) / len(rows) for key in ("exact_match", "f1")}
    return {"all": total, "rows": rows}


def tags(rng):
    from seqeval.metrics import f1_score as span_f1
    names = ["O", "B-per", "I-per", "B-loc", "I-loc"]
    truth, predicted = [], []
    for _ in range(100):
        sentence = rng.choices(names, weights=[5, 2, 3, 2, 3], k=rng.randint(1, 12))
        truth.append(sentence)
        predicted.append([tag if rng.random() < 0.7 else rng.choice(names) for tag in sentence])
    rows = [{"truth": t, "predicted": p, "span_f1": float(span_f1([t], [p], zero_division=0))}
            for t, p in zip(truth, predicted)]
    return {"names": names, "all": {"span_f1": float(span_f1(truth, predicted, zero_division=0))}, "rows": rows}


def squad2(rng):
    from transformers.data.metrics import squad_metrics
    from transformers.data.processors.squad import SquadExample
    cases = [("", []), ("the", []), ("x", []), ("", ["x"]), ("a", ["the"]), ("", ["the"]), ("x y", ["the", "x"])]
    for _ in range(200):
        golds = [" ".join(rng.choices(WORDS, k=rng.randint(1, 5))) for _ in range(rng.randint(0, 3))]
        answer = " ".join(rng.choices(WORDS, k=rng.randint(0, 4)))
        cases.append((rng.choice([answer, "", golds[-1].lower() if golds else "the"]), golds))
    example = lambda i, golds: SquadExample(str(i), "q", "c", None, None, "t", answers=[{"text": g} for g in golds])
    examples = [example(i, golds) for i, (_, golds) in enumerate(cases)]
    of = lambda some: squad_metrics.squad_evaluate([examples[i] for i in some], {str(i): cases[i][0] for i in some})
    rows = [{"answer": answer, "golds": golds, "exact": of([i])["exact"] / 100, "f1": of([i])["f1"] / 100}
            for i, (answer, golds) in enumerate(cases)]
    names = [f"{part}_{score}" for part in ("HasAns", "NoAns") for score in ("exact", "f1")]
    total = of(range(len(cases)))
    return {"all": {name: total[name] / 100 for name in ["exact", "f1"] + names}, "rows": rows}


SCHEMES = {"BIO": "BI", "IOB1": "I", "IOE": "IE", "BIOES": "BIES", "BILOU": "BILU", "BMEWO": "BMEW"}


def chunks(rng, scheme, kinds, n):
    """Well-formed tags of n tokens."""
    tags = []
    while len(tags) < n:
        kind, k = rng.choice(kinds), min(rng.choice([1, 1, 2, 3]), n - len(tags))
        first, inside, last, single = {
            "BIO": "BIIB", "IOB1": "IIII", "IOE": "IIEE", "BIOES": "BIES", "BILOU": "BILU", "BMEWO": "BMEW"}[scheme]
        if rng.random() < 0.4:
            tags.append("O")
            continue
        if scheme == "IOB1" and tags and tags[-1][1:] == "-" + kind:
            first = single = "B"
        prefixes = single if k == 1 else first + inside * (k - 2) + last
        tags += [f"{p}-{kind}" for p in prefixes]
    return tags[:n]


def files(rng, each):
    """Some files of a few sentences of each scheme: half of them random tags, half well-formed ones with mistakes."""
    from seqeval.metrics import f1_score as span_f1
    for scheme, prefixes in SCHEMES.items():
        for i in range(each):
            kinds = ["per", "creative-work", "loc"][:rng.randint(1, 3)]
            names = ["O"] + [f"{p}-{kind}" for p in prefixes + ("B" if scheme == "IOB1" else "") for kind in kinds]
            truth, predicted = [], []
            for _ in range(rng.randint(1, 4)):
                n = rng.randint(1, 10)
                sentence = rng.choices(names, k=n) if i % 2 else chunks(rng, scheme, kinds, n)
                truth.append(sentence)
                predicted.append([tag if rng.random() < 0.75 else rng.choice(names) for tag in sentence])
            f1 = float(span_f1(truth, predicted, zero_division=0))
            yield {"scheme": scheme, "truth": truth, "predicted": predicted, "span_f1": f1}


def schemes(rng):
    return {"rows": list(files(rng, 30))}


def main():
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--many"]:
        for row in files(random.Random(1), int(sys.argv[2])):
            print(json.dumps(row))
        return
    for name, make in ("squad", squad), ("squad2", squad2), ("seqeval", tags), ("schemes", schemes):
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
            data = make(random.Random(20261123))
            rows = ",\n".join(json.dumps(row) for row in data.pop("rows"))
            head = json.dumps(data)[:-1] + (", " if data else "")
            f.write(head + '"rows": [\n' + rows + "\n]}\n")


main()
