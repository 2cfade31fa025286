"""A file of records that can be read more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from feeder.sources.records import Limits, Record, SourceSettings, document_of
from feeder.sources.report import Note, Report
from late_interaction.documents import Document

__all__ = ["FileSource", "Reader"]

# path, name for messages, limits -> place of each record (as `FILE:LINE` it is named, and it may be an id) and the record, or a
# note on something that was not read
Reader = Callable[[Path, str, Limits], Iterator[tuple[int | str, Record | Note]]]


@dataclass
class FileSource:
    """path: a file or folder. name: as messages and `@row` ids have it. report: what there is to tell of the latest reading."""

    path: Path
    name: str
    read: Reader
    settings: SourceSettings = field(default_factory=SourceSettings)
    report: Report = field(default_factory=Report, compare=False)

    def __iter__(self) -> Iterator[Document]:
        """Raises: CollectionError naming file and line."""
        settings = self.settings
        self.report = Report()
        for place, record in self.read(self.path, self.name, settings.limits):
            if isinstance(record, Note):
                self.report.add(record)
                continue
            where = f"{self.name}:{place}"
            yield document_of(record, where, settings.columns, f"{self.path.name}:{place}")
