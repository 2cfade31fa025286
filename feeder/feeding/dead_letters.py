"""The documents that a target refused, on disk: JSON lines, each with the reason and the whole document, to be fed again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from feeder.outcomes import Failure
from feeder.own_files import FORMAT_VERSION, AppendedFile, check_own_file, first_line
from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import SourceLimits
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, MetadataError, UsageError

__all__ = ["DeadLetterSource", "DeadLetters", "read_letters"]

LETTERS = "dead letters"


class DeadLetters:
    """Writes dead letters.

    The first letter starts the file. A file from an earlier run is removed then, or at the end of this run.
    """

    def __init__(self, path: Path, operation: str) -> None:
        """Check the file.

        Raises:
            UsageError: if a file exists there that contains something else.
        """
        check_own_file(path, LETTERS)
        self.path = path
        self._operation = operation
        self._file = AppendedFile(path, "dead-letter file", LETTERS)
        self._written = False

    @property
    def written(self) -> bool:
        """Tell whether this run has written a letter, also after `close`."""
        return self._written

    def add(self, letters: Iterable[tuple[Failure, Document]]) -> None:
        """Append letters; they are durable on return.

        Raises:
            CollectionError: if the disk is full, read-only or gone.
        """
        lines = []
        for failure, document in letters:
            record = {
                "id": failure.document_id, "status": failure.status, "message": failure.message, "operation": self._operation,
                "document": document.to_json(),
            }  # fmt: skip
            lines.append(json.dumps(record).encode() + b"\n")
        if lines and not self._file.opened:
            self._file.open(0)
            self._file.append(first_line(LETTERS))
        if lines:
            self._file.append(b"".join(lines))
            self._written = True

    def close(self, *, complete: bool) -> None:
        """Close the file. complete: everything that an earlier run could not feed has been fed."""
        if complete and not self._written:
            self._file.remove()
        self._file.close()


def read_letters(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the letters of a complete file of ours."""
    with path.open("rb") as file:
        yield from map(json.loads, list(file)[1:])


class DeadLetterSource:
    """Dead letters as a source.

    Attributes:
        operation: the operation that was refused.
    """

    def __init__(self, path: Path) -> None:
        """Read the first line.

        Raises:
            CollectionError: if the file does not contain dead letters.
        """
        if not path.is_file():
            raise CollectionError(f"file {path} does not exist; give the dead-letter file that a feed reported")
        self.path = path
        self.name = str(path)
        first = next(iter(self._letters()), None)
        self.operation = "put" if first is None else first[1]

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents.

        Raises:
            CollectionError: if a line is not a dead letter of the same operation.
        """
        for where, operation, document in self._letters():
            if operation != self.operation:
                raise CollectionError(f"{where}: operation {operation!r} differs from the file's first, {self.operation!r}")
            yield document

    def _letters(self) -> Iterator[tuple[str, str, Document]]:
        lines = read_json_lines(self.path, self.name, SourceLimits(line_mb=128))
        head = next(lines, (0, {}))[1]
        if head.get("colbert-vespa") != LETTERS or head.get("format_version") != FORMAT_VERSION:
            raise CollectionError(f"{self.name}: not dead letters that this release reads; feed ordinary files without --retry")
        for number, letter in lines:
            where = f"{self.name}:{number}"
            operation, item = letter.get("operation"), letter.get("document")
            if (
                operation not in ("put", "update", "delete")
                or not isinstance(item, dict)
                or item.keys() - {"dense", "vectors"} != {"id", "title", "text", "metadata"}
            ):
                raise CollectionError(f"{where}: not a dead letter; feed ordinary files without --retry")
            try:
                yield where, str(operation), Document.of_source(item)
            except (UsageError, MetadataError) as error:
                raise CollectionError(f"{where}: {error}") from None
