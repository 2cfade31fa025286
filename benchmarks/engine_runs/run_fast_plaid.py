"""fast-plaid on the CPU. An effort: `n_full_scores` and `n_ivf_probe` of its search."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import Data, K, Prepare, main, timed_search
from fast_plaid.search import FastPlaid

if TYPE_CHECKING:  # peers' environments have none of ours
    from late_interaction.array_types import Matrix

torch.set_num_threads(int(os.environ.get("TORCH_NUM_THREADS", "1")))


def build(data: Data, index: Path) -> None:
    vectors = [torch.from_numpy(data.passage(number)) for number in range(data.passages)]
    FastPlaid(index=str(index), device="cpu").create(documents_embeddings=vectors)


def search(data: Data, index: Path) -> dict[str, Any]:
    def opening() -> Prepare:
        opened = FastPlaid(index=str(index), device="cpu")

        def ranked(Q: Matrix, effort: Mapping[str, Any]) -> list[int]:
            found = opened.search(queries_embeddings=torch.from_numpy(Q)[None], top_k=K, show_progress=False, **effort)
            return [id_ for id_, _ in found[0]]

        return lambda effort: lambda Q: ranked(Q, effort)

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
