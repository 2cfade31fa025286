"""Find the least effort that finds a share of the exact top k, measured on the index itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError
from late_interaction.plaid.store.versions import Tuned
from late_interaction.plaid.types import LocalResult, SearchSettings
from late_interaction.recall_goal import CostedAnswer, counted_cost, least_effort

__all__ = ["find_effort"]

SearchWith: TypeAlias = Callable[[Matrix, SearchSettings | None], LocalResult]
PROBES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
RERANKS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)


def find_effort(ask: SearchWith, queries: Sequence[Matrix], k: int, recall: float, token_vectors: int) -> Tuned:
    """Return the cheapest of about a hundred pairs of probes and rerank whose mean recall@k reaches `recall`.

    Args:
        ask: returns the k best for a query with given settings; with None by exact search.
        queries: query rows `[q, d]` of each query.
        k: how many hits count.
        recall: share of the exact top k to find.
        token_vectors: of the index.

    Raises:
        UsageError: if recall is not within 0 and 1, no query has rows and hits, or no effort reaches the recall.
    """
    exact = [(Q, _ids(ask(Q, None))) for Q in queries]
    asked = [(Q, ids) for Q, ids in exact if ids]

    def answers(settings: SearchSettings) -> list[CostedAnswer]:
        found = [ask(Q, settings) for Q, _ in asked]
        return [CostedAnswer(_ids(result), counted_cost(result.candidates, result.reranked)) for result in found]

    ladders = [[SearchSettings(probes, rerank) for rerank in RERANKS if rerank >= k] for probes in PROBES]
    best = least_effort(ladders, answers, [ids for _, ids in asked], recall).best
    if best is None:
        raise UsageError(f"no effort reaches recall {recall} on this index; search with exact=True")
    probes, rerank = best.effort.probes, best.effort.rerank
    assert probes is not None and rerank is not None
    return Tuned(probes, rerank, round(best.recall, 6), k, len(asked), token_vectors)


def _ids(result: LocalResult) -> list[str]:
    return [hit.passage.id for hit in result.hits]
