"""Which columns of a source were used and which were not, for the summary of a feed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping

from feeder.sources.records import DENSE, ColumnMapping, SourceRecord
from feeder.sources.report import Note

__all__ = ["NO_TEXT_COLUMN", "ColumnUse"]

NO_TEXT_COLUMN = "no_text_column"
NAMED = 100  # most columns that are remembered
_LIKE_TEXT = (
    "text",
    "content",
    "contents",
    "page_content",
    "body",
    "passage",
    "document",
    "abstract",
    "article",
    "description",
)


class ColumnUse:
    """Counts records and notes their columns as they stream by.

    Attributes:
        records: number of records.
        missing: required columns that no record had.
        seen: the first columns.
    """

    def __init__(self, columns: ColumnMapping, required: Iterable[str] = ()) -> None:
        self._columns, self._required = columns, frozenset(required)
        self.records = 0
        self.missing = set(self._required)
        self.seen: dict[str, None] = {}

    def add(self, record: SourceRecord) -> None:
        """Note a record."""
        self.records += 1
        self.missing.difference_update(record)
        inner = record.get("metadata")
        members: Iterable[str] = inner if isinstance(inner, Mapping) else ()
        self.missing.difference_update(name for name in self._columns.metadata or () if name in members)
        for names in (record, members):
            for name in names:
                if name not in self.seen and len(self.seen) < NAMED:
                    self.seen[name] = None

    def notes(self, source: str) -> Iterator[Note]:
        """Yield the notes. source: its name."""
        only_ids = not self._columns.text and self._columns.metadata == ()
        if not self.records or len(self.seen) >= NAMED or only_ids:
            return
        columns, default = self._columns, ColumnMapping()
        asked = [*(columns.metadata or ()), *columns.names]
        asked += columns.title if columns.title != default.title else ()
        asked += columns.text if columns.text != default.text else ()
        asked += columns.dense.values()
        asked += [columns.vectors] if columns.vectors not in ("", default.vectors) else []
        if missing := [name for name in dict.fromkeys(asked) if name not in self.seen and name not in self._required]:
            shown = tuple(self._hinted(name) for name in missing)
            yield Note("missing_columns", "columns in the settings that no record of a source has", len(missing), shown)
        kept = {columns.id or "id", "_id", "metadata", columns.vectors, DENSE, *columns.dense.values()}
        kept |= {*columns.title, *columns.text, *(columns.metadata or ())}
        unused = tuple(name for name in self.seen if name not in kept)
        if columns.metadata is not None and unused:
            yield Note("unused_columns", "columns of the sources that the settings do not use", len(unused), unused)
        if not any(name in self.seen for name in (*columns.text, columns.vectors)):
            wanted = " or ".join(map(repr, columns.text)) or "none is named"
            message = f"records without a text column ({wanted}{self._likely_text()})"
            yield Note(NO_TEXT_COLUMN, message, self.records, (source,))

    def _hinted(self, name: str) -> str:
        like = next((seen for seen in self.seen if _bare(seen) == _bare(name)), "")
        return f"{name} (there is {like})" if like else name

    def _likely_text(self) -> str:
        free = [name for name in self.seen if name not in self._columns.title and name != (self._columns.id or "id")]
        likely = [name for like in (*self._columns.text, *_LIKE_TEXT) for name in free if _bare(name) == _bare(like)]
        if likely:
            return f"; to use {likely[0]!r}, add --column {shlex.quote(f'text={likely[0]}')}"
        return f"; columns: {', '.join(list(self.seen)[:10])}"


def _bare(name: str) -> str:
    """Return a name for comparison: without case, spaces and punctuation."""
    return "".join(character for character in name.casefold() if character.isalnum())
