"""Read zip archives of uncompressed members (`.npz`, torch's files) without trusting their headers.

Every name, size and offset is checked against the file before a member is read.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from late_interaction.reading import open_regular

__all__ = ["Archive", "opened_archive"]

MAX_MEMBERS = 1 << 10
MEMBER_BYTES = 1 << 10  # per member, in the table of contents
MAX_READ = 1 << 20  # bytes read at a time
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


class _Blocks(io.BufferedReader):
    """Limit zipfile to reading `most` bytes at once, so that a false table of contents never allocates gigabytes."""

    most = MAX_READ

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise ValueError(f"{size} bytes in one read")
        return super().read(MAX_READ if size is None or size < 0 else size)


class Archive:
    """A checked zip archive.

    Its methods raise ValueError, or zipfile's own errors, if the file is damaged.
    """

    def __init__(self, path: Path, opened: zipfile.ZipFile, most: int = MAX_MEMBERS) -> None:
        self.path = path
        self._opened = opened
        self._members: dict[str, zipfile.ZipInfo] = {}
        members = opened.infolist()
        if len(members) > most:
            raise ValueError(f"it has more than {most} members")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
                raise ValueError(f"member {member.filename} is compressed or encrypted")
            if member.filename in self._members:
                raise ValueError(f"member {member.filename} occurs twice")
            self._members[member.filename] = member
        if min((member.header_offset for member in members), default=0) != 0:
            raise ValueError("its first member does not start at the beginning of the file")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members exceed the size of the file")

    @property
    def names(self) -> list[str]:
        """Return the names of all members."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Return the size of a member in bytes.

        Raises:
            KeyError: if the archive has no such member.
        """
        return self._members[name].file_size

    def read(self, name: str, most: int) -> bytes:
        """Return a whole member, if it has no more than `most` bytes."""
        if self.size(name) > most:
            raise ValueError(f"member {name} has {self.size(name)} bytes; the limit is {most}")
        return b"".join(self._blocks(name))

    def place(self, name: str) -> int:
        """Return the offset of a member's bytes in the file, after comparing its checksum."""
        for _ in self._blocks(name):
            pass
        return self.start(name)

    def start(self, name: str) -> int:
        """Return the offset like `place`, but read only the member's header and skip the checksum."""
        offset = self._members[name].header_offset
        with self.path.open("rb") as file:
            file.seek(offset)
            _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + self.size(name) > self.path.stat().st_size:
            raise ValueError(f"member {name} is truncated")
        return offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)

    def _blocks(self, name: str) -> Iterator[bytes]:
        """Yield a member's bytes in blocks; after the last, BadZipFile is raised if the checksum differs."""
        left = self.size(name)
        with self._opened.open(name) as member:
            while block := member.read(MAX_READ):
                left -= len(block)
                yield block
        if left:
            raise ValueError(f"member {name} is truncated")


@contextmanager
def opened_archive(path: Path, most: int = MAX_MEMBERS) -> Iterator[Archive]:
    """Open a zip archive and check its table of contents.

    Args:
        path: the file.
        most: how many members it may have.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged; also raised while the archive is used.
    """
    with _Blocks(open_regular(path).detach()) as blocks:
        blocks.most = max(MAX_READ, most * MEMBER_BYTES)
        try:
            with zipfile.ZipFile(blocks) as opened:
                yield Archive(path, opened, most)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, struct.error, zlib.error) as error:
            raise ValueError(f"it is not a complete zip archive ({error})") from None
