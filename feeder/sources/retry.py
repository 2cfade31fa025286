"""A dead-letter file as a source: the documents that a feed could not bring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feeder.journal import FORMAT_VERSION, LETTERS
from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import Limits
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, MetadataError, UsageError

__all__ = ["DeadLetterSource"]

OPERATIONS = ("put", "update", "delete")


class DeadLetterSource:
    """`operation`: what was asked for when they were refused."""

    def __init__(self, path: Path) -> None:
        """Raises: CollectionError where the file is not one of dead letters."""
        if not path.is_file():
            raise CollectionError(f"no file {path}: name the dead-letter file that a feed reported")
        self.path = path
        self.name = str(path)
        first = next(iter(self._letters()), None)
        self.operation = "put" if first is None else first[1]

    def __iter__(self) -> Iterator[Document]:
        """Raises: CollectionError where a line is not a dead letter of the same operation."""
        for where, operation, document in self._letters():
            if operation != self.operation:
                raise CollectionError(f"{where}: operation {operation!r}, but the file begins with {self.operation!r}")
            yield document

    def _letters(self) -> Iterator[tuple[str, str, Document]]:
        lines = read_json_lines(self.path, self.name, Limits(line_mb=128))
        head = next(lines, (0, {}))[1]
        if head.get("colbert-vespa") != LETTERS or head.get("format_version") != FORMAT_VERSION:
            raise CollectionError(f"{self.name}: not dead letters that this release reads: feed ordinary files without --retry")
        for number, letter in lines:
            where = f"{self.name}:{number}"
            operation, item = letter.get("operation"), letter.get("document")
            if operation not in OPERATIONS or not isinstance(item, dict) or item.keys() != {"id", "title", "text", "metadata"}:
                raise CollectionError(f"{where}: not a dead letter: feed ordinary files without --retry")
            try:
                yield where, str(operation), Document(**item)
            except (UsageError, MetadataError) as error:
                raise CollectionError(f"{where}: {error}") from None
