"""Search in a snapshot: PLAID's stages (Santhanam et al. 2022, arXiv 2205.09707), with k hits guaranteed.

    1. probe       centroid scores C Q'; passages in the lists of each row's best centroids (skipped on small indexes)
    2. centroids   every row's best centroid of a passage, summed, on scores rounded to 8 bits; the best are kept
                   (both in candidates.py)
    3. rerank      MaxSim over their stored vectors, in 16-bit products
    4. last        all of those that may be among the best, again in float32 (scoring.py, stages 3 and 4)

Stored vectors are int8 rows where the index keeps them (`refine`), else what the codec decodes to. With int8 rows stage 3 reads
the codec's all the same, and stage 4 the rows of three times k. Filters select before stage 1, and a small selection goes
straight to stage 3, which then reads what stage 4 reads, so that nothing is lost: that is also what `exact` asks for.

PLAID prunes centroids before stage 2 and
runs that stage twice; here it runs once, in full: a centroid's scores with 32 query rows are one 32-byte register.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

import numpy as np

from late_interaction.array_types import Mask, Matrix
from late_interaction.filters import Filter
from late_interaction.plaid.searching.candidates import Shortlist, best_by_centroids
from late_interaction.plaid.searching.scoring import bounded_scores, exact_scores, within
from late_interaction.plaid.store.int16_scoring import Query16
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = ["search", "search_selected"]

PROBE_ABOVE = 500_000  # token vectors from which on probing costs less than scoring all passages by centroids
DEFAULT_PROBES = 4
RERANKED_ROWS = 16_384  # token vectors that are reranked: many short passages, or few long ones
LEAST_RERANK, MOST_RERANK = 64, 512
RERANK_PER_HIT = 3
LAST_PER_HIT = 3  # hits of the codec that are scored again from int8 rows, which know better


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
    """The k best selected passages for `Q [q, d]`, as ScaledQuery has it; fewer only where fewer are selected and have rows."""
    start = time.perf_counter()
    masks = snapshot.select(where, ids)
    seconds = {"select": time.perf_counter() - start}
    result = search_selected(snapshot, Q, k, masks, settings=settings, exact=exact)
    return dataclasses.replace(result, seconds=seconds | dict(result.seconds))


def search_selected(
    snapshot: Snapshot,
    Q: Matrix,
    k: int,
    masks: Sequence[Mask],
    *,
    settings: SearchSettings | None = None,
    exact: bool = False,
) -> LocalResult:
    """As `search` among the passages of `masks`, as `Snapshot.select` makes them: many queries may share them."""
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    selected = sum(int(np.count_nonzero(mask)) for mask in masks)
    if not selected or not len(Q) or snapshot.codebook is None:
        return LocalResult([], 0, 0, False, seconds)
    probes, rerank = _effort(snapshot, settings or SearchSettings(), k)
    query = Query16(Q)
    outright = exact or _few(snapshot, masks, 2 * rerank)
    if outright:
        places = np.concatenate([part.base + np.flatnonzero(mask) for part, mask in zip(snapshot.living, masks, strict=True)])
        shortlist = Shortlist(places, np.empty(0, np.float32), selected)
    else:
        shortlist = best_by_centroids(snapshot, query, masks, rerank, probes, clock.lap)
    scores, errors = bounded_scores(snapshot, query, shortlist.places, refined=outright)
    clock.lap("rerank")
    if snapshot.version.refine and not outright:
        best = np.sort(np.lexsort((shortlist.places, -scores))[: LAST_PER_HIT * k])
    else:
        best = within(scores, errors, k)
    approximate = (shortlist.approximate if len(shortlist.approximate) else scores)[best]
    places = shortlist.places[best]
    scores = exact_scores(snapshot, Q, places)
    clock.lap("last")
    hits = []
    for i in np.lexsort((places, -scores))[:k].tolist():
        part, row = snapshot.at(int(places[i]))
        hits.append(LocalHit(part.segment.passage(row), float(scores[i]), float(approximate[i])))
    clock.lap("read")
    candidates, reranked = shortlist.candidates, len(shortlist.places)
    return LocalResult(hits, candidates, reranked, shortlist.widened, seconds, _outgrown(snapshot, settings))


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _effort(snapshot: Snapshot, settings: SearchSettings, k: int) -> tuple[int, int]:
    """probes, rerank: of the settings, else what the index was tuned to at about this size, else the defaults for its size."""
    tuned = snapshot.version.effort
    probes, rerank = settings.probes, settings.rerank
    if probes is None and tuned is not None:
        probes = tuned.probes
    if probes is None:
        probes = 0 if snapshot.version.token_vectors <= PROBE_ABOVE else DEFAULT_PROBES
    if rerank is None:
        rerank = max(_default_rerank(snapshot) if tuned is None else tuned.rerank, RERANK_PER_HIT * k)
    return probes, max(k, rerank)


def _default_rerank(snapshot: Snapshot) -> int:
    wanted = RERANKED_ROWS * snapshot.version.passages // max(1, snapshot.version.token_vectors)
    return min(max(LEAST_RERANK, wanted), MOST_RERANK)


def _outgrown(snapshot: Snapshot, settings: SearchSettings | None) -> bool:
    """Whether the index was tuned, and has outgrown that effort, which this search would have taken."""
    asks = settings is None or settings.probes is None or settings.rerank is None
    return asks and snapshot.version.tuned is not None and snapshot.version.effort is None


def _few(snapshot: Snapshot, masks: Sequence[Mask], passages: int) -> bool:
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
