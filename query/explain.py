"""Why a passage was found: for each query word the passage word that matched best, with character offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.maxsim import similarities
from late_interaction.tokenizing import TokenRows
from query.types import Hit

__all__ = ["Explanation", "Match", "explain"]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Match:
    """`start` and `end` are character offsets into the explanation's text; `similarity` is the cosine of the two rows."""

    query_word: str
    passage_word: str
    start: int
    end: int
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """`text` is what was encoded: title and text. One match per query word, in the query's order: of a word that the
    tokenizer cut into pieces, the piece that matched best."""

    text: str
    matches: tuple[Match, ...]

    def spans(self, share: float = 0.5) -> list[tuple[int, int]]:
        """Spans of the words that carry the match, in order, not overlapping: those whose similarity is in the upper part
        between the weakest and the best match of this passage (`share` of the way up)."""
        if not self.matches:
            return []
        values = [match.similarity for match in self.matches]
        floor = min(values) + share * (max(values) - min(values))
        return sorted({(match.start, match.end) for match in self.matches if match.similarity >= floor})


def explain(encoder: Encoder, query: str, hits: Sequence[Hit]) -> list[Explanation]:
    """Encodes the hits' texts again and compares row by row. Marker, special and expansion rows are left out."""
    query_tokens = encoder.tokenizing.queries([query])[0]
    query_real, query_offsets = _real_rows(query_tokens)
    Q = encoder.encode_queries([query])[0][query_real]
    texts = [passage_text(hit.title, hit.text) for hit in hits]
    explanations = []
    vectors = encoder.encode_documents(texts, pooled=False)  # pooled rows stand for no place in the text
    for text, tokens, D in zip(texts, encoder.tokenizing.documents(texts), vectors, strict=True):
        real, offsets = _real_rows(tokens)
        if not len(real) or not len(query_real):
            explanations.append(Explanation(text, ()))
            continue
        S = similarities(Q, D[real])  # [q, t]
        best = S.argmax(axis=1)
        words: dict[tuple[int, int], Match] = {}
        for row, column in enumerate(best):
            word = _whole_word(query, *query_offsets[row])
            match = _match(query[slice(*word)], text, offsets[int(column)], float(S[row, column]))
            if word not in words or match.similarity > words[word].similarity:
                words[word] = match
        explanations.append(Explanation(text, tuple(words.values())))
    return explanations


def _real_rows(tokens: TokenRows) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Places among the emitted rows, and offsets, of rows that stand for text."""
    emitted = [offset for offset, kept in zip(tokens.offsets, tokens.keep, strict=True) if kept]
    real = [(place, offset) for place, offset in enumerate(emitted) if offset[1] > offset[0]]
    return np.array([place for place, _ in real], dtype=np.int64), [offset for _, offset in real]


def _match(query_word: str, text: str, found: tuple[int, int], similarity: float) -> Match:
    start, end = _whole_word(text, *found)
    return Match(query_word, text[start:end], start, end, similarity)


def _whole_word(text: str, start: int, end: int) -> tuple[int, int]:
    for word in _WORD.finditer(text, max(0, start - 64), min(len(text), end + 64)):
        if word.start() <= start < word.end():
            return word.start(), max(end, word.end())
    return start, end
