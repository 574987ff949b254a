#!/usr/bin/env python3
"""Golden data of masked-LM heads: the tiny models of gen.py and gen_families.py under their ...ForMaskedLM.

  python gen_mlm.py        writes, beside this script, tiny-FAMILY-mlm.safetensors of bert, roberta, distilbert, electra

The encoder is that of tiny-FAMILY/, which must be there; the head is random, its last weight the word embeddings. Both are
fake-quantized as gen.py says, the head's dense layer too. In each text every third token but the special ones is hidden: by
the mask, but for every fourth of these by the token in front of it. Tensors in each file:
  input.input_ids (with tokens hidden), .attention_mask, .token_type_ids where the family has them
  input.labels [6, seq]    the hidden tokens, -100 elsewhere
  head.<parameter>         the head as a checkpoint holds it, before quantization
  loss [1], hidden.0 .. hidden.2, grad.<parameter> of every bias of the encoder
"""
import copy
import json
import os

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import gen
import gen_families
from gen import HERE, SEED, TEXTS


def bert(vocab):
    config = transformers.BertConfig(vocab_size=vocab, max_position_embeddings=gen.MAX_POSITIONS, type_vocab_size=2,
                                     **gen_families.SIZES)
    return config, None, None


MODELS = {
    "bert": (bert, transformers.BertForMaskedLM),
    "roberta": (gen_families.roberta, transformers.RobertaForMaskedLM),
    "distilbert": (gen_families.distilbert, transformers.DistilBertForMaskedLM),
    "electra": (gen_families.electra, transformers.ElectraForMaskedLM),
}


def hide(batch, special, mask):
    """Masked ids, and labels."""
    ids = batch["input_ids"]
    shown, labels, n = ids.clone(), torch.full_like(ids, -100), 0
    for text in range(len(ids)):
        rows = [row for row in range(ids.shape[1]) if int(ids[text, row]) not in special]
        for row in rows[::3]:
            labels[text, row] = ids[text, row]
            shown[text, row] = ids[text, row - 1] if n % 4 == 3 else mask
            n += 1
    return shown, labels


def main():
    for family, (make, kind) in MODELS.items():
        directory = os.path.join(HERE, f"tiny-{family}")
        tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
        encodings = [tokenizer.encode(a) if b is None else tokenizer.encode(a, b) for a, b, _ in TEXTS]
        special = {tokenizer.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "<pad>", "</s>",
                                                      "<unk>", "<mask>")}
        mask = tokenizer.token_to_id("<mask>" if family == "roberta" else "[MASK]")
        told = "electra" if family == "bert" else family  # both hand token types to the model
        batch = gen_families.batch_of(told, [e.ids for e in encodings], [e.type_ids for e in encodings],
                                      1 if family == "roberta" else 0)
        batch["input_ids"], labels = hide(batch, special, mask)

        config = make(tokenizer.get_vocab_size())[0]
        model = kind(config).float().train()
        encoder = {n if n.startswith(family) else f"{family}.{n}": p
                   for n, p in load_file(os.path.join(directory, "model.safetensors")).items()}
        missing, _ = model.load_state_dict(encoder, strict=False)
        assert not any(n.startswith(family) for n in missing), missing
        head = {n: p for n, p in model.named_parameters() if not n.startswith(family)}
        g = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            for name, p in sorted(head.items()):
                noise = torch.randn(p.shape, generator=g)
                p.copy_(0.25 * noise if p.ndim == 2 else noise * 0.1 + name.lower().endswith("norm.weight"))
        kept = {"head." + n: p.detach().clone() for n, p in head.items()}
        gen.fake_quantize(model)

        def run(model):
            model.zero_grad(set_to_none=True)
            out = model(**batch, labels=labels, output_hidden_states=True)
            out.loss.backward()
            return out, {n: p.grad.clone() for n, p in model.named_parameters()
                         if n.startswith(family) and n.endswith(".bias")}

        out, grads = run(model)
        _, exact = run(copy.deepcopy(model).double())
        error = max(float((g.double() - exact[n]).norm() / exact[n].norm()) for n, g in grads.items()
                    if not n.endswith(("key.bias", "k_lin.bias")))
        tensors = {"input." + k: v for k, v in batch.items()} | kept
        tensors.update({"input.labels": labels, "loss": out.loss.detach().reshape(1)})
        tensors.update({f"hidden.{i}": h.detach().contiguous() for i, h in enumerate(out.hidden_states)})
        tensors.update({"grad." + n: g.contiguous() for n, g in grads.items()})
        path = os.path.join(HERE, f"tiny-{family}-mlm.safetensors")
        save_file(tensors, path, metadata={
            "texts": json.dumps(TEXTS), "torch": torch.__version__, "transformers": transformers.__version__,
            "variant": "mlm", "seed": str(SEED), "max_rel_grad_err_vs_fp64": f"{error:.3e}"})
        gen.sort_header(path)
        print(f"{family:10} {int((labels >= 0).sum())} hidden, loss {float(out.loss):.7f} fp64 error {error:.1e} {sorted(kept)}")


if __name__ == "__main__":
    main()
