#!/usr/bin/env python3
"""Golden data: a tiny random BERT, and what PyTorch makes of it.

  python gen.py            writes, beside this script:
    tiny-bert/             config.json, tokenizer.json, model.safetensors
    tiny-bert-cls.safetensors       CLS pooler
    tiny-bert-mean.safetensors      mean over the text's tokens in the pooler's place
    tiny-bert-cls-tanh.safetensors  CLS pooler, `hidden_act` = gelu_new
    tiny-bert-cls-multilabel.safetensors, -cls-regress.safetensors
                           the other losses of BertForSequenceClassification, without the AdamW steps
    tiny-bert-tag.safetensors
                           BertForTokenClassification: a class for each token but the special ones; no AdamW steps
    tiny-bert-mean-contrastive.safetensors
                           four pairs of texts, the first ones of all, then the second ones; mean over a text's tokens;
                           the loss of sentence-transformers' MultipleNegativesRankingLoss: cosines of every first with
                           every second text times 20, cross-entropy with the text's own as target. No head, no hidden
                           states; in place of logits `pooled` [8, 64]
    tiny-bert-apart.safetensors
                           the same pairs, each text behind its partner's first; of the means a, b over a text's tokens,
                           scaled to length sqrt(64), the head reads [sqrt(1 + (a - b)^2) - 1, a * b]; no AdamW steps. Labels stand twice,
                           once for each text
    tiny-bert-qa.safetensors
                           BertForQuestionAnswering: the mean of the losses of the texts, each by itself, since it counts
                           padding among the places of a start; no AdamW steps

Needs torch, transformers, tokenizers and safetensors. Seeds are fixed and one
thread is used: the same versions write the same bytes (see README.md).

The weights are fake-quantized as in a base file: symmetric; every Linear weight
of the encoder and the pooler per output channel (row of [out, in]), the three
embedding tables per row; scale = max|w| / 127 in fp32 (1 where the row is all
zero), q = clamp(round_half_even(w / scale), -127, 127), w' = q * scale. The
classifier, biases, gains and all activations stay fp32. No dropout.

Tensors in each file:
  input.input_ids, .attention_mask, .token_type_ids, .labels   (int64; in place of .labels, for multilabel and regress,
                                                               .targets in float; for qa .labels [6, 2]: start, end)
  head.classifier.weight [3, 64], head.classifier.bias [3]     the seeded head; for qa qa_outputs [2, 64], [2]
  loss [1], logits [6, 3], for tag [tokens, 3], for qa [tokens, 2]
  hidden.0 .. hidden.2     embeddings' output and each layer's output
  grad.<parameter>         every bias's gradient, and the head's weight's
  adamw_losses [10]        the loss before each of ten steps on this one batch:
                           AdamW, lr 1e-3, betas 0.9 0.999, eps 1e-8, no decay, no
                           clipping, over every bias but key's, and the classifier
  adamw.<parameter>        those parameters after the ten steps
The sentences are padded to the longest and the padding is masked, so compare
hidden.* only where the mask is 1. The gradient of key.bias is zero but for
rounding: compare it by absolute size. So are, for qa, those of qa_outputs.bias and
of the last LayerNorm's bias, which move the logits of all tokens alike.
Metadata: the texts, versions, the names of the quantized tensors and the SHA-256
of their int8 bytes in name order, and the largest relative error of the fp32
gradients against fp64.
"""
import argparse
import copy
import hashlib
import json
import os
import warnings

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (BertConfig, BertForQuestionAnswering, BertForSequenceClassification,
                          BertForTokenClassification)

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20261122
CLASSES = 3
MAX_POSITIONS = 64
TEXTS = [
    ("The movie was surprisingly good.", None, 1),
    ("I would not recommend this restaurant to anyone!", None, 0),
    ("How far is the station?", "The station is two miles away.", 2),
    ("Lovely", None, 1),
    ("Is it open on Sunday?", "No: never.", 0),
    ("A box arrived, and the box was empty", None, 2),
]
PAIRS = [
    ("How far is the station?", "The station is two miles away."),
    ("The movie was surprisingly good.", "We love this movie"),
    ("Is it open on Sunday?", "No: it is never open."),
    ("A box arrived", "and the box was empty"),
]
WORDS = """the a an and or not no is was it to of in on at for with this that i you he she we they would will
how far two very good bad movie box day time never station open was empty love ##ly ##ing ##ed ##er ##s ##ion
##rise re ##comm ##end rest ##au ##rant any ##one sun ##day mile ##s away""".split()

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def pieces():
    """[PAD] must be 0. Every printable ASCII character is a piece, so any English text tokenizes."""
    lower = "abcdefghijklmnopqrstuvwxyz0123456789"
    punctuation = [chr(c) for c in range(33, 127) if not chr(c).isalnum()]
    out = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + punctuation + list(lower)
    out += ["##" + c for c in lower]
    for word in WORDS:
        if word not in out:
            out.append(word)
    return out


