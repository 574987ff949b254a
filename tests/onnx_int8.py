"""A base made of a file by ONNX Runtime's `quantize_dynamic` is that file: what differs is how activations are rounded.

    cargo build --release --examples
    pip install numpy onnx onnxruntime safetensors tokenizers
    python tests/onnx_int8.py TRIMTAB ROUNDED MODEL.onnx TOKENIZER.json TEXTS.txt

TRIMTAB is the binary, ROUNDED that of examples/embed_rounded.rs; TEXTS.txt has a text a line, of which ONNX Runtime gets one
at a time. Compares sentence embeddings (the mean of the tokens, texts cut at 128 tokens) by their cosines, with variants of
the file that ONNX Runtime runs:

    floats      products of floats over the same int8 weights in the place of DynamicQuantizeLinear and MatMulInteger: nothing
                rounds an activation but trimtab's int8 mode
    tables      the base's embedding tables in the place of its own: of those a few rows do not fit into int8 around 0 and are
                rounded again, the one thing that `quantize` does not take over as it is
    uint8       weights and their zero points 128 higher, which changes no product: of uint8 with int8, x86 without VNNI adds
                pairs in 16 bits, which overflow

Bounds, for means: what is the same but for the order of sums is within EXACT of 1; with trimtab's rounding, or rounded as
DynamicQuantizeLinear rounds, AT_LEAST. ONNX Runtime's own rounding has a scale for all tokens and columns together, which a
few large columns make so coarse that a change of the input in the fourth digit gives another embedding. How much that is
shows the comparison of the unchanged file with the same file and the base's tables, both in ONNX Runtime: nobody who does not
repeat its every bit can come nearer to it. Those lines have no bound.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

AT_LEAST = 0.999
EXACT = 0.99999


def consumer(graph, value, op):
    """The one node that reads a value."""
    found = [n for n in graph.node if value in n.input]
    if [n.op_type for n in found] != [op]:
        sys.exit(f"{value}: expected one {op} to read it, found {[n.op_type for n in found]}")
    return found[0]


def with_floats(model):
    """Has every quantized product be a MatMul of what was to be quantized and the weights in f32."""
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    made_by = {o: n for n in graph.node for o in n.output}
    products = [n for n in graph.node if n.op_type == "MatMulInteger"]
    for i, product in enumerate(products):
        x, weight, x_zero, zero = product.input
        rounding = made_by[x]
        cast = consumer(graph, product.output[0], "Cast")
        scaled = consumer(graph, cast.output[0], "Mul")
        [scales] = [made_by[name] for name in scaled.input if name != cast.output[0]]
        # Of the input and of the weight.
        assert rounding.op_type == "DynamicQuantizeLinear" and x_zero == rounding.output[2], product.name
        assert scales.op_type == "Mul" and rounding.output[1] in scales.input, product.name
        [scale] = [name for name in scales.input if name != rounding.output[1]]
        # In f64 the product is exact, so what f32 takes is the nearest.
        floats = (constants[weight].astype(float) - constants[zero]) * constants[scale].astype(float)
        graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), f"floats.{i}"))
        new = helper.make_node("MatMul", [rounding.input[0], f"floats.{i}"], list(scaled.output), f"floats.{i}.product")
        graph.node.insert(list(graph.node).index(scaled), new)
        graph.node.remove(scaled)
    # What nobody reads any more, from the end.
    wanted = {o.name for o in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.intersection(node.output):
            wanted.update(node.input)
        else:
            graph.node.remove(node)
    for initializer in [i for i in graph.initializer if i.name not in wanted]:
        graph.initializer.remove(initializer)
    left = {n.op_type for n in graph.node} & {"DynamicQuantizeLinear", "MatMulInteger"}
    assert products and not left, left
    return model


def with_tables(model, base):
    """Has rows be looked up in the base's tables."""
    graph = model.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    stored = load_file(base)
    names = [name for name in stored if name.endswith("_embeddings.weight")]
    tables = {stored[name].shape: stored[name] * stored[f"{name}.scale"].reshape(-1, 1) for name in names}
    looked_up = [n for n in graph.node if n.op_type == "DequantizeLinear"]
    for node in looked_up:
        [gather] = [n for n in graph.node if node.input[0] in n.output]
        assert gather.op_type == "Gather" and len(looked_up) == len(tables), node.name
        values, scale, zero = [constants[name] for name in (gather.input[0], *node.input[1:])]
        theirs, ours = (values.astype(np.float32) - zero) * scale, tables[values.shape].astype(np.float32)
        apart = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)
        print(f"    table {values.shape}: {(apart > 1e-6).sum()} rows rounded again, by {apart.max():.4f} of their length at most")
        graph.initializer.append(numpy_helper.from_array(ours, f"{gather.input[0]}.ours"))
        gather.input[0], gather.output[0] = f"{gather.input[0]}.ours", node.output[0]
        graph.node.remove(node)
    return model


