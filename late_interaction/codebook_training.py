"""Train codebooks: centroids for each vocabulary id, groups to look them up by, and residual buckets.

Token-aware clustering (tachiom, SIGIR 2026, arXiv 2604.28142): vectors of one vocabulary id are clustered among themselves.
Its share of the centroids follows from how many vectors it has and how far they spread. Vectors without ids, and of rare
ids, are clustered together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I32, I64, Matrix
from late_interaction.codebook import BITS, Codebook
from late_interaction.kmeans import EXACT_UP_TO, grouped, kmeans, nearest_of_any, unit_rows
from late_interaction.lookup import Groups
from late_interaction.row_sources import RowsAt, RowSource
from late_interaction.runs import runs
from late_interaction.token_ids import UNKNOWN

__all__ = [
    "CODEBOOK_DOCUMENTS",
    "CODEBOOK_ROWS",
    "HELD_OUT",
    "MIN_PER_CENTROID",
    "default_centroids",
    "grown",
    "train_codebook",
    "trained_centroids",
]

CODEBOOK_DOCUMENTS = 20_000  # of a sample; a bundle's codebook is trained on them
CODEBOOK_ROWS = 2_000_000  # most token vectors of them
HELD_OUT = 50_000  # most vectors of a sample that are held out from k-means
MIN_PER_CENTROID = 8  # vectors that each centroid needs; with fewer it overfits the sample
LIST_LENGTH = 48  # token vectors per centroid, in large collections
SHARE = 0.75  # an id's centroids grow with this power of its count and spread; those of the rare ids together with their count
LEAST_PER_OWN = 4  # vectors of an id per centroid
WEAK = 0.2  # share of the rows that are also compared with the centroids of other ids
GROUP_ROWS = 32  # centroids per group, on average
MOST_GROUPS = 1 << 14  # or more of them, where that makes more groups; a codebook that grows has room for as many again
COMPARED_HEADS = 512  # more are in groups of their own
MOST_BITS = 20  # limit of the default number of centroids
LARGEST = 127  # largest value of an int8 cell
BLOCK_ROWS = 1 << 16  # rows checked, rounded or kept as float32 at a time: 32 MiB at 128 dimensions
SPREAD_ROWS = 1_024  # vectors of an id that its spread is measured on, at most


def train_codebook(
    sample: RowSource,
    *,
    bits: int = 4,
    centroids: int | None = None,
    seed: int = 0,
    iterations: int = 4,
    token_ids: I32 | None = None,
) -> Codebook:
    """Train a codebook: spherical k-means, then Lloyd-Max buckets of the residuals of held-out vectors.

    The result is deterministic for one seed and one numpy version.

    Args:
        sample: `[n, d]`, float32 or float16: an array, or a file that the vectors are read from as they are needed.
        bits: bits per dimension of a residual: 1, 2 or 4.
        centroids: how many; by default as many as a collection of that size gets, and never more than one for 8 vectors.
            Fewer result if the sample has fewer distinct vectors.
        seed: seed of the random choices.
        iterations: iterations of k-means.
        token_ids: vocabulary id `[n]` of each vector, -1 if it has none.

    Raises:
        ValueError: if the sample is empty, not finite, or not a matrix.
        OSError: if the file cannot be read.
    """
    if len(sample.shape) != 2 or not all(sample.shape) or not _is_finite(sample):
        raise ValueError(f"sample must be a finite matrix of at least one vector, got shape {sample.shape}")
    if bits not in BITS:
        raise ValueError(f"bits must be 1, 2 or 4, got {bits!r}")
    if token_ids is not None and token_ids.shape != (len(sample),):
        raise ValueError(f"token_ids must have shape {(len(sample),)}, got {token_ids.shape}")
    random = np.random.default_rng(seed)
    tested, training = _parted(len(sample), random)
    count = trained_centroids(len(sample), centroids)
    if token_ids is None or count <= EXACT_UP_TO:
        cells, unit, owners, groups = _arranged(kmeans(RowsAt(sample, training), count, random, iterations), None)
    else:
        cells, unit, owners, groups = _arranged(*_token_aware(sample, token_ids, training, count, seed, iterations))
    blank = np.zeros((sample.shape[1], 1 << bits), np.float32)
    trained = Codebook(cells, blank[:, 1:], blank, bits, unit, owners, groups=groups)
    vectors = _float32(sample, tested)
    own = None if token_ids is None else token_ids[tested]
    if owners is not None:
        trained = dataclasses.replace(trained, weak=float(np.quantile(trained.nearness(vectors, own), WEAK)))
    codes = trained.assign_near(vectors, own)
    cutoffs, weights = _buckets(vectors - trained.rows(codes), bits)
    return dataclasses.replace(trained, cutoffs=cutoffs, weights=weights)


def grown(codebook: Codebook, vectors: Matrix, count: int, token_ids: I32 | None = None) -> Codebook:
    """Add at most `count` centroids, trained on `vectors [n, d]` that are far from the present ones.

    Existing codes keep their meaning. `token_ids [n]`: a new centroid belongs to the id of the vector nearest to it.
    """
    rows = np.ascontiguousarray(vectors, np.float32)
    more = kmeans(rows, min(count, len(rows)), np.random.default_rng(0), 4)
    groups, owners = codebook.groups, codebook.owners
    if groups is not None:
        order, own = _grouped(more, codebook.size)
        more, groups = more[order], _joined(groups, own)
    if owners is not None:
        known = np.full(len(more), UNKNOWN, np.int32) if token_ids is None else token_ids[nearest_of_any(more, rows)[0]]
        owners = np.concatenate([owners, known.astype(np.int32)])
    if codebook.cells.dtype == np.int8:
        more = np.clip(np.rint(more / np.float32(codebook.unit)), -LARGEST, LARGEST)
    cells = np.concatenate([codebook.cells, more.astype(codebook.cells.dtype)])
    return dataclasses.replace(codebook, cells=cells, owners=owners, groups=groups)


def default_centroids(vectors: int) -> int:
    """Return the number of centroids for an index of that many token vectors, a power of two of at most 2^20.

    It is PLAID's number, 16 times the square root; large indexes get one for every 48 to 96 vectors, so that a
    query reads no more lists as the index grows.
    """
    wanted = max(16 * np.sqrt(max(1, vectors)), vectors / LIST_LENGTH)
    return 1 << min(MOST_BITS, max(0, int(np.log2(wanted))))


def trained_centroids(vectors: int, wanted: int | None = None) -> int:
    """Return the most centroids that `train_codebook` makes from a sample of that many vectors.

    Args:
        vectors: size of the sample.
        wanted: how many to aim for; by default those of an index of that size.
    """
    return min(wanted or default_centroids(vectors), max(1, (vectors - _held_out(vectors)) // MIN_PER_CENTROID))


def _held_out(vectors: int) -> int:
    """Return how many vectors are held out from k-means for the buckets: residuals of vectors that it saw are too small."""
    return min(vectors // 20, HELD_OUT)


def _is_finite(sample: RowSource) -> bool:
    return all(np.isfinite(sample[first : first + BLOCK_ROWS]).all() for first in range(0, len(sample), BLOCK_ROWS))


def _parted(count: int, random: np.random.Generator) -> tuple[I64, I32]:
    """Return the places of the vectors that are held out, at random, and of those to train on, ascending."""
    order = random.permutation(count)
    held = _held_out(count)
    return order[:held].copy() if held >= 256 else order, np.sort(order[held:].astype(np.int32))


def _arranged(rows: Matrix, owners: I32 | None) -> tuple[NDArray[np.int8], float, I32 | None, Groups | None]:
    """Return cells of centroids `[C, d]` and their unit, the owners, and the groups; many centroids in the order of these."""
    cells, unit = _int8(rows)
    if len(rows) <= EXACT_UP_TO:
        return cells, unit, owners, None
    places, groups = _grouped(rows)
    return cells[places], unit, None if owners is None else owners[places], groups


def _token_aware(
    sample: RowSource, token_ids: I32, training: I32, count: int, seed: int, iterations: int
) -> tuple[Matrix, I32]:
    """Return centroids `[C, d]`, and the vocabulary id that each belongs to.

    Where ids are many for so few centroids, those with fewer vectors than a centroid stands for share centroids of no id: with
    one each, nothing would be left for the frequent ids.
    """
    each = len(training) / count
    owners = _pooled(token_ids[training], count)
    rows = training[np.argsort(owners, kind="stable")]
    ids, sizes = np.unique(owners, return_counts=True)
    firsts = np.concatenate([own[:SPREAD_ROWS] for own in np.split(rows, np.cumsum(sizes)[:-1])])
    spreads = np.array([_spread(own) for own in _each(sample, firsts, np.minimum(sizes, SPREAD_ROWS))])
    weights = np.where(ids == UNKNOWN, sizes * each ** (SHARE - 1) * spreads**SHARE, (sizes * spreads) ** SHARE)
    budgets = _budgets(sizes, weights, count)
    centroids: Matrix = np.empty((budgets.sum(), sample.shape[1]), np.float32)
    ends = [0]
    for place, own in enumerate(_each(sample, rows, sizes)):
        part = _centroids(own, int(budgets[place]), np.random.default_rng((seed, place)), iterations)
        ends.append(ends[-1] + len(part))
        centroids[ends[-2] : ends[-1]] = part
    return centroids[: ends[-1]], np.repeat(ids, np.diff(ends)).astype(np.int32)


def _centroids(own: RowSource, count: int, random: np.random.Generator, iterations: int) -> Matrix:
    """Return at most `count` centroids of an id's vectors."""
    if count > 1:
        return kmeans(own, count, random, iterations)
    return unit_rows(_float32(own, slice(None)).mean(axis=0, keepdims=True))


