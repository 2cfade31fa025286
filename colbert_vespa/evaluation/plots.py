"""Plots as files, drawn without a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure"]


def new_figure(width: float, height: float, *, constrained: bool = False) -> Figure:
    """width, height: inches. constrained: parts are moved so that none overlaps another.

    Raises: MissingDependency without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency('a plot needs matplotlib: pip install "colbert-vespa[plot]"') from None
    return Figure(figsize=(width, height), layout="constrained" if constrained else None)
