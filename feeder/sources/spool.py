"""Copy what can be read only once to a temporary file: all of a source is checked before anything is sent."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from feeder.sources.jsonl import read_json, read_json_lines
from feeder.sources.records import SourceLimits, SourceSettings
from feeder.sources.source import FileSource, Reader
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError

__all__ = ["Spool", "SpooledDocuments", "checked_document", "spooled", "standard_input"]

_Source = TypeVar("_Source", "SpooledDocuments", FileSource)
LINE_MB = 1 << 12  # largest line; it was a Python object before


@dataclass(frozen=True)
class SpooledDocuments:
    """Documents in a temporary file."""

    path: Path
    name: str

    def __iter__(self) -> Iterator[Document]:
        for _, record in read_json_lines(self.path, self.name, SourceLimits(line_mb=LINE_MB)):
            yield Document.of_source(record)


class Spool:
    """Writes documents to a temporary file from which they can be read again.

    Use it in `with`; `source` is complete after that.
    """

    def __init__(self, name: str) -> None:
        self.source = _owned(SpooledDocuments(_temporary(), name))
        self._file = self.source.path.open("w", encoding="utf-8")
        self._count = 0

    def add(self, item: object) -> None:
        """Add a document.

        Raises:
            CollectionError: if `item` is not a document.
        """
        self._file.write(json.dumps(checked_document(item, self._count).to_json()) + "\n")
        self._count += 1

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


def checked_document(item: object, place: int) -> Document:
    """Return `item` if it is a document.

    Raises:
        CollectionError: if it is not.
    """
    if not isinstance(item, Document):
        raise CollectionError(f"document {place} must be a Document(id, title, text, metadata), got {type(item).__name__}")
    return item


def spooled(documents: Iterable[Document]) -> Iterable[Document]:
    """Return `documents`, or a temporary file of them if they can be read only once.

    Raises:
        UsageError: if they are not iterable.
    """
    if not isinstance(documents, Iterable):
        raise UsageError(f"a feed needs an iterable of documents, got {type(documents).__name__}")
    if not isinstance(documents, Iterator):
        return documents
    with Spool("documents") as spool:
        for item in documents:
            spool.add(item)
    return spool.source


def standard_input(settings: SourceSettings, read: Reader = read_json) -> FileSource:
    """Copy standard input to a temporary file, and open that as a source."""
    if sys.stdin is None:  # this happens in a process that started with it closed
        raise CollectionError("standard input is closed; give files or folders, or pipe documents in")
    path = _temporary()
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return _owned(FileSource(path, "standard input", read, settings, "stdin"))


def _temporary() -> Path:
    with tempfile.NamedTemporaryFile(prefix="colbert-vespa-", delete=False) as file:
        return Path(file.name)


def _owned(source: _Source) -> _Source:
    """Return `source`, whose file is removed with it, or at the end of the process."""
    weakref.finalize(source, source.path.unlink, missing_ok=True)
    return source
