"""Why a passage was found: for each query word the passage word that matched best, with character offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.maxsim import similarities
from late_interaction.tokenizing import TokenRows
from query.types import Explanation, Hit, Match, Matrix

__all__ = ["explain", "explained"]

_WORD = re.compile(r"\w+")
Span = tuple[int, int]


def explained(encoder: Encoder, query: str, hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """The hits, each with its explanation."""
    found = explain(encoder, query, hits)
    return tuple(replace(hit, explanation=explanation) for hit, explanation in zip(hits, found, strict=True))


def explain(encoder: Encoder, query: str, hits: Sequence[Hit]) -> list[Explanation]:
    """Encodes the hits' texts again and compares row by row. Marker, special and expansion rows are left out."""
    query_tokens = encoder.tokenizing.queries([query])[0]
    query_real, query_offsets = _real_rows(query_tokens)
    Q = encoder.encode_queries([query])[0][query_real]
    asked, query_words = _by_word(query, query_offsets)
    texts = [passage_text(hit.title, hit.text) for hit in hits]
    explanations = []
    vectors = encoder.encode_documents(texts, pooled=False)  # pooled rows stand for no place in the text
    for text, tokens, D in zip(texts, encoder.tokenizing.documents(texts), vectors, strict=True):
        real, offsets = _real_rows(tokens)
        if not len(real) or not len(query_real):
            explanations.append(Explanation(text, ()))
            continue
        S = similarities(Q, D[real])  # [q, t]
        found, words = _by_word(text, offsets)
        table = _best(_best(S, query_words, len(asked)).T, words, len(found)).T  # [m, w]
        matches = []
        for row, word in enumerate(asked):
            place = int(table[row].argmax())
            start, end = found[place]
            matches.append(Match(query[slice(*word)], text[start:end], start, end, float(table[row, place])))
        explanations.append(Explanation(text, tuple(matches), tuple(found), table))
    return explanations


def _real_rows(tokens: TokenRows) -> tuple[np.ndarray, list[Span]]:
    """Places among the emitted rows, and offsets, of rows that stand for text."""
    emitted = [offset for offset, kept in zip(tokens.offsets, tokens.keep, strict=True) if kept]
    real = [(place, offset) for place, offset in enumerate(emitted) if offset[1] > offset[0]]
    return np.array([place for place, _ in real], dtype=np.int64), [offset for _, offset in real]


def _by_word(text: str, pieces: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Words in order of their first piece, and for each piece the place of its word."""
    places: dict[Span, int] = {}
    owners = [places.setdefault(_whole_word(text, *piece), len(places)) for piece in pieces]
    return list(places), owners


def _best(S: Matrix, owners: Sequence[int], count: int) -> Matrix:
    """`[n, t]` -> `[count, t]`: for each word the largest of its pieces."""
    out = np.full((count, S.shape[1]), -np.inf, np.float32)
    np.maximum.at(out, np.asarray(owners), S)
    return out


def _whole_word(text: str, start: int, end: int) -> Span:
    for word in _WORD.finditer(text, max(0, start - 64), min(len(text), end + 64)):
        if word.start() <= start < word.end():
            return word.start(), max(end, word.end())
    return start, end
