"""One line of a plan."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GB", "Figure"]

GB = 1e9


@dataclass(frozen=True)
class Figure:
    """`value` in `unit`, how it was got (with the numbers put in), and where these are from."""

    name: str
    value: float
    unit: str
    formula: str
    source: str
