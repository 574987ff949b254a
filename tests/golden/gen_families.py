#!/usr/bin/env python3
"""Golden data of the other families: tiny random RoBERTa, DistilBERT and ELECTRA, and what transformers makes of them.

  python gen_families.py   writes, beside this script:
    tiny-roberta/, tiny-distilbert/, tiny-electra/
        config.json, tokenizer.json, model.safetensors of the family's ...ForSequenceClassification, without the head.
        RoBERTa: byte-level BPE, positions from 2 on. ELECTRA: embeddings of width 32 before a projection to 64.
    tiny-FAMILY-cls.safetensors     the first token through dense and tanh, ReLU or GELU, and the head
    tiny-distilbert-mean, tiny-electra-mean
                                    the mean over a text's tokens, and the head: what a checkpoint without them gets
    tiny-roberta-tag                RobertaForTokenClassification

The weights are fake-quantized and the tensors named as gen.py says, but for: no AdamW steps; no `input.token_type_ids`
where transformers hands none to the model; `head.classifier.*` is the head whatever its name in the model. The token
ids are those of `transformers.RobertaTokenizerFast` (and of gen.py's tokenizer for the others). tiny-roberta-cls also
holds, for each text's words, `words.N`: the ids of the tokenizer with `is_split_into_words` and `add_prefix_space`.
"""
import copy
import json
import os
import tempfile

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer

import gen
from gen import CLASSES, HERE, SEED, TEXTS

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
         "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-12,
         "hidden_act": "gelu", "num_labels": CLASSES, "attn_implementation": "eager"}


def roberta(vocab):
    config = transformers.RobertaConfig(vocab_size=vocab, max_position_embeddings=gen.MAX_POSITIONS + 2,
                                        type_vocab_size=1, pad_token_id=1, **{**SIZES, "layer_norm_eps": 1e-5})
    return config, transformers.RobertaForSequenceClassification, "classifier.out_proj"


def distilbert(vocab):
    config = transformers.DistilBertConfig(
        vocab_size=vocab, max_position_embeddings=gen.MAX_POSITIONS, dim=64, n_layers=2, n_heads=4, hidden_dim=128,
        dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=CLASSES, attn_implementation="eager")
    return config, transformers.DistilBertForSequenceClassification, "classifier"


def electra(vocab):
    config = transformers.ElectraConfig(vocab_size=vocab, max_position_embeddings=gen.MAX_POSITIONS,
                                        type_vocab_size=2, embedding_size=32, **SIZES)
    return config, transformers.ElectraForSequenceClassification, "classifier.out_proj"


def make_model(config, kind):
    """As in gen.py: attention far from uniform, biases and gains jittered."""
    model = kind(config).float().train()
    g = torch.Generator().manual_seed(SEED)
    wide = (".query.", ".key.", ".intermediate.", ".q_lin.", ".k_lin.", ".lin1.")
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if p.ndim == 1:
                p.copy_(1 + 0.1 * noise if name.endswith("weight") else 0.1 * noise)
            else:
                p.copy_((0.25 if any(w in name for w in wide) else 0.08) * noise)
        model.get_input_embeddings().weight[config.pad_token_id] = 0
    return model


def write_bpe(path):
    """Trained on the texts and words at hand; laid out as transformers saves RoBERTa's."""
    bpe = ByteLevelBPETokenizer()
    corpus = [t for a, b, _ in TEXTS for t in (a, b) if t] + [" ".join(w.strip("#") for w in gen.WORDS)]
    bpe.train_from_iterator(corpus * 3, vocab_size=360, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
                            show_progress=False)
    with tempfile.TemporaryDirectory() as d:
        bpe.save_model(d)
        fast = transformers.RobertaTokenizerFast(os.path.join(d, "vocab.json"), os.path.join(d, "merges.txt"))
        fast.save_pretrained(d)
        with open(os.path.join(d, "tokenizer.json"), encoding="utf-8") as f, open(path, "w", encoding="utf-8") as to:
            to.write(f.read())
    return fast


def batch_of(family, rows, types, pad):
    n = max(len(ids) for ids in rows)

    def padded(rows, with_):
        return torch.tensor([row + [with_] * (n - len(row)) for row in rows])

    batch = {"input_ids": padded(rows, pad), "attention_mask": padded([[1] * len(r) for r in rows], 0)}
    if family == "electra":
        batch["token_type_ids"] = padded(types, 0)
    return batch


