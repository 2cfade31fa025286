"""A file of records that can be read more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from feeder.sources.column_use import ColumnUse
from feeder.sources.records import SourceLimits, SourceRecord, SourceSettings, document_of
from feeder.sources.report import Note, SourceReport
from late_interaction.documents import Document
from late_interaction.errors import CollectionError

__all__ = ["BadRecord", "FileSource", "Item", "Reader", "check_columns"]


class BadRecord(CollectionError):
    """One record of a file cannot be read; those after it can."""


RECORDS = "records skipped"
SKIP = " (use --skip-bad to feed the rest of the folder)"
# what a reader yields: a record, a note on something that was not read, or the error of a part that it skips
Item: TypeAlias = SourceRecord | Note | CollectionError
# path, name for messages, limits -> place of each item (named as `FILE:LINE`, and possibly its id) and the item
Reader = Callable[[Path, str, SourceLimits], Iterator[tuple[int | str, Item]]]


@dataclass
class FileSource:
    """A file or folder of documents.

    Attributes:
        path: the file or folder.
        name: its name in messages.
        read: its reader.
        settings: its settings.
        key: prefix of `@row` ids; by default the path's own name.
        report: notes of the latest reading.
        use: the columns of the latest reading; None before it.
    """

    path: Path
    name: str
    read: Reader
    settings: SourceSettings = field(default_factory=SourceSettings)
    key: str = ""
    report: SourceReport = field(default_factory=SourceReport, compare=False)
    use: ColumnUse | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            CollectionError: if a record cannot be read (unless the settings skip it); the message names file and line.
        """
        self.report = SourceReport()
        self.use = use = ColumnUse(self.settings.columns, self.settings.required)
        yield from self._documents(use)
        for note in use.notes(self.name):
            self.report.add(note)

    def _documents(self, use: ColumnUse) -> Iterator[Document]:
        folder = self.path.is_dir()
        for place, item in self._items():
            if isinstance(item, Note):
                self.report.add(item)
            elif isinstance(item, CollectionError):
                self._skip(item, RECORDS if isinstance(item, BadRecord) else "files skipped from where they cannot be read")
            else:
                use.add(item)
                where = f"{self.name}{'/' if folder else ':'}{place}"
                try:
                    yield document_of(item, where, self.settings.columns, f"{self.key or self.path.name}:{place}")
                except CollectionError as error:
                    self._skip(error, RECORDS)

    def _items(self) -> Iterator[tuple[int | str, Item]]:
        try:
            yield from self.read(self.path, self.name, self.settings.limits)
        except CollectionError as error:
            yield "", error

    def _skip(self, error: CollectionError, what: str) -> None:
        if not self.settings.skip_bad:
            raise CollectionError(f"{error}{SKIP if self.path.is_dir() else ''}") from None
        self.report.add(Note("skipped", what, 1, (str(error),)))


def check_columns(sources: Iterable[object]) -> None:
    """Check the latest reading of the file sources among `sources`.

    Raises:
        CollectionError: if no record had a required column; the message names the columns that there are.
    """
    uses = [source.use for source in sources if isinstance(source, FileSource) and source.use and source.use.records]
    if uses and (missing := set.intersection(*(use.missing for use in uses))):
        seen = dict.fromkeys(name for use in uses for name in use.seen)
        raise CollectionError(
            f"no record that was read has a column {sorted(missing)[0]!r}; columns: {', '.join(map(str, seen))[:400] or 'none'}"
        )
