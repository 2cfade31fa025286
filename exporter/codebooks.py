"""Codebooks for a bundle: encode a sample of the user's documents, train centroids, residual buckets and binary thresholds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence

import numpy as np

from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle, MeasuredCandidates, write_manifest
from late_interaction.codebook import CODEBOOK, MOST_CONSTANTS, SMALL_CODEBOOK, Codebook
from late_interaction.codebook_training import CODEBOOK_ROWS, HELD_OUT, MIN_PER_CENTROID, default_centroids, train_codebook
from late_interaction.errors import BundleError
from late_interaction.files import remove_file
from late_interaction.one_vector import ENCODINGS, OneVector
from late_interaction.progress import CountReport
from late_interaction.row_sources import RowFile
from late_interaction.thresholds import train_thresholds
from late_interaction.tokenizing import Tokenizing, row_token_ids
from late_interaction.vector_cache import DocumentEncoder

__all__ = ["DEFAULT_BITS", "add_codebook", "add_codebook_of", "record_candidates"]

BLOCK = 256
DEFAULT_BITS = 4
MOST_BEARABLE = 9_000_000  # vectors of a sample: 2^20 centroids need 8.4 million; 256 B of disk each at 128 dimensions
MOST_BYTES = 2 << 30  # bytes of ready-made rows, as float16
THRESHOLD_PASSAGES = 1_000


def add_codebook(
    bundle: Bundle,
    sample: Sequence[str],
    encoder: DocumentEncoder,
    *,
    bits: int = DEFAULT_BITS,
    centroids: int | None = None,
    documents: float | None = None,
    seed: int = 0,
    progress: CountReport | None = None,
) -> Bundle:
    """Train codebooks on the token vectors of `sample` and write them into the bundle.

    The `residual` codebook is always written. If it has more than 16,384 centroids, a `residual-small` one is added for
    Vespa's codec residual. `binary` thresholds are added if they find more than a cut at 0 does
    (late_interaction.thresholds). At most 2M token vectors are used (9M with `centroids` or `documents`); of a larger
    sample a seeded part. They are float16 in a temporary file in the bundle's folder.

    Args:
        bundle: the bundle.
        sample: texts of documents.
        encoder: encodes the sample; None for one with the bundle's defaults.
        bits: 1, 2 or 4 per dimension.
        centroids: how many; by default as many as suit `documents`, and never more than one for 8 vectors of the sample.
        documents: how many documents of the sample's kind will be indexed; None for the size of the sample.
        seed: seed of the random choices.
        progress: called with a line before each step.

    Returns:
        the bundle, with its new checksum.

    Raises:
        BundleError: if the sample has no text.
        OSError: if the disk refuses.
    """
    texts = [text for text in sample if text.strip()]
    random.Random(seed).shuffle(texts)
    tokenizing, lengths, wanted = Tokenizing(bundle), [], centroids
    with RowFile(bundle.path, bundle.manifest.dim) as taken:
        for first in range(0, len(texts), BLOCK):
            part = texts[first : first + BLOCK]
            tokens = tokenizing.documents(part)
            for rows, own in zip(encoder.encode_documents(part, tokens), tokens, strict=True):
                taken.append(rows, row_token_ids(own, bundle.manifest.pooling))
                lengths.append(len(rows))
            if progress:
                progress(min(first + BLOCK, len(texts)), len(texts))
            if documents and centroids is None:
                wanted = default_centroids(int(documents * len(taken) / len(lengths)))
            if len(taken) >= (CODEBOOK_ROWS if wanted is None else _rows_for(wanted)):
                break
        if not len(taken):
            raise BundleError(
                "the sample has no text; give documents like those to be indexed, which the codebook is trained on"
            )
        return _with_books(bundle, taken, lengths, bits=bits, centroids=wanted, seed=seed)


def add_codebook_of(
    bundle: Bundle, passages: Iterable[Matrix], *, bits: int = DEFAULT_BITS, centroids: int | None = None, seed: int = 0
) -> Bundle:
    """Train codebooks like `add_codebook`, on ready-made rows `[t, d]` of passages.

    Rows are read until there are enough, or 2 GiB of them.

    Raises:
        BundleError: if there are none.
        OSError: if the disk refuses.
    """
    most = min(CODEBOOK_ROWS if centroids is None else _rows_for(centroids), MOST_BYTES // (2 * bundle.manifest.dim))
    lengths = []
    with RowFile(bundle.path, bundle.manifest.dim) as taken:
        for rows in passages:
            taken.append(rows, None)
            lengths.append(len(rows))
            if len(taken) >= most:
                break
        if not lengths:
            raise BundleError(
                "the sample has no vectors; give documents like those to be indexed, which the codebook is trained on"
            )
        return _with_books(bundle, taken, lengths, bits=bits, centroids=centroids, seed=seed)


def record_candidates(bundle: Bundle, measured: MeasuredCandidates | None, encoding: OneVector | None = None) -> Bundle:
    """Write measured candidates into the bundle, with the parameters of their encoding; those of other encodings are removed.

    Returns the bundle, with its new checksum.
    """
    books = {name: file for name, file in bundle.manifest.codebooks.items() if name not in ENCODINGS}
    for name in set(bundle.manifest.codebooks) - set(books):
        remove_file(bundle.file(bundle.manifest.codebooks[name]))
    if encoding is not None and encoding.fitted:
        books[encoding.name] = f"codebooks/{encoding.name}-{encoding.sha256[:12]}.npz"
        bundle.file(books[encoding.name]).parent.mkdir(exist_ok=True)
        encoding.save(bundle.file(books[encoding.name]))
    return write_manifest(bundle.path, dataclasses.replace(bundle.manifest, codebooks=books, candidates=measured))


def _with_books(
    bundle: Bundle, taken: RowFile, lengths: Sequence[int], *, bits: int, centroids: int | None, seed: int
) -> Bundle:
    """Train on the rows of passages of those lengths, and write the manifest."""
    ids = taken.token_ids()
    books = {name: file for name, file in bundle.manifest.codebooks.items() if name not in (CODEBOOK, SMALL_CODEBOOK, "binary")}

    def train(name: str, count: int | None) -> Codebook:
        codebook = train_codebook(taken, token_ids=ids, bits=bits, centroids=count, seed=seed)
        books[name] = f"codebooks/{name}-{codebook.sha256[:12]}.npz"
        bundle.file(books[name]).parent.mkdir(exist_ok=True)
        codebook.save(bundle.file(books[name]))
        return codebook

    if train(CODEBOOK, centroids).size > MOST_CONSTANTS:
        train(SMALL_CODEBOOK, MOST_CONSTANTS)
    ends = np.cumsum(lengths[:THRESHOLD_PASSAGES])
    thresholds = train_thresholds(np.split(taken[: ends[-1]].astype(np.float32), ends[:-1]), seed=seed)
    if thresholds is not None:
        books["binary"] = f"codebooks/binary-{thresholds.sha256[:12]}.npz"
        thresholds.save(bundle.file(books["binary"]))
    manifest = dataclasses.replace(bundle.manifest, codebooks=books)
    return write_manifest(bundle.path, manifest)


def _rows_for(centroids: int) -> int:
    """Return how many vectors of a sample suit so many centroids."""
    return min(MOST_BEARABLE, max(CODEBOOK_ROWS, MIN_PER_CENTROID * centroids + HELD_OUT))
