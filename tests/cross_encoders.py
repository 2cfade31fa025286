"""Cross-encoders that are made in a moment, without torch: a score is the sum of the passage tokens, signed by the query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dense_bundles import write_tokenizer

from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, TYPE_IDS
from late_interaction.cross_encoder import LOGIT, CrossEncoderFolder, CrossEncoderManifest, write_cross_encoder


def made_cross_encoder(folder: Path, *, words: str = "", max_tokens: int = 64, **more: object) -> CrossEncoderFolder:
    """Of letters and of the whole `words`. more: of the manifest."""
    folder.mkdir(parents=True)
    size = write_tokenizer(folder / "tokenizer.json", words)
    write_graph(folder / "model.onnx", size)
    manifest = CrossEncoderManifest("made", max_tokens, 0, models={"fp32": "model.onnx"}, **more)
    return write_cross_encoder(folder, manifest)


def weights(words: int) -> np.ndarray:
    """Of the passage's tokens and of the query's, `[2, words]`."""
    return np.random.default_rng(7).normal(size=(2, words)).astype(np.float32)


def expected(folder: CrossEncoderFolder, query: str, passage: str) -> float:
    """The logit, from the tokenizer's own pairs."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder.file("tokenizer.json")))
    tokenizer.enable_truncation(folder.manifest.max_tokens)
    pair = tokenizer.encode(query, passage)
    of_passage, of_query = weights(tokenizer.get_vocab_size())
    ids, types = np.array(pair.ids), np.array(pair.type_ids)
    return float(of_passage[ids[types == 1]].sum() * np.sign(of_query[ids[types == 0]].sum()))


def write_graph(path: Path, words: int) -> None:
    from onnx import TensorProto, checker, helper, numpy_helper, save

    of_passage, of_query = weights(words)
    names = (INPUT_IDS, ATTENTION_MASK, TYPE_IDS)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in names]
    nodes = [
        helper.make_node("Cast", [ATTENTION_MASK], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [TYPE_IDS], ["second"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["mask", "second"], ["first"]),
        helper.make_node("Gather", ["of_passage", INPUT_IDS], ["p"]),
        helper.make_node("Gather", ["of_query", INPUT_IDS], ["q"]),
        helper.make_node("Mul", ["p", "second"], ["p1"]),
        helper.make_node("Mul", ["q", "first"], ["q1"]),
        helper.make_node("ReduceSum", ["p1", "tokens"], ["p2"], keepdims=0),
        helper.make_node("ReduceSum", ["q1", "tokens"], ["q2"], keepdims=0),
        helper.make_node("Sign", ["q2"], ["turn"]),
        helper.make_node("Mul", ["p2", "turn"], [LOGIT]),
    ]
    constants = {"of_passage": of_passage, "of_query": of_query, "tokens": np.array([1])}
    graph = helper.make_graph(
        nodes, "made", inputs, [helper.make_tensor_value_info(LOGIT, TensorProto.FLOAT, ["b"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    save(model, str(path))
