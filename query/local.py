"""Search in a local PLAID index."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path

from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from late_interaction.filters import parse_filter
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import LocalIndex, SearchSettings
from query.checks import check_count, choose_strategy, query_rows
from query.retriever import Question
from query.types import Hit, SearchResult

__all__ = ["LocalRetriever"]


class LocalRetriever:
    """Sees each commit to the index at the next search."""

    strategies = ("centroid", "exhaustive")

    def __init__(self, path: Path, *, precision: str | None = None) -> None:
        self.index = LocalIndex.open(path)
        self.address = str(path)
        self._precision = precision

    @property
    def bundle(self) -> Bundle:
        return self.index.bundle

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.bundle, precision=self._precision)

    @property
    def schema(self) -> MetadataSchema:
        return self.index.schema

    def search(
        self,
        query: Question,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        candidates: str | None = None,
        rerank: int | None = None,
    ) -> SearchResult:
        k = check_count("k", k)
        strategy = choose_strategy(candidates, self.strategies, self.address)
        self.index.refresh()
        filter_ = parse_filter(where, self.schema) if where else None
        start = time.perf_counter()
        rows = query_rows(query, self.encoder)
        encoded = time.perf_counter()
        settings = SearchSettings(rerank=max(k, check_count("rerank", rerank))) if rerank is not None else None
        found = self.index.search(rows, k, where=filter_, settings=settings, exact=strategy == "exhaustive")
        done = time.perf_counter()
        hits = tuple(
            Hit(
                rank=rank,
                id=hit.passage.document_id,
                passage_id=hit.passage.id,
                score=hit.score,
                title=hit.passage.title,
                text=hit.passage.text,
                metadata=self.schema.shown(hit.passage.metadata),
                stages={"candidates": hit.approximate, "maxsim": hit.score},
            )
            for rank, hit in enumerate(found.hits, start=1)
        )
        timings = {"encode": encoded - start, **found.seconds, "search": done - encoded}
        return SearchResult(
            hits=hits,
            candidates=strategy,
            matched=found.candidates,
            reranked=found.reranked,
            timings_ms={stage: 1000 * seconds for stage, seconds in timings.items()},
            notes=("pruning left fewer than k passages, so the search was widened",) if found.widened else (),
        )

    def close(self) -> None:
        """Nothing is held that needs closing; both backends have the method."""
