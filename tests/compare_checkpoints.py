"""Embeddings of trimtab beside those of sentence-transformers, for checkpoints in many shapes.

  python tests/compare_checkpoints.py TRIMTAB

TRIMTAB is the program. Every variant is made of tests/golden/tiny-bert, quantized, and embedded with --exact. Prints the lowest
cosine and both widths and lengths of each; fails below 0.999 (the weights are int8). Needs sentence-transformers.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer

TRIMTAB = os.path.abspath(sys.argv[1])
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
LINES = ["we love it", "Not a Good movie, é 漢字!", "x", "the movie was far and very long " * 20]
rng = np.random.default_rng(7)


def put(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(value, file)


def edit(path, **changes):
    with open(path) as file:
        value = json.load(file)
    value.update(changes)
    put(path, {key: item for key, item in value.items() if item != "-"})


def modules(folder, *all_modules):
    entries = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), *all_modules])]
    put(f"{folder}/modules.json", entries)


def pooling(folder, mode="mean_tokens"):
    put(f"{folder}/1_Pooling/config.json", {"word_embedding_dimension": 64, f"pooling_mode_{mode}": True})


def dense(folder, name, wide, out, activation, bias=True):
    put(f"{folder}/{name}/config.json", {"in_features": wide, "out_features": out, "bias": bias,
                                         "activation_function": f"torch.nn.modules.{activation}"})
    tensors = {"linear.weight": rng.normal(size=(out, wide)).astype("f4") / 8}
    if bias:
        tensors["linear.bias"] = rng.normal(size=out).astype("f4")
    save_file(tensors, f"{folder}/{name}/model.safetensors")


def normalizer(folder, **changes):
    with open(f"{folder}/tokenizer.json") as file:
        tokenizer = json.load(file)
    tokenizer["normalizer"].update(changes)
    put(f"{folder}/tokenizer.json", tokenizer)


def without_pooler(folder):
    pooling(folder, "cls_token")
    weights = load_file(f"{folder}/model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, f"{folder}/model.safetensors")


def with_dense(*specs):
    def change(folder):
        for spec in specs:
            dense(folder, *spec)
        modules(folder, *[(spec[0], "Dense") for spec in specs])
    return change


def tokenizer_says(said, **changes):
    def change(folder):
        normalizer(folder, **changes)
        put(f"{folder}/tokenizer_config.json", said)
    return change


def settings(said, tokenizer=None):
    def change(folder):
        put(f"{folder}/sentence_bert_config.json", said)
        if tokenizer is not None:
            tokenizer_says(tokenizer, lowercase=False)(folder)
    return change


def normalized(folder):
    dense(folder, "3_Dense", 64, 24, "linear.Identity")
    modules(folder, ("2_Normalize", "Normalize"), ("3_Dense", "Dense"), ("4_Normalize", "Normalize"))


VARIANTS = {
    "mean": lambda folder: None,
    "cls": lambda folder: pooling(folder, "cls_token"),
    "cls without a pooler": without_pooler,
    "two Dense": with_dense(("2_Dense", 64, 16, "activation.Tanh"), ("3_Dense", 16, 70, "activation.ReLU", False)),
    "Normalize, Dense, Normalize": normalized,
    **{name: with_dense(("2_Dense", 64, 32, f"activation.{name}"))
       for name in ["GELU", "SiLU", "Sigmoid", "ELU", "LeakyReLU"]},
    "do_lower_case false": tokenizer_says({"do_lower_case": False}),
    "do_lower_case missing": tokenizer_says({"tokenizer_class": "BertTokenizer"}, lowercase=False),
    "PreTrainedTokenizerFast": tokenizer_says({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}, lowercase=False),
    "accents and Chinese": tokenizer_says({"strip_accents": False, "tokenize_chinese_chars": False}),
    "model_max_length": tokenizer_says({"model_max_length": 20}),
    "max_seq_length": settings({"max_seq_length": 16}),
    "lower-cased first": settings({"max_seq_length": 32, "do_lower_case": True}, {"do_lower_case": False, "strip_accents": True}),
    "sparse config": lambda folder: edit(f"{folder}/config.json", layer_norm_eps="-", hidden_act="-", type_vocab_size="-",
                                         pad_token_id="-", position_embedding_type="-"),
}

failed = False
for name, change in VARIANTS.items():
    with tempfile.TemporaryDirectory() as root:
        folder, base, lines = f"{root}/model", f"{root}/base", f"{root}/lines"
        shutil.copytree(f"{GOLDEN}/tiny-bert", folder)
        pooling(folder)
        modules(folder)
        change(folder)
        with open(lines, "w") as file:
            file.writelines(line + "\n" for line in LINES)
        subprocess.run([TRIMTAB, "quantize", folder, "-o", base], check=True, capture_output=True)
        printed = subprocess.run([TRIMTAB, "embed", "--base", base, "--exact", lines], check=True, capture_output=True).stdout
        ours = np.array([json.loads(line)["embedding"] for line in printed.splitlines()])
        model = SentenceTransformer(folder, device="cpu")
        theirs = np.array([model.encode(line, show_progress_bar=False) for line in LINES])
        lengths = [np.linalg.norm(v, axis=1) for v in (ours, theirs)]
        cosines = (ours * theirs).sum(1) / lengths[0] / lengths[1]
        ok = ours.shape == theirs.shape and cosines.min() > 0.999 and np.allclose(*lengths, rtol=0.02)
        failed |= not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name:30} {ours.shape[1]:3} {theirs.shape[1]:3}  cosine {cosines.min():.5f}  "
              f"length {lengths[0][0]:.4f} {lengths[1][0]:.4f}", flush=True)
sys.exit(failed)
