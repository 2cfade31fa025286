"""Checks of search arguments that both backends share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoder import Encoder
from late_interaction.errors import UsageError
from query.retriever import Question
from vespa_app.settings import MAX_HITS

__all__ = ["check_count", "choose_strategy", "query_rows"]


def check_count(name: str, value: int) -> int:
    """Raises: UsageError unless `value` is a whole number from 1 to 10,000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_HITS:
        raise UsageError(f"{name} must be a whole number from 1 to {MAX_HITS}, got {value!r}")
    return value


def choose_strategy(asked: str | None, known: tuple[str, ...], address: str) -> str:
    if asked is None:
        return known[0]
    if asked not in known:
        raise UsageError(f"candidates {asked!r} unknown at {address}; it has: {', '.join(known)}")
    return asked


def query_rows(query: Question, encoder: Encoder) -> NDArray[np.float32]:
    """`[q, d]` rows of a text, or ready rows checked. Raises: UsageError on a blank text or rows of another shape."""
    if isinstance(query, str):
        if not query.strip():
            raise UsageError("the query is blank")
        return encoder.encode_queries([query])[0]
    rows = np.ascontiguousarray(query, np.float32)
    if rows.ndim != 2 or rows.shape[1] != encoder.dim or not len(rows) or not np.isfinite(rows).all():
        raise UsageError(f"query rows must be finite numbers of shape [q, {encoder.dim}], got {list(rows.shape)}")
    return rows
