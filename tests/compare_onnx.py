"""Cosine of trimtab's sentence embeddings with those of ONNX Runtime running the ONNX file the base was made of.

  trimtab quantize MODEL.onnx -o BASE
  trimtab embed --base BASE [--exact] TEXTS.txt > embeddings.jsonl
  python tests/compare_onnx.py MODEL.onnx TOKENIZER.json TEXTS.txt embeddings.jsonl [MAX_LEN]

Needs onnxruntime, numpy and tokenizers. One text a line; the mean over all tokens, texts cut at 128 tokens.
"""
import json
import sys

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

model, tokenizer, texts, ours, *rest = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(model, options)
inputs = [i.name for i in session.get_inputs()]
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.no_padding()
tokenizer.enable_truncation(int(rest[0]) if rest else 128)
cosines = []
with open(texts, encoding="utf-8") as lines, open(ours) as vectors:
    for text, line in zip(lines, vectors):
        ids = np.array([tokenizer.encode(text.rstrip("\n")).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        theirs = session.run(None, {name: feed[name] for name in inputs})[0][0].mean(0)
        vector = json.loads(line)
        vector = np.array(vector["embedding"] if isinstance(vector, dict) else vector)
        cosines.append(float(theirs @ vector / np.linalg.norm(theirs) / np.linalg.norm(vector)))
cosines.sort()
print(json.dumps({"texts": len(cosines), "mean": round(sum(cosines) / len(cosines), 5), "lowest": round(cosines[0], 5),
                  "below_0.999": sum(c < 0.999 for c in cosines)}))
