"""What all engines of `benchmarks.engines` are given: a folder of arrays, from a collection, repeated with changes, or made up.

vectors.npy [T, d] float32, repeated and made-up ones float16; offsets.npy [n + 1] int64; token_ids.npy [T] uint32, the
vocabulary id of each row. queries.npy [R, d] float32, query_offsets.npy [q + 1] int64, query_token_ids.npy [R] uint32.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.vespa_collections import open_collection
from late_interaction.array_types import Matrix

__all__ = ["REPEATED", "repeat", "write_collection", "write_synthetic"]

REPEATED = {"synthetic-1m": ("docs-100k", 10)}  # name: the collection that is repeated, how many times
SWAPPED, NOISE = 0.5, 0.1  # share of the rows of a repeated passage; norm
ROWS, DIM = 32, 128  # of a made-up passage
WORDS, TOPICS = 4_096, 512
BLOCK = 10_000
ROW_BLOCK = 1 << 16


def write_collection(data: Path, name: str, *, quick: bool) -> dict[str, int]:
    with open_collection(name, quick=quick) as collection:
        ids, query_ids = collection.token_ids()
        lengths = [len(part) for part in ids]
        total, dim = sum(lengths), collection.bundle.manifest.dim
        vectors = np.lib.format.open_memmap(data / "vectors.npy", "w+", np.float32, (total, dim))
        first = 0
        for _, rows in collection.blocks():
            for part in rows:
                vectors[first : first + len(part)] = part
                first += len(part)
        vectors.flush()
        queries = [Q for _, Q in collection.queries]
    if first != total or [len(Q) for Q in queries] != [len(part) for part in query_ids]:
        raise ValueError(f"{name}: the rows have other lengths than their token ids: does its bundle pool them?")
    np.save(data / "token_ids.npy", np.concatenate(ids))
    asked = [(Q, part) for Q, part in zip(queries, query_ids, strict=True) if len(Q)]
    return _write(data, lengths, [Q for Q, _ in asked], [part for _, part in asked])


def repeat(data: Path, times: int) -> dict[str, int]:
    """Add further versions of all passages of a collection that was written there, `times` as many passages in all.

    A version has the passage's words; half of its rows are those of the same word elsewhere in the collection, and all have a
    little noise: there is competition for each place of an answer, as in a larger collection of the same kind.
    """
    random = np.random.default_rng(0)
    base, ids = np.load(data / "vectors.npy", mmap_mode="r"), np.load(data / "token_ids.npy")
    total, dim = times * len(base), base.shape[1]
    _check_disk(data, total, dim)
    by_word, counts = np.argsort(ids, kind="stable"), np.bincount(ids)
    starts = np.cumsum(counts) - counts
    vectors = np.lib.format.open_memmap(data / "repeated.npy", "w+", np.float16, (total, dim))
    for start in range(0, total, ROW_BLOCK):
        places = np.arange(start, min(start + ROW_BLOCK, total))
        rows, added = places % len(base), places >= len(base)
        others = by_word[starts[ids[rows]] + (random.random(len(rows)) * counts[ids[rows]]).astype(np.int64)]
        block = base[np.where(added & (random.random(len(rows)) < SWAPPED), others, rows)]
        noise = random.standard_normal(block.shape, np.float32) * np.float32(NOISE / dim**0.5)
        vectors[places[0] : places[-1] + 1] = np.where(added[:, None], _unit(block + noise), block)
    vectors.flush()
    (data / "repeated.npy").replace(data / "vectors.npy")
    np.save(data / "token_ids.npy", np.tile(ids, times))
    lengths = np.tile(np.diff(np.load(data / "offsets.npy")), times)
    np.save(data / "offsets.npy", np.append(0, np.cumsum(lengths)).astype(np.int64))
    return {"passages": len(lengths), "token_vectors": total, "queries": len(np.load(data / "query_offsets.npy")) - 1}


def write_synthetic(data: Path, passages: int) -> dict[str, int]:
    """Unit vectors around 4,096 skewed words, bent towards the passage's topic. Queries: the rows of a passage, with noise.

    Only that passage stands out in an answer: the scores of the others are near each other, so that recall says little.
    """
    _check_disk(data, passages * ROWS, DIM)
    random = np.random.default_rng(0)
    words, topics = (random.standard_normal((count, DIM), np.float32) for count in (WORDS, TOPICS))
    vectors = np.lib.format.open_memmap(data / "vectors.npy", "w+", np.float16, (passages * ROWS, DIM))
    ids = np.empty((passages, ROWS), np.uint32)
    for first in range(0, passages, BLOCK):
        count = min(BLOCK, passages - first)
        ids[first : first + count] = WORDS * random.random((count, ROWS)) ** 2
        rows = words[ids[first : first + count]]
        rows += 0.4 * topics[random.integers(TOPICS, size=count)][:, None]
        rows += 0.5 * random.standard_normal(rows.shape, np.float32)
        vectors[ROWS * first : ROWS * (first + count)] = _unit(rows).reshape(-1, DIM)
    asked = random.integers(passages, size=100)
    chosen = [vectors[ROWS * n : ROWS * (n + 1)].astype(np.float32) for n in asked]
    vectors.flush()
    np.save(data / "token_ids.npy", ids.ravel())
    queries = [_unit(Q + 0.05 * random.standard_normal(Q.shape, np.float32)) for Q in chosen]
    return _write(data, [ROWS] * passages, queries, list(ids[asked]))


def _check_disk(data: Path, rows: int, dim: int) -> None:
    needed, free = 4 * rows * dim, shutil.disk_usage(data).free  # float16, and as much again for the largest index
    if free < needed:
        raise SystemExit(
            f"{rows} vectors need {needed / 1e9:.0f} GB of disk with their index; {data} has {free / 1e9:.0f} GB left"
        )


def _unit(rows: Matrix) -> Matrix:
    scaled: Matrix = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled.astype(np.float32, copy=False)


def _write(
    data: Path, lengths: Sequence[int], queries: Sequence[Matrix], query_ids: Sequence[NDArray[np.uint32]]
) -> dict[str, int]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    np.save(data / "offsets.npy", offsets)
    np.save(data / "queries.npy", np.concatenate(queries).astype(np.float32))
    np.save(data / "query_offsets.npy", np.concatenate([[0], np.cumsum([len(Q) for Q in queries])]).astype(np.int64))
    np.save(data / "query_token_ids.npy", np.concatenate(query_ids))
    return {"passages": len(lengths), "token_vectors": int(offsets[-1]), "queries": len(queries)}
