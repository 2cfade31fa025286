"""Checkpoint to bundle. Torch is imported by the first export, not by this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.errors import MissingDependency

if TYPE_CHECKING:
    from exporter.verification import ExportReport

__all__ = ["export"]


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    quantize: str | None = None,
    sample: Sequence[str] | None = None,
    dim: int = 128,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a bundle and verifies it against torch; nothing is left where that fails.

    checkpoint: folder or hub name. quantize: "int8" for a second, quantized graph. sample: document texts, needed to fit a
    projection of `dim` dimensions to a plain encoder, and used for verification. trust_remote_code: run code that the
    checkpoint brings. allow_pickle: read tensors, and nothing else, from pickled weights. force: keep a bundle that fails.
    Raises: CheckpointError, UsageError, MissingDependency.
    """
    for needed in ("onnx", "sentence_transformers", "torch"):
        if find_spec(needed) is None:
            raise MissingDependency(f"export needs {needed}, which is not installed: pip install 'colbert-vespa[export]'")
    from exporter.exporting import export_checkpoint

    return export_checkpoint(
        checkpoint, Path(output), quantize=quantize, sample=sample, dim=dim, revision=revision,
        local_files_only=local_files_only, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle, force=force,
        progress=progress or (lambda _text: None),
    )  # fmt: skip
