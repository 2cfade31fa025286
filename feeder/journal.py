"""What a target has acknowledged, on disk, so that an interrupted feed goes on where it stopped; and what it refused.

The first line of the journal names target, bundle and operation; a journal of another feed is never mixed in. Every other line
is a JSON list of ids and digests that were acknowledged together, synced before the next is begun: so whatever a power failure
leaves of the last line, be it cut off or blocks of zeros, is cut off, and a line before it that cannot be read is damage.
Memory: 24 bytes for each document that an earlier run brought (64 while it is read).

Dead letters are JSON lines too, each with the reason and the whole document, so that the file can be fed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from feeder.id_table import DigestTable, DigestTableBuilder
from feeder.targets import Failure
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import fsync_folder, make_folders

__all__ = ["AppendedFile", "DeadLetters", "Journal"]

MOST_IN_LINE = 1024
_LETTER = b'{"id": '  # how each line of dead letters begins


class AppendedFile:
    """Lines that are durable when `append` returns; a disk that refuses leaves the file as it was."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._descriptor: int | None = None
        self._end = 0

    def open(self, keep: int) -> None:
        """keep: bytes of the file that stay. Raises: CollectionError where it cannot be written, or another feed has it."""
        try:
            make_folders(self._path.parent)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, keep)
            os.fsync(self._descriptor)
            fsync_folder(self._path.parent)
        except BlockingIOError:
            self.close()
            raise CollectionError(f"{self._what} {self._path} is in use by another run: wait for it, or stop it") from None
        except OSError as error:
            self.close()
            raise self._error(error) from None
        self._end = keep

    def append(self, data: bytes) -> None:
        """Raises: CollectionError where the disk is full, read-only or gone."""
        assert self._descriptor is not None
        left, place = memoryview(data), self._end
        try:
            while left:
                count = os.pwrite(self._descriptor, left, place)
                left, place = left[count:], place + count
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise self._error(error) from None
        self._end = place

    @property
    def opened(self) -> bool:
        return self._descriptor is not None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _error(self, error: OSError) -> CollectionError:
        return CollectionError(
            f"{self._what} {self._path} cannot be written ({error.strerror}): see to the disk, then --resume"
        )


class Journal:
    """Append-only."""

    def __init__(self, path: Path, feed: str, *, resume: bool, read_only: bool = False) -> None:
        """feed: what it belongs to. read_only: nothing will be acknowledged.

        Raises: CollectionError where `path` cannot be written or belongs to another feed.
        """
        self.path = path
        header = json.dumps({"colbert-vespa": "feed journal", "feed": feed}).encode() + b"\n"
        self._before, whole = self._read(header) if resume and path.exists() else (DigestTableBuilder().table(), 0)
        self._file = AppendedFile(path, "journal")
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
            self.path.unlink(missing_ok=True)
        self._file.close()


def _noted(line: bytes) -> list[tuple[str, str]] | None:
    """Ids and digests; None where it is no whole line of them."""
    try:
        found = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(pair, list) and [*map(type, pair)] == [str, str] for pair in found):
        return None
    return [(id_, digest) for id_, digest in found]


class DeadLetters:
    """The file is begun by the first letter; one that an earlier run has left is removed then, or at the end of this run."""

    def __init__(self, path: Path, operation: str) -> None:
        """Raises: UsageError where there is a file that holds something else."""
        if path.exists() and not _is_of_letters(path):
            raise UsageError(f"{path} is there and holds no dead letters: name another file for them (--dead-letters)")
        self.path = path
        self._operation = operation
        self._file = AppendedFile(path, "dead-letter file")
        self._written = False

    @property
    def written(self) -> bool:
        """Whether there is a letter of this run, after `close` too."""
        return self._written

    def add(self, letters: Iterable[tuple[Failure, Document]]) -> None:
        """Durable when this returns. Raises: CollectionError where the disk is full, read-only or gone."""
        lines = []
        for failure, document in letters:
            record = {
                "id": failure.document_id, "status": failure.status, "message": failure.message, "operation": self._operation,
                "document": document.to_json(),
            }  # fmt: skip
            lines.append(json.dumps(record).encode() + b"\n")
        if lines and not self._file.opened:
            self._file.open(0)
        if lines:
            self._file.append(b"".join(lines))
            self._written = True

    def close(self, *, complete: bool) -> None:
        """complete: whatever an earlier run of this feed could not bring has been brought."""
        if complete and not self._written:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._file.close()


def _is_of_letters(path: Path) -> bool:
    """Whether a file is empty or begins as one of dead letters does, whole or torn."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LETTER))
    except OSError:
        return False
    return start == _LETTER[: len(start)]
