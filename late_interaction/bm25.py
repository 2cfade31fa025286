"""BM25 over the same texts, by bm25s: Lucene's formula, k1 1.2, b .75, English stop words, Snowball stemming."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from late_interaction.array_types import Mask
from late_interaction.extras import required

with required("local", "BM25"):
    import bm25s
    import Stemmer
    from bm25s.stopwords import STOPWORDS_EN

__all__ = ["K1", "B", "Bm25", "word_counts"]

K1, B = 1.2, 0.75

logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets DEBUG on import

_WORD = re.compile(r"(?u)\b\w\w+\b")
_STOPPED = frozenset(STOPWORDS_EN)


def word_counts(texts: Sequence[str]) -> tuple[list[dict[int, int]], list[str]]:
    """Count the words of each text, cut and stemmed as `Bm25` does; return the counts and the words by number."""
    stem = Stemmer.Stemmer("english").stemWord
    numbers: dict[str, int] = {}  # of words, in text order
    vocabulary: dict[str, int] = {}
    counted: list[dict[int, int]] = []
    for text in texts:
        own: dict[int, int] = {}
        for word, count in Counter(_WORD.findall(text.lower())).items():
            if (number := numbers.get(word)) is None:
                if word in _STOPPED:
                    continue
                number = numbers[word] = vocabulary.setdefault(stem(word), len(vocabulary))
            own[number] = own.get(number, 0) + count
        counted.append(own)
    return counted, list(vocabulary)


class Bm25:
    """Ranks `texts`, named by `ids`."""

    def __init__(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        self._ids = list(ids)
        self._stemmer = Stemmer.Stemmer("english")
        self._index: Any = bm25s.BM25(method="lucene", k1=K1, b=B)
        tokens = self._tokens(texts)
        self._empty = not any(tokens.ids) or not tokens.vocab
        if not self._empty:
            self._index.index(tokens, show_progress=False)

    @property
    def index_bytes(self) -> int:
        """Return the size of the scores that a search reads, without the words themselves."""
        return 0 if self._empty else sum(int(self._index.scores[name].nbytes) for name in ("data", "indices", "indptr"))

    def _tokens(self, texts: Sequence[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False)

    def search(self, query: str, k: int, allowed: Mask | None = None) -> list[tuple[str, float]]:
        """Return the best k texts that share a word with the query, as (id, score).

        Args:
            query: the query text.
            k: how many results to return.
            allowed: `[n]`, the texts that may be returned; None for all.
        """
        if self._empty or not any(self._tokens([query]).ids):
            return []
        mask = None if allowed is None else allowed.astype(np.float32)
        tokens, k = self._tokens([query]), min(k, len(self._ids))
        places, scores = self._index.retrieve(tokens, k=k, show_progress=False, weight_mask=mask)
        return [(self._ids[int(p)], float(s)) for p, s in zip(places[0], scores[0], strict=True) if s > 0]
