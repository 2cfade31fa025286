"""fast-plaid on the CPU, with its defaults."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from common import Data, K, main, timed_search
from fast_plaid.search import FastPlaid

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def build(data: Data, index: Path) -> None:
    vectors = [torch.from_numpy(np.array(data.passage(number))) for number in range(data.passages)]
    FastPlaid(index=str(index), device="cpu").create(documents_embeddings=vectors)


def search(data: Data, index: Path) -> dict[str, object]:
    opened = FastPlaid(index=str(index), device="cpu")

    def one(Q: np.ndarray) -> list[int]:
        found = opened.search(queries_embeddings=torch.from_numpy(Q)[None], top_k=K, show_progress=False)
        return [id_ for id_, _ in found[0]]

    return timed_search(data, one)


if __name__ == "__main__":
    main(build, search)
