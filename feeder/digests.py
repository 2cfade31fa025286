"""Digests of documents, to find out whether a target already has a document unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from late_interaction.documents import Document
from late_interaction.metadata import Value
from late_interaction.ready_rows import ReadyRows

__all__ = ["Digests", "bare_digest", "moved_digest", "stored_digest"]

MADE = 24  # hex digits of a digest for what was encoded, and how


class Digests:
    """Makes digests.

    A digest has 24 hex digits for everything that is fed of a document and how it is encoded, then 8 for how the target
    keeps it. What is copied unchanged to another target keeps the first part (`moved_digest`).
    """

    def __init__(self, made: str, kept: str) -> None:
        """Set the basis. made: what passages and vectors depend on besides the document. kept: the target's `digest_basis`."""
        self._start, self._end = hashlib.sha256(made.encode()), _kept(kept)

    def of(self, document: Document, metadata: Mapping[str, Value]) -> str:
        """Return the digest of a document. metadata: its typed metadata, which replaces the document's own."""
        content: list[object] = [document.id, document.title, document.text, dict(metadata)]
        if document.vectors:
            content.append([_rows_digest(rows) for rows in document.vectors])
        if document.dense:
            content.append({name: _rows_digest(rows) for name, rows in document.dense.items()})
        if document.unusable:
            content.append({name: refused.given for name, refused in document.unusable.items()})
        found = self._start.copy()
        found.update(json.dumps(content, sort_keys=True).encode())
        return found.hexdigest()[:MADE] + self._end


def _rows_digest(rows: ReadyRows) -> str:
    """Return a digest that is equal for all number types and for flat rows: it covers the number of rows and the dimension."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()


def moved_digest(digest: str, kept: str) -> str:
    """Convert the digest of one target to that of a target with another `digest_basis`."""
    return digest[:MADE] + _kept(kept)


def stored_digest(digest: str, passages: int, *, counted: bool) -> str:
    """Return the digest to store, with the number of passages, so that an incomplete document is recognised.

    counted: as in `Target.counted`.
    """
    return f"{digest}-{passages}" if counted else digest


def bare_digest(digest: str, passages: int | None) -> str:
    """Return the digest without the number of passages; empty if that differs from `passages` (None accepts any)."""
    bare, _, count = digest.partition("-")
    return bare if count == ("" if passages is None else str(passages)) else ""


def _kept(basis: str) -> str:
    return hashlib.sha256(basis.encode()).hexdigest()[:8]
