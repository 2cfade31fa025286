"""A dead-letter file as a source: the documents that a feed could not bring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from feeder.sources.jsonl import read_json_lines
from feeder.sources.records import Limits
from late_interaction.documents import Document
from late_interaction.errors import CollectionError

__all__ = ["DeadLetterSource"]


class DeadLetterSource:
    """`operation`: what was asked for when they were refused."""

    def __init__(self, path: Path) -> None:
        """Raises: CollectionError where the file is none of dead letters."""
        if not path.is_file():
            raise CollectionError(f"no file {path}: name the dead-letter file that a feed has told")
        self.path = path
        self.name = str(path)
        first = next(read_json_lines(path, self.name, Limits()), None)
        self.operation = "put" if first is None else str(first[1].get("operation"))

    def __iter__(self) -> Iterator[Document]:
        for number, letter in read_json_lines(self.path, self.name, Limits(line_mb=128)):
            item = letter.get("document")
            if not isinstance(item, dict) or letter.get("operation") != self.operation:
                raise CollectionError(f"{self.name}:{number}: no dead letter of a feed that did {self.operation!r}")
            try:
                yield Document(item["id"], item["title"], item["text"], item["metadata"])
            except KeyError as error:
                raise CollectionError(f"{self.name}:{number}: the document has no {error}") from None
