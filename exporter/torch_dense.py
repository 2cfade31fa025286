"""One vector per text, from a sentence-transformers checkpoint: the baseline that late interaction is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.hub import find_checkpoint
from exporter.layouts.scanning import scan_checkpoint
from exporter.quiet import quiet
from exporter.weights import check_custom_code, require_safetensors
from late_interaction.array_types import Matrix
from late_interaction.errors import CheckpointError
from late_interaction.extras import required

__all__ = ["TorchDense"]


class TorchDense:
    """Encodes texts as unit rows `[n, d]` float32, with the checkpoint's own pooling (mean if it names none)."""

    def __init__(self, checkpoint: str | Path) -> None:
        """Load the checkpoint.

        Raises:
            MissingDependency: if sentence-transformers is not installed.
            CheckpointError: if the checkpoint cannot be loaded.
        """
        with required("export", "a dense baseline"):
            from sentence_transformers import SentenceTransformer

        folder = scan_checkpoint(find_checkpoint(checkpoint, revision=None, local_files_only=False))
        check_custom_code(folder, trust_remote_code=False)
        require_safetensors(folder)
        try:
            with quiet():
                self._model: Any = SentenceTransformer(str(folder.path), device="cpu", local_files_only=True)
        except Exception as error:  # noqa: BLE001  loading runs libraries with errors of their own
            raise CheckpointError(f"{folder.shown} cannot be loaded as a dense encoder: {error}") from None

    def encode_documents(self, texts: Sequence[str]) -> Matrix:
        """Return a unit row per document."""
        return self._rows(self._model.encode_document, texts)

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        """Return a unit row per query."""
        return self._rows(self._model.encode_query, texts)

    @staticmethod
    def _rows(encode: Any, texts: Sequence[str]) -> Matrix:
        with quiet():
            rows = encode(list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(rows, np.float32)
