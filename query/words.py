"""Candidates by words in a local index."""

from __future__ import annotations

import numpy as np

from late_interaction.bm25 import Bm25
from late_interaction.documents import passage_text
from late_interaction.filters import Filter
from late_interaction.plaid.shards import AnyIndex

__all__ = ["Words"]


class Words:
    """BM25 over an index's living passages, made when it is first asked, and again when the index has another version.

    Of an index of shards it is made of all passages that can be read, in this process: words have the weights that they have
    in one index.
    """

    def __init__(self) -> None:
        self._made: tuple[object, Bm25] | None = None

    def search(self, index: AnyIndex, text: str, count: int, where: Filter | None) -> list[tuple[str, float]]:
        """Ids and BM25 scores of the best `count` passages that share a word with `text`. index: always of one folder, and not
        refreshed meanwhile."""
        readers = index.whole_readers()
        state = [(reader.path, reader.current) for reader in readers]
        made = self._made
        if made is None or made[0] != state:
            passages = [passage for reader in readers for passage in reader.iter_passages()]
            texts = [passage_text(passage.title, passage.text) for passage in passages]
            made = self._made = state, Bm25([passage.id for passage in passages], texts)
        allowed = None if where is None else np.concatenate([reader.selected(where) for reader in readers])
        return made[1].search(text, count, allowed)
