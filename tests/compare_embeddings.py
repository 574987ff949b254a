"""Cosine of trimtab's int8 sentence embeddings with those of the fp32 model in PyTorch.

  cargo run --release --example embed -- BASE DATA.tsv N > embeddings.jsonl
  python tests/compare_embeddings.py MODEL_DIR DATA.tsv embeddings.jsonl

Needs torch, transformers and tokenizers. The mean over all tokens, texts cut at 128 tokens.
"""
import json
import sys

import torch
from tokenizers import Tokenizer
from transformers import BertModel

model_dir, data, ours = sys.argv[1:]
model = BertModel.from_pretrained(model_dir).eval()
tokenizer = Tokenizer.from_file(f"{model_dir}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(128)
with open(data, encoding="utf-8", newline="\n") as f:
    header = f.readline().rstrip("\n").split("\t")
    column = header.index("text_a" if "text_a" in header else "text")
    texts = [line.rstrip("\n").split("\t")[column] for line in f]
cosines = []
with open(ours) as f, torch.inference_mode():
    for text, line in zip(texts, f):
        ids = torch.tensor([tokenizer.encode(text).ids])
        theirs = model(input_ids=ids).last_hidden_state[0].mean(0)
        cosines.append(float(torch.cosine_similarity(theirs, torch.tensor(json.loads(line)), dim=0)))
print(json.dumps({"texts": len(cosines), "mean_cosine": round(sum(cosines) / len(cosines), 5),
                  "lowest": round(min(cosines), 5)}))
