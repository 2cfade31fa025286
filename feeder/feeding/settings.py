"""feed.toml: how records become documents, and documents passages.

format = "csv"                      # where a source's name does not tell
delimiter = ";"                     # of CSV and TSV, where it is not a comma or a tab
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

from feeder.encoding.passages import Splitting
from feeder.sources import ColumnMapping, SourceLimits, SourceSettings
from late_interaction.errors import SettingsError
from vespa_app.settings.sections import read_section, setting_error

__all__ = ["FeedSettings", "read_feed_settings"]

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
_SEVERAL = ("title", "text")  # columns that may be one or a list


@dataclasses.dataclass(frozen=True)
class FeedSettings:
    source: SourceSettings = dataclasses.field(default_factory=SourceSettings)
    splitting: Splitting = dataclasses.field(default_factory=Splitting)


def read_feed_settings(path: Path) -> FeedSettings:
    """Raises: SettingsError naming file and key, UsageError on numbers that cannot be."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
    format_, delimiter = data.pop("format", ""), data.pop("delimiter", "")
    for name, value in (("format", format_), ("delimiter", delimiter)):
        if not isinstance(value, str):
            raise setting_error(name, f"must be str, got {str(value)[:60]!r}", str(path))
    if unknown := sorted(set(data) - {"columns", "limits", "passages"}):
        raise setting_error(unknown[0], "unknown; known: format, delimiter, columns, limits, passages", str(path))
    columns = read_section(ColumnMapping, "columns", _listed(data.get("columns", {})), str(path))
    limits = read_section(SourceLimits, "limits", data.get("limits", {}), str(path))
    passages = read_section(Splitting, "passages", data.get("passages", {}), str(path))
    return FeedSettings(SourceSettings(columns, limits, format_, delimiter=delimiter), passages)


def _listed(columns: object) -> object:
    """The table with lists of one where a column stands alone for several."""
    if not isinstance(columns, Mapping):
        return columns
    return {name: [value] if name in _SEVERAL and isinstance(value, str) else value for name, value in columns.items()}
