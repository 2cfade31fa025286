"""Runs in TREC's form: a line `query Q0 document rank score tag` for each hit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from colbert_vespa.evaluation.collection import BLANKS, text_lines
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import atomic_write

__all__ = ["Run", "rankings_of", "read_run", "write_run"]

Run = Mapping[str, Sequence[tuple[str, float]]]
TAG = "colbert-vespa"
_FIELDS = 6


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Return ids and scores by query, in the order of trec_eval.

    The best score is first, equal scores are ordered by id from z to a; the ranks in the file are ignored.

    Raises:
        CollectionError: If a line is not valid; the message names it.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text_lines(path), start=1):
        fields = [field for field in line.replace("\t", " ").split(" ") if field]
        if not fields:
            continue
        if len(fields) != _FIELDS or (score := _score(fields[4])) is None:
            raise CollectionError(f"{path}:{number}: expected query, Q0, document, rank, score and tag of a TREC run")
        hits = found.setdefault(fields[0], {})
        if fields[2] in hits:
            raise CollectionError(f"{path}:{number}: document {fields[2]} occurs twice for query {fields[0]}")
        hits[fields[2]] = score
    if not found:
        raise CollectionError(f"{path} is not a TREC run: it has no lines")
    return {query: sorted(hits.items(), key=lambda hit: (hit[1], hit[0]), reverse=True) for query, hits in found.items()}


def _score(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def write_run(path: Path, run: Run, tag: str = TAG) -> None:
    """Write a run in TREC's format.

    Scores are written as float32. A score that is not below the one before it is lowered by the smallest step, so that
    trec_eval, which sorts by score, keeps the order of the run.

    Args:
        path: File to write.
        run: Hits by query id, best first.
        tag: Name of the run, in the last column.

    Raises:
        UsageError: If an id cannot be written in TREC's format.
    """
    lines = []
    for query, hits in run.items():
        last = np.float32(np.inf)
        for rank, (document, score) in enumerate(hits, start=1):
            for id_ in (query, document):
                if any(sign in id_ for sign in BLANKS):
                    raise UsageError(f"id {id_!r} contains a space, which a TREC run cannot have")
            last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
            lines.append(f"{query} Q0 {document} {rank} {float(last)!r} {tag}\n")
    atomic_write(path, "".join(lines).encode())


def rankings_of(run: Run) -> dict[str, list[str]]:
    """Return the document ids of each query, best first, without scores."""
    return {query: [id_ for id_, _ in hits] for query, hits in run.items()}
