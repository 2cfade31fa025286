"""Small bundles for tests of packages: everything byte for byte the same everywhere, but for a real ONNX graph where asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle, DensePart, Expansion, Manifest, MeasuredCandidates, SideRules, write_manifest
from late_interaction.codebook import Codebook
from late_interaction.one_vector.lemur import Lemur
from late_interaction.one_vector.network import Network
from late_interaction.thresholds import Thresholds
from vespa_app.candidates import STRATEGIES
from vespa_app.settings import DenseSettings

__all__ = [
    "DENSE", "TOKENIZER", "WITHOUT_DENSE", "dense_for", "small_bundle", "small_codebook", "small_lemur", "with_lemur",
    "with_thresholds",
]  # fmt: skip

DENSE = {"dense": 24}  # a model and its dimensions
WITHOUT_DENSE = tuple(name for name in STRATEGIES if name != "dense")
_WORDS = ["[PAD]", "[Q]", "[D]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["[CLS]"]},
            "[SEP]": {"id": "[SEP]", "ids": [5], "tokens": ["[SEP]"]},
        },
    },
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(_WORDS)}, "unk_token": "[UNK]"},
}


def small_bundle(
    folder: Path,
    *,
    dim: int = 16,
    codebook: bool = True,
    trained: bool = True,
    onnx: bool = False,
    dense: Mapping[str, int] | None = None,
) -> Bundle:
    """trained: with markers and [MASK] expansion, as a ColBERT has them. onnx: a graph that runs, instead of dummy bytes.
    dense: models and their dimensions, whose vectors come ready-made."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(_graph(dim) if onnx else b"no graph")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    if codebook:
        (folder / "codebooks").mkdir()
        small_codebook(dim).save(folder / "codebooks" / "residual.npz")
    manifest = Manifest(
        source="small",
        layout="test",
        dim=dim,
        query=SideRules(8, marker_id=1 if trained else None, expansion=Expansion(8, 6, False) if trained else None),
        document=SideRules(64, marker_id=2 if trained else None, skip_ids=(7,) if trained else ()),
        pad_id=0,
        max_tokens=512,
        models={"fp32": "model.onnx"},
        codebooks={"residual": "codebooks/residual.npz"} if codebook else {},
        dense={name: DensePart("ready-made", size) for name, size in (dense or {}).items()},
    )
    return write_manifest(folder, manifest)


def dense_for(candidates: Sequence[str]) -> dict[str, DenseSettings]:
    """The table of settings that have those candidates, of a bundle with DENSE."""
    return {name: DenseSettings(dim) for name, dim in DENSE.items()} if "dense" in candidates else {}


def with_thresholds(bundle: Bundle) -> Bundle:
    """The bundle with cuts at .1 and a spread of .5 in every dimension."""
    import numpy as np

    dim, name = bundle.manifest.dim, "codebooks/binary.npz"
    Thresholds(np.full(dim, 0.1, np.float32), np.full(dim, 0.5, np.float32)).save(bundle.file(name))
    books = {**bundle.manifest.codebooks, "binary": name}
    return write_manifest(bundle.path, dataclasses.replace(bundle.manifest, codebooks=books))


def small_lemur(dim: int = 16, size: int = 8) -> Lemur:
    """Made by hand: a passage is the best products of its rows with the first axes, in steps of 1/64."""
    import numpy as np

    def ones(*shape: int) -> Matrix:
        return np.ones(shape, np.float32)

    network = Network(np.eye(dim, size, dtype=np.float32), 0 * ones(size), ones(size), 0 * ones(size))
    turn, rows, solution = np.eye(size), np.eye(dim), np.eye(size, dim)
    return Lemur(network, *(array.astype(np.float32) for array in (turn, rows, solution)), 0 * ones(size), 1 / 64)


def with_lemur(bundle: Bundle, size: int = 8, measured: MeasuredCandidates | None = None) -> Bundle:
    """The bundle with `small_lemur`, and candidates that were measured."""
    from exporter.codebooks import record_candidates

    return record_candidates(bundle, measured, small_lemur(bundle.manifest.dim, size))


def small_codebook(dim: int) -> Codebook:
    """Axes as centroids, four bits a dimension."""
    import numpy as np

    centroids = np.eye(dim, dtype=np.float32)
    weights = np.tile(np.arange(-7.5, 8, dtype=np.float32) / 16, (dim, 1))
    return Codebook(centroids, (weights[:, 1:] + weights[:, :-1]) / 2, weights, bits=4)


def _graph(dim: int) -> bytes:
    """Looks a vector up for every token and normalises it."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(0).standard_normal((len(_WORDS), dim)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("LpNormalization", ["rows"], ["contextual"], axis=-1, p=2),
        ],
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("contextual", TensorProto.FLOAT, ["batch", "tokens", dim])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()
