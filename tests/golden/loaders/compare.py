"""How two loaders' rows of the same checkpoint differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["COSINE", "TRAINED", "differences", "worst_cosine"]

COSINE = 0.99999
TRAINED = {"stanford": "colbert_ai", "pylate": "pylate", "native": "sentence_transformers"}
"""layout (first part of a checkpoint's name) -> the loader that people train such checkpoints with"""


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of rows `[n, d]` with rows `[n, d]`; 1 where there are none. Golden rows are rounded, so not quite of length 1."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min(initial=1))


def differences(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, int]:
    """Texts that differ, each counted under the first thing in which it does: ids, attention, keep, vectors."""
    counts: dict[str, int] = {}
    for a, b in zip(ours, theirs, strict=True):
        for name in ("ids", "attention", "keep"):
            if not np.array_equal(getattr(a, name), getattr(b, name)):
                counts[name] = counts.get(name, 0) + 1
                break
        else:
            if worst_cosine(a.vectors, b.vectors) < COSINE:
                counts["vectors"] = counts.get("vectors", 0) + 1
    return counts
