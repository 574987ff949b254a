"""Makes the seeds in fuzz/corpus: the smallest models that are read whole, and a few lines of every kind of data.

    python fuzz/seeds.py TRIMTAB

TRIMTAB is the binary. Needs torch 2.9, transformers 4.57, onnx, onnxruntime and onnxscript, as tests/onnx/gen.py does.
Seeds of random numbers are fixed, but other versions export other graphs.
"""

import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
import transformers as t
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
trimtab = str(Path(sys.argv[1]).resolve())
corpus = Path(__file__).parent / "corpus"
SIZES = dict(
    vocab_size=24, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
    max_position_embeddings=16, type_vocab_size=2,
)
ALL = ("input_ids", "attention_mask", "token_type_ids")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "bat", "cat", "and", ",", "##s", "who", "b", "the"]


def put(target, name, content):
    path = corpus / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def model(cls=t.BertModel, config=t.BertConfig, attn="eager", **more):
    torch.manual_seed(1)
    made = cls(config(**{**SIZES, **more}, attn_implementation=attn)).eval()
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "orm.weight" in name else 0.0))
    made.config.return_dict = False
    return made


def shortened(path):
    """Without what only people read: half of a small file is names."""
    file = onnx.load(path)
    graph, names = file.graph, {}
    inputs = {i.name for i in graph.input}
    short = lambda name: name if name in inputs or not name else names.setdefault(name, f"v{len(names)}")
    for i, node in enumerate(graph.node):
        node.name, node.doc_string = f"n{i}", ""
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
        del node.metadata_props[:]
    for value in [*graph.initializer, *graph.output]:
        value.name = short(value.name)
    del graph.value_info[:], graph.metadata_props[:], file.metadata_props[:]
    file.producer_name = file.producer_version = file.doc_string = graph.doc_string = ""
    graph.name = "g"
    return file.SerializeToString()


