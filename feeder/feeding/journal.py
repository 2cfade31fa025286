"""What a target has acknowledged, on disk, so that an interrupted feed goes on where it stopped.

The first line of the journal names target, bundle and operation; a journal of another feed is never mixed in. Every other line
is a JSON list of ids and digests that were acknowledged together, synced before the next is begun: so whatever a power failure
leaves of the last line, be it cut off or blocks of zeros, is cut off, and a line before it that cannot be read is damage.
Memory: 24 bytes for each document that an earlier run brought (64 while it is read).
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
    """Append-only."""

    def __init__(self, path: Path, feed: str, *, resume: bool, read_only: bool = False, built: str = "") -> None:
        """feed: what it belongs to. built: which target it is that stands there now; what another one has acknowledged does not
        count. read_only: nothing will be acknowledged.

        Raises: CollectionError where `path` cannot be written or belongs to another feed.
        """
        self.path = path
        header = first_line(JOURNAL, feed=feed, built=built)
        self._feed = first_line(JOURNAL, feed=feed)[:-2] + b","  # how the header of this feed begins, into whatever target
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
        """What earlier runs brought, and the length of the part that is whole."""
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
                        raise CollectionError(f"journal {self.path} is of another feed: remove it, or feed without --resume")
                    if noted is None:
                        raise CollectionError(f"journal {self.path}:{number} is damaged: feed without --resume")
                    for id_, digest in noted:
                        found.add(id_, digest)
                    whole += len(line)
        except OSError as error:
            raise CollectionError(f"journal {self.path} cannot be read ({error.strerror})") from None
        return found.table(), whole

    def has(self, document_id: str, digest: str) -> bool:
        """Whether an earlier run brought the document with that digest."""
        return self._before.has(document_id, digest)

    @property
    def brought(self) -> int:
        """How many documents earlier runs brought."""
        return len(self._before)

    def acknowledge(self, documents: Sequence[tuple[str, str]]) -> None:
        """Ids and digests; durable when this returns. Raises: CollectionError where the disk is full, read-only or gone."""
        for first in range(0, len(documents), MOST_IN_LINE):
            self._file.append(json.dumps(documents[first : first + MOST_IN_LINE]).encode() + b"\n")

    def close(self, *, remove: bool) -> None:
        """`remove`: the feed is complete, there is nothing to resume."""
        if remove and self._file.opened:
            self._file.remove()
        self._file.close()


def _noted(line: bytes) -> list[tuple[str, str]] | None:
    """Ids and digests; None where it is no whole line of them."""
    try:
        return _LINE.decode(line) if line.endswith(b"\n") else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
