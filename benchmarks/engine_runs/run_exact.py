"""Exact MaxSim over the float32 vectors: sgemm and a running maximum. What the others' recall is measured against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import Data, K, main, timed_search


def build(data: Data, index: Path) -> None:
    index.mkdir()


def search(data: Data, index: Path) -> dict[str, object]:
    from late_interaction.maxsim import maxsim_many

    vectors = np.array(data.vectors)
    lengths = np.diff(data.offsets)
    return timed_search(data, lambda Q: np.argsort(-maxsim_many(Q, vectors, lengths), kind="stable")[:K].tolist())


if __name__ == "__main__":
    main(build, search)
