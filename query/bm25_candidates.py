"""Candidates by words in a local index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from late_interaction.filters import Filter
from late_interaction.plaid import PlaidIndex
from late_interaction.plaid.store.segment import Segment
from late_interaction.plaid.store.words import Candidates, best_by_words

__all__ = ["bm25_candidates"]


def bm25_candidates(
    index: PlaidIndex, text: str, count: int, where: Filter | None, ids: Sequence[str] | None = None
) -> list[tuple[str, float]]:
    """Ids and BM25 scores of the best `count` passages that share a word with `text`. index: not refreshed meanwhile.

    Of an index of shards all passages count, in this process: words have the weights that they have in one index. A shard
    that cannot be read is left out; the index says so (`missing`).
    """
    segments: list[Segment] = []
    parts: list[Candidates] = []
    for snapshot in (reader.snapshot for reader in index.readers().values()):
        masks = [part.mask for part in snapshot.living] if where is None and ids is None else snapshot.select(where, ids)
        segments += [part.segment for part in snapshot.living]
        parts += [Candidates(p.segment.words, p.mask, mask) for p, mask in zip(snapshot.living, masks, strict=True)]
    places, scores = best_by_words(parts, text, count)
    bases = np.cumsum([0, *(segment.passages for segment in segments)])
    numbers = np.searchsorted(bases, places, "right") - 1
    names = [segments[n].ids[int(place - bases[n])] for n, place in zip(numbers.tolist(), places, strict=True)]
    return list(zip(names, scores.tolist(), strict=True))
