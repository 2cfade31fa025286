"""Candidates by words in a local index: BM25, alone or fused with MaxSim by reciprocal ranks, as the Vespa application does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from late_interaction.bm25 import Bm25
from late_interaction.documents import passage_text
from late_interaction.filters import Filter
from late_interaction.plaid.shards import AnyIndex

__all__ = ["Words", "fused"]

RANK_CONSTANT = 60.0  # Cormack, Clarke and Buettcher 2009; Vespa's reciprocal_rank has the same


class Words:
    """BM25 over an index's living passages, made when it is first asked, and again when the index has another version.

    Of an index of shards it is made of all passages, in this process: words have the weights that they have in one index.
    """

    def __init__(self) -> None:
        self._made: tuple[object, Bm25] | None = None

    def search(self, index: AnyIndex, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        """Ids and BM25 scores of the best `count` passages that share a word with `text`. index: always of one folder, and not
        refreshed meanwhile."""
        made = self._made
        if made is None or made[0] != index.current:
            passages = list(index.iter_passages())
            texts = [passage_text(passage.title, passage.text) for passage in passages]
            made = self._made = index.current, Bm25([passage.id for passage in passages], texts)
        allowed = None if where is None else index.selected(where)
        return made[1].search(text, count, allowed)


def fused(maxsim: Mapping[str, float], words: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Sum of reciprocal ranks in both orders of every passage: 1 / (60 + rank) for each order it is in."""
    order = sorted(maxsim, key=lambda id_: -maxsim[id_])
    scores = {id_: 1 / (RANK_CONSTANT + rank) for rank, id_ in enumerate(order, start=1)}
    for rank, (id_, _) in enumerate(words, start=1):
        scores[id_] = scores.get(id_, 0.0) + 1 / (RANK_CONSTANT + rank)
    return scores
