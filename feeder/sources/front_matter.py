"""The front matter of Markdown files: YAML between lines of `---`, or TOML between lines of `+++`, at the very start."""

from __future__ import annotations

import datetime
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["MetadataTypes", "split_front_matter"]

MAX_CHARACTERS = 1 << 16
MAX_DEPTH = 20
tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
FieldValue = str | int | float | bool


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return the fields and the text below them; no fields and all of the text if there is no front matter."""
    fence, _, rest = text.partition("\n")
    read = _READERS.get(fence.rstrip())
    if read is None:
        return {}, text
    length = 0
    for line in rest[:MAX_CHARACTERS].splitlines(keepends=True):
        if line.rstrip() == fence.rstrip() or (line.rstrip() == "..." and fence.startswith("-")):
            fields = read(rest[:length])
            return ({}, text) if fields is None else (fields, rest[length + len(line) :])
        length += len(line)
    return {}, text


def _yaml(text: str) -> dict[str, Any] | None:
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH or isinstance(event, yaml.AliasEvent):
                return None  # a few hundred bytes of aliases can expand to gigabytes
        fields = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, KeyError, OverflowError):
        return None
    return {} if fields is None else fields if isinstance(fields, dict) else None


def _toml(text: str) -> dict[str, Any] | None:
    try:
        return dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return None


_READERS: dict[str, Callable[[str], dict[str, Any] | None]] = {"---": _yaml, "+++": _toml}


class MetadataTypes:
    """One type for each field over all files of a folder, as for a column of a table.

    A number in one file and a word in another make it text; a list in one makes it a list in all.
    """

    def __init__(self) -> None:
        self._types: dict[str, set[type]] = {}
        self._lists: set[str] = set()

    def add(self, fields: Mapping[str, Any]) -> None:
        """Note the fields of a file."""
        for name, value in _plain(fields).items():
            items = value if isinstance(value, list) else [value]
            self._types.setdefault(name, set()).update(type(item) for item in items)
            if isinstance(value, list):
                self._lists.add(name)

    def of(self, fields: Mapping[str, Any]) -> tuple[dict[str, FieldValue | list[FieldValue]], tuple[str, ...]]:
        """Return the fields that can be metadata, and the names of those that cannot, such as tables."""
        plain = _plain(fields)
        typed: dict[str, FieldValue | list[FieldValue]] = {}
        for name, value in plain.items():
            many = name in self._lists
            items = [self._typed(name, item, many) for item in (value if isinstance(value, list) else [value])]
            typed[name] = items if many else items[0]
        unfit = (str(name) for name, value in fields.items() if str(name) not in plain and value not in (None, [], {}))
        return typed, tuple(unfit)

    def _typed(self, name: str, item: FieldValue, many: bool) -> FieldValue:
        types = self._types.get(name, set())
        if types <= {int, float} or (len(types) == 1 and not (many and bool in types)):
            return item
        return str(item).lower() if isinstance(item, bool) else str(item)


def _plain(fields: Mapping[str, Any]) -> dict[str, FieldValue | list[FieldValue]]:
    """Return texts, numbers, true and false, and lists of them."""
    found: dict[str, FieldValue | list[FieldValue]] = {}
    for name, value in fields.items():
        items = [_scalar(item) for item in (value if isinstance(value, list) else [value])]
        if items and None not in items:
            found[str(name)] = items if isinstance(value, list) else items[0]  # type: ignore[assignment]  # none is None
    return found


def _scalar(value: object) -> FieldValue | None:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return str(value)
    return value if isinstance(value, (str, int, float)) else None
