"""A bundle without a model, and clustered token vectors that look like a language model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from late_interaction.bundle import Bundle, DensePart, Manifest, SideRules, write_manifest
from late_interaction.codebook import Codebook
from late_interaction.documents import Passage

DIM = 16
DENSE = {"dense": 12, "other": 7}  # dense models without a graph, and their dimensions


def fake_bundle(root: Path, dim: int = DIM, codebook: Codebook | None = None, dense: dict[str, int] | None = None) -> Bundle:
    root.mkdir(parents=True)
    (root / "model.onnx").write_bytes(b"no model")
    (root / "tokenizer.json").write_bytes(b"{}")
    codebooks = {}
    if codebook is not None:
        (root / "codebooks").mkdir()
        codebook.save(root / "codebooks/residual.npz")
        codebooks = {"residual": "codebooks/residual.npz"}
    side = SideRules(length=32)
    manifest = Manifest(
        source="test", layout="test", dim=dim, query=side, document=side, pad_id=0, max_tokens=64,
        models={"fp32": "model.onnx"}, codebooks=codebooks,
        dense={name: DensePart("made", width, normalized=name != "other") for name, width in (dense or {}).items()},
    )  # fmt: skip
    return write_manifest(root, manifest)


def dense_of(index, number: int) -> dict[str, np.ndarray]:
    """Ready-made vectors of passage `number` for the dense models that the index has; those of `other` have any length."""
    random = np.random.default_rng(number)
    found = {}
    for name, form in index.dense.items():
        vector = unit(random.standard_normal(form.dim))
        found[name] = vector if form.normalized else (vector * (0.5 + number % 7)).astype(np.float32)
    return found


def check_dense(index, numbers: dict[str, int], where=None) -> None:
    """numbers: of `dense_of`, by id of every passage that has rows and is selected. What is stored is what was put, rounded,
    and a search orders by exact inner products of that."""
    stored = index.dense_vectors(numbers)
    assert list(stored) == list(numbers)
    for name, form in index.dense.items():
        of_model = {id_: vectors[name] for id_, vectors in stored.items()}
        for id_, number in numbers.items():
            put = dense_of(index, number)[name]
            assert np.abs(of_model[id_] - put).max() <= 0.006 * np.abs(put).max()
        asked = unit(np.random.default_rng(77).standard_normal(form.dim))
        expected = {id_: float(vector @ asked) for id_, vector in of_model.items()}
        for k in (1, 3, 100):
            found = index.dense_search(name, asked, k, where=where).scores
            assert len(found) == min(k, len(numbers)) and set(found) <= set(numbers)
            assert list(found.values()) == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-5)
            assert found == pytest.approx({id_: expected[id_] for id_ in found}, abs=1e-5)
        assert index.dense_scores(name, asked, [*numbers, "unknown"]).scores == pytest.approx(expected, abs=1e-5)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def token_vectors(random: np.random.Generator, passages: int, dim: int = DIM, rows: int = 12) -> list[np.ndarray]:
    """Passages of 1..rows vectors around words (a skewed vocabulary), bent towards the passage's own topic."""
    words = unit(random.standard_normal((200, dim)))
    topics = unit(random.standard_normal((100, dim)))
    found = []
    for _ in range(passages):
        count = int(random.integers(1, rows + 1))
        chosen = (200 * random.random(count) ** 2).astype(int)
        topic = topics[random.integers(100)]
        found.append(unit(words[chosen] + 0.3 * topic + 0.2 * random.standard_normal((count, dim)) / np.sqrt(dim)))
    return found


def queries_from(random: np.random.Generator, passages: list[np.ndarray], count: int, rows: int = 8) -> list[np.ndarray]:
    """Rows of one passage with noise: what a question about it would look like."""
    found = []
    for _ in range(count):
        D = passages[random.integers(len(passages))]
        Q = D[random.integers(len(D), size=rows)]
        found.append(unit(Q + 0.3 * random.standard_normal(Q.shape) / np.sqrt(Q.shape[1])))
    return found


def passage(name: str, number: int = 0, text: str = "", **metadata: object) -> Passage:
    return Passage(f"{name}#{number}", name, f"title of {name}", text or f"text of {name}", metadata)


def finished(plan):
    """The result of a plan (query/steps.py) that asks nothing."""
    try:
        plan.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the plan asks Vespa")


def worker_pids(index):
    """Process ids of the workers of an index of shards that have been started, by shard."""
    return {shard: line.worker.pid for shard, line in index._router._lines.items()}


def totals_of(found):
    """Places and totals of gathered candidates."""
    return dict(zip(found.places.tolist(), found.totals.tolist(), strict=True))
