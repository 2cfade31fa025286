"""A dense checkpoint as an encoder of its own: the baseline that late interaction is compared with."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from exporter.exporting import export_checkpoint
from exporter.options import ExportOptions
from exporter.ready import ReadyOptions, make_ready_bundle
from late_interaction.array_types import Matrix
from late_interaction.bundle import DENSE, Bundle
from late_interaction.dense import DenseEncoder
from late_interaction.extras import require

__all__ = ["DenseBaseline"]


class DenseBaseline:
    """Encode texts to vectors `[n, dim]` with the checkpoint's ONNX graph, as `export --dense` makes and verifies it.

    The graph is in a temporary folder, which is removed with the encoder.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        """Export the checkpoint.

        Raises:
            MissingDependency: if the extra `export` is not installed.
            CheckpointError: if it is not a dense model, or its graph differs from sentence-transformers.
        """
        require(("torch", "sentence_transformers", "onnx"), "export", "a dense baseline")
        folder = Path(tempfile.mkdtemp(prefix="colbert-vespa-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        ready = make_ready_bundle(folder / "ready", ReadyOptions(dim=1))
        export_checkpoint(ready.path, folder / "bundle", ExportOptions(dense={DENSE: checkpoint}), lambda _: None)
        self._encoder = DenseEncoder(Bundle.open(folder / "bundle", verify=False), DENSE)

    def encode_documents(self, texts: Sequence[str]) -> Matrix:
        """Encode documents."""
        return self._encoder.encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> Matrix:
        """Encode queries."""
        return self._encoder.encode_queries(texts)
