"""Why a passage was found: for each query word the best-matching passage word, with character offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.documents import passage_text
from late_interaction.encoder import Encoder
from late_interaction.maxsim import similarities
from late_interaction.tokenizing import TokenRows
from query.types import EncodedQuery, Explanation, Hit, Match

__all__ = ["explain", "explained"]

_WORD = re.compile(r"\w+")
Span = tuple[int, int]


def explained(encoder: Encoder, query: EncodedQuery, hits: Sequence[Hit]) -> tuple[Hit, ...]:
    """Return the hits, each with its explanation in place of its vectors. query: with the text."""
    assert query.text is not None
    explanations = _explained(encoder, query.text, query.rows, hits)
    return tuple(replace(hit, explanation=one, vectors=None) for hit, one in zip(hits, explanations, strict=True))


def explain(encoder: Encoder, query: str, hits: Sequence[Hit]) -> list[Explanation]:
    """Encode the hits' texts again and compare them row by row.

    Marker, special and expansion rows are left out.

    Args:
        encoder: the encoder of the hits' index.
        query: the query's text.
        hits: the hits.

    Returns:
        one explanation per hit.
    """
    return _explained(encoder, query, encoder.encode_queries([query])[0], hits)


def _explained(encoder: Encoder, query: str, rows: Matrix, hits: Sequence[Hit]) -> list[Explanation]:
    query_real, query_offsets = _real_rows(encoder.tokenizing.queries([query])[0])
    Q = rows[query_real]
    asked, query_words = _by_word(query, query_offsets)
    texts = [passage_text(hit.title, hit.text) for hit in hits]
    tokenized = encoder.tokenizing.documents(texts)
    explanations = []
    for text, tokens, D in zip(texts, tokenized, _rows_of(encoder, texts, tokenized, hits), strict=True):
        real, offsets = _real_rows(tokens)
        if not len(real) or not len(query_real):
            explanations.append(Explanation(text, ()))
            continue
        S = similarities(Q, D[real])  # [q, t]
        spans, words = _by_word(text, offsets)
        table = _best(_best(S, query_words, len(asked)).T, words, len(spans)).T  # [m, w]
        matches = []
        for row, word in enumerate(asked):
            place = int(table[row].argmax())
            start, end = spans[place]
            matches.append(Match(query[slice(*word)], text[start:end], start, end, float(table[row, place])))
        explanations.append(Explanation(text, tuple(matches), tuple(spans), table))
    return explanations


def _rows_of(encoder: Encoder, texts: Sequence[str], tokenized: Sequence[TokenRows], hits: Sequence[Hit]) -> list[Matrix]:
    """Return a row for each kept token.

    These are the stored rows, or the encoded text if the stored rows are missing or do not match its tokens.
    """
    pooled = encoder.bundle.manifest.pooling is not None
    stored = [None if pooled else hit.vectors for hit in hits]
    lacking = [
        place
        for place, (D, tokens) in enumerate(zip(stored, tokenized, strict=True))
        if D is None or len(D) != np.count_nonzero(tokens.keep)
    ]
    encoded = encoder.encode_documents(
        [texts[place] for place in lacking], [tokenized[place] for place in lacking], pooled=False
    )
    rows = dict(enumerate(stored)) | dict(zip(lacking, encoded, strict=True))
    return [D for D in rows.values() if D is not None]


def _real_rows(tokens: TokenRows) -> tuple[np.ndarray, list[Span]]:
    """Return places among the emitted rows, and offsets, of rows that belong to text."""
    emitted = [offset for offset, kept in zip(tokens.offsets, tokens.keep, strict=True) if kept]
    real = [(place, offset) for place, offset in enumerate(emitted) if offset[1] > offset[0]]
    return np.array([place for place, _ in real], dtype=np.int64), [offset for _, offset in real]


def _by_word(text: str, pieces: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Return words in order of their first piece, and for each piece the place of its word."""
    places: dict[Span, int] = {}
    owners = [places.setdefault(_whole_word(text, *piece), len(places)) for piece in pieces]
    return list(places), owners


def _best(S: Matrix, owners: Sequence[int], count: int) -> Matrix:
    """Reduce `[n, t]` to `[count, t]`: for each word the largest of its pieces."""
    out = np.full((count, S.shape[1]), -np.inf, np.float32)
    np.maximum.at(out, np.asarray(owners), S)
    return out


def _whole_word(text: str, start: int, end: int) -> Span:
    for word in _WORD.finditer(text, max(0, start - 64), min(len(text), end + 64)):
        if word.start() <= start < word.end():
            return word.start(), max(end, word.end())
    return start, end
