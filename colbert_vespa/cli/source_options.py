"""`--column` and `--type`: roles of a source's columns, and types of metadata fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from feeder.sources import SourceSettings
from late_interaction.errors import UsageError
from late_interaction.metadata import FieldType

__all__ = ["field_types", "with_columns"]

SINGLE, SEVERAL = ("id", "vectors"), ("title", "text", "metadata")  # columns of each role


def with_columns(settings: SourceSettings, given: Sequence[str] | None) -> SourceSettings:
    """Return `settings` with these columns, each ROLE=COLUMN, which replace those of the same role and must occur.

    Raises:
        UsageError: If an item has another form, its role is unknown, or a role that takes one column is given twice.
    """
    found: dict[str, list[str]] = {}
    for role, column in _pairs(given or (), "--column", "text=body"):
        if role not in SINGLE + SEVERAL:
            raise UsageError(f"--column {role}={column}: {role!r} is unknown; known: {', '.join(SINGLE + SEVERAL)}")
        if role in SINGLE and role in found:
            raise UsageError(f"--column {role} is given twice: {found[role][0]!r} and {column!r}")
        found.setdefault(role, []).append(column)
    columns = {role: names[0] if role in SINGLE else tuple(names) for role, names in found.items()}
    required = tuple(name for role, names in found.items() if role != "id" for name in names)
    chosen = dataclasses.replace(settings.columns, **columns)  # type: ignore[arg-type]
    return dataclasses.replace(settings, columns=chosen, required=required)


def field_types(given: Sequence[str] | None) -> dict[str, FieldType]:
    """Return the types of metadata fields, each given as FIELD=TYPE.

    Raises:
        UsageError: If an item has another form.
    """
    found = {}
    for name, type_ in _pairs(given or (), "--type", "published=timestamp"):
        try:
            found[name] = FieldType(type_)
        except ValueError:
            known = ", ".join(known.value for known in FieldType)
            raise UsageError(f"--type {name}={type_}: {type_!r} is unknown; known: {known}") from None
    return found


def _pairs(given: Iterable[str], option: str, example: str) -> Iterable[tuple[str, str]]:
    for item in given:
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{option} must be NAME=VALUE, as {option} {example}, got {item[:40]!r}")
        yield name, value
