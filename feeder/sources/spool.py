"""What can be read only once, copied to a temporary file: the whole of a source is checked before anything is sent."""

from __future__ import annotations

import atexit
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from feeder.sources.jsonl import read_json, read_json_lines
from feeder.sources.records import SourceSettings
from feeder.sources.source import FileSource, Reader
from late_interaction.documents import Document
from late_interaction.errors import CollectionError

__all__ = ["Spool", "spooled", "standard_input"]


class Spool:
    """Documents on their way into a temporary file, from where they can be read more than once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by `source`
            "w", prefix="colbert-vespa-", suffix=".jsonl", delete=False, encoding="utf-8"
        )
        atexit.register(Path(self._file.name).unlink, missing_ok=True)

    def add(self, item: Document) -> None:
        """Raises: CollectionError where a value cannot be written as JSON."""
        try:
            self._file.write(json.dumps(item.to_json()) + "\n")
        except (TypeError, ValueError) as error:
            raise CollectionError(f"document {item.id!r} has a value that is no text, number or list ({error})") from None

    def source(self) -> FileSource:
        self._file.close()
        return FileSource(Path(self._file.name), self._name, read_json_lines)


def spooled(documents: Iterable[Document]) -> Iterable[Document]:
    """`documents`, or a temporary file of them where they can be read only once."""
    if not isinstance(documents, Iterator):
        return documents
    spool = Spool("documents")
    for item in documents:
        spool.add(item)
    return spool.source()


def standard_input(settings: SourceSettings, read: Reader = read_json) -> FileSource:
    with tempfile.NamedTemporaryFile(prefix="colbert-vespa-stdin-", delete=False) as file:
        atexit.register(Path(file.name).unlink, missing_ok=True)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return FileSource(Path(file.name), "standard input", read, settings)