def write_tokenizer(path):
    vocab = pieces()
    special = [{"id": vocab.index(t), "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]

    def token(name, type_id):
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def sequence(name, type_id):
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0)]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single + [sequence("B", 1), token("[SEP]", 1)],
            "special_tokens": {t: {"id": t, "ids": [vocab.index(t)], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {p: i for i, p in enumerate(vocab)}},
    }
    with open(path, "w", encoding="utf-8") as f:
        json.dump(spec, f, indent=1, ensure_ascii=False)
        f.write("\n")
    return vocab


def make_model(vocab, activation, outputs=CLASSES, problem="single_label_classification",
               kind=BertForSequenceClassification):
    config = BertConfig(
        vocab_size=vocab, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=MAX_POSITIONS, type_vocab_size=2, hidden_act=activation,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=outputs,
        problem_type=problem, layer_norm_eps=1e-12, attn_implementation="eager")
    model = kind(config).float().train()
    g = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if name.endswith("LayerNorm.weight"):
                p.copy_(1 + 0.1 * noise)
            elif name.endswith(".bias"):
                p.copy_(0.1 * noise)
            elif ".self.query." in name or ".self.key." in name or ".intermediate." in name:
                # Attention far from uniform, and inputs of GELU where erf and tanh differ most.
                p.copy_(0.25 * noise)
            else:
                p.copy_(0.08 * noise)
        model.bert.embeddings.word_embeddings.weight[0] = 0  # [PAD]: an all-zero row has scale 1
    return model


def write_base(model, vocab_size, path):
    tensors = {n[len("bert."):]: p.detach().contiguous() for n, p in model.named_parameters()
               if n.startswith("bert.")}
    save_file(tensors, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 128,
        "layer_norm_eps": 1e-12, "max_position_embeddings": MAX_POSITIONS, "model_type": "bert",
        "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0,
        "position_embedding_type": "absolute", "type_vocab_size": 2, "vocab_size": vocab_size,
    }
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")


def fake_quantize(model):
    digest, names = hashlib.sha256(), []
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if p.ndim == 2 and name not in ("classifier.weight", "classifier.out_proj.weight"):
                amax = p.abs().amax(dim=1, keepdim=True)
                scale = torch.where(amax > 0, amax / 127.0, torch.ones_like(amax))
                q = torch.clamp(torch.round(p / scale), -127, 127)  # round: half to even
                digest.update(q.to(torch.int8).numpy().tobytes())
                p.copy_(q * scale)
                names.append(name)
    return digest.hexdigest(), names


