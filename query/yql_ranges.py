"""Ranges over whole numbers as YQL.

Vespa reads the bounds of a range as 64-bit floats, so a bound above 2^53 may become one of its neighbours, and `field >=
2147483647` does not match the largest int. Equality is exact. A bound that is not such a float is therefore moved to the
next one that is, and the whole numbers between, at most 1,023, are listed one by one. `field <= 9223372036854774784`, the
last such float below the largest long, matches more than it should, so a filter that would need it is refused.
"""

from __future__ import annotations

import math

from late_interaction.errors import FilterError

__all__ = ["equals_whole", "whole_range"]

_EXACT = 2**53
_LARGEST = 2**63 - 1  # the smallest is its negative: Vespa uses -2^63 for "no value"
_LAST_FLOAT = 2**63 - 1024  # the largest 64-bit float below 2^63
_LARGEST_INT = 2**31 - 1
_WITHOUT_SUFFIX = 2**31


def whole_range(field: str, op: str, value: int) -> str:
    """Return an expression without parentheses around it, or `true` or `false`.

    `op` is one of < <= > >=.

    Raises:
        FilterError: if Vespa has no such range.
    """
    bound = value + {">": 1, "<": -1}.get(op, 0)
    if op[0] == ">" and bound == _LARGEST_INT:
        return f"({field} > {bound} or {equals_whole(field, bound)})"
    if abs(value) < _EXACT:
        return f"{field} {op} {_literal(value)}"
    return _upwards(field, bound) if op[0] == ">" else _downwards(field, bound)


def equals_whole(field: str, value: int) -> str:
    """Return an expression for equality."""
    return f"{field} = {_literal(value)}"


def _upwards(field: str, least: int) -> str:
    if least <= -_LARGEST:
        return "true"
    start = int(float(least))
    if start < least:
        start = int(math.nextafter(float(least), math.inf))
    more = [f"{field} >= {_literal(start)}"] if start <= _LARGEST else []
    return _any([*(equals_whole(field, value) for value in range(least, min(start, _LARGEST + 1))), *more])


def _downwards(field: str, most: int) -> str:
    if most >= _LARGEST:
        return "true"
    if most >= _LAST_FLOAT:
        raise FilterError(
            f"filter on {field!r}: Vespa cannot compare with {most}, which is too close to the largest long; use $in"
        )
    start = int(float(most))
    if start > most:
        start = int(math.nextafter(float(most), -math.inf))
    more = [f"{field} <= {_literal(start)}"] if start >= -_LARGEST else []
    return _any([*(equals_whole(field, value) for value in range(most, max(start, -_LARGEST - 1), -1)), *more])


def _any(tests: list[str]) -> str:
    return f"({' or '.join(tests)})" if tests else "false"


def _literal(value: int) -> str:
    return f"{value}L" if abs(value) >= _WITHOUT_SUFFIX else str(value)
