"""The least effort of a search that finds a share of the exact top k, measured on the index itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import UsageError
from late_interaction.metrics import overlap_at_k
from late_interaction.plaid.search import check_query, search
from late_interaction.plaid.snapshot import Snapshot
from late_interaction.plaid.types import LocalResult, SearchSettings
from late_interaction.plaid.versions import Tuned

__all__ = ["find_effort"]

Matrix = NDArray[np.float32]
PROBES = (1, 2, 4, 8, 16, 32, 0)  # 0: every passage is scored by its centroids
RERANKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)
RERANKED = 15  # times the cost of a candidate: a vector takes some 60 ns in 16-bit products, a code 4


def find_effort(snapshot: Snapshot, queries: Sequence[Matrix], k: int, recall: float) -> Tuned:
    """The cheapest of some hundred pairs of probes and rerank whose mean recall@k over `queries`, a `[q, d]` each, is `recall`.

    Cost is counted, not timed, so that the answer does not depend on what else the machine does: candidates, and fifteen times
    the passages that are reranked.

    Raises: UsageError where recall is not within 0 and 1, or no query has rows and hits.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be above 0 and at most 1, got {recall}")
    queries = [check_query(Q, snapshot.version.dim) for Q in queries]
    truth = [_ids(search(snapshot, Q, k, exact=True)) for Q in queries]
    asked = [(Q, ids) for Q, ids in zip(queries, truth, strict=True) if ids]
    if not asked:
        raise UsageError("no query finds anything: give queries that have rows, and an index that has passages")
    best: tuple[float, Tuned] | None = None
    for probes in PROBES:
        for rerank in RERANKS:
            if rerank < k:
                continue
            settings = SearchSettings(probes=probes, rerank=rerank)
            found = [search(snapshot, Q, k, settings=settings) for Q, _ in asked]
            cost = float(np.mean([result.candidates + RERANKED * result.reranked for result in found]))
            if best is not None and cost >= best[0]:
                break  # more reranking only costs more
            share = np.mean([overlap_at_k(_ids(r), ids, len(ids)) for r, (_, ids) in zip(found, asked, strict=True)])
            if share >= recall:
                best = cost, Tuned(probes, rerank, round(float(share), 6), k, len(asked), snapshot.version.token_vectors)
                break
            if all(result.reranked == result.candidates for result in found) and probes == 0:
                break
    if best is None:
        raise UsageError(f"no effort of this index reaches recall {recall}: search with exact=True")
    return best[1]


def _ids(result: LocalResult) -> list[str]:
    return [hit.passage.id for hit in result.hits]
