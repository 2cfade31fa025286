"""Token vectors with the vocabulary ids of their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from late_interaction.array_types import TokenVectors

__all__ = ["UNKNOWN", "joined_rows"]

UNKNOWN = -1


def joined_rows(parts: Sequence[TokenVectors]) -> TokenVectors:
    """Join the rows of all parts (at least one); UNKNOWN stands for the ids of a part without."""
    vectors = np.concatenate([rows for rows, _ in parts])
    if all(ids is None for _, ids in parts):
        return vectors, None
    return vectors, np.concatenate([np.full(len(rows), UNKNOWN, np.int32) if ids is None else ids for rows, ids in parts])
