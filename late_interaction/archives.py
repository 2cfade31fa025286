"""Zip archives of uncompressed members (`.npz`, torch's files), of which nothing is believed: every name, size and place is
checked against the file before a member is read.
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
MEMBER_BYTES = 1 << 10  # of the table of contents, for each member
MAX_READ = 1 << 20  # bytes at a time
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


class _Blocks(io.BufferedReader):
    """What zipfile may read of a file, `most` bytes at once: a table of contents that claims gigabytes is never allocated."""

    most = MAX_READ

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise ValueError(f"{size} bytes in one piece")
        return super().read(MAX_READ if size is None or size < 0 else size)


class Archive:
    """`names`: of all members. Its methods raise ValueError, and what zipfile raises, where the file is damaged."""

    def __init__(self, path: Path, opened: zipfile.ZipFile, most: int = MAX_MEMBERS) -> None:
        self.path = path
        self._opened = opened
        self._members: dict[str, zipfile.ZipInfo] = {}
        members = opened.infolist()
        if len(members) > most:
            raise ValueError(f"it has more than {most} members")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
                raise ValueError(f"member {member.filename} is packed or encrypted")
            if member.filename in self._members:
                raise ValueError(f"member {member.filename} is there twice")
            self._members[member.filename] = member
        if min((member.header_offset for member in members), default=0) != 0:
            raise ValueError("its first member is not where the file begins")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members are larger than the file")

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def size(self, name: str) -> int:
        """Raises: KeyError."""
        return self._members[name].file_size

    def read(self, name: str, most: int) -> bytes:
        """The whole member, if it has no more than `most` bytes."""
        if self.size(name) > most:
            raise ValueError(f"member {name} has {self.size(name)} bytes, {most} are allowed")
        return b"".join(self._blocks(name))

    def place(self, name: str) -> int:
        """Where the bytes of a member begin in the file; its checksum is compared first."""
        for _ in self._blocks(name):
            pass
        return self.start(name)

    def start(self, name: str) -> int:
        """As `place`, with nothing read but the header before it."""
        offset = self._members[name].header_offset
        with self.path.open("rb") as file:
            file.seek(offset)
            _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + self.size(name) > self.path.stat().st_size:
            raise ValueError(f"member {name} is cut off")
        return offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)

    def _blocks(self, name: str) -> Iterator[bytes]:
        """The last one raises BadZipFile where the checksum differs."""
        left = self.size(name)
        with self._opened.open(name) as member:
            while block := member.read(MAX_READ):
                left -= len(block)
                yield block
        if left:
            raise ValueError(f"member {name} is cut off")


@contextmanager
def opened_archive(path: Path, most: int = MAX_MEMBERS) -> Iterator[Archive]:
    """most: members that it may have.

    Raises: OSError where the file cannot be read; ValueError saying what is wrong with it, also while it is used.
    """
    with _Blocks(open_regular(path).detach()) as blocks:
        blocks.most = max(MAX_READ, most * MEMBER_BYTES)
        try:
            with zipfile.ZipFile(blocks) as opened:
                yield Archive(path, opened, most)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, struct.error, zlib.error) as error:
            raise ValueError(f"no whole zip archive ({error})") from None
