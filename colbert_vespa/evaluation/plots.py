"""Write plots to files, without a display."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.errors import UsageError
from late_interaction.extras import required
from late_interaction.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "save_figure"]

_METADATA = {
    ".png": {"Software": "colbert-vespa plot"},
    ".svg": {"Creator": "colbert-vespa plot"},
}  # by which it is known as ours


def new_figure(width: float, height: float, *, constrained: bool = False) -> Figure:
    """Return an empty figure.

    Args:
        width: Width in inches.
        height: Height in inches.
        constrained: Arrange the parts so that they do not overlap.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    with required("plot", "a plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained" if constrained else None)


def save_figure(figure: Figure, path: Path, *, tight: bool = False) -> None:
    """Save a figure as .png or .svg, by the file's ending.

    Args:
        figure: The figure.
        path: File to write.
        tight: Cut off empty margins.

    Raises:
        UsageError: If the file has another ending.
        OSError: If the file cannot be written; the message names it.
    """
    ending = path.suffix.lower()
    if ending not in _METADATA:
        raise UsageError(f"{path}: a plot is a file that ends in {' or '.join(_METADATA)}")
    data = io.BytesIO()
    figure.savefig(data, format=ending[1:], bbox_inches="tight" if tight else None, metadata=_METADATA[ending])
    atomic_write(path, data.getvalue())
