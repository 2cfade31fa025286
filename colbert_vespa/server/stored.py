"""Scores and vectors of stored passages by id, restricted to what the caller may see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from colbert_vespa.server.access import Access
from colbert_vespa.server.engine import Engine, Opened
from late_interaction.array_types import Matrix
from late_interaction.documents import Passage
from query.types import ById, Query

__all__ = ["passage_scores", "passage_vectors"]

T = TypeVar("T")


async def passage_scores(
    engine: Engine, access: Access, name: str, query: Query, ids: Sequence[str], timeout: float
) -> ById[float]:
    """Return the MaxSim scores of a query with stored passages.

    Raises:
        Refusal: If the index does not exist for the caller, or the server is busy.
        ColbertVespaError: As for Client.score.
    """
    async with engine.opened(access, name, timeout) as opened:
        (encoded,) = await engine.encoded([query], opened)
        seen = await _seen(engine, access, opened, ids)
        scores = await engine.run(opened.indexes[0].score(encoded, list(seen), opened.until), opened.until)
        return _of_both(seen, scores)


async def passage_vectors(engine: Engine, access: Access, name: str, ids: Sequence[str], timeout: float) -> ById[Matrix]:
    """Return the stored vectors of passages.

    Raises:
        Refusal: If the index does not exist for the caller, or the server is busy.
        ColbertVespaError: As for Client.vectors.
    """
    async with engine.opened(access, name, timeout) as opened:
        seen = await _seen(engine, access, opened, ids)
        rows = await engine.run(opened.indexes[0].vectors(list(seen), opened.until), opened.until)
        return _of_both(seen, rows)


async def _seen(engine: Engine, access: Access, opened: Opened, ids: Sequence[str]) -> ById[str]:
    """Return the ids that the key's filter selects."""
    if access.where is None:
        return ById({id_: id_ for id_ in ids})
    documents = list(dict.fromkeys(Passage.document_of(id_) for id_ in ids))
    found = await engine.run(opened.indexes[0].get(documents, access.where, opened.until), opened.until)
    selected = {passage.id for passages in found.values() for passage in passages}
    return ById({id_: id_ for id_ in ids if id_ in selected}, found.coverage, found.degraded)


def _of_both(seen: ById[str], values: ById[T]) -> ById[T]:
    degraded = dict.fromkeys((*seen.degraded, *values.degraded))
    return ById(values, min(seen.coverage, values.coverage), degraded)