def forward(model, head, variant, batch, labels):
    if variant != "mean":
        out = model(**batch, labels=labels, output_hidden_states=True)
        return out.loss, out.logits, out.hidden_states
    out = model.base_model(**batch, output_hidden_states=True)
    pooled = gen.MeanPool(batch["attention_mask"])(out.last_hidden_state)
    logits = model.get_submodule(head)(pooled)
    return torch.nn.functional.cross_entropy(logits, labels), logits, out.hidden_states


def golden(family, variant, model, head, batch, labels, extra, texts):
    kept = {"head.classifier.weight": model.get_submodule(head).weight.detach().clone(),
            "head.classifier.bias": model.get_submodule(head).bias.detach().clone()}
    digest, names = gen.fake_quantize(model)

    def run(model):
        model.zero_grad(set_to_none=True)
        loss, logits, hidden = forward(model, head, variant, batch, labels)
        loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters()
                 if p.grad is not None and (n.endswith(".bias") or n == head + ".weight")}
        return loss, logits, hidden, grads

    loss, logits, hidden, grads = run(model)
    *_, exact = run(copy.deepcopy(model).double())
    error = max(float((g.double() - exact[n]).norm() / exact[n].norm()) for n, g in grads.items()
                if not n.endswith(("key.bias", "k_lin.bias")))
    tensors = {"input." + k: v for k, v in batch.items()} | kept | extra
    tensors["input.labels"] = labels
    tensors["loss"] = loss.detach().reshape(1)
    tensors["logits"] = logits.detach()[batch["attention_mask"] == 1] if variant == "tag" else logits.detach()
    tensors.update({f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(hidden)})
    tensors.update({"grad." + n: g.contiguous() for n, g in grads.items()})
    path = os.path.join(HERE, f"tiny-{family}-{variant}.safetensors")
    save_file(tensors, path, metadata={
        "texts": json.dumps(texts), "torch": torch.__version__, "transformers": transformers.__version__,
        "variant": variant, "seed": str(SEED), "int8_sha256": digest, "quantized": json.dumps(names),
        "max_rel_grad_err_vs_fp64": f"{error:.3e}"})
    gen.sort_header(path)
    print(f"{family:10} {variant:4} loss {float(loss):.7f} fp64 error {error:.1e}")


def main():
    # More than ASCII, and spaces that a byte-level tokenizer keeps.
    texts = TEXTS[:5] + [("Zoë's  naïve café, 3 €", " two   spaces", 2)]
    labels = torch.tensor([y for *_, y in TEXTS])
    for family, make, variants in (("roberta", roberta, ("cls", "tag")), ("distilbert", distilbert, ("cls", "mean")),
                                   ("electra", electra, ("cls", "mean"))):
        directory = os.path.join(HERE, f"tiny-{family}")
        os.makedirs(directory, exist_ok=True)
        path, extra = os.path.join(directory, "tokenizer.json"), {}
        if family == "roberta":
            fast = write_bpe(path)
            rows = [fast(a, b)["input_ids"] for a, b, _ in texts]
            types, pad, vocab = None, 1, len(fast)
            spaced = transformers.RobertaTokenizerFast(tokenizer_file=path, add_prefix_space=True)
            for i, (a, *_) in enumerate(texts):
                ids = spaced(a.split(), is_split_into_words=True)["input_ids"]
                extra[f"words.{i}"] = torch.tensor(ids)
        else:
            vocab = len(gen.write_tokenizer(path))
            tokenizer = Tokenizer.from_file(path)
            encodings = [tokenizer.encode(a) if b is None else tokenizer.encode(a, b) for a, b, _ in texts]
            rows, types, pad = [e.ids for e in encodings], [e.type_ids for e in encodings], 0
        batch = batch_of(family, rows, types, pad)
        config, kind, head = make(vocab)
        model = make_model(config, kind)
        tensors = {n: p.detach().contiguous() for n, p in model.named_parameters() if not n.startswith(head + ".")}
        save_file(tensors, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
        config.to_json_file(os.path.join(directory, "config.json"))
        for variant in variants:
            if variant == "tag":
                mask, ids = batch["attention_mask"], batch["input_ids"]
                tags = torch.arange(ids.shape[1]).expand_as(ids) % CLASSES
                model = make_model(config, transformers.RobertaForTokenClassification)
                # the encoder of the checkpoint, so that one base serves both
                model.load_state_dict(tensors, strict=False)
                of_variant = "classifier", batch, torch.where((mask == 0) | (ids == 0) | (ids == 2), -100, tags), {}
            else:
                model = make_model(config, kind)  # seeded: the same weights each time
                of_variant = head, batch, labels, extra
            golden(family, variant, model, *of_variant, texts)


if __name__ == "__main__":
    main()
