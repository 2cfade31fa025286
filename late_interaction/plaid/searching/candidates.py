"""The first stage of a search: passages in the lists of the centroids nearest to each query row, ranked by these alone.

A row that finds a passage counts the similarity of the nearest centroid that the two share. A row that does not find it
counts as much as a list farther down would, as XTR and WARP impute missing similarities (arXiv 2304.01982, 2501.17788; how
far: lookup.py). No passage is read for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.array_types import I32, I64, Mask, Matrix, Places
from late_interaction.lookup import Looked
from late_interaction.plaid.searching import kernels
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.runs import runs

__all__ = ["MOST_LISTS", "STEPS", "Gathered", "Shortlist", "Work", "best_by_lists", "gathered"]

STEPS = 1 << 16  # largest similarity as a whole number
LARGEST_TOTAL = 1 << 30  # bound of a passage's gain
MOST_PAIRS = 1 << 24  # of a passage and a list that has it, at a time: 128 MB
MOST_LISTS = kernels.RANKS  # lists per row in a widened search; if more are needed, scoring the whole selection costs less


@dataclass
class Shortlist:
    """What the first stage keeps.

    Attributes:
        places: global places, best first.
        approximate: their approximate scores.
        candidates: how many passages were considered.
        widened: whether more lists were read than usual.
    """

    places: Places
    approximate: Matrix
    candidates: int
    widened: bool = False


@dataclass(frozen=True)
class Work:
    """How much work a search does.

    Attributes:
        probes: lists per row.
        read: passages whose centroids are read.
        keep: passages that are kept.
    """

    probes: int
    read: int
    keep: int


def best_by_lists(
    snapshot: Snapshot, Q: Matrix, masks: Sequence[Mask], selected: int, work: Work, lap: Callable[[str], None]
) -> Shortlist:
    """Return the best of the `selected` passages of `masks` by the lists of each row of `Q [q, d]`.

    `lap` is called with the name of each stage when it is done.
    """
    assert snapshot.codebook is not None
    lookup, wanted = snapshot.codebook.lookup, min(work.keep, selected)
    parts = lookup.parts(len(Q))
    most = min(MOST_LISTS, snapshot.codebook.size)
    probes, widened = min(work.probes, most), False
    while True:
        looked = lookup.look(Q, probes) if len(parts) == 1 else None
        lists, _, gains = lookup.lists(Q, probes) if looked is None else (looked.lists, looked.similarities, looked.gains)
        lap("centroids")
        found = gathered(snapshot, lists, gains, masks, selected)
        if len(found.places) >= wanted or probes == most:
            break
        probes, widened = min(most, probes * 2 * -(-wanted // max(1, len(found.places)))), True
    places = found.best(max(work.keep, work.read))  # in disk order, which takes a third less time
    candidates = len(found.places)
    if candidates < wanted:
        rest = np.setdiff1d(snapshot.places(masks), places, assume_unique=True)
        candidates += len(rest)
        places = np.sort(np.concatenate([places, rest[: max(work.keep, work.read) - len(places)]]))
    lap("gather")
    tables = [looked] if looked is not None else (lookup.look(Q[part], probes) for part in parts)
    totals, scale, floor = _interaction(snapshot, tables, places)
    best = _best(totals, work.keep)
    lap("interaction")
    return Shortlist(places[best], (totals[best] / scale + floor).astype(np.float32), candidates, widened)


def _interaction(snapshot: Snapshot, tables: Iterable[Looked], places: Places) -> tuple[I64, float, float]:
    """Sum every row's best similarity among the compared centroids of each passage, else the row's floor.

    The sum of all floors is subtracted, in steps of 1 / scale. tables: of the parts of a query.
    """
    totals, scale, floor = np.zeros(len(places), np.int64), 0.0, 0.0
    for looked in tables:
        scale, floor = scale or looked.scale, floor + looked.floor
        totals += np.rint(_interaction_of(snapshot, looked, places) * (scale / looked.scale)).astype(np.int64)
    return totals, scale, floor


def _interaction_of(snapshot: Snapshot, looked: Looked, places: Places) -> I64:
    totals = np.zeros(len(places), np.int64)
    for part in snapshot.living:
        first, last = np.searchsorted(places, [part.base, part.base + part.segment.passages])
        rows, segment = places[first:last] - part.base, part.segment
        tables = (looked.seen, looked.group_of, looked.shifts, looked.table)
        kernels.approximate_scores(rows, segment.offsets, segment.codes, *tables, totals[first:last])
    return totals


@dataclass(frozen=True)
class Gathered:
    """Passages that lists have.

    Attributes:
        places: their global places, in no order.
        totals: their gains, in whole steps.
        rows: passages of the whole snapshot.
    """

    places: Places
    totals: I64
    rows: int

    def best(self, keep: int) -> Places:
        """Return the places of the best, ascending; of equal ones the lower first."""
        best = np.empty(min(keep, len(self.places)), np.int64)
        return best[: kernels.best_gathered(self.places, self.totals, len(best), self.rows, best)]


def gathered(snapshot: Snapshot, lists: I32, gains: Matrix, masks: Sequence[Mask], selected: int) -> Gathered:
    """Gather the `selected` passages of `masks` that are in the lists. `gains [q, T]` are those of the lists."""
    postings = np.zeros(len(lists), np.int64)
    for part in snapshot.living:
        kernels.count_postings(lists, part.segment.ivf_offsets, part.segment.ivf_passages, postings)
    scale = min(STEPS, LARGEST_TOTAL / max(1.0, float(gains[:, 0].sum(dtype=np.float64))))
    steps = np.rint(gains * np.float32(scale)).astype(np.int64)
    found = [
        _of_rows(snapshot, lists[rows], steps[rows], masks, min(selected, int(postings[rows].sum())))
        for rows in runs(postings, MOST_PAIRS)
    ]
    if len(found) == 1:
        return Gathered(*found[0], snapshot.rows)
    places, where = np.unique(np.concatenate([places for places, _ in found]), return_inverse=True)
    totals = np.zeros(len(places), np.int64)
    np.add.at(totals, where, np.concatenate([totals for _, totals in found]))
    return Gathered(places, totals, snapshot.rows)


def _of_rows(snapshot: Snapshot, lists: I32, steps: I64, masks: Sequence[Mask], room: int) -> tuple[Places, I64]:
    """Return places and totals of at most `room` passages that these rows' lists have."""
    places, totals, found = np.empty(room, np.int64), np.empty(room, np.int64), 0
    for part, mask in zip(snapshot.living, masks, strict=True):
        arrays = (part.segment.ivf_offsets, part.segment.ivf_passages, mask.view(np.uint8))
        found = kernels.gather(lists, steps, *arrays, part.base, places, totals, found)
    return places[:found], totals[:found]


def _best(totals: I64, keep: int) -> Places:
    """Return the places of the `keep` largest totals, best first; of equal ones the lower first."""
    key = (totals << 32) - np.arange(len(totals))  # all different
    if keep < len(key):
        chosen = np.argpartition(key, len(key) - keep)[len(key) - keep :]
        return chosen[np.argsort(-key[chosen])]
    return np.argsort(-key)
