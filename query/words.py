"""Candidates by words in a local index."""

from __future__ import annotations

from collections.abc import Sequence

from late_interaction.bm25 import Bm25
from late_interaction.documents import passage_text
from late_interaction.filters import Filter
from late_interaction.plaid.shards import AnyIndex

__all__ = ["Words"]


class Words:
    """BM25 over an index's living passages, made when it is first asked, and again when the index has another version.

    Of an index of shards it is made of all passages, in this process: words have the weights that they have in one index. A
    shard that cannot be read is left out, as long as it is; the index says so (`missing`).
    """

    def __init__(self) -> None:
        self._made: tuple[object, Bm25] | None = None
        self._lacking = False

    def search(
        self, index: AnyIndex, text: str, count: int, where: Filter | None, ids: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """Ids and BM25 scores of the best `count` passages that share a word with `text`. index: always of one folder, and not
        refreshed meanwhile."""
        made = self._made
        if made is None or made[0] != index.current or self._lacking:
            passages = list(index.iter_passages())
            self._lacking = bool(index.missing)
            texts = [passage_text(passage.title, passage.text) for passage in passages]
            made = self._made = index.current, Bm25([passage.id for passage in passages], texts)
        allowed = None if where is None and ids is None else index.selected(where, ids)
        return made[1].search(text, count, allowed)
