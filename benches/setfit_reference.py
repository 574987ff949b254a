#!/usr/bin/env python3
"""SetFit by its own library (PyPI `setfit`), which trains every weight.

  setfit_reference.py --model DIR --train FILE --score FILE --task classify --answers OUT

num_iterations=20 (20 positive and 20 negative pairs for each text), one epoch, batches of 16, learning rate 2e-5, then
scikit-learn's logistic regression; all other settings are the library's defaults. Single texts only. OUT and standard output are those of torch_reference.py.
"""
import time

START = time.perf_counter()

import argparse
import contextlib
import json
import sys
import tempfile

import datasets
import setfit
import torch
import transformers

import sets


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True, metavar="DIR")
    ap.add_argument("--train", required=True, metavar="FILE")
    ap.add_argument("--score", required=True, metavar="FILE")
    ap.add_argument("--task", required=True, choices=["classify"])
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--answers", metavar="FILE")
    a = ap.parse_args()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(a.threads)

    lines, scored = sets.read(a.task, a.train), sets.read(a.task, a.score)
    data = {"text": [line.texts[0] for line in lines], "label": [line.label for line in lines]}
    # The library talks on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        arguments = setfit.TrainingArguments(output_dir=folder, num_iterations=20, num_epochs=1, batch_size=16,
                                             body_learning_rate=2e-5, seed=a.seed, report_to="none", save_strategy="no",
                                             show_progress_bar=False)
        model = setfit.SetFitModel.from_pretrained(a.model, device="cpu")
        trainer = setfit.Trainer(model=model, args=arguments, train_dataset=datasets.Dataset.from_dict(data))
        trainer.train()
        report = {"wall_s": round(time.perf_counter() - START, 2), "cpu_s": round(time.process_time(), 2)}
        found = [str(label) for label in model.predict([line.texts[0] for line in scored], batch_size=64)]
    if a.answers:
        with open(a.answers, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(answer) + "\n" for answer in found)
    name = sets.measure(a.task, scored)
    report |= {"score": round(sets.score(name, sets.marks(a.task, scored, found)), 5), "setfit": setfit.__version__}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