def _each(sample: RowSource, rows: I32, sizes: I64) -> Iterator[RowSource]:
    """Yield the vectors of one id after the other; `rows` of the sample, so many of each.

    Those of several ids are read together, and those of an id with more than 65,536 as they are needed.
    """
    ends = np.cumsum(sizes)
    for run in runs(sizes, BLOCK_ROWS):
        begin = ends[run.start] - sizes[run.start]
        block = rows[begin : ends[run.stop - 1]]
        if len(block) > BLOCK_ROWS:
            yield RowsAt(sample, block)
        else:
            yield from np.split(_float32(sample, block), ends[run][:-1] - begin)


def _pooled(token_ids: I32, count: int) -> I32:
    """Return the ids, UNKNOWN in place of rare ones if there is more than one id for two of `count` centroids."""
    ids, sizes = np.unique(token_ids, return_counts=True)
    rare = (sizes < len(token_ids) / count) & (len(ids) > count / 2)
    if not rare.any():
        return token_ids
    return np.where(rare, np.int32(UNKNOWN), ids)[np.searchsorted(ids, token_ids)].astype(np.int32)


def _float32(sample: RowSource, places: slice | I32 | I64) -> Matrix:
    return np.ascontiguousarray(sample[places], np.float32)


def _spread(vectors: RowSource) -> float:
    """Return the mean squared distance of unit vectors from their mean."""
    mean = vectors[:].mean(axis=0, dtype=np.float64)
    return max(1e-3, 1 - float(mean @ mean))


