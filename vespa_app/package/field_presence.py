"""The field `present`: which metadata fields a passage has. Vespa itself has no notion of a missing value."""

from __future__ import annotations

from collections.abc import Mapping

from late_interaction.metadata import Value

__all__ = ["PRESENT", "empty_mark", "present_marks"]

PRESENT = "present"


def empty_mark(name: str) -> str:
    """Stands for "the value is, or the list contains, the empty text", which Vespa cannot be asked for."""
    return f"{name}="


def present_marks(metadata: Mapping[str, Value]) -> list[str]:
    """What the field holds for `metadata`, in which nothing is null."""
    empty = [empty_mark(name) for name, value in metadata.items() if value == "" or (isinstance(value, list) and "" in value)]
    return sorted([*metadata, *empty])
