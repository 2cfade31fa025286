"""feed.toml: how records become documents, and documents become passages.

format = "csv"                      # if a source's name does not tell
delimiter = ";"                     # of CSV and TSV, if it is not a comma or a tab
[columns]
id = "url"                          # "@row": the place in the source
title = "headline"                  # one column, or a list that is joined by blank lines
text = ["abstract", "body"]
metadata = ["year", "lang"]         # by default: all other columns
names = { lang = "language" }       # another name for a metadata column
vectors = "rows"                    # token vectors that were made elsewhere
dense = { openai = "embedding" }    # the same, of dense models by name
[passages]
method = "sentences"                # none, sentences, markdown, marked
tokens = 180
overlap = 30
[limits]
line_mb = 32
[types]                             # of metadata fields, where their values do not tell
published = "timestamp"
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping, SourceLimits, SourceSettings
from late_interaction.errors import SettingsError
from late_interaction.metadata import FieldType
from late_interaction.structured import read

__all__ = ["FeedSettings", "read_feed_settings"]

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_SEVERAL = ("title", "text")  # keys that take one column or a list


@dataclasses.dataclass(frozen=True)
class FeedSettings:
    """The settings of feed.toml.

    Attributes:
        source: settings of the sources.
        splitting: how texts become passages.
    """

    source: SourceSettings = dataclasses.field(default_factory=SourceSettings)
    splitting: Splitting = dataclasses.field(default_factory=Splitting)
    types: Mapping[str, FieldType] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _File:
    """The tables of feed.toml."""

    format: str = ""
    delimiter: str = ""
    columns: ColumnMapping = dataclasses.field(default_factory=ColumnMapping)
    limits: SourceLimits = dataclasses.field(default_factory=SourceLimits)
    passages: Splitting = dataclasses.field(default_factory=Splitting)
    types: Mapping[str, FieldType] = dataclasses.field(default_factory=dict)


def read_feed_settings(path: Path) -> FeedSettings:
    """Read feed.toml.

    Raises:
        SettingsError: if the file or a key is not valid; the message names it.
        UsageError: if a number is out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    given = read(_File, data | {"columns": _listed(data.get("columns", {}))}, SettingsError, str(path), noun="setting")
    source = SourceSettings(given.columns, given.limits, given.format, delimiter=given.delimiter)
    return FeedSettings(source, given.passages, given.types)


def _listed(columns: object) -> object:
    """Return the table with a list of one for a single column."""
    if not isinstance(columns, Mapping):
        return columns
    return {name: [value] if name in _SEVERAL and isinstance(value, str) else value for name, value in columns.items()}
