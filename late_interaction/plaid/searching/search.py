"""Search in a snapshot, after PLAID, XTR and WARP (arXiv 2205.09707, 2304.01982, 2501.17788), with k hits guaranteed.

1. centroids    the nearest of each query row, and the similarities of all that were compared (lookup.py)
2. gather       passages in the lists of the nearest, by the similarities of these centroids
3. interaction  every row's best similarity among all compared centroids of a passage, summed; the best are kept
                (2 and 3 in candidates.py)
4. rerank       MaxSim over their stored vectors, in 16-bit products, best first, until no other can be among the k best
5. last         all of those that may be among the best, again in float32 (scoring.py, stages 4 and 5)

Stored vectors are int8 rows if the index keeps them (`refine`), else decoded ones. With int8 rows stage 4 still reads the
codec's vectors, and stage 5 the int8 rows of three times k. Filters select before stage 1. A small selection skips to stage
4, which then reads what stage 5 reads, so that nothing is lost; `exact` does the same.

That no other passage can be among the k best is an estimate: stage 4 measures by how much MaxSim exceeds the score of stage
3, and stops when the largest excess seen so far, plus a standard deviation, would not lift the next passage.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.array_types import Mask, Matrix, Places
from late_interaction.filters import Filter
from late_interaction.plaid.searching.candidates import MOST_LISTS, Shortlist, Work, best_by_lists
from late_interaction.plaid.searching.scoring import bounded_scores, exact_scores, within
from late_interaction.plaid.store.int16_scoring import Query16
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = ["search", "search_selected"]

POSTINGS = 1_800  # passages in all lists of a row, in one index; recall depends on it (docs/performance/notes.md)
LEAST_PROBES, MOST_PROBES = 4, 64
RERANKED_ROWS = 24_576  # token vectors to rerank: many short passages, or few long ones
READ_CODES = 200_000  # passage centroids to read: many short passages, or few long ones
LEAST_RERANK, MOST_RERANK = 64, 512
RERANK_PER_HIT = 3
LAST_PER_HIT = 3  # times k: the codec's hits that are scored again from the more accurate int8 rows
BLOCK = 32  # passages reranked between two checks whether the next may be among the best; later half as many as before
MOST_WIDENED = 8  # times the lists, if a filter leaves little of each
FEW_ROWS = 4_096  # token vectors that cost less to score than to look up


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
    """Return the k best selected passages for `Q [q, d]` of a ScaledQuery; fewer only if fewer are selected and have rows."""
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
    """Search among the passages of `masks`, made by `Snapshot.select`: many queries may share them."""
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    selected = sum(int(np.count_nonzero(mask)) for mask in masks)
    if not selected or not len(Q) or snapshot.codebook is None:
        return LocalResult([], 0, 0, False, seconds)
    probes, rerank = _effort(snapshot, settings or SearchSettings(), k)
    query = Query16(Q)
    outright = exact or selected <= 2 * rerank or _few_rows(snapshot, masks, selected)
    if outright:
        places = snapshot.places(masks)
        shortlist, widened, candidates = None, False, selected
        reranked = _Reranked(places, *bounded_scores(snapshot, query, places, refined=True))
    else:
        work = Work(_lists(probes, snapshot, selected), _passages_of(snapshot, READ_CODES), rerank)
        shortlist = best_by_lists(snapshot, Q, masks, selected, work, clock.lap)
        widened, candidates = shortlist.widened, shortlist.candidates
        reranked = _reranked(snapshot, query, shortlist, k)
    clock.lap("rerank")
    best = reranked.best(k, LAST_PER_HIT * k if snapshot.version.refine and not outright else None)
    places = reranked.places[best]
    approximate = reranked.scores[best] if shortlist is None else shortlist.approximate[best]
    scores = exact_scores(snapshot, Q, places)
    clock.lap("last")
    hits = []
    for i in np.lexsort((places, -scores))[:k].tolist():
        part, row = snapshot.at(int(places[i]))
        hits.append(LocalHit(part.segment.passage(row), float(scores[i]), float(approximate[i])))
    clock.lap("read")
    return LocalResult(hits, candidates, len(reranked.places), widened, seconds, _outgrown(snapshot, settings))


@dataclass(frozen=True)
class _Reranked:
    """Global places, their MaxSim in 16-bit products, and its error bound."""

    places: Places
    scores: Matrix
    errors: Matrix

    def best(self, k: int, more: int | None) -> Places:
        """Return all of these that may be among the k best, or the `more` best."""
        return within(self.scores, self.errors, k) if more is None else np.lexsort((self.places, -self.scores))[:more]


def _reranked(snapshot: Snapshot, query: Query16, shortlist: Shortlist, k: int) -> _Reranked:
    """Rerank the shortlist from its best on, as far as the next may be among the k best."""
    places, approximate = shortlist.places, shortlist.approximate
    scores, errors = np.empty(len(places), np.float32), np.empty(len(places), np.float32)
    done = 0
    while done < len(places):
        block = slice(done, done + max(BLOCK, k, done // 2))
        order = np.argsort(places[block])
        scores[block][order], errors[block][order] = bounded_scores(snapshot, query, places[block][order], refined=False)
        done = min(len(places), block.stop)
        if done < len(places):
            least = np.partition(scores[:done], done - k)[done - k]
            excess = scores[:done] - approximate[:done]
            if approximate[done] + excess.max() + excess.std() < least:
                break
    return _Reranked(places[:done], scores[:done], errors[:done])


class _Clock:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._last
        self._last = now


def _effort(snapshot: Snapshot, settings: SearchSettings, k: int) -> tuple[int, int]:
    """Choose probes and rerank: from the settings, else from tuning at about this size, else the defaults for the size."""
    tuned = snapshot.version.effort
    probes, rerank = settings.probes, settings.rerank
    if probes is None and tuned is not None:
        probes = tuned.probes or MOST_LISTS  # 0 comes from an earlier release: all centroids
    if probes is None:
        probes = min(max(LEAST_PROBES, int(np.ceil(POSTINGS / max(1, snapshot.mean_list)))), MOST_PROBES)
    if rerank is None:
        rerank = max(_default_rerank(snapshot) if tuned is None else tuned.rerank, RERANK_PER_HIT * k)
    return probes, max(k, rerank)


def _default_rerank(snapshot: Snapshot) -> int:
    return min(max(LEAST_RERANK, _passages_of(snapshot, RERANKED_ROWS)), MOST_RERANK)


def _passages_of(snapshot: Snapshot, rows: int) -> int:
    """Return how many passages have so many token vectors together."""
    return rows * snapshot.version.passages // max(1, snapshot.version.token_vectors)


def _outgrown(snapshot: Snapshot, settings: SearchSettings | None) -> bool:
    """Tell whether the index has outgrown its tuned effort, which this search would have used."""
    asks = settings is None or settings.probes is None or settings.rerank is None
    return asks and snapshot.version.tuned is not None and snapshot.version.effort is None


def _lists(probes: int, snapshot: Snapshot, selected: int) -> int:
    """Return the lists per row: more if a filter leaves little of each."""
    return min(MOST_LISTS, probes * max(1, min(MOST_WIDENED, snapshot.rows // max(1, selected))))


def _few_rows(snapshot: Snapshot, masks: Sequence[Mask], selected: int) -> bool:
    """Tell whether scoring all selected passages costs less than choosing from them."""
    if selected > FEW_ROWS:  # each has at least one, so the lengths need not be read
        return False
    rows = 0
    for part, mask in zip(snapshot.living, masks, strict=True):
        rows += int(part.segment.lengths()[mask].sum())
        if rows > FEW_ROWS:
            return False
    return True
