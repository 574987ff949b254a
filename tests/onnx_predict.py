"""`trimtab predict --onnx` answers as ONNX Runtime does: the same file, the same texts.

    pip install numpy onnxruntime tokenizers
    python tests/onnx_predict.py TRIMTAB MODEL.onnx TOKENIZER.json LINES.txt [APART]

TRIMTAB is the binary; LINES.txt has a text a line (or two, with a tab between them). Prints labels that are the same and the
largest difference of a probability (or number), and ends with an error where one of them lies above APART (1e-4).
"""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

trimtab, model, tokenizer_path, lines = sys.argv[1:5]
apart_most = float(sys.argv[5]) if len(sys.argv) > 5 else 1e-4
texts = [line for line in open(lines).read().splitlines() if line.strip()]
command = [trimtab, "predict", "--onnx", model, "--tokenizer", tokenizer_path, "--max-len", "128", "--json"]
done = subprocess.run(command, input="\n".join(texts) + "\n", capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr)
answers = [json.loads(line) for line in done.stdout.splitlines()]
ours = np.array([list(a["probabilities"].values()) if "probabilities" in a else [a["value"]] for a in answers])

session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
# Files of one length are padded to it, in as many rows as they want.
shapes = {i.name: [d if isinstance(d, int) else None for d in i.shape] for i in session.get_inputs()}
rows, columns = next(iter(shapes.values()))
tokenizer = Tokenizer.from_file(tokenizer_path)
tokenizer.no_padding()
tokenizer.enable_truncation(columns or 128)
if columns:
    tokenizer.enable_padding(length=columns)
theirs = []
for text in texts:
    e = tokenizer.encode(*text.split("\t", 1))
    feed = {"input_ids": e.ids, "attention_mask": e.attention_mask, "token_type_ids": e.type_ids}
    y = session.run(None, {n: np.array([feed[n]] * (rows or 1)) for n in shapes})[0][0].astype(np.float64)
    p = np.exp(y - y.max())
    theirs.append(y if len(y) == 1 else p / p.sum())
theirs = np.array(theirs)

apart = np.abs(ours - theirs)
same = (ours.argmax(1) == theirs.argmax(1)).sum()
print(f"{len(texts)} texts, {ours.shape[1]} outputs: {same} labels the same, at most {apart.max():.2e} apart, {apart.mean():.2e} on average")
sys.exit(0 if apart.max() <= apart_most and ours.shape == theirs.shape else "further apart than allowed")