def _budgets(sizes: I64, weights: NDArray[np.float64], count: int) -> I64:
    """Return the number of centroids of each id: at least one, at most one for four of its vectors, about `count` in total."""
    most = np.maximum(1, sizes // LEAST_PER_OWN)
    low, high = 0.0, float(count) / float(weights.min())
    for _ in range(60):
        middle = (low + high) / 2
        below = np.clip(weights * middle, 1, most).astype(np.int64).sum() <= count
        low, high = (middle, high) if below else (low, middle)
    return np.clip(weights * low, 1, most).astype(np.int64)


def _grouped(rows: Matrix, before: int = 0) -> tuple[I32, Groups]:
    """Return an order of centroids `[C, d]`, and their groups in it. before: how many centroids a grown codebook had."""
    count = -(-len(rows) // max(GROUP_ROWS, (before + len(rows)) // MOST_GROUPS))
    if count == 1:
        return np.arange(len(rows), dtype=np.int32), _whole(rows)
    heads, order, starts = grouped(rows, count)
    above = None
    if len(heads) > COMPARED_HEADS:
        places, above = _above(heads)
        sizes = np.diff(starts)[places]
        order = np.concatenate([order[starts[place] : starts[place + 1]] for place in places])
        heads, starts = heads[places], np.append(0, np.cumsum(sizes)).astype(np.int64)
    return order, Groups(_int8(heads)[0], starts, above)


def _above(heads: Matrix) -> tuple[I32, Groups]:
    """Return an order of heads, and their groups in it."""
    tops, order, starts = grouped(heads, -(-len(heads) // GROUP_ROWS))
    return order, Groups(_int8(tops)[0], starts)


def _whole(rows: Matrix) -> Groups:
    """Put all in one group."""
    return Groups(_int8(unit_rows(rows.sum(axis=0, keepdims=True)))[0], np.array([0, len(rows)]))


def _joined(groups: Groups, more: Groups) -> Groups:
    """Append groups of the rows that follow."""
    parts = [unit_rows(part.heads.astype(np.float32)) for part in (groups, more)]
    starts = np.concatenate([groups.starts[:-1], groups.starts[-1] + more.starts])
    above = None if groups.above is None else _joined(groups.above, more.above or _whole(parts[1]))
    return Groups(_int8(np.concatenate(parts))[0], starts, above)


def _int8(rows: Matrix) -> tuple[NDArray[np.int8], float]:
    """Return rows as whole numbers times a unit."""
    unit = max(float(rows.max()), -float(rows.min()), 1e-30) / LARGEST
    cells = np.empty(rows.shape, np.int8)
    for first in range(0, len(rows), BLOCK_ROWS):
        cells[first : first + BLOCK_ROWS] = np.rint(rows[first : first + BLOCK_ROWS] / np.float32(unit))
    return cells, unit


def _buckets(residuals: Matrix, bits: int) -> tuple[Matrix, Matrix]:
    """Fit a Lloyd-Max quantizer of the residuals' common shape, times each dimension's spread.

    Returns cutoffs `[d, 2^bits - 1]` and weights `[d, 2^bits]`. One table then serves all dimensions in the kernels
    (simd.py).

    Few vectors say little about future residuals, so a normal distribution of the same spread is mixed in; if even the
    spread is unknown, that of a unit vector's dimension is used.
    """
    n, dim = residuals.shape
    buckets = 1 << bits
    prior = 16
    spread = np.sqrt((np.square(residuals, dtype=np.float64).sum(axis=0) + prior * 2 / dim) / (n + prior))
    grid = np.linspace(-3, 3, 25)
    mass = np.exp(-np.square(grid) / 2)
    copies = np.maximum(1, np.round(4 * prior * mass / mass.sum())).astype(int)
    every = max(1, n * dim >> 20)
    values = np.sort(np.concatenate([(residuals[::every] / spread).ravel(), np.repeat(grid, copies * max(1, dim // every))]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    weights = values[((np.arange(buckets) + 0.5) * len(values) / buckets).astype(int)]
    cutoffs = (weights[1:] + weights[:-1]) / 2
    for _ in range(60):
        edges = np.concatenate([[0], np.searchsorted(values, cutoffs), [len(values)]])
        filled = np.flatnonzero(np.diff(edges))
        weights[filled] = (sums[edges[filled + 1]] - sums[edges[filled]]) / np.diff(edges)[filled]
        weights.sort()
        moved = (weights[1:] + weights[:-1]) / 2
        if np.array_equal(moved, cutoffs):
            break
        cutoffs = moved
    return np.outer(spread, cutoffs).astype(np.float32), np.outer(spread, weights).astype(np.float32)
