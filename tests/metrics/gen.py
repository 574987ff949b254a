#!/usr/bin/env python3
"""Answers and tags with the scores that others' scripts give them.

  python gen.py            writes, beside this script:
    squad.json   answers to questions, `exact_match` and `f1` of each and of all, as fractions
    seqeval.json sentences of BIO tags, true and predicted, and `span_f1` of each and of all

The SQuAD figures are those of the official evaluate-v1.1.py (github.com/rajpurkar/SQuAD-explorer), whose functions stand
below as they are there but for the percentages. Needs seqeval==1.2.2. The seed is fixed.
"""
import json
import os
import random
import re
import string
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


def main():
    for name, make in ("squad", squad), ("seqeval", tags):
        with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
            data = make(random.Random(20261123))
            rows = ",\n".join(json.dumps(row) for row in data.pop("rows"))
            f.write(json.dumps(data)[:-1] + ', "rows": [\n' + rows + "\n]}\n")


main()
