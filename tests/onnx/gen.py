"""Makes the small ONNX files beside this script: random BERTs and their relatives, as exporters write them.

    python gen.py OUT_DIR

Needs torch 2.9, transformers 4.57, onnx and onnxruntime; the dynamo exporter needs onnxscript too. Seeds are fixed, but
other versions export other graphs. expected.json gets the mean hidden state of one text, as ONNX Runtime computes it, and
answers.json what it computes of [batch, n], a pooler's vector or logits.
"""

import json
import os
import sys
import warnings

import onnx
import onnxruntime as ort
import torch
import transformers as t
from onnxruntime.quantization import QuantType, quantize_dynamic

warnings.filterwarnings("ignore")
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
means, answers = {}, {}
SIZES = dict(
    vocab_size=110, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=24, type_vocab_size=2,
)
ALL = ("input_ids", "attention_mask", "token_type_ids")


def bert(cls=t.BertModel, attn="eager", config=t.BertConfig, pooler=True, **more):
    torch.manual_seed(1)
    config = config(**{**SIZES, **more}, attn_implementation=attn)
    model = (cls(config) if pooler else cls(config, add_pooling_layer=False)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "LayerNorm.weight" in name or "norm.weight" in name else 0.0))
    model.config.return_dict = False
    return model


def export(name, model, opset=14, inputs=ALL, dynamo=False, fixed=False, **more):
    ids = torch.randint(3, 110, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    values = dict(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
    path = os.path.join(out, name + ".onnx")
    args = tuple(values[i] for i in inputs)
    if dynamo:
        axes = {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("seq", min=2, max=24)}
        torch.onnx.export(
            model, (), path, kwargs=dict(zip(inputs, args)), dynamo=True, dynamic_shapes={i: axes for i in inputs},
            external_data=False, opset_version=opset, verbose=False,
        )
        # Two thirds of the file are stack traces.
        slim = onnx.load(path)
        for node in slim.graph.node:
            del node.metadata_props[:]
        del slim.graph.value_info[:]
        onnx.save(slim, path)
    else:
        axes = None if fixed else {i: {0: "batch", 1: "seq"} for i in inputs}
        torch.onnx.export(
            model, args, path, input_names=list(inputs), dynamo=False, dynamic_axes=axes, opset_version=opset, **more
        )
    check(name)
    return path


def check(name):
    path = os.path.join(out, name + ".onnx")
    size = os.path.getsize(path)
    assert size < 200_000, (name, size)
    session = ort.InferenceSession(path)
    # [CLS] a e j p w [SEP] for the tests' tokenizer.
    ids = [[2, 5, 9, 14, 20, 27, 3]] * 2
    feed = {"input_ids": ids, "attention_mask": [[1] * 7] * 2, "token_type_ids": [[0] * 7] * 2}
    outputs = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
    rows = [y[0] for y in outputs if y.ndim == 2]
    if rows:
        answers[name] = [round(float(x), 5) for x in rows[0]]
    hidden = outputs[0][0]
    if hidden.ndim == 2:
        means[name] = [round(float(x), 4) for x in hidden.mean(0)]
    print(name, size)


def quantized(name, source, **more):
    quantize_dynamic(source, os.path.join(out, name + ".onnx"), **more)
    check(name)


fp32 = export("ts-eager-13", bert(), 13)
export("ts-eager-17", bert(), 17)
export("ts-sdpa-14", bert(attn="sdpa"), 14)
export("ts-no-pooler", bert(attn="sdpa", hidden_act="gelu_new", pooler=False), 17)
export("ts-fixed", bert(), 14, fixed=True)
export("ts-relu", bert(hidden_act="relu"), 14)
export("ts-classifier", bert(t.BertForSequenceClassification, "sdpa", num_labels=3), 17)
export("ts-ids-and-mask", bert(), 14, inputs=ALL[:2])
export("ts-f16", bert().half(), 17)
export("distilbert", bert(
    t.DistilBertModel, config=t.DistilBertConfig, dim=32, hidden_dim=48, n_layers=2, n_heads=4), 14, inputs=ALL[:2])
export("roberta", bert(t.RobertaModel, config=t.RobertaConfig, type_vocab_size=1, pad_token_id=1), 14, inputs=ALL[:2])
export("electra", bert(t.ElectraModel, config=t.ElectraConfig, embedding_size=16), 14)
for kind in [QuantType.QInt8, QuantType.QUInt8]:
    for per_channel in [False, True]:
        name = f"int8-{'u' if kind == QuantType.QUInt8 else 's'}-{'pc' if per_channel else 'pt'}"
        quantized(name, fp32, weight_type=kind, per_channel=per_channel)
export("dynamo-eager-18", bert(), 18, dynamo=True)
export("dynamo-sdpa-20", bert(attn="sdpa"), 20, dynamo=True)
with open(os.path.join(out, "expected.json"), "w") as f:
    json.dump(means, f, indent=0)
with open(os.path.join(out, "answers.json"), "w") as f:
    json.dump(answers, f, indent=0)
