"""Exact MaxSim over the float32 vectors: sgemm and a running maximum. What the others' recall is measured against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Data, K, Search, main, timed_search


def build(data: Data, index: Path) -> None:
    index.mkdir()


def search(data: Data, index: Path) -> dict[str, Any]:
    from late_interaction.maxsim import maxsim_many

    def opening() -> Search:
        vectors, lengths = data.vectors(), np.diff(data.offsets)
        return lambda Q: np.argsort(-maxsim_many(Q, vectors, lengths), kind="stable")[:K].tolist()

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
