"""Export a checkpoint to a bundle. Torch is imported by the first export, not by this package."""

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
    """Write a bundle and verify it against torch; nothing is left if that fails.

    Args:
        checkpoint: a folder or a hub name.
        output: folder of the bundle.
        options: what to export.
        progress: called with a line before each step.

    Returns:
        what was measured.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded or exported, or the bundle differs from it.
        UsageError: if an option does not fit.
        MissingDependency: if an extra is not installed.
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
    """Write a cross-encoder's folder and verify it against sentence-transformers; nothing is left if that fails.

    Args:
        checkpoint: a folder or a hub name, of sequence classification with one label.
        output: folder of the export.
        options: only those that concern graphs and files.
        progress: called with a line before each step.

    Returns:
        what was measured.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded or exported, or the export differs from it.
        UsageError: if an option does not fit.
        MissingDependency: if an extra is not installed.
    """
    require(("onnx", "sentence_transformers", "torch"), "export", "export")
    from exporter.cross_encoder import export_pairs

    return export_pairs(checkpoint, Path(output), options or ExportOptions(), progress or (lambda _text: None))
