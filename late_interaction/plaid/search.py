"""Search in a snapshot: PLAID's stages (Santhanam et al. 2022, arXiv 2205.09707), with k hits guaranteed.

    1. probe       centroid scores C Q'; passages in the lists of each row's best centroids (skipped on small indexes)
    2. centroids   every row's best centroid of a passage, summed, on scores rounded to 8 bits; the best are kept
    3. rerank      vectors of those decoded, exact MaxSim

Filters select before stage 1, and a small selection goes straight to stage 3. PLAID prunes centroids before stage 2 and
runs that stage twice; here it runs once, in full: a centroid's scores with 32 query rows are one 32-byte register.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from late_interaction.codebook import Codebook
from late_interaction.errors import UsageError
from late_interaction.filters import Filter
from late_interaction.plaid.snapshot import Living, Snapshot
from late_interaction.plaid.types import LocalHit, LocalResult, SearchSettings

__all__ = ["decode", "score_places", "search"]

Matrix = NDArray[np.float32]
Places = NDArray[np.int64]
Mask = NDArray[np.bool_]

PROBE_ABOVE = 500_000  # token vectors from which on probing costs less than scoring all passages by centroids
DEFAULT_PROBES = 4
LEAST_RERANK = 192
RERANK_PER_HIT = 3
BLOCK_ROWS = 1 << 13  # decoded vectors held at a time: 4 MiB at 128 dimensions
LANES = 32  # query rows are padded to whole AVX registers of bytes


@dataclass
class _Found:
    """What the first stages keep: global places, ascending, and their approximate scores."""

    places: Places
    approximate: Matrix
    candidates: int
    widened: bool = False


def search(
    snapshot: Snapshot,
    Q: Matrix,
    k: int,
    *,
    where: Filter | None = None,
    settings: SearchSettings | None = None,
    exact: bool = False,
) -> LocalResult:
    """The k best selected passages for `Q [q, d]`; fewer only where fewer are selected and have rows.

    Raises: UsageError where Q is no finite matrix of the index's width, or k is less than 1.
    """
    Q = check_query(Q, snapshot.version.dim)
    if k < 1:
        raise UsageError(f"k must be at least 1, got {k}")
    settings = settings or SearchSettings()
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    masks = snapshot.select(where)
    selected = sum(int(np.count_nonzero(mask)) for mask in masks)
    clock.lap("select")
    if not selected or not len(Q) or snapshot.codebook is None:
        return LocalResult([], 0, 0, False, seconds)
    rerank = max(k, settings.rerank if settings.rerank is not None else max(LEAST_RERANK, RERANK_PER_HIT * k))
    if exact or selected <= 2 * rerank:
        places = np.concatenate([part.base + np.flatnonzero(mask) for part, mask in zip(snapshot.living, masks, strict=True)])
        found = _Found(places, np.empty(0, np.float32), selected)
    else:
        found = _approximate(snapshot, snapshot.codebook, Q, masks, max(k, rerank), settings.probes, clock)
    scores = score_places(snapshot, snapshot.codebook, Q, found.places)
    clock.lap("rerank")
    approximate = found.approximate if len(found.approximate) else scores
    hits = []
    for i in np.lexsort((found.places, -scores))[:k].tolist():
        part, row = snapshot.at(int(found.places[i]))
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


def _approximate(
    snapshot: Snapshot, codebook: Codebook, Q: Matrix, masks: list[Mask], keep: int, probes: int | None, clock: _Clock
) -> _Found:
    """Stages 1 and 2: the `keep` best places by centroid interaction."""
    from late_interaction.plaid import kernels

    S = codebook.centroids @ Q.T
    if probes is None:
        probes = 0 if snapshot.version.token_vectors <= PROBE_ABOVE else DEFAULT_PROBES
    clock.lap("centroids")
    rows, widened = _candidates(snapshot, S, masks, keep, probes)
    clock.lap("probe")
    low = float(S.min())
    scale = 255 / max(1e-9, float(S.max()) - low)
    rounded = np.zeros((len(S), -(-len(Q) // LANES) * LANES), np.uint8)
    kernels.quantize_scores(S, low, scale, rounded)
    totals = [np.empty(len(part_rows), np.int32) for part_rows in rows]
    for part, part_rows, out in zip(snapshot.living, rows, totals, strict=True):
        if len(part_rows):
            kernels.approximate_scores(part_rows, part.segment.offsets, part.segment.codes, rounded, out)
    places = np.concatenate([part.base + part_rows for part, part_rows in zip(snapshot.living, rows, strict=True)])
    total = np.concatenate(totals)
    candidates = len(places)
    if candidates > keep:
        key = (total.astype(np.int64) << 32) - places  # unique, so that ties are broken by insertion order
        best = np.sort(np.argpartition(key, candidates - keep)[candidates - keep :])
        places, total = places[best], total[best]
    clock.lap("interaction")
    order = np.argsort(places)
    places, total = places[order], total[order]
    approximate = (total / scale + low * len(Q)).astype(np.float32)
    return _Found(places, approximate, candidates, widened)


def _candidates(snapshot: Snapshot, S: Matrix, masks: list[Mask], keep: int, probes: int) -> tuple[list[Places], bool]:
    """Per segment the rows of the candidates, and whether more centroids were probed than asked for."""
    from late_interaction.plaid import kernels

    everything = probes == 0
    widened = False
    selected = sum(int(np.count_nonzero(mask)) for mask in masks)
    while not everything and probes < len(S):
        best = np.zeros((S.shape[1], probes), np.int32)
        kernels.top_centroids(S, probes, best)
        centroids = np.unique(best).astype(np.int32)
        found: list[Places] = []
        for part, mask in zip(snapshot.living, masks, strict=True):
            out = np.empty(int(np.count_nonzero(mask)), np.int64)
            count = 0
            if len(out):
                lists = part.segment
                count = kernels.collect_candidates(centroids, lists.ivf_offsets, lists.ivf_passages, mask.astype(np.uint8), out)
            found.append(out[:count])
        if sum(map(len, found)) >= min(keep, selected):
            return found, widened
        widened = True
        probes *= 4
    return [np.flatnonzero(mask) for mask in masks], widened


def score_places(snapshot: Snapshot, codebook: Codebook, Q: Matrix, places: Places) -> Matrix:
    """MaxSim `[n]` of the passages at global `places`, ascending, over their decoded vectors; -inf without rows."""
    scores = np.full(len(places), -np.inf, np.float32)
    for part in snapshot.living:
        first, last = np.searchsorted(places, [part.base, part.base + part.segment.passages])
        if first < last:
            _score_part(part, codebook, Q, places[first:last] - part.base, scores[first:last])
    return scores


def _score_part(part: Living, codebook: Codebook, Q: Matrix, rows: Places, scores: Matrix) -> None:
    from late_interaction.plaid import kernels

    segment = part.segment
    lengths = segment.offsets[rows + 1] - segment.offsets[rows]
    ends = np.cumsum(lengths)
    QT = np.ascontiguousarray(Q.T)
    buffer = np.empty((int(min(BLOCK_ROWS, ends[-1] if len(ends) else 0)), codebook.dim), np.float32)
    first = 0
    while first < len(rows):
        start = int(ends[first] - lengths[first])
        last = int(np.searchsorted(ends, start + BLOCK_ROWS, "right"))
        if last == first:  # one passage of more rows than a block
            scores[first] = _score_long(part, codebook, Q, int(rows[first]))
            first += 1
            continue
        count = int(ends[last - 1]) - start
        kernels.decode_passages(
            rows[first:last],
            segment.offsets,
            segment.codes,
            segment.residuals,
            codebook.centroids,
            codebook.weights,
            codebook.bits,
            buffer[:count],
        )
        filled = np.flatnonzero(lengths[first:last])
        starts = np.concatenate([ends[first:last][filled] - lengths[first:last][filled] - start, [count]])
        totals = np.empty(len(filled), np.float32)
        kernels.segment_max_sum(buffer[:count] @ QT, starts, totals)
        scores[first + filled] = totals
        first = last


def _score_long(part: Living, codebook: Codebook, Q: Matrix, row: int) -> float:
    best = np.full(len(Q), -np.inf, np.float32)
    start, stop = int(part.segment.offsets[row]), int(part.segment.offsets[row + 1])
    for at in range(start, stop, BLOCK_ROWS):
        vectors = decode(part, codebook, at, min(stop, at + BLOCK_ROWS))
        np.maximum(best, (vectors @ Q.T).max(axis=0), out=best)
    return float(best.sum())


def decode(part: Living, codebook: Codebook, start: int, stop: int) -> Matrix:
    """Decoded rows start..stop of a segment, `[stop - start, d]`."""
    from late_interaction.plaid import kernels

    out: Matrix = np.empty((stop - start, codebook.dim), np.float32)
    codes, residuals = part.segment.codes[start:stop], part.segment.residuals[start:stop]
    kernels.decode_rows(codes, residuals, codebook.centroids, codebook.weights, codebook.bits, out)
    return out
