"""The loops of `weighted_sets` in numpy, slower, for an install without the extra `local`. Signatures are the same."""

from __future__ import annotations

from late_interaction.array_types import I32, I64

__all__ = ["weighted_sets"]


def weighted_sets(ids: I32, weights: I64) -> list[str]:
    """Return `{id:weight,...}` of each row of two `[q, M]`, all numbers at least 0."""
    rows = zip(ids.tolist(), weights.tolist(), strict=True)
    return ["{" + ",".join([f"{id_}:{weight}" for id_, weight in zip(*row, strict=True)]) + "}" for row in rows]
