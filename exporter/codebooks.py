"""Codebooks for a bundle: encode a sample of the user's documents, train centroids, residual buckets and binary thresholds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np

from late_interaction.array_types import TokenIds
from late_interaction.bundle import Bundle, write_manifest
from late_interaction.codebook_training import CODEBOOK_ROWS, train_codebook
from late_interaction.errors import BundleError
from late_interaction.progress import CountReport
from late_interaction.thresholds import train_thresholds
from late_interaction.token_ids import joined_rows
from late_interaction.tokenizing import Tokenizing, row_token_ids
from late_interaction.vector_cache import DocumentEncoder

__all__ = ["DEFAULT_BITS", "add_codebook"]

BLOCK = 256
DEFAULT_BITS = 4


def add_codebook(
    bundle: Bundle,
    sample: Sequence[str],
    encoder: DocumentEncoder,
    *,
    bits: int = DEFAULT_BITS,
    centroids: int | None = None,
    seed: int = 0,
    progress: CountReport | None = None,
) -> Bundle:
    """Trains the `residual` codebook on the token vectors of `sample` and writes it into the bundle; also `binary` thresholds,
    where they find more than a cut at 0 does (late_interaction.thresholds).

    bits: 1, 2 or 4 a dimension. centroids: by default as many as suit the sample, and never more than one for 16 vectors.
    At most 2M token vectors are used; past that, a seeded part of the sample. Returns the bundle, with its new checksum.
    Raises: BundleError where the sample has no text.
    """
    texts = [text for text in sample if text.strip()]
    random.Random(seed).shuffle(texts)
    tokenizing = Tokenizing(bundle)
    blocks: list[np.ndarray] = []
    token_ids: list[TokenIds | None] = []
    rows = 0
    for first in range(0, len(texts), BLOCK):
        part = texts[first : first + BLOCK]
        tokens = tokenizing.documents(part)
        vectors = encoder.encode_documents(part, tokens)
        blocks += vectors
        token_ids += [row_token_ids(own, bundle.manifest.pooling) for own in tokens]
        rows += sum(len(item) for item in vectors)
        if progress:
            progress(min(first + BLOCK, len(texts)), len(texts))
        if rows >= CODEBOOK_ROWS:
            break
    if not rows:
        raise BundleError("the sample has no text: a codebook is trained on some of the documents to be indexed")
    joined, ids = joined_rows(list(zip(blocks, token_ids, strict=True)))
    codebook = train_codebook(joined, token_ids=ids, bits=bits, centroids=centroids, seed=seed)
    name = f"codebooks/residual-{codebook.sha256[:12]}.npz"
    bundle.file(name).parent.mkdir(exist_ok=True)
    codebook.save(bundle.file(name))
    books = {**bundle.manifest.codebooks, "residual": name}
    books.pop("binary", None)
    thresholds = train_thresholds(blocks, seed=seed)
    if thresholds is not None:
        books["binary"] = f"codebooks/binary-{thresholds.sha256[:12]}.npz"
        thresholds.save(bundle.file(books["binary"]))
    manifest = dataclasses.replace(bundle.manifest, codebooks=books)
    return write_manifest(bundle.path, manifest)
