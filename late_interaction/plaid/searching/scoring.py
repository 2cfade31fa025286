"""Stages 4 and 5 of a search: MaxSim of given passages in sixteen-bit products with an error bound, and in float32.

The bound. A query row q is read as q' = q + e and a stored vector x as x' = x + f, so a product is off by

    |<q', x'> - <q, x>| = |<e, x'> + <q, f>| <= |e| |x'| + |q| |f|

The largest of a row's products is off by no more than any single one may be, and a score by the sum over the rows. |e| is
measured for every query (int16_scoring.py), |f| on the tables of the codec and each passage's vectors (codecs.py). Sums of
products are exact; float32 arithmetic adds at most (d + q + 16) 2^-23 |q| |x'| per row on either side.
"""

from __future__ import annotations

import numpy as np

from late_interaction.array_types import Matrix, Places
from late_interaction.maxsim import maxsim_many
from late_interaction.plaid.store.codecs import Refined
from late_interaction.plaid.store.int16_scoring import Query16
from late_interaction.plaid.store.selection import ranges
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.runs import runs

__all__ = ["bounded_scores", "exact_scores", "within"]

BLOCK_ROWS = 1 << 13  # float32 vectors held at a time: 4 MiB at 128 dimensions


def bounded_scores(snapshot: Snapshot, query: Query16, places: Places, *, refined: bool) -> tuple[Matrix, Matrix]:
    """Return MaxSim of the passages at global `places`, ascending, and its possible distance from `exact_scores`, both `[n]`.

    Passages without rows score -inf. refined: from the int8 rows if the index keeps them; otherwise from the codec's
    vectors, to which the bound then applies.
    """
    scores = np.full(len(places), -np.inf, np.float32)
    errors = np.zeros(len(places), np.float32)
    for part in snapshot.living:
        first, last = np.searchsorted(places, [part.base, part.base + part.segment.passages])
        if first == last:
            continue
        rows, segment = places[first:last] - part.base, part.segment
        if refined and segment.refine is not None:
            scores[first:last], errors[first:last] = Refined().score(query, rows, segment.offsets, segment.refine)
        else:
            scores[first:last], errors[first:last] = snapshot.codec.score(query, rows, segment)
    return scores, errors


def within(scores: Matrix, errors: Matrix, k: int) -> Places:
    """Return all places, ascending, that may be among the k best: k scores are at least `least`, and no other can reach it."""
    if len(scores) <= k:
        return np.arange(len(scores))
    sure = scores - errors
    least = np.partition(sure, len(sure) - k)[len(sure) - k]
    return np.flatnonzero(scores + errors >= least)


def exact_scores(snapshot: Snapshot, Q: Matrix, places: Places) -> Matrix:
    """Return MaxSim `[n]` in float32 of the passages at global `places`; -inf without rows.

    The stored vectors are the int8 rows if the index keeps them, else the decoded ones.
    """
    scores = np.empty(len(places), np.float32)
    order = np.argsort(places, kind="stable")
    bases = [part.base for part in snapshot.living]
    parts = np.searchsorted(bases, places[order], "right") - 1
    for number, part in enumerate(snapshot.living):
        chosen = order[parts == number]
        rows = places[chosen] - part.base
        lengths = part.segment.lengths_of(rows)
        for block in runs(lengths, BLOCK_ROWS):
            starts = part.segment.offsets[rows[block]]
            vectors = snapshot.best_vectors(part, ranges(starts, lengths[block]))
            scores[chosen[block]] = maxsim_many(Q, vectors, lengths[block])
    return scores
