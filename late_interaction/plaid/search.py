"""Search in a snapshot: PLAID's stages (Santhanam et al. 2022, arXiv 2205.09707), with k hits guaranteed.

    1. probe       centroid scores C Q'; passages in the lists of each row's best centroids (skipped on small indexes)
    2. centroids   every row's best centroid of a passage, summed, on scores rounded to 8 bits; the best are kept
                   (both in candidates.py)
    3. rerank      MaxSim over their stored vectors, in 16-bit products
    4. last        the best of those again in float32; from the int8 rows where the index keeps them

Filters select before stage 1, and a small selection goes straight to stage 3. PLAID prunes centroids before stage 2 and
runs that stage twice; here it runs once, in full: a centroid's scores with 32 query rows are one 32-byte register.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import UsageError
from late_interaction.filters import Filter
from late_interaction.maxsim import maxsim_many
from late_interaction.plaid.candidates import Found, best_by_centroids
from late_interaction.plaid.sixteen import Query16
from late_interaction.plaid.snapshot import Snapshot
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = ["check_query", "exact_scores", "search"]

Matrix = NDArray[np.float32]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

PROBE_ABOVE = 500_000  # token vectors from which on probing costs less than scoring all passages by centroids
DEFAULT_PROBES = 4
LEAST_RERANK = 128
RERANK_PER_HIT = 3
LAST = 2  # more than k that the last stage scores: 16-bit products may swap near ties
LAST_PER_HIT = 3  # with int8 rows, which know better than the codec
BLOCK_ROWS = 1 << 13  # float32 vectors held at a time: 4 MiB at 128 dimensions


def search(
    snapshot: Snapshot,
    Q: Matrix,
    k: int,
    *,
    where: Filter | None = None,
    ids: Iterable[str] | None = None,
    settings: SearchSettings | None = None,
    exact: bool = False,
) -> LocalResult:
    """The k best selected passages for `Q [q, d]`; fewer only where fewer are selected and have rows.

    Raises: UsageError where Q is no finite matrix of the index's width, or k is less than 1.
    """
    Q = check_query(Q, snapshot.version.dim)
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    masks = snapshot.select(where, ids)
    selected = sum(int(np.count_nonzero(mask)) for mask in masks)
    clock.lap("select")
    if not selected or not len(Q) or snapshot.codebook is None:
        return LocalResult([], 0, 0, False, seconds)
    probes, rerank = _effort(snapshot, settings or SearchSettings(), k)
    query = Query16(Q)
    if exact or _few(snapshot, masks, 2 * rerank):
        places = np.concatenate([part.base + np.flatnonzero(mask) for part, mask in zip(snapshot.living, masks, strict=True)])
        found = Found(places, np.empty(0, np.float32), selected)
    else:
        found = best_by_centroids(snapshot, query, masks, rerank, probes, clock.lap)
    scores = _scores16(snapshot, query, found.places)
    clock.lap("rerank")
    last = k + LAST if not snapshot.version.refine else max(k + LAST, LAST_PER_HIT * k)
    best = np.sort(np.lexsort((found.places, -scores))[:last])
    approximate = (found.approximate if len(found.approximate) else scores)[best]
    places, scores = found.places[best], exact_scores(snapshot, Q, found.places[best], refine=True)
    clock.lap("last")
    hits = []
    for i in np.lexsort((places, -scores))[:k].tolist():
        part, row = snapshot.at(int(places[i]))
        hits.append(LocalHit(part.segment.passage(row), float(scores[i]), float(approximate[i])))
    clock.lap("read")
    return LocalResult(hits, found.candidates, len(found.places), found.widened, seconds)


def check_query(Q: Matrix, dim: int) -> Matrix:
    """Q as contiguous float32 `[q, dim]`.

    Raises: UsageError where it is not finite or has another shape.
    """
    Q = np.asarray(Q)
    if Q.ndim != 2 or Q.shape[1] != dim:
        raise UsageError(f"query vectors have shape {Q.shape}, the index takes [q, {dim}]")
    if not np.isfinite(Q).all():
        raise UsageError("query vectors must be finite")
    return np.ascontiguousarray(Q, np.float32)


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _effort(snapshot: Snapshot, settings: SearchSettings, k: int) -> tuple[int, int]:
    """probes, rerank: of the settings, else what the index was tuned to, else the defaults for its size."""
    tuned = snapshot.version.tuned
    probes, rerank = settings.probes, settings.rerank
    if probes is None and tuned is not None:
        probes = tuned.probes
    if probes is None:
        probes = 0 if snapshot.version.token_vectors <= PROBE_ABOVE else DEFAULT_PROBES
    if rerank is None:
        rerank = max(LEAST_RERANK if tuned is None else tuned.rerank, RERANK_PER_HIT * k)
    return probes, max(k, rerank)


def _few(snapshot: Snapshot, masks: list[Mask], passages: int) -> bool:
    """Whether scoring all that is selected costs less than choosing from it: at most so many passages, or half as many vectors
    as there are centroids to be scored first."""
    if sum(int(np.count_nonzero(mask)) for mask in masks) <= passages:
        return True
    assert snapshot.codebook is not None
    rows = 0
    for part, mask in zip(snapshot.living, masks, strict=True):
        rows += int(part.segment.lengths()[mask].sum())
        if 2 * rows > len(snapshot.codebook.centroids):
            return False
    return True


def _scores16(snapshot: Snapshot, query: Query16, places: Places) -> Matrix:
    """MaxSim `[n]` of the passages at global `places`, ascending, over their stored vectors; -inf without rows."""
    scores = np.full(len(places), -np.inf, np.float32)
    for part in snapshot.living:
        first, last = np.searchsorted(places, [part.base, part.base + part.segment.passages])
        if first < last:
            scores[first:last] = snapshot.codec.score(query, places[first:last] - part.base, part.segment)
    return scores


def exact_scores(snapshot: Snapshot, Q: Matrix, places: Places, *, refine: bool = False) -> Matrix:
    """MaxSim `[n]` in float32 of the passages at global `places` over their decoded vectors; -inf without rows.

    refine: from the int8 rows, where the index keeps them.
    """
    read = snapshot.best_vectors if refine else snapshot.vectors
    scores = np.empty(len(places), np.float32)
    order = np.argsort(places, kind="stable")
    bases = [part.base for part in snapshot.living]
    parts = np.searchsorted(bases, places[order], "right") - 1
    for number, part in enumerate(snapshot.living):
        chosen = order[parts == number]
        rows = places[chosen] - part.base
        lengths = part.segment.lengths_of(rows)
        for block in _blocks(lengths):
            starts = part.segment.offsets[rows[block]]
            vectors = read(part, _ranges(starts, lengths[block]))
            scores[chosen[block]] = maxsim_many(Q, vectors, lengths[block])
    return scores


def _blocks(lengths: Places) -> Iterator[slice]:
    """Runs of passages of some `BLOCK_ROWS` rows together, one at least."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        last = int(np.searchsorted(ends, ends[first] - lengths[first] + BLOCK_ROWS, "right"))
        yield slice(first, max(last, first + 1))
        first = max(last, first + 1)


def _ranges(starts: Places, lengths: Places) -> Places:
    """`start .. start + length` of each, one after the other."""
    before = np.cumsum(lengths) - lengths
    ranges: Places = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return ranges
