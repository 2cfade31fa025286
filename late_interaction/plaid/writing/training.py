"""The codebook of an index: taken from its bundle or trained on its vectors, and grown if new vectors lie far from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from late_interaction.array_types import TokenIds, TokenVectors
from late_interaction.bundle import Bundle, FileEntry
from late_interaction.codebook import CODEBOOK, MAX_CENTROIDS, Codebook
from late_interaction.codebook_training import default_centroids, grown, train_codebook
from late_interaction.errors import BundleError
from late_interaction.files import sha256_file
from late_interaction.plaid.store.versions import Fit, NamedFile
from late_interaction.row_sources import RowFile, RowSource
from late_interaction.token_ids import UNKNOWN

__all__ = ["Taken", "adopt", "bundle_codebook", "grow", "sample_of", "take_codebook"]

SAMPLE_VECTORS = 1 << 18  # vectors to train on, if they suffice for the centroids: 128 MiB at 128 dimensions
LEAST_PER_CENTROID = 17  # vectors of the sample per centroid: 16 to train on, and those held out
IN_FILE_ABOVE = 1 << 19  # a larger sample is float16 in a file: 1.1 million for 65,536 centroids, 272 MiB
MOST_VECTORS = 1 << 22  # most vectors of a sample: 1 GiB of disk at 128 dimensions
FIT_VECTORS = 1 << 14
GROW_VECTORS = 1 << 16
PER_CENTROID = 32
LOW = 0.05  # share of the vectors that are farther from their centroids than `Fit.low`
DRIFTED = 3  # new vectors get their own centroids at this multiple of that share
TWO_BYTES = 1 << 16  # centroids that a code of two bytes can name


@dataclass(frozen=True)
class Taken:
    """A codebook with its file in the index.

    Attributes:
        codebook: the codebook.
        named: its file.
        trained_on: token vectors at the time; 0 if the bundle brought it.
        fit: its fit.
    """

    codebook: Codebook
    named: NamedFile
    trained_on: int
    fit: Fit


def take_codebook(root: Path, bundle: Bundle, bits: int, vectors: Iterable[TokenVectors], total: int) -> Taken:
    """Return the bundle's codebook, or one trained on a sample of the `total` rows of `vectors`.

    The sample has at most 262,144 rows or, for more than 15,420 centroids, 17 per centroid and at most 4,194,304. A sample of
    more than 524,288 is float16, in a temporary file.

    Raises:
        OSError: if the disk refuses.
    """
    codebook, trained_on = bundle_codebook(bundle), 0
    count = min(total, FIT_VECTORS)
    if codebook is None:
        trained_on, centroids = total, default_centroids(total)
        enough = min(SAMPLE_VECTORS, max(PER_CENTROID * centroids, 1 << 12))
        count = min(total, max(enough, min(MOST_VECTORS, LEAST_PER_CENTROID * centroids)))
    with _stored_sample(root, vectors, count, total, bundle.manifest.dim) as (sample, ids):
        if codebook is None:
            codebook = train_codebook(sample, token_ids=ids, bits=bits, centroids=centroids)
        return adopt(root, codebook, trained_on, (sample[:FIT_VECTORS], ids))


def adopt(root: Path, codebook: Codebook, trained_on: int, sample: TokenVectors) -> Taken:
    """Take up a codebook that was trained elsewhere, on `trained_on` token vectors with the fit of `sample`."""
    return Taken(codebook, _saved(root, codebook), trained_on, _fit(codebook, sample))


def grow(root: Path, taken: Taken, vectors: Iterable[TokenVectors], total: int) -> Taken:
    """Add centroids if many of the `total` rows of `vectors` lie far from all; else return `taken` unchanged.

    A codebook of the bundle never changes: Vespa has the same.
    """
    room = TWO_BYTES - taken.codebook.size if taken.codebook.size <= TWO_BYTES else MAX_CENTROIDS - taken.codebook.size
    if not taken.trained_on or not total or room <= 0:
        return taken
    sample, ids = sample_of(vectors, min(total, GROW_VECTORS), total, taken.codebook.dim)
    is_far = taken.codebook.nearness(sample, ids) < taken.fit.low
    far = sample[is_far]
    wanted = len(far) * total // (len(sample) * PER_CENTROID)
    if len(far) < DRIFTED * LOW * len(sample) or not wanted:
        return taken
    codebook = grown(taken.codebook, far, min(wanted, room), None if ids is None else ids[is_far])
    return Taken(codebook, _saved(root, codebook), taken.trained_on, taken.fit)


def sample_of(vectors: Iterable[TokenVectors], count: int, total: int, dim: int) -> TokenVectors:
    """Return a sample `[count, dim]` of the `total` rows of `vectors`, in their order, and the ids of these.

    One row is taken at random from each of `count` runs of equal length, so that no table of all rows is held.
    """
    sample, token_ids = np.empty((count, dim), np.float32), np.full(count, UNKNOWN, np.int32)
    done = 0
    for rows, ids in _chosen(vectors, count, total):
        sample[done : done + len(rows)] = rows
        if ids is not None:
            token_ids[done : done + len(rows)] = ids
        done += len(rows)
    return sample, token_ids if (token_ids != UNKNOWN).any() else None


@contextlib.contextmanager
def _stored_sample(
    root: Path, vectors: Iterable[TokenVectors], count: int, total: int, dim: int
) -> Iterator[tuple[RowSource, TokenIds | None]]:
    """Yield the sample of `sample_of`; a large one is in a file that the index no longer has afterwards."""
    if count <= IN_FILE_ABOVE:
        yield sample_of(vectors, count, total, dim)
        return
    with RowFile(root / "codebooks", dim) as file:
        for rows, ids in _chosen(vectors, count, total):
            file.append(rows, ids)
        yield file, file.token_ids()


def _chosen(vectors: Iterable[TokenVectors], count: int, total: int) -> Iterator[TokenVectors]:
    """Yield the rows of a sample."""
    edges = np.arange(count + 1) * total // max(1, count)
    chosen = edges[:-1] + (np.random.default_rng(0).random(count) * np.diff(edges)).astype(np.int64)
    first = done = 0
    for rows, ids in vectors:
        stop = int(chosen.searchsorted(first + len(rows)))
        places = chosen[done:stop] - first
        yield rows[places], None if ids is None else ids[places]
        done = stop
        first += len(rows)


def bundle_codebook(bundle: Bundle) -> Codebook | None:
    """Return the bundle's codebook `residual`, or None.

    Raises:
        BundleError: if it is damaged or has another width than the model.
    """
    name = bundle.manifest.codebooks.get(CODEBOOK)
    if name is None:
        return None
    codebook = Codebook.load(bundle.file(name))
    if codebook.dim != bundle.manifest.dim:
        raise BundleError(
            f"{bundle.path}: {name} has {codebook.dim} dimensions, but the model has "
            f"{bundle.manifest.dim}; export the bundle again"
        )
    return codebook


def _fit(codebook: Codebook, sample: TokenVectors) -> Fit:
    vectors, ids = sample
    near = codebook.nearness(vectors[:FIT_VECTORS].astype(np.float32), None if ids is None else ids[:FIT_VECTORS])
    return Fit(round(float(near.mean()), 6), round(float(np.quantile(near, LOW)), 6))


def _saved(root: Path, codebook: Codebook) -> NamedFile:
    name = f"codebooks/{codebook.sha256[:16]}.npz"
    path = root / name
    codebook.save(path)
    return NamedFile(name, FileEntry(sha256_file(path), path.stat().st_size))
