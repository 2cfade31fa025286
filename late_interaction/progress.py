"""Who is told how far something long has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["CountReport", "StepReport"]

CountReport: TypeAlias = Callable[[int, int], None]  # done, and all there is
StepReport: TypeAlias = Callable[[str, int, int], None]  # what is done, how much of it, and all there is
