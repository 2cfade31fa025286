"""Scores by words in a local index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from late_interaction.filters import Filter
from late_interaction.plaid import PlaidIndex
from late_interaction.plaid.store.words import best_by_words, word_scores

__all__ = ["WordScores"]


class WordScores:
    """BM25 scores of an index for one text; the index must not be refreshed meanwhile.

    In an index of shards all passages count, in this process, so that words have the same weights as in one index. A shard
    that cannot be read is left out; the index reports it (`missing`).
    """

    def __init__(self, index: PlaidIndex, text: str) -> None:
        self._snapshots = [reader.snapshot for reader in index.readers().values()]
        self._parts = [part for snapshot in self._snapshots for part in snapshot.living]
        self._scores = word_scores([(part.segment.words, part.mask) for part in self._parts], text)

    def best(self, count: int, where: Filter | None = None, ids: Sequence[str] | None = None) -> dict[str, float]:
        """Return ids and scores of the best `count` selected passages that share a word with the text, best first."""
        allowed = [part.mask for part in self._parts]
        if where is not None or ids is not None:
            allowed = [mask for snapshot in self._snapshots for mask in snapshot.select(where, ids)]
        places, scores = best_by_words(self._scores, allowed, count)
        bases = np.cumsum([0, *(part.segment.passages for part in self._parts)])
        numbers = np.searchsorted(bases, places, "right") - 1
        names = [self._parts[n].segment.ids[int(place - bases[n])] for n, place in zip(numbers.tolist(), places, strict=True)]
        return dict(zip(names, scores.tolist(), strict=True))

    def of(self, passage_ids: Iterable[str]) -> dict[str, float]:
        """Return scores of those passages that share a word with the text."""
        by_segment = dict(zip(map(id, self._parts), self._scores, strict=True))
        found = {}
        for passage_id in passage_ids:
            for snapshot in self._snapshots:
                if (place := snapshot.find(passage_id)) is not None and (score := by_segment[id(place[0])][place[1]]) > 0:
                    found[passage_id] = float(score)
        return found
