"""tachiom on the CPU, with its defaults but for the training sample of its product quantizer.

An effort: `k_centroids`, `k_docs_to_score`, `ef_search`, `alpha`, `beta` and `lambda_` of its search. It takes float16 and the
vocabulary id of each row, and has no threads of a single search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Data, K, Prepare, main, timed_search
from tachiom import Tachiom

if TYPE_CHECKING:  # peers' environments have none of ours
    from late_interaction.array_types import Matrix

PQ_SAMPLE = 50_000  # by default ten million, whose training does not end within the hour


def build(data: Data, index: Path) -> None:
    vectors = np.load(data.vectors_file, mmap_mode="r")
    if vectors.dtype != np.float16:
        vectors = vectors.astype(np.float16)
    ids, lengths = np.load(data.token_ids_file), np.diff(data.offsets).astype(np.int32)
    index.mkdir()
    made = Tachiom.build_from_arrays(vectors.view(np.uint16), ids, lengths, pq_sample_size=PQ_SAMPLE)
    made.save(str(index / "index.bin"))


def search(data: Data, index: Path) -> dict[str, Any]:
    def opening() -> Prepare:
        opened = Tachiom.load(str(index / "index.bin"))

        def ranked(Q: Matrix, effort: Mapping[str, Any]) -> list[int]:
            scores, ids = opened.search(Q, K, **effort)
            found: list[int] = ids[scores > -np.inf].tolist()  # the rest is filled up
            return found

        return lambda effort: lambda Q: ranked(Q, effort)

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