class MeanPool(torch.nn.Module):
    """Mean of the unmasked tokens, in the pooler's place."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, hidden):
        m = self.mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * m).sum(1) / m.sum(1)


def make_batch(tokenizer, texts=TEXTS):
    encodings = [tokenizer.encode(a) if b is None else tokenizer.encode(a, b) for a, b, _ in texts]
    n = max(len(e.ids) for e in encodings)
    assert n <= MAX_POSITIONS and all(1 not in e.ids for e in encodings)

    def pad(rows):
        return torch.tensor([row + [0] * (n - len(row)) for row in rows])

    return {"input_ids": pad([e.ids for e in encodings]),
            "attention_mask": pad([[1] * len(e.ids) for e in encodings]),
            "token_type_ids": pad([e.type_ids for e in encodings])}


def answers(model, batch, labels):
    """The texts one by one, without padding; start and end of each token side by side."""
    padded = model(**batch, output_hidden_states=True)
    losses, logits = [], []
    for i, (start, end) in enumerate(labels):
        n = int(batch["attention_mask"][i].sum())
        one = model(**{k: v[i:i + 1, :n] for k, v in batch.items()}, start_positions=start.reshape(1),
                    end_positions=end.reshape(1))
        losses.append(one.loss)
        logits.append(torch.stack([one.start_logits[0], one.end_logits[0]], 1))
    return argparse.Namespace(loss=torch.stack(losses).mean(), logits=torch.cat(logits),
                              hidden_states=padded.hidden_states)


def run(model, batch, labels):
    model.zero_grad(set_to_none=True)
    if isinstance(model, BertForQuestionAnswering):
        out = answers(model, batch, labels)
    else:
        out = model(**batch, labels=labels, output_hidden_states=True)
    out.loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()
             if n.endswith(".bias") or n in ("classifier.weight", "qa_outputs.weight")}
    return out, grads


def run_pairs(model, batch):
    model.zero_grad(set_to_none=True)
    pooled = model.bert(**batch).pooler_output
    first, second = torch.nn.functional.normalize(pooled, dim=1).chunk(2)
    scores = 20 * first @ second.T
    loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(scores)))
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.bert.named_parameters("bert") if n.endswith(".bias")}
    return loss.detach(), pooled.detach(), grads


def contrastive(tokenizer, vocab_size):
    batch = make_batch(tokenizer, [(pair[i], None, None) for i in range(2) for pair in PAIRS])
    model = make_model(vocab_size, "gelu")
    digest, names = fake_quantize(model)
    model.bert.pooler = MeanPool(batch["attention_mask"])
    loss, pooled, grads = run_pairs(model, batch)
    _, _, exact = run_pairs(copy.deepcopy(model).double(), batch)
    tensors = {"input." + k: v for k, v in batch.items()}
    tensors.update({"loss": loss.reshape(1), "pooled": pooled})
    tensors.update({"grad." + n: g.contiguous() for n, g in grads.items()})
    save("mean-contrastive", "gelu", tensors, digest, names, PAIRS, float(loss), grads, exact)


def run_apart(model, head, batch, labels):
    model.zero_grad(set_to_none=True)
    head.zero_grad(set_to_none=True)
    out = model.bert(**batch, output_hidden_states=True)
    units = torch.nn.functional.normalize(out.pooler_output, dim=1) * out.pooler_output.shape[1] ** 0.5
    a, b = units[0::2], units[1::2]
    logits = head(torch.cat([(1 + (a - b) ** 2).sqrt() - 1, a * b], 1))
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.bert.named_parameters("bert") if n.endswith(".bias")}
    grads.update({n: p.grad.clone() for n, p in head.named_parameters("classifier")})
    return loss.detach(), logits.detach(), out.hidden_states, grads


def apart(tokenizer, vocab_size):
    batch = make_batch(tokenizer, [(text, None, None) for pair in PAIRS for text in pair])
    model = make_model(vocab_size, "gelu")
    digest, names = fake_quantize(model)
    model.bert.pooler = MeanPool(batch["attention_mask"])
    head, g = torch.nn.Linear(128, CLASSES), torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(0.08 * torch.randn(p.shape, generator=g))
    labels = torch.tensor([0, 1, 2, 1])
    loss, logits, hidden, grads = run_apart(model, head, batch, labels)
    *_, exact = run_apart(copy.deepcopy(model).double(), copy.deepcopy(head).double(), batch, labels)
    tensors = {"input." + k: v for k, v in batch.items()}
    tensors.update({"input.labels": labels.repeat_interleave(2), "loss": loss.reshape(1), "logits": logits})
    tensors.update({"head.classifier." + n: p.detach().clone() for n, p in head.named_parameters()})
    tensors.update({f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(hidden)})
    tensors.update({"grad." + n: g.contiguous() for n, g in grads.items()})
    save("apart", "gelu", tensors, digest, names, PAIRS, float(loss), grads, exact)


def save(variant, activation, tensors, digest, names, texts, loss, grads, exact):
    error = max(float((g.double() - exact[n]).norm() / exact[n].norm())
                for n, g in grads.items() if not n.endswith("key.bias"))
    path = os.path.join(HERE, f"tiny-bert-{variant}.safetensors")
    save_file(tensors, path, metadata={
        "texts": json.dumps(texts), "torch": torch.__version__, "transformers": transformers.__version__,
        "variant": variant, "hidden_act": activation, "seed": str(SEED), "int8_sha256": digest,
        "quantized": json.dumps(names), "max_rel_grad_err_vs_fp64": f"{error:.3e}"})
    sort_header(path)
    norm = float(torch.cat([g.flatten() for g in grads.values()]).norm())
    print(f"{variant:16} loss {loss:.7f} grad norm {norm:.6f} fp64 error {error:.1e}")


def adamw(model, batch, labels):
    """Losses of ten steps, and the parameters they end with."""
    trained = {n: p for n, p in model.named_parameters() if n.startswith("classifier.")
               or (n.endswith(".bias") and not n.endswith("self.key.bias"))}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for _ in range(10):
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), {n: p.detach().clone() for n, p in trained.items()}


def sort_header(path):
    """safetensors writes the metadata's keys in an order that changes from run to run."""
    with open(path, "rb") as f:
        data = f.read()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data[end:])


