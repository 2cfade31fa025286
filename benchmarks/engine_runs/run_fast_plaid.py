"""fast-plaid on the CPU, with its defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Data, K, Search, main, timed_search
from fast_plaid.search import FastPlaid

torch.set_num_threads(int(os.environ.get("TORCH_NUM_THREADS", "1")))


def build(data: Data, index: Path) -> None:
    vectors = [torch.from_numpy(data.passage(number)) for number in range(data.passages)]
    FastPlaid(index=str(index), device="cpu").create(documents_embeddings=vectors)


def search(data: Data, index: Path) -> dict[str, Any]:
    def opening() -> Search:
        opened = FastPlaid(index=str(index), device="cpu")

        def one(Q: np.ndarray) -> list[int]:
            found = opened.search(queries_embeddings=torch.from_numpy(Q)[None], top_k=K, show_progress=False)
            return [id_ for id_, _ in found[0]]

        return one

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
