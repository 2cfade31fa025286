"""Stages 1 and 2 of a search: which passages are worth reranking, by their centroids alone.

Shapes: `S [C, q]` similarities of centroids and query rows; rows past the query's last are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask, Matrix, Places
from late_interaction.plaid.searching import kernels
from late_interaction.plaid.store.int16_scoring import Query16
from late_interaction.plaid.store.snapshot import Snapshot

__all__ = ["Shortlist", "best_by_centroids", "top_centroids"]

LEVELS = 255  # of a score rounded to eight bits
MOST_PROBES = 64  # probes of a widened search; where more are needed, scoring all that is selected costs less
SCANNED_PROBES = 16  # from here on partitioning every row costs less than keeping its best in one pass


@dataclass
class Shortlist:
    """What the first stages keep: global places, ascending, and their approximate scores."""

    places: Places
    approximate: Matrix
    candidates: int
    widened: bool = False


def best_by_centroids(
    snapshot: Snapshot, query: Query16, masks: Sequence[Mask], keep: int, probes: int, lap: Callable[[str], None]
) -> Shortlist:
    """The `keep` best selected places by centroid interaction. lap: called with the name of each stage when it is done."""
    S = snapshot.centroids16.scores(query)
    lap("centroids")
    rows, widened = _candidates(snapshot, S[:, : query.rows], masks, keep, probes)
    lap("probe")
    total, scale, floor = _interaction(snapshot, S, rows)
    places = np.concatenate([part.base + part_rows for part, part_rows in zip(snapshot.living, rows, strict=True)])
    candidates = len(places)
    if candidates > keep:
        key = (total.astype(np.int64) << 32) - places  # unique, so that ties are broken by insertion order
        best = np.sort(np.argpartition(key, candidates - keep)[candidates - keep :])
        places, total = places[best], total[best]
    lap("interaction")
    return Shortlist(places, (total / scale + floor).astype(np.float32), candidates, widened)


def _interaction(snapshot: Snapshot, S: Matrix, rows: Sequence[Places]) -> tuple[NDArray[np.int32], float, float]:
    """Centroid interaction of passages `rows` of each segment, one after the other: `total`, where `total / scale + floor` is
    the sum of every column's best similarity.

    Every column is counted from its own least value: a constant for a column changes no order, and similarities that are
    all negative stay apart in eight bits.
    """
    lows, highs = np.empty(S.shape[1], np.float32), np.empty(S.shape[1], np.float32)
    kernels.column_ranges(S, lows, highs)
    scale = LEVELS / max(1e-30, float((highs - lows).max()))
    rounded = np.empty(S.shape, np.uint8)
    kernels.round_scores(S, lows, scale, rounded)
    totals = [np.empty(len(part_rows), np.int32) for part_rows in rows]
    for part, part_rows, out in zip(snapshot.living, rows, totals, strict=True):
        if len(part_rows):
            kernels.approximate_scores(part_rows, part.segment.offsets, part.segment.codes, rounded, out)
    return np.concatenate(totals), scale, float(lows.sum())


def _candidates(snapshot: Snapshot, S: Matrix, masks: Sequence[Mask], keep: int, probes: int) -> tuple[list[Places], bool]:
    """Per segment the rows of the candidates, and whether probing found fewer than `keep`, so that more were looked for: in as
    many centroids as that suggests, once, and then among all that is selected."""
    wanted = min(keep, sum(int(np.count_nonzero(mask)) for mask in masks))
    widened = False
    if 0 < probes < len(S):
        found = _probed(snapshot, S, masks, probes)
        count = sum(map(len, found))
        if count >= wanted:
            return found, False
        widened = True
        probes *= 2 * -(-wanted // max(1, count))
        if probes <= MOST_PROBES and probes < len(S):
            found = _probed(snapshot, S, masks, probes)
            if sum(map(len, found)) >= wanted:
                return found, True
    return [np.flatnonzero(mask) for mask in masks], widened


def _probed(snapshot: Snapshot, S: Matrix, masks: Sequence[Mask], probes: int) -> list[Places]:
    """Per segment the selected rows in the lists of each column's `probes` best centroids, ascending."""
    centroids = np.unique(top_centroids(S, probes)).astype(np.int32)
    found: list[Places] = []
    for part, mask in zip(snapshot.living, masks, strict=True):
        out = np.empty(int(np.count_nonzero(mask)), np.int64)
        count = 0
        if len(out):
            lists = part.segment
            count = kernels.collect_candidates(centroids, lists.ivf_offsets, lists.ivf_passages, mask.astype(np.uint8), out)
        found.append(np.sort(out[:count]))  # in the order of the disk: a third less time in stage 2
    return found


def top_centroids(S: Matrix, probes: int) -> NDArray[np.int32]:
    """Ids `[q, probes]` of the `probes` best centroids of each column of `S [C, q]`, in no order; probes < C."""
    if probes > SCANNED_PROBES:
        columns = np.ascontiguousarray(S.T)
        return np.argpartition(columns, len(S) - probes, axis=1)[:, len(S) - probes :].astype(np.int32)
    best = np.zeros((S.shape[1], probes), np.int32)
    kernels.top_centroids(S, best)
    return best
