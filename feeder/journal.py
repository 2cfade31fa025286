"""What a target has acknowledged, on disk, so that an interrupted feed goes on where it stopped; and what it refused.

The first line of the journal names target, bundle and operation; a journal of another feed is never mixed in. Every other line
is a JSON list of ids and digests that were acknowledged together, synced before the next is begun: so whatever a power failure
leaves of the last line, be it cut off or blocks of zeros, is cut off, and a line before it that cannot be read is damage.
Memory: 24 bytes for each document that an earlier run brought (64 while it is read).

Dead letters are JSON lines too, each with the reason and the whole document, so that the file can be fed again.

The first line of both names what the file is and its format version. A file without it is somebody else's: it is neither
written nor removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from feeder.id_table import DigestTable, DigestTableBuilder
from feeder.targets import Failure
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.files import check_writable, fsync_folder, make_folders, remove_file

__all__ = ["AppendedFile", "DeadLetters", "Journal", "check_appendable", "check_own_file", "read_letters"]

FORMAT_VERSION = 1
JOURNAL, LETTERS = "feed journal", "dead letters"

MOST_IN_LINE = 1024


def first_line(kind: str, **more: object) -> bytes:
    """Of a file of that kind."""
    return json.dumps({"colbert-vespa": kind, "format_version": FORMAT_VERSION, **more}).encode() + b"\n"


def check_own_file(path: Path, kind: str) -> None:
    """Whether there is nothing at `path`, an empty file, or one of that kind.

    Raises: UsageError where there is something else.
    """
    try:
        known = path.is_file() if path.exists() else None
        if known:
            with path.open("rb") as file:
                known = _is_of(file.read(100), kind)
        if known is False:
            raise UsageError(f"{path} is not a file of {kind}, so it is not written over: name another file")
    except OSError as error:
        raise CollectionError(f"file of {kind} {path} cannot be read ({error.strerror}): name another file") from None


def check_appendable(*paths: Path) -> None:
    """Whether files could be begun there. Raises: CollectionError."""
    for path in paths:
        try:
            check_writable(path.parent)
        except OSError as error:
            raise CollectionError(f"{path} cannot be written ({error.strerror}): name another file") from None


def _is_of(start: bytes, kind: str) -> bool:
    """Whether a file that begins with `start` is of that kind, or as empty as a power failure leaves a first line."""
    mark = json.dumps({"colbert-vespa": kind}).encode()[:-1]
    return start.startswith(mark + b",") or mark.startswith(start.rstrip(b"\0"))


class AppendedFile:
    """Lines that are durable when `append` returns; a disk that refuses leaves the file as it was."""

    def __init__(self, path: Path, what: str, kind: str) -> None:
        """kind: as its first line has it. what: in messages."""
        self._path, self._what, self._kind = path, what, kind
        self._descriptor: int | None = None
        self._end = 0

    def open(self, keep: int) -> None:
        """keep: bytes of the file that stay.

        Raises: CollectionError where it cannot be written, or another feed has it; UsageError where it is of something else.
        """
        check_own_file(self._path, self._kind)
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

    def remove(self) -> None:
        """Where it is there and ours; a disk that refuses is no error."""
        with contextlib.suppress(OSError, UsageError, CollectionError):
            check_own_file(self._path, self._kind)
            remove_file(self._path)

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

    def __init__(self, path: Path, feed: str, *, resume: bool, read_only: bool = False, built: str = "") -> None:
        """feed: what it belongs to. built: which target it is that stands there now; what another one has acknowledged does not
        count. read_only: nothing will be acknowledged.

        Raises: CollectionError where `path` cannot be written or belongs to another feed.
        """
        self.path = path
        header = first_line(JOURNAL, feed=feed, built=built)
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
                    if number == 1 and line != header and _same_but_built(line, header):
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


def _same_but_built(line: bytes, header: bytes) -> bool:
    """Whether `line` is the header of the same feed into what was at the target's place before."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found | {"built": ""} == json.loads(header) | {"built": ""}


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
        check_own_file(path, LETTERS)
        self.path = path
        self._operation = operation
        self._file = AppendedFile(path, "dead-letter file", LETTERS)
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
            self._file.append(first_line(LETTERS))
        if lines:
            self._file.append(b"".join(lines))
            self._written = True

    def close(self, *, complete: bool) -> None:
        """complete: whatever an earlier run of this feed could not bring has been brought."""
        if complete and not self._written:
            self._file.remove()
        self._file.close()


def read_letters(path: Path) -> Iterator[dict[str, Any]]:
    """The letters of a whole file of our own."""
    with path.open("rb") as file:
        yield from map(json.loads, list(file)[1:])
