"""Values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["finite_json"]


def finite_json(value: object) -> object:
    """Return `value` with null for NaN and the infinities, which JSON does not have. Tuples become lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_json(item) for key, item in value.items()}
    return [finite_json(item) for item in value] if isinstance(value, (list, tuple)) else value
