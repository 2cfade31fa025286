"""Digests of documents, by which a target is asked whether it has a document as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from late_interaction.documents import Document
from late_interaction.metadata import Value
from late_interaction.ready_rows import ReadyRows

__all__ = ["Digests", "bare_digest", "moved_digest", "stored_digest"]

MADE = 24  # hex digits of a digest that say what was encoded, and how


class Digests:
    """24 hex digits over all that is fed of a document and how it is encoded, then 8 over how the target keeps it, so that
    what is copied to another target as it was encoded keeps the first part (`moved_digest`)."""

    def __init__(self, made: str, kept: str) -> None:
        """made: what passages and their vectors depend on besides the document. kept: the target's `digest_basis`."""
        self._start, self._end = hashlib.sha256(made.encode()), _kept(kept)

    def of(self, document: Document, metadata: Mapping[str, Value]) -> str:
        """metadata: typed, in place of the document's."""
        content: list[object] = [document.id, document.title, document.text, dict(metadata)]
        if document.vectors:
            content.append([_rows_digest(rows) for rows in document.vectors])
        if document.dense:
            content.append({name: _rows_digest(rows) for name, rows in document.dense.items()})
        found = self._start.copy()
        found.update(json.dumps(content, sort_keys=True).encode())
        return found.hexdigest()[:MADE] + self._end


def _rows_digest(rows: ReadyRows) -> str:
    """The same of all types of numbers, and of rows that come one after the other: their number goes with the dimension."""
    return hashlib.sha256(np.ascontiguousarray(rows, "<f4").tobytes()).hexdigest()


def moved_digest(digest: str, kept: str) -> str:
    """The digest of a document as a target with that `digest_basis` has it, of the one that another target has."""
    return digest[:MADE] + _kept(kept)


def stored_digest(digest: str, passages: int, *, counted: bool) -> str:
    """What is stored: it says how many passages there are, so that a document that came in part is not taken for whole.
    counted: Target.counted."""
    return f"{digest}-{passages}" if counted else digest


def bare_digest(digest: str, passages: int | None) -> str:
    """The digest without the number of passages, which has to be `passages`, unless that is None; else empty."""
    bare, _, count = digest.partition("-")
    return bare if count == ("" if passages is None else str(passages)) else ""


def _kept(basis: str) -> str:
    return hashlib.sha256(basis.encode()).hexdigest()[:8]
