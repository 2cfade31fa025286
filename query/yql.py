"""Filters as YQL. Field names come from the checked schema; every value is a literal of its type, escaped.

A missing value matches no comparison (filters.py). Vespa has no such notion, so each comparison is joined with a test of
the `present` field, which lists the metadata fields that a passage has.
"""

from __future__ import annotations

from late_interaction.filters import And, Exists, Filter, In, Near, Not, Or, Range, Scalar
from query.yql_ranges import equals_whole, whole_range
from vespa_app.running.passage_fields import PRESENT, empty_mark

__all__ = ["filter_to_yql", "string_literal"]


def filter_to_yql(node: Filter) -> str:
    """Return a boolean YQL expression in parentheses, to be joined by `and` with what selects candidates."""
    if isinstance(node, And):
        return _joined(" and ", node.parts) if node.parts else "true"
    if isinstance(node, Or):
        return _joined(" or ", node.parts)
    if isinstance(node, Not):
        return f"(true and !({filter_to_yql(node.part)}))"
    if isinstance(node, Exists):
        return _present(node.field)
    if isinstance(node, Range):
        return f"({_range(node)} and {_present(node.field)})"
    if isinstance(node, Near):
        return f'(geoLocation({node.field}, {node.lat!r}, {node.lng!r}, "{node.km:.6f} km") and {_present(node.field)})'
    return _in(node)


def _range(node: Range) -> str:
    if isinstance(node.value, int):
        return whole_range(node.field, node.op, node.value)
    return f"{node.field} {node.op} {node.value!r}"


def _joined(word: str, parts: tuple[Filter, ...]) -> str:
    return "(" + word.join(filter_to_yql(part) for part in parts) + ")"


def _present(field: str) -> str:
    return f"({PRESENT} contains {string_literal(field)})"


def _in(node: In) -> str:
    if not node.values:
        return "false"
    tests = " or ".join(_equals(node.field, value) for value in node.values)
    return f"(({tests}) and {_present(node.field)})"


def _equals(field: str, value: Scalar) -> str:
    if value == "":  # Vespa has no term for the empty text, so the feeder marks it
        return f"{PRESENT} contains {string_literal(empty_mark(field))}"
    if isinstance(value, bool):
        return f"{field} = {'true' if value else 'false'}"
    if isinstance(value, str):
        return f"{field} contains {string_literal(value)}"
    return equals_whole(field, value) if isinstance(value, int) else f"{field} = {value!r}"


def string_literal(text: str) -> str:
    """Return a double-quoted YQL string that means exactly `text`.

    Quotes, backslashes and everything that is neither printable ASCII nor a letter are escaped.
    """
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return f"\\u{code:04x}"
    return character
