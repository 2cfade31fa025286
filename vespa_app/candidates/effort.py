"""How hard `centroid` must look for a recall goal, from what was measured (docs/performance.md, benchmarks/vespa.py)."""

from __future__ import annotations

from dataclasses import dataclass

from late_interaction.errors import SettingsError

__all__ = ["EFFORTS", "RECALL_GOAL", "Effort", "effort_for"]

RECALL_GOAL = 0.99


@dataclass(frozen=True)
class Effort:
    """recall: share of the exact top 10 that was found among 60,000 passages. probes, rerank: the settings that found it."""

    recall: float
    probes: int
    rerank: int


EFFORTS = (
    Effort(0.95, 16, 200),
    Effort(0.98, 16, 500),
    Effort(0.99, 32, 500),
    Effort(0.995, 32, 1000),
    Effort(0.997, 32, 2000),
)


def effort_for(recall: float) -> Effort:
    """The least effort that found so much.

    Raises: SettingsError where none did.
    """
    if not 0 < recall <= 1:
        raise SettingsError(f"recall must be between 0 and 1, got {recall}")
    for effort in EFFORTS:
        if recall <= effort.recall:
            return effort
    raise SettingsError(f"recall {recall} is more than was measured ({EFFORTS[-1].recall}): use candidates exhaustive")
