"""Types of progress callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["CountReport", "StepReport"]

CountReport: TypeAlias = Callable[[int, int], None]  # done, total
StepReport: TypeAlias = Callable[[str, int, int], None]  # what is being done, done, total