def export(name, made, opset, inputs=ALL, dynamo=False, int8=None):
    ids = torch.ones(2, 5, dtype=torch.int64)
    args = tuple({"input_ids": ids * 6, "attention_mask": ids, "token_type_ids": ids * 0}[i] for i in inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.onnx"
        if dynamo:
            axes = {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("seq", min=2, max=16)}
            torch.onnx.export(
                made, (), path, kwargs=dict(zip(inputs, args)), dynamo=True, external_data=False, verbose=False,
                dynamic_shapes={i: axes for i in inputs}, opset_version=opset,
            )
        else:
            axes = {i: {0: "batch", 1: "seq"} for i in inputs}
            torch.onnx.export(
                made, args, path, input_names=list(inputs), dynamo=False, dynamic_axes=axes, opset_version=opset
            )
        if int8 is not None:
            quantize_dynamic(path, path, **int8)
        put("onnx", name, shortened(path))
        if name == "classifier":
            put("onnx_model", name, shortened(path))


def tokenizer():
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return json.dumps(json.loads(made.to_str()), separators=(",", ":"))


def tokenizers():
    put("tokenizer", "wordpiece", tokenizer())
    bytelevel = "abcst\u0120"
    bpe = Tokenizer(models.BPE({c: i for i, c in enumerate([*bytelevel, "at", "\u0120a", "<s>"])}, [("a", "t"), ("\u0120", "a")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.RobertaProcessing(("<s>", 8), ("<s>", 8))
    put("tokenizer", "bpe", bpe.to_str())
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("\u2581a", -1.0), ("bat", -2.0), ("a", -3.0)], 0, False))
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("a ", "b")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    put("tokenizer", "unigram", unigram.to_str())


def models_of_trimtab():
    """The base, bias files on it, and the directory that the base was made from."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)

        def run(*words):
            subprocess.run([trimtab, *map(str, words)], check=True, cwd=folder, stdout=subprocess.DEVNULL)

        made = model()
        parts = []
        config = {k: v for k, v in SIZES.items()} | {"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12}
        (folder / "m").mkdir()
        (folder / "m/config.json").write_text(json.dumps(config))
        (folder / "m/tokenizer.json").write_text(tokenizer())
        for name, dtype in [("f32", torch.float32), ("bf16", torch.bfloat16)]:
            save_file({k: v.to(dtype) for k, v in made.state_dict().items()}, folder / "m/model.safetensors")
            weights = (folder / "m/model.safetensors").read_bytes()
            pooling = '{"word_embedding_dimension":8,"pooling_mode_mean_tokens":true}' if name == "bf16" else ""
            parts = [(folder / "m/config.json").read_bytes(), tokenizer().encode(), pooling.encode(), weights]
            put("checkpoint", name, b"\0".join(parts))
        run("quantize", "m", "--output", "base.q8")
        put("base", "tiny", (folder / "base.q8").read_bytes())
        (folder / "d.tsv").write_text("label\ttext\n" + "no\ta bat\nyes\ta cat and a bat\n" * 8)
        (folder / "d.conll").write_text("a O\nbat B-X\n\ncat B-X\nand O\n\n" * 8)
        common = ["--base", "base.q8", "--epochs", 1, "--hold-out", 0]
        run("train", *common, "--data", "d.tsv", "--out", "a.bias")
        run("train", *common, "--data", "d.tsv", "--out", "b.bias", "--task", "multilabel", "--pool", "mean", "--half")
        run("train", *common, "--data", "d.conll", "--out", "c.bias", "--task", "tag")
        for name, file in [("classify", "a"), ("multilabel-f16", "b"), ("tag", "c")]:
            put("bias", name, (folder / f"{file}.bias").read_bytes())
        trained = model(t.BertForSequenceClassification, num_labels=2).state_dict()
        save_file({k: v for k, v in trained.items() if k.endswith("bias") or "classifier" in k}, folder / "torch")
        put("bias", "torch", (folder / "torch").read_bytes())


def data():
    put("tsv", "labels", "label\ttext_a\ttext_b\nyes\ta bat\tthe \"cat\"\nno,yes\t\u00e9\t\n\n0.5\ta\tb\r\n")
    put("tsv", "tags", "\ufefftext\tlabel\na bat\tO B-X\n")
    put("csv", "quoted", 'text,label,id\n"a, ""b""\nc",x,1\nd,"y,z",2\r\n')
    put("jsonl", "labels", '{"text":"a","label":3}\n\n{"label":["x","y"],"text_a":"b\\u00e9","text_b":"c"}\n{"sentence":"s","label":true}\n')
    put("jsonl", "number", '{"text":"a","label":0.5,"text_b":null}\n')
    spans = [{"start": 0, "end": 5, "token_start": 0, "token_end": 0, "label": "X"}]
    tokens = [{"text": "a bat", "start": 0, "end": 5, "id": 0}]
    prodigy = {"text": "a bat", "_task_hash": 1, "answer": "accept", "accept": ["x"], "options": [{"id": "x"}]}
    rejected = {"text": "b", "label": "x", "_task_hash": 2, "answer": "reject"}
    lines = [prodigy, rejected, prodigy | {"spans": spans, "tokens": tokens}]
    put("jsonl", "prodigy", "".join(json.dumps(line) + "\n" for line in lines))
    put("conll", "tags", "-DOCSTART- -X- O\n\na DT O\nbat NN B-X\n\ncat\tI-X\n# c\n")
    question = {"id": "1", "question": "who?", "answers": [{"text": "b\u00e9 c", "answer_start": 2}]}
    impossible = {"id": "2", "question": "why?", "answers": [], "is_impossible": True}
    paragraph = {"context": "a b\u00e9 c", "qas": [question, impossible]}
    put("squad", "one", json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}]}))


def directories():
    """The small files of a sentence-transformers directory and the header of its weights, plain and wrapped."""
    config, tokenizer, _, weights = (corpus / "checkpoint/f32").read_bytes().split(b"\0", 3)
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    compact = lambda value: json.dumps(value, separators=(",", ":")).encode()
    module = lambda path, name: {"idx": 0, "name": "0", "path": path, "type": f"sentence_transformers.models.{name}"}
    modules = [
        module("", "Transformer"), module("1_Pooling", "Pooling"), module("2_Dense", "Dense"),
        module("3_Normalize", "Normalize"),
    ]
    pooling = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    dense = {
        "in_features": 8, "out_features": 8, "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    settings = {"max_seq_length": 12, "do_lower_case": True}
    prompts = {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    said = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "strip_accents": None,
        "tokenize_chinese_chars": True, "model_max_length": 16, "cls_token": "[CLS]",
        "unk_token": {"content": "[UNK]", "lstrip": False},
    }
    index = {"metadata": {}, "weight_map": {name: "shard.safetensors" for name in header if name[0] != "_"}}
    wrapped = {"__metadata__": None} | {f"module._orig_mod.bert.{name}": value for name, value in header.items()}
    whole = [modules, pooling, dense, {}, settings, prompts, said]
    put("directory", "whole", b"\0".join([*map(compact, whole), config, tokenizer, b"", compact(header)]))
    put("directory", "wrapped", b"\0".join([*[b""] * 6, compact(said), config, tokenizer, b"", compact(wrapped)]))
    put("directory", "index", b"\0".join([*[b""] * 7, config, tokenizer, compact(index), compact(header)]))


def listings():
    names = ["config.json", "tokenizer.json", "modules.json", "model.safetensors", "1_Pooling/config.json"]
    plain = {"sha": "0" * 40, "siblings": [{"rfilename": name} for name in names]}
    put("listing", "plain", json.dumps(plain))
    for entry in plain["siblings"][:3]:
        entry |= {"size": 9, "blobId": "1" * 40}
    plain["siblings"][3] |= {"size": 9, "blobId": "2" * 40, "lfs": {"sha256": "3" * 64, "size": 9, "pointerSize": 133}}
    put("listing", "blobs", json.dumps(plain))


def encodings():
    """The first byte says what the user names: 255 nothing, else an encoding (5 bits) and a delimiter (3 bits)."""
    table = "label;text\nno;gr\u00fcn\nyes;sch\u00f6ner\n"
    named = lambda encoding, delimiter=7: bytes([delimiter << 5 | encoding])
    put("encoding", "utf-16", named(31) + table.encode("utf-16"))
    put("encoding", "utf-16be", named(31) + table.encode("utf-16-be"))
    put("encoding", "windows-1252", named(31) + table.encode("cp1252"))
    put("encoding", "shift-jis", named(5, 0) + "label,text\nno,\u65e5\u672c\nyes,\u30c6\u30ad\n".encode("shift-jis"))
    put("encoding", "sep", named(31) + b"sep=|\r\nText|Label\r\na|\"b\r\nc\"\r\n")
    put("encoding", "tabs", named(0, 2) + "\ufefflabel\ttext\na\tb\n".encode())


data()
listings()
encodings()
tokenizers()
models_of_trimtab()
directories()
export("eager", model(), 13)
export("classifier", model(t.BertForSequenceClassification, attn="sdpa", num_labels=2), 17)
export("dynamo", model(attn="sdpa"), 20, dynamo=True)
export("int8", model(), 14, int8=dict(weight_type=QuantType.QInt8, per_channel=True))
export("uint8", model(), 14, int8=dict(weight_type=QuantType.QUInt8, per_channel=False))
distil = dict(dim=8, hidden_dim=8, n_layers=1, n_heads=2)
export("distilbert", model(t.DistilBertModel, t.DistilBertConfig, **distil), 14, ALL[:2])
export("roberta", model(t.RobertaModel, t.RobertaConfig, type_vocab_size=1, pad_token_id=1), 14, ALL[:2])
