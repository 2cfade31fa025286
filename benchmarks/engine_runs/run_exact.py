"""Exact MaxSim over the float32 vectors: sgemm and a running maximum. What the others' recall is measured against."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Data, K, Prepare, main, peak_rss_mb, timed_search

from late_interaction.maxsim import maxsim_many

MOST_AT_ONCE = 10_000_000  # rows that are kept in memory, 5 GB of 128 dimensions
BLOCK = 4_096  # passages


def build(data: Data, index: Path) -> None:
    index.mkdir()


def search(data: Data, index: Path) -> dict[str, Any]:
    if data.rows > MOST_AT_ONCE:
        return one_pass(data)

    def opening() -> Prepare:
        vectors, lengths = data.vectors(), np.diff(data.offsets)
        return lambda _: lambda Q: np.argsort(-maxsim_many(Q, vectors, lengths), kind="stable")[:K].tolist()

    return timed_search(data, opening)


def one_pass(data: Data) -> dict[str, Any]:
    """All queries on a block of passages, then the next block. `ms` is each query's share."""
    start, cpu = time.perf_counter(), time.process_time()
    scores = np.full((len(data.queries), K), -np.inf, np.float32)
    ids = np.zeros((len(data.queries), K), np.int64)
    for first in range(0, data.passages, BLOCK):
        last = min(first + BLOCK, data.passages)
        vectors, lengths = data.block(first, last), np.diff(data.offsets[first : last + 1])
        for number, Q in enumerate(data.queries):
            all_scores = np.append(scores[number], maxsim_many(Q, vectors, lengths))
            all_ids = np.append(ids[number], np.arange(first, last))
            best = np.argsort(-all_scores, kind="stable")[:K]
            scores[number], ids[number] = all_scores[best], all_ids[best]
    found = [row[scored > -np.inf].tolist() for row, scored in zip(ids, scores, strict=True)]
    share = 1000 * (time.perf_counter() - start) / len(found)
    figures = {"ids": found, "ms": [share] * len(found), "cpu_s": time.process_time() - cpu, "peak_rss_mb": peak_rss_mb()}
    return {**figures, "efforts": [], "one_pass": True}


if __name__ == "__main__":
    main(build, search)
