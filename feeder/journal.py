"""What a target has acknowledged, on disk, so that an interrupted feed goes on where it stopped.

One JSON line per acknowledged document: its id and the checksum of its content. The first line names the target and the
bundle; a journal of another target or bundle is never mixed in. A torn last line is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from late_interaction.documents import Document
from late_interaction.errors import CollectionError

__all__ = ["Journal", "content_hash"]


def content_hash(document: Document) -> str:
    """16 hex digits over everything that is fed of a document."""
    content = json.dumps([document.id, document.title, document.text, dict(document.metadata)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Journal:
    """Append-only. `acknowledged` maps document id to content hash, as of opening."""

    def __init__(self, path: Path, target: str, *, resume: bool) -> None:
        """Raises: CollectionError where `path` cannot be written or belongs to another feed."""
        self.path = path
        self.acknowledged: dict[str, str] = {}
        header = json.dumps({"colbert-vespa": "feed journal", "target": target})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(header) if resume and path.exists() else 0
            self._file = path.open("r+b" if whole else "wb")
            self._file.truncate(whole)
            self._file.seek(whole)
            if not whole:
                self._file.write(header.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise CollectionError(f"journal {path} cannot be written: {error.strerror}") from None

    def _read(self, header: str) -> int:
        """Fills `acknowledged`; returns the length of the part that is whole."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        lines = data[:whole].splitlines()
        if lines and lines[0].decode(errors="replace") != header:
            raise CollectionError(f"journal {self.path} is of another feed: remove it, or feed without --resume")
        for number, line in enumerate(lines[1:], start=2):
            try:
                id_, digest = json.loads(line)
            except ValueError:
                raise CollectionError(f"journal {self.path}:{number} is damaged: feed without --resume") from None
            self.acknowledged[id_] = digest
        return whole

    def acknowledge(self, documents: Iterable[Document]) -> None:
        """Durable when this returns. Raises: CollectionError where the disk is full or gone."""
        try:
            for document in documents:
                self._file.write(json.dumps([document.id, content_hash(document)]).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CollectionError(f"journal {self.path} cannot be written: {error.strerror}") from None

    def close(self, *, remove: bool) -> None:
        """`remove`: the feed is complete, there is nothing to resume."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)
