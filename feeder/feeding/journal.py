"""What a target has acknowledged, on disk, so that an interrupted feed can continue.

The first line of the journal names target, bundle and operation; a journal of another feed is never mixed in. Every other
line is a JSON list of ids and digests that were acknowledged together, synced before the next begins. So whatever a power
failure leaves of the last line, truncated or zeroed, is cut off, and an earlier line that cannot be read is damage. Memory
use is 24 bytes for each document of an earlier run (64 while it is read).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from feeder.feeding.id_table import DigestTable, DigestTableBuilder
from feeder.own_files import AppendedFile, check_own_file, first_line
from late_interaction.errors import CollectionError

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "feed journal"

MOST_IN_LINE = 1024
_LINE = msgspec.json.Decoder(list[tuple[str, str]])


class Journal:
    """The journal of a feed, append-only."""

    def __init__(self, path: Path, feed: str, *, resume: bool, read_only: bool = False, built: str = "") -> None:
        """Read the journal of earlier runs.

        Args:
            path: the file.
            feed: what it belongs to.
            built: identity of the target that is there now; acknowledgements of another one are ignored.
            resume: use what earlier runs noted.
            read_only: nothing will be acknowledged.

        Raises:
            CollectionError: if `path` cannot be written or belongs to another feed.
        """
        self.path = path
        header = first_line(JOURNAL, feed=feed, built=built)
        self._feed = first_line(JOURNAL, feed=feed)[:-2] + b","  # start of this feed's header, for any target
        check_own_file(path, JOURNAL)
        self._before, whole = self._read(header) if resume and path.exists() else (DigestTableBuilder().table(), 0)
        self._file = AppendedFile(path, "journal", JOURNAL)
        if read_only:
            return
        self._file.open(whole)
        if not whole:
            try:
                self._file.append(header)
            except CollectionError:
                self._file.close()
                raise

    def _read(self, header: bytes) -> tuple[DigestTable, int]:
        """Read what earlier runs fed; return the length of the complete part."""
        found = DigestTableBuilder()
        whole = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(file.readline, b""), start=1):
                    noted = [] if line == header else _noted(line)
                    if noted is None and not file.peek(1):
                        break  # torn
                    if number == 1 and line != header and line.startswith(self._feed):
                        break
                    if number == 1 and line != header:
                        raise CollectionError(
                            f"journal {self.path} belongs to another feed; remove it, or feed without --resume"
                        )
                    if noted is None:
                        raise CollectionError(f"journal {self.path}:{number} is damaged; feed without --resume")
                    for id_, digest in noted:
                        found.add(id_, digest)
                    whole += len(line)
        except OSError as error:
            raise CollectionError(f"journal {self.path} cannot be read ({error.strerror})") from None
        return found.table(), whole

    def has(self, document_id: str, digest: str) -> bool:
        """Tell whether an earlier run fed the document with that digest."""
        return self._before.has(document_id, digest)

    @property
    def brought(self) -> int:
        """Return how many documents earlier runs fed."""
        return len(self._before)

    def acknowledge(self, documents: Sequence[tuple[str, str]]) -> None:
        """Note ids and digests; they are durable on return.

        Raises:
            CollectionError: if the disk is full, read-only or gone.
        """
        for first in range(0, len(documents), MOST_IN_LINE):
            self._file.append(json.dumps(documents[first : first + MOST_IN_LINE]).encode() + b"\n")

    def close(self, *, remove: bool) -> None:
        """Close the file. remove: delete it, because the feed is complete."""
        if remove and self._file.opened:
            self._file.remove()
        self._file.close()


def _noted(line: bytes) -> list[tuple[str, str]] | None:
    """Return ids and digests; None if it is not a complete line of them."""
    try:
        return _LINE.decode(line) if line.endswith(b"\n") else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
