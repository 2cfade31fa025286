"""feed.toml: how records become documents, and documents passages.

format = "csv"                      # where a source's name does not tell
[columns]
id = "url"                          # "@row": the place in the source
title = "headline"                  # one column, or a list that is joined by blank lines
text = ["abstract", "body"]
metadata = ["year", "lang"]         # without it: all other columns
names = { lang = "language" }       # another name for a metadata column
[passages]
method = "sentences"                # none, sentences, markdown, marked
tokens = 180
overlap = 30
[limits]
line_mb = 32
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feeder.passages import Splitting
from feeder.sources import Columns, Limits, SourceSettings
from late_interaction.errors import SettingsError

__all__ = ["FeedSettings", "read_feed_settings"]

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_SECTIONS = {"columns": Columns, "limits": Limits, "passages": Splitting}
_SEVERAL = ("title", "text")  # columns that may be one or a list


@dataclasses.dataclass(frozen=True)
class FeedSettings:
    source: SourceSettings = dataclasses.field(default_factory=SourceSettings)
    splitting: Splitting = dataclasses.field(default_factory=Splitting)


def read_feed_settings(path: Path) -> FeedSettings:
    """Raises: SettingsError naming file and key, UsageError on numbers that cannot be."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    format_ = data.pop("format", "")
    if not isinstance(format_, str):
        raise SettingsError(f"{path}: format must be text")
    if unknown := sorted(set(data) - set(_SECTIONS)):
        raise SettingsError(f"{path}: {unknown[0]!r} unknown; known: format, {', '.join(_SECTIONS)}")
    made = {name: _section(kind, data.get(name, {}), f"{path}: {name}") for name, kind in _SECTIONS.items()}
    return FeedSettings(SourceSettings(made["columns"], made["limits"], format_), made["passages"])


def _section(kind: type, given: object, where: str) -> Any:
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where} must be a table")
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    values = {}
    for name, value in given.items():
        if name not in fields:
            raise SettingsError(f"{where}.{name} unknown; known: {', '.join(fields)}")
        values[name] = _value(name, value, fields[name], f"{where}.{name}")
    return kind(**values)


def _value(name: str, value: object, default: object, where: str) -> object:
    """As the type of the default says; lists are lists of texts, tables of texts."""
    if name in _SEVERAL and isinstance(value, str):
        value = [value]
    if isinstance(default, bool) or isinstance(value, bool):
        raise SettingsError(f"{where} cannot be {value!r}")
    if isinstance(default, int):
        if not isinstance(value, int) or value < 0:
            raise SettingsError(f"{where} must be a whole number, got {value!r}")
        return value
    if isinstance(default, str):
        if not isinstance(value, str):
            raise SettingsError(f"{where} must be text, got {value!r}")
        return value
    if isinstance(value, Mapping) and name == "names" and all(isinstance(item, str) for item in value.values()):
        return dict(value)
    if isinstance(value, list) and name != "names" and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise SettingsError(f"{where} must be {'a table' if name == 'names' else 'a list'} of texts, got {value!r}")
