#!/usr/bin/env python3
"""A linear probe: scikit-learn's logistic regression (ridge regression for numbers) on a frozen encoder's fp32 embeddings.

  probe_reference.py --model DIR --train FILE --score FILE --task classify --answers OUT

A text's embedding is the mean of its tokens. A pair's features are a, b, |a - b| and a * b. OUT and standard output are
those of torch_reference.py. --form and --c are for the choice on the development sets; their defaults are what it settled.
"""
import time

START = time.perf_counter()

import argparse
import json
import warnings

import numpy as np
import torch
import transformers
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sets
from torch_reference import batch_of, tokenizer


@torch.inference_mode()
def embeddings(model, t, texts):
    encoded = t.encode_batch(texts)
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i].ids))
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        some = order[start:start + 64]
        ids, types, mask = batch_of([encoded[i] for i in some])
        hidden = model(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state
        m = mask.unsqueeze(-1).to(hidden.dtype)
        found[some] = ((hidden * m).sum(1) / m.sum(1)).numpy()
    return found


def features(model, t, lines, form):
    texts = [embeddings(model, t, list(column)) for column in zip(*(line.texts for line in lines))]
    if form == "norm":
        texts = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in texts]
    if len(texts) == 1:
        return texts[0]
    a, b = texts
    return np.concatenate([a, b, abs(a - b), a * b], axis=1)


def probe(kind, form, c):
    if kind == "regress":
        found = RidgeCV(alphas=np.logspace(-3, 4, 15))
    elif c:
        found = LogisticRegression(C=c, max_iter=2000)
    else:
        # LogisticRegressionCV wants each label in each fold; a label may have one line.
        found = GridSearchCV(LogisticRegression(max_iter=2000), {"C": np.logspace(-2, 4, 7)}, scoring="accuracy",
                             cv=KFold(5, shuffle=True, random_state=0))
    return make_pipeline(StandardScaler(), found) if form == "standard" else found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, metavar="DIR")
    ap.add_argument("--train", required=True, metavar="FILE")
    ap.add_argument("--score", required=True, metavar="FILE")
    ap.add_argument("--task", required=True, choices=["classify", "regress"])
    ap.add_argument("--form", default="norm", choices=["raw", "norm", "standard"])
    ap.add_argument("--c", type=float, default=0.0, help="inverse of the penalty; 0: by 5-fold cross-validation")
    ap.add_argument("--max-len", type=int, default=128)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--answers", metavar="FILE")
    a = ap.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(a.threads)

    lines, scored = sets.read(a.task, a.train), sets.read(a.task, a.score)
    t = tokenizer(a, a.task)
    model = transformers.BertModel.from_pretrained(a.model, add_pooling_layer=False).eval()
    fitted = probe(a.task, a.form, a.c).fit(features(model, t, lines, a.form), [line.label for line in lines])
    report = {"wall_s": round(time.perf_counter() - START, 2), "cpu_s": round(time.process_time(), 2)}

    found = fitted.predict(features(model, t, scored, a.form)).tolist()
    if a.answers:
        with open(a.answers, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(answer) + "\n" for answer in found)
    name = sets.measure(a.task, scored)
    report |= {"score": round(sets.score(name, sets.marks(a.task, scored, found)), 5), "form": a.form, "c": a.c or "cv"}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
