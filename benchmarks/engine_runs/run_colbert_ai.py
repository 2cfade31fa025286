"""colbert-ai on the CPU: its indexer with an encoder that hands out ready vectors, its IndexScorer with ready queries.

An effort: `ncells`, `centroid_score_threshold` and `ndocs` of its ColBERTConfig.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from colbert.indexing import collection_indexer
from colbert.infra import ColBERTConfig, Run, RunConfig
from colbert.modeling.colbert import ColBERT
from colbert.search.index_storage import IndexScorer
from colbert.search.strided_tensor import StridedTensor
from common import Data, K, Prepare, Search, main, timed_search

NAME = "benchmark"
DEFAULTS = {"ncells": 1, "centroid_score_threshold": 0.5, "ndocs": 256}  # its own for k = 10


class Ready:
    """In place of Checkpoint and CollectionEncoder: passages are texts of numbers."""

    data: Data

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def encode_passages(self, passages: list[str]) -> tuple[Any, Any]:
        if not passages:
            return None, None
        rows = [self.data.passage(int(text)) for text in passages]
        return torch.from_numpy(np.concatenate(rows)), [len(part) for part in rows]


def build(data: Data, index: Path) -> None:
    Ready.data = data
    collection_indexer.Checkpoint = Ready
    collection_indexer.CollectionEncoder = Ready
    with Run().context(RunConfig(nranks=1, root=str(index), experiment="e")):
        config = ColBERTConfig(nbits=2, index_name=NAME, dim=data.dim, checkpoint="none", overwrite=True)
        config.configure(rank=0, nranks=1, root=str(index), experiment="e")
        Path(config.index_path_).mkdir(parents=True)
        indexer = collection_indexer.CollectionIndexer(config, [str(number) for number in range(data.passages)], verbose=0)
        indexer.run([[]])


def search(data: Data, index: Path) -> dict[str, Any]:
    ColBERT.try_load_torch_extensions(False)
    IndexScorer.try_load_torch_extensions(False)  # what it compiles once is no part of opening
    StridedTensor.try_load_torch_extensions(False)

    def opening() -> Prepare:
        scorer = IndexScorer(str(next(index.rglob("metadata.json")).parent), use_gpu=False)

        def prepared(effort: Mapping[str, Any]) -> Search:
            config = ColBERTConfig(query_maxlen=64, **{**DEFAULTS, **effort})
            return lambda Q: scorer.rank(config, torch.from_numpy(Q)[None])[0][:K]

        return prepared

    return timed_search(data, opening)


if __name__ == "__main__":
    main(build, search)
