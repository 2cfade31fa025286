"""Indexes of fast-plaid and next-plaid, which share one set of files: arrays and JSON.

The inverted lists and `merged_*` are derived. `embeddings.npy` and `buffer.npy` hold pickled objects, and nothing that the
chunks lack. None of them is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.arrays import map_array
from late_interaction.errors import LocalIndexError
from late_interaction.plaid.imports.peer import Chunk, Peer, chunk_lengths, peer_codebook, read_json

__all__ = ["FAST_PLAID_FILES", "open_fast_plaid"]

FAST_PLAID_FILES = (
    "metadata.json", "centroids.npy", "bucket_cutoffs.npy", "bucket_weights.npy", "doclens.0.json", "0.codes.npy",
    "0.residuals.npy",
)  # fmt: skip


def open_fast_plaid(folder: Path) -> Peer:
    """Open an index of fast-plaid or next-plaid.

    Raises:
        LocalIndexError: if a file is missing or damaged; the message names it.
    """
    metadata = read_json(folder / "metadata.json", dict)
    centroids = _array(folder / "centroids.npy", "f", 2)
    cutoffs, weights = (_array(folder / f"bucket_{name}.npy", "f", 1) for name in ("cutoffs", "weights"))
    codebook, unusable = peer_codebook(folder, centroids, cutoffs, weights, metadata.get("nbits"))

    def chunk(number: int) -> Chunk:
        return Chunk(_array(folder / f"{number}.codes.npy", "i", 1), _array(folder / f"{number}.residuals.npy", "u", 2))

    return Peer("fast-plaid", folder, codebook, unusable, chunk_lengths(folder, metadata), chunk, gone=False)


def _array(path: Path, kind: str, ndim: int) -> NDArray[Any]:
    """Map an array of real numbers "f", whole numbers "i" or bytes "u"."""
    try:
        array = map_array(path)
    except FileNotFoundError:
        raise LocalIndexError(f"{path.parent} is damaged: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise LocalIndexError(f"{path} is damaged ({error})") from None
    if array.dtype.kind != kind or array.ndim != ndim or (kind == "u" and array.dtype != np.uint8):
        raise LocalIndexError(f"{path} is damaged: it holds {array.dtype} {array.shape}")
    return array
