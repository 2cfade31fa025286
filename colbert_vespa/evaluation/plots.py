"""Plots as files, drawn without a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.extras import required

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure"]


def new_figure(width: float, height: float, *, constrained: bool = False) -> Figure:
    """width, height: inches. constrained: parts are moved so that none overlaps another.

    Raises: MissingDependency without matplotlib.
    """
    with required("plot", "a plot"):
        from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout="constrained" if constrained else None)
