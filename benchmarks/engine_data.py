"""What all engines of `benchmarks.engines` are given: a folder of arrays, from a collection or made up.

vectors.npy [T, d] float32, offsets.npy [n + 1] int64, queries.npy [R, d] float32, query_offsets.npy [q + 1] int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.vespa_collections import open_collection
from late_interaction.array_types import Matrix

__all__ = ["write_collection", "write_synthetic"]

ROWS, DIM = 32, 128  # of a made-up passage
WORDS, TOPICS = 4_096, 512
BLOCK = 10_000


def write_collection(data: Path, name: str, *, quick: bool) -> dict[str, int]:
    collection = open_collection(name, quick=quick)
    lengths: list[int] = []
    vectors: list[Matrix] = []
    for _, rows in collection.blocks():
        vectors += rows
        lengths += [len(part) for part in rows]
    stacked = np.concatenate(vectors).astype(np.float32, copy=False)
    np.save(data / "vectors.npy", stacked)
    return _write(data, lengths, [Q for _, Q in collection.queries if len(Q)])


def write_synthetic(data: Path, passages: int) -> dict[str, int]:
    """Unit vectors around 4,096 skewed words, bent towards the passage's topic. Queries: the rows of a passage, with noise."""
    random = np.random.default_rng(0)
    words, topics = (random.standard_normal((count, DIM), np.float32) for count in (WORDS, TOPICS))
    vectors = np.lib.format.open_memmap(data / "vectors.npy", "w+", np.float32, (passages * ROWS, DIM))
    for first in range(0, passages, BLOCK):
        count = min(BLOCK, passages - first)
        rows = words[(WORDS * random.random((count, ROWS)) ** 2).astype(int)]
        rows += 0.4 * topics[random.integers(TOPICS, size=count)][:, None]
        rows += 0.5 * random.standard_normal(rows.shape, np.float32)
        vectors[ROWS * first : ROWS * (first + count)] = _unit(rows).reshape(-1, DIM)
    asked = random.integers(passages, size=100)
    chosen = [np.array(vectors[ROWS * n : ROWS * (n + 1)]) for n in asked]
    vectors.flush()
    return _write(data, [ROWS] * passages, [_unit(Q + 0.05 * random.standard_normal(Q.shape, np.float32)) for Q in chosen])


def _unit(rows: Matrix) -> Matrix:
    scaled: Matrix = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled.astype(np.float32, copy=False)


def _write(data: Path, lengths: Sequence[int], queries: Sequence[Matrix]) -> dict[str, int]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(data / "offsets.npy", offsets)
    np.save(data / "queries.npy", np.concatenate(queries).astype(np.float32))
    np.save(data / "query_offsets.npy", np.concatenate([[0], np.cumsum([len(Q) for Q in queries])]).astype(np.int64))
    return {"passages": len(lengths), "token_vectors": int(offsets[-1]), "queries": len(queries)}
