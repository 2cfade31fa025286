"""Find the nearest of int8 rows by inner product, by comparing all selected rows or by following the links of a graph.

Shapes: n rows of d dimensions, each times its own scale; LINKS other rows that a search visits from each, -1 if it has
fewer. The links are the lowest layer of an HNSW graph (arXiv 1603.09320), which faiss builds (`linking.py`). Following them
is a loop over mapped arrays here, so a reader needs neither faiss nor another copy of the rows, and a filter is a mask.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from late_interaction import simd
from late_interaction.array_types import F32, I8, I32, I64, U8, Mask, Places, Vector
from late_interaction.compiling import FAST, compiler
from late_interaction.simd import prefetch

__all__ = ["LINKED_FROM", "LINKS", "best_of", "dot_bytes", "nearest"]

LINKS = 32  # of a row
LINKED_FROM = 1 << 18  # least rows of a segment with links
STARTS = 512  # rows that a search along the links starts from
WIDTH = 4  # times the rows requested: how many of the best a search keeps
LEAST_WIDTH = 400
PAYS = 50  # links are followed if selected^2 > PAYS * width * n; otherwise comparing all selected rows takes less time

_fast = compiler(__file__, simd.__file__, fastmath=FAST)


def nearest(
    rows: I8, scales: F32, links: I32 | None, vector: Vector, k: int, selected: Mask, *, exact: bool = False
) -> tuple[Places, Vector]:
    """Return places and products of the k rows with the greatest inner products with `vector [d]` among `selected [n]`.

    The best come first, equal ones by place. There are k if at least k rows are selected. With links, and unless `exact`, a
    few of the k may be replaced by others.
    """
    count = int(np.count_nonzero(selected))
    width = max(LEAST_WIDTH, WIDTH * k)
    if links is not None and not exact and count * count > PAYS * width * len(selected):
        starts = np.arange(0, len(selected), max(1, len(selected) // STARTS), dtype=np.int32)
        found, products = _follow(rows, scales, links, starts, selected.view(np.uint8), vector, width)
        if len(found) >= min(k, count):
            best = best_of(found, products, k)
            return found[best], products[best]
    places = np.flatnonzero(selected)
    products = np.empty(count, np.float32)
    dot_bytes(rows, scales, places, vector, products)
    best = best_of(places, products, k)
    return places[best], products[best]


def best_of(places: Places, products: Vector, k: int) -> Places:
    """Return which of them are the k best, best first; equal ones by their places."""
    chosen = np.arange(len(products))
    if len(products) > k:
        chosen = np.flatnonzero(products >= np.partition(products, len(products) - k)[len(products) - k])
    order: Places = chosen[np.lexsort((places[chosen], -products[chosen]))][:k]
    return order


@_fast
def _product(row: I8, scale: np.float32, query: F32) -> np.float32:
    total = np.float32(0)
    for j in range(query.shape[0]):
        total += np.float32(row[j]) * query[j]
    product: np.float32 = total * scale
    return product


@_fast
def dot_bytes(rows: I8, scales: F32, places: I64, query: F32, out: F32) -> None:
    """Compute inner products `out [p]` of `query [d]` with the `rows [n, d]` at `places`, times their scales.

    Places past the last row give 0.
    """
    for p in range(places.shape[0]):
        place = places[p]
        out[p] = _product(rows[place], scales[place], query) if 0 <= place < rows.shape[0] else np.float32(0)


@_fast
def _unseen(links: I32, seen: NDArray[np.uint64], n: int, out: I64) -> int:
    """Mark the unseen ones of a row's `links` as seen, write them to `out`, and return their number.

    Links that lead out of the array, in a damaged file, are ignored.
    """
    count = 0
    for j in range(links.shape[0]):
        place = np.int64(links[j])
        if not 0 <= place < n:
            continue
        bit = np.uint64(1) << np.uint64(place & 63)
        if not seen[place >> 6] & bit:
            seen[place >> 6] |= bit
            out[count] = place
            count += 1
    return count


@_fast
def _follow(rows: I8, scales: F32, links: I32, starts: I32, selected: U8, query: F32, width: int) -> tuple[I64, F32]:
    """Return places and products of the `width` best selected rows reachable from `starts`, in no order.

    Rows that are not selected are passed through.
    """
    n = rows.shape[0]
    seen = np.zeros(n // 64 + 1, np.uint64)
    todo = [(np.float32(0), np.int64(0)) for _ in range(0)]  # the best first
    best = [(np.float32(0), np.int64(0)) for _ in range(0)]  # the worst first
    fresh = np.empty(max(links.shape[1], starts.shape[0]), np.int64)
    count = _unseen(starts, seen, n, fresh)
    while True:
        for i in range(count):
            prefetch(rows, fresh[i])
        for i in range(count):
            place = fresh[i]
            product = _product(rows[place], scales[place], query)
            if len(best) < width or product > best[0][0]:
                heapq.heappush(todo, (-product, place))
                if selected[place]:
                    heapq.heappush(best, (product, place))
                    if len(best) > width:
                        heapq.heappop(best)
        if len(todo) == 0:
            break
        falling, place = heapq.heappop(todo)
        if len(best) == width and -falling < best[0][0]:
            break
        count = _unseen(links[place], seen, n, fresh)
    places, products = np.empty(len(best), np.int64), np.empty(len(best), np.float32)
    for i in range(len(best)):
        products[i], places[i] = best[i]
    return places, products
