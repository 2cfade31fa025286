"""Indexes of colbert-ai, including RAGatouille's and PyLate's (`use_fast=False`): torch files and JSON.

`ivf.pid.pt`, `avg_residual.pt` and `plan.json` are not needed. `num_embeddings` is ignored, because IndexUpdater counts
some rows twice. A passage that was removed keeps its number and has no rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from late_interaction.errors import LocalIndexError
from late_interaction.plaid.imports.peer import Chunk, Peer, chunk_lengths, peer_codebook, read_json
from late_interaction.plaid.imports.torch_files import read_tensor, read_torch_file

__all__ = ["COLBERT_AI_FILES", "open_colbert_ai"]

COLBERT_AI_FILES = ("metadata.json", "centroids.pt", "buckets.pt", "doclens.0.json", "0.codes.pt", "0.residuals.pt")


def open_colbert_ai(folder: Path) -> Peer:
    """Open an index of colbert-ai.

    Raises:
        LocalIndexError: if a file is missing, damaged or refused; the message names it.
    """
    metadata = read_json(folder / "metadata.json", dict)
    config = metadata.get("config")
    if not isinstance(config, dict):
        raise LocalIndexError(f"{folder / 'metadata.json'} is damaged: it has no config")
    centroids = read_tensor(folder / "centroids.pt", "f", 2)
    buckets = read_torch_file(folder / "buckets.pt")
    if not (
        isinstance(buckets, tuple)
        and len(buckets) == 2
        and all(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in buckets)
    ):
        raise LocalIndexError(f"{folder / 'buckets.pt'} does not hold the cutoffs and the weights")
    codebook, unusable = peer_codebook(folder, centroids, *buckets, config.get("nbits"))
    if config.get("dim") != codebook.dim:
        raise LocalIndexError(
            f"{folder} is damaged: its centroids have {codebook.dim} dimensions, but its config says {config.get('dim')}"
        )

    def chunk(number: int) -> Chunk:
        residuals = read_tensor(folder / f"{number}.residuals.pt", "u", 2)
        if residuals.dtype != np.uint8:
            raise LocalIndexError(f"{folder / f'{number}.residuals.pt'} holds {residuals.dtype}, not bytes")
        return Chunk(read_tensor(folder / f"{number}.codes.pt", "i", 1), residuals)

    return Peer("colbert-ai", folder, codebook, unusable, chunk_lengths(folder, metadata), chunk, gone=True)
