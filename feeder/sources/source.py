"""A file of records that can be read more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from feeder.sources.records import Limits, Record, SourceSettings, document_of
from late_interaction.documents import Document

__all__ = ["FileSource", "Reader"]

# path, name for messages, limits -> place of each record (as `FILE:LINE` it is named, and it may be an id) and the record
Reader = Callable[[Path, str, Limits], Iterator[tuple[int | str, Record]]]


@dataclass(frozen=True)
class FileSource:
    """path: a file or folder. name: as messages and `@row` ids have it."""

    path: Path
    name: str
    read: Reader
    settings: SourceSettings = field(default_factory=SourceSettings)

    def __iter__(self) -> Iterator[Document]:
        """Raises: CollectionError naming file and line."""
        settings = self.settings
        for place, record in self.read(self.path, self.name, settings.limits):
            where = f"{self.name}:{place}"
            yield document_of(record, where, settings.columns, f"{self.path.name}:{place}")