def with_uint8(model):
    """Has int8 weights be uint8."""
    constants = {i.name: i for i in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMulInteger"]
    for name in {name for n in products for name in (n.input[1], n.input[3])}:
        values = numpy_helper.to_array(constants[name])
        if values.dtype == np.int8:
            constants[name].CopyFrom(numpy_helper.from_array((values.astype(int) + 128).astype(np.uint8), name))
    return model


def copied(model):
    """A copy, to be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def in_onnxruntime(model, tokenizer, texts):
    model = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # not a line for each constant that is no longer read
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = [i.name for i in session.get_inputs()]
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        rows.append(session.run(None, {name: feed[name] for name in inputs})[0][0].mean(0))
    return np.array(rows)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def vectors(output):
    lines = [json.loads(line) for line in output.splitlines()]
    return np.array([line["embedding"] if isinstance(line, dict) else line for line in lines])


def compare(name, some, others, at_least=0):
    cosines = (some * others).sum(-1) / np.linalg.norm(some, axis=-1) / np.linalg.norm(others, axis=-1)
    good = cosines.mean() >= at_least
    mark = ("ok " if good else "BAD") if at_least else "   "
    print(f"{mark} {name:55} cosine {cosines.mean():.6f} on average, {cosines.min():.6f} at least", flush=True)
    return good


def main():
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    trimtab, rounded, model, tokenizer_path, lines = sys.argv[1:]
    texts = [line for line in Path(lines).read_text(encoding="utf-8").split("\n") if line.strip()]
    tokenizer = Tokenizer.from_file(tokenizer_path)
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)
    theirs = lambda model: in_onnxruntime(model, tokenizer, texts)
    file = lambda: onnx.load(model)
    with tempfile.TemporaryDirectory() as folder:
        base, lines = Path(folder) / "base.q8.safetensors", Path(folder) / "texts.txt"
        lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
        run(trimtab, "quantize", model, "--tokenizer", tokenizer_path, "-o", base)
        exact = vectors(run(trimtab, "embed", "--base", base, "--exact", lines))
        int8 = vectors(run(trimtab, "embed", "--base", base, lines))
        as_theirs = vectors(run(rounded, base, lines))
        tables = with_tables(file(), base)
    floats = theirs(with_floats(file()))
    good = compare("embed --exact: floats, tables", exact, theirs(with_floats(copied(tables))), EXACT)
    good &= compare("embed --exact: floats", exact, floats, AT_LEAST)
    good &= compare("embed: floats", int8, floats, AT_LEAST)
    unchanged, uint8, both = theirs(file()), theirs(with_uint8(file())), theirs(with_uint8(copied(tables)))
    good &= compare("embed_rounded: uint8, tables", as_theirs, both, AT_LEAST)
    compare("embed: unchanged", int8, unchanged)
    compare("floats: unchanged", floats, unchanged)
    compare("uint8: unchanged (below 1 where products overflow)", uint8, unchanged)
    compare("uint8, tables: uint8", both, uint8)
    sys.exit(0 if good else "the base is not the file")


if __name__ == "__main__":
    main()
