"""Bundles that are made in a moment, without torch: vectors are random word embeddings, of tokens or their mean."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

import numpy as np

from late_interaction.bundle import (
    ATTENTION_MASK,
    DENSE,
    DENSE_OUTPUT,
    INPUT_IDS,
    OUTPUT,
    Bundle,
    DensePart,
    Manifest,
    SideRules,
    write_manifest,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def made_bundle(folder: Path, dim: int = 16, *, words: str = "") -> Bundle:
    """Token vectors alone, of letters and of the whole `words`."""
    folder.mkdir(parents=True)
    size = write_tokenizer(folder / "tokenizer.json", words)
    write_graph(folder / "model.onnx", size, dim, OUTPUT)
    manifest = Manifest(
        "made", "stanford", dim, SideRules(32), SideRules(64), pad_id=0, max_tokens=64, lower_case=True,
        models={"fp32": "model.onnx"},
    )  # fmt: skip
    return write_manifest(folder, manifest)


def with_dense(
    bundle: Bundle, folder: Path, dims: dict[str, int] | None = None, *, ready: dict[str, int] | None = None
) -> Bundle:
    """A copy of `bundle` in the new `folder` with a dense model of each name and dim (default: "dense", 16), and one without a
    graph for each in `ready`."""
    folder.mkdir(parents=True)
    bundle.copy_to(folder)
    parts = {}
    for name, dim in ({DENSE: 16} if dims is None else dims).items():
        place = folder / "dense" / name
        place.mkdir(parents=True)
        (place / "tokenizer.json").write_bytes(bundle.file("tokenizer.json").read_bytes())
        write_graph(place / "model.onnx", vocabulary_size(bundle), dim, DENSE_OUTPUT, seed=len(name))
        parts[name] = DensePart(
            "made", dim, 64, bundle.manifest.pad_id, query_prompt="query: ", lower_case=bundle.manifest.lower_case,
            models={"fp32": f"dense/{name}/model.onnx"}, tokenizer=f"dense/{name}/tokenizer.json",
        )  # fmt: skip
    parts |= {name: DensePart("ready-made", dim) for name, dim in (ready or {}).items()}
    return write_manifest(folder, dataclasses.replace(bundle.manifest, dense=parts))


def vocabulary_size(bundle: Bundle) -> int:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(bundle.file("tokenizer.json"))).get_vocab_size()


def write_tokenizer(path: Path, words: str) -> int:
    """The number of its tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words.lower().split()])
    tokenizer = Tokenizer(models.WordPiece({piece: id_ for id_, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    tokenizer.save(str(path))
    return len(pieces)


def write_graph(path: Path, words: int, dim: int, output: str, *, seed: int = 0) -> None:
    """Embeddings of tokens, or the mean of those that are attended to, of length one."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    table = np.random.default_rng(seed).normal(size=(words, dim)).astype(np.float32)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in (INPUT_IDS, ATTENTION_MASK)]
    nodes = [
        helper.make_node("Gather", ["table", INPUT_IDS], ["rows"]),
        helper.make_node("Cast", [ATTENTION_MASK], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["kept"]),
    ]
    if output == DENSE_OUTPUT:
        nodes.append(helper.make_node("ReduceSum", ["kept", "tokens"], ["made"], keepdims=0))
    nodes.append(helper.make_node("LpNormalization", ["made" if output == DENSE_OUTPUT else "kept"], [output], axis=-1, p=2))
    constants = {"table": table, "last": np.array([-1]), "tokens": np.array([1])}
    shape = ["b", dim] if output == DENSE_OUTPUT else ["b", "t", dim]
    graph = helper.make_graph(
        nodes, "made", inputs, [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    checker.check_model(model)
    save(model, str(path))
