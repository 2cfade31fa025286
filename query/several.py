"""One question to several indexes: encoded once, hits merged by their MaxSim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from late_interaction.errors import UsageError
from query.checks import check_count, query_rows
from query.retriever import Question, Retriever
from query.types import Hit, SearchResult

__all__ = ["SeveralResult", "search_several"]


@dataclass(frozen=True)
class SeveralResult:
    """hits: of all indexes, best first; `addresses[i]` is where hit i is from. results: each index's own."""

    hits: tuple[Hit, ...]
    addresses: tuple[str, ...]
    results: Mapping[str, SearchResult]


def search_several(
    retrievers: Sequence[Retriever],
    query: Question,
    k: int = 10,
    *,
    where: Mapping[str, object] | None = None,
    rerank: int | None = None,
) -> SeveralResult:
    """The best k passages of all `retrievers`, each asked with its first strategy.

    Raises: UsageError where none or one twice is given, or their bundles differ: scores of two models cannot be compared.
    Otherwise as Retriever.search.
    """
    k = check_count("k", k)
    addresses = [retriever.address for retriever in retrievers]
    if not retrievers or len(set(addresses)) < len(addresses):
        raise UsageError("give at least one index, and each once")
    bundles = {retriever.bundle.sha256 for retriever in retrievers}
    if len(bundles) > 1:
        raise UsageError("the indexes have different bundles, so that their scores cannot be compared: ask each alone")
    rows = query_rows(query, retrievers[0].encoder)
    results = {r.address: r.search(rows, k, where=where, rerank=rerank) for r in retrievers}
    found = [(hit, address) for address, result in results.items() for hit in result.hits]
    found.sort(key=lambda pair: (-pair[0].score, addresses.index(pair[1]), pair[0].rank))
    hits = tuple(replace(hit, rank=rank) for rank, (hit, _) in enumerate(found[:k], start=1))
    return SeveralResult(hits, tuple(address for _, address in found[:k]), results)
