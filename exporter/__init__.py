"""Checkpoint to bundle. Torch is imported by the first export, not by this package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.options import ExportOptions
from late_interaction.extras import require

if TYPE_CHECKING:
    from exporter.cross_encoder import CrossEncoderReport
    from exporter.verification import ExportReport

__all__ = ["ExportOptions", "export", "export_cross_encoder"]


def export(
    checkpoint: str | Path,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a bundle and verifies it against torch; nothing is left where that fails. `checkpoint`: folder or hub name.

    Raises: CheckpointError, UsageError, MissingDependency.
    """
    require(("onnx", "sentence_transformers", "torch"), "export", "export")
    from exporter.exporting import export_checkpoint

    return export_checkpoint(checkpoint, Path(output), options or ExportOptions(), progress or (lambda _text: None))


def export_cross_encoder(
    checkpoint: str | Path,
    output: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> CrossEncoderReport:
    """Writes a cross-encoder's folder and verifies it against sentence-transformers; nothing is left where that fails.
    `checkpoint`: folder or hub name, of sequence classification with one label. options: those that concern graphs and files.

    Raises: CheckpointError, UsageError, MissingDependency.
    """
    require(("onnx", "sentence_transformers", "torch"), "export", "export")
    from exporter.cross_encoder import export_pairs

    return export_pairs(checkpoint, Path(output), options or ExportOptions(), progress or (lambda _text: None))