def main():
    base_dir = os.path.join(HERE, "tiny-bert")
    os.makedirs(base_dir, exist_ok=True)
    vocab = write_tokenizer(os.path.join(base_dir, "tokenizer.json"))
    tokenizer = Tokenizer.from_file(os.path.join(base_dir, "tokenizer.json"))
    batch = make_batch(tokenizer)
    labels = torch.tensor([y for _, _, y in TEXTS])
    write_base(make_model(len(vocab), "gelu"), len(vocab), base_dir)
    several = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1], [1, 1, 0]]).float()
    numbers = torch.tensor([0.5, -1.25, 3.0, 0.0, 2.0, -0.5])

    # 1, 2, 0, 1, ... for the tokens of a text, and nothing for [CLS], [SEP] and padding
    ids, mask = batch["input_ids"], batch["attention_mask"]
    special = (mask == 0) | (ids == vocab.index("[CLS]")) | (ids == vocab.index("[SEP]"))
    spans = torch.tensor([[2, 4], [0, 0], [12, 14], [1, 1], [3, 9], [5, 5]])
    tags = torch.where(special, -100, torch.arange(ids.shape[1]).expand_as(ids) % CLASSES)

    for variant, activation, outputs, problem, labels in (
            ("cls", "gelu", CLASSES, "single_label_classification", labels),
            ("mean", "gelu", CLASSES, "single_label_classification", labels),
            ("cls-tanh", "gelu_new", CLASSES, "single_label_classification", labels),
            ("cls-multilabel", "gelu", CLASSES, "multi_label_classification", several),
            ("cls-regress", "gelu", 1, "regression", numbers),
            ("tag", "gelu", CLASSES, None, tags),
            ("qa", "gelu", 2, None, spans)):
        kind = {"tag": BertForTokenClassification, "qa": BertForQuestionAnswering}.get(
            variant, BertForSequenceClassification)
        model = make_model(len(vocab), activation, outputs, problem, kind)  # seeded: the same weights each time
        head = {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("bert.")}
        digest, names = fake_quantize(model)
        if variant == "mean":
            model.bert.pooler = MeanPool(batch["attention_mask"])
        out, grads = run(model, batch, labels)
        _, exact = run(copy.deepcopy(model).double(), batch, labels.double() if labels.is_floating_point() else labels)
        zero = ["key.bias"] + ["qa_outputs.bias", "layer.1.output.LayerNorm.bias"] * (variant == "qa")
        error = max(float((g.double() - exact[n]).norm() / exact[n].norm())
                    for n, g in grads.items() if not n.endswith(tuple(zero)))
        tensors = {"input." + k: v for k, v in batch.items()}
        tensors["input.targets" if labels.is_floating_point() else "input.labels"] = labels
        tensors.update({"head." + n: p for n, p in head.items()})
        tensors["loss"] = out.loss.detach().reshape(1)
        # of tokens only those that are there
        tensors["logits"] = out.logits.detach()[mask == 1] if variant == "tag" else out.logits.detach()
        tensors.update({f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(out.hidden_states)})
        tensors.update({"grad." + n: g.contiguous() for n, g in grads.items()})
        if not labels.is_floating_point() and variant not in ("tag", "qa"):
            losses, after = adamw(copy.deepcopy(model), batch, labels)
            tensors["adamw_losses"] = losses
            tensors.update({"adamw." + n: p for n, p in after.items()})
        save(variant, activation, tensors, digest, names, TEXTS, float(out.loss), grads, exact)
    contrastive(tokenizer, len(vocab))
    apart(tokenizer, len(vocab))


if __name__ == "__main__":
    main()
