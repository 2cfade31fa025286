"""Read files that may be compressed, no further than a limit."""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from feeder.sources.records import SourceLimits
from late_interaction.errors import CollectionError
from late_interaction.extras import required

__all__ = ["bare_name", "bare_suffix", "lines", "opened", "text_lines", "unpacked"]

PACKED = (".gz", ".zst")
ALWAYS = 64 << 20  # bytes that any file may have uncompressed


def bare_suffix(path: Path) -> str:
    """Return the suffix without that of the compression: `.jsonl` for `a.jsonl.gz`."""
    return _bare(path).suffix.lower()


def bare_name(path: Path) -> str:
    """Return the name without both suffixes: `a` for `a.txt.gz`."""
    return _bare(path).stem


def _bare(path: Path) -> Path:
    return Path(path.stem) if path.suffix.lower() in PACKED else path


class _Counted(io.RawIOBase):
    """Uncompressed bytes, no more than allowed."""

    def __init__(self, inner: BinaryIO, most: int, name: str) -> None:
        self._inner, self._left, self._name = inner, most, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._inner.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise CollectionError(
                f"{self._name} expands to far more than its size; it may be damaged or hostile (otherwise raise "
                f"limits.unpacked)"
            )
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def opened(path: Path, name: str, limits: SourceLimits) -> Iterator[BinaryIO]:
    """Open the uncompressed bytes.

    Raises:
        CollectionError: if the file cannot be read, or expands to too much.
        MissingDependency: if a decompressor is not installed.
    """
    with errors_named(name), contextlib.ExitStack() as files:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CollectionError(f"{name} is not a regular file; give a pipe as standard input, with - as the source")
        most = max(ALWAYS, status.st_size * limits.unpacked)
        file: BinaryIO = files.enter_context(path.open("rb"))
        suffix = path.suffix.lower()
        if suffix == ".gz":
            unpacked = cast("BinaryIO", files.enter_context(gzip.GzipFile(fileobj=file)))
        elif suffix == ".zst":
            unpacked = cast("BinaryIO", files.enter_context(_zstandard(path).stream_reader(file, read_across_frames=True)))
        else:
            yield file
            return
        yield cast("BinaryIO", io.BufferedReader(_Counted(unpacked, most, name), 1 << 16))


@contextlib.contextmanager
def unpacked(path: Path, name: str, limits: SourceLimits) -> Iterator[Path]:
    """Yield the file itself, or a temporary uncompressed copy, for readers that must seek."""
    if path.suffix.lower() not in PACKED:
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="colbert-vespa-", suffix=bare_suffix(path)) as copy:
        with opened(path, name, limits) as file:
            shutil.copyfileobj(file, copy)
        copy.flush()
        yield Path(copy.name)


@contextlib.contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Turn errors of reading into CollectionError with the name of the source."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise CollectionError(f"{name} cannot be read: {error}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "zstandard":
            raise CollectionError(f"{name} cannot be read: {error}") from None
        raise


def _zstandard(path: Path):  # type: ignore[no-untyped-def]
    with required("sources", str(path)):
        import zstandard
    return zstandard.ZstdDecompressor(max_window_size=1 << 27)


def lines(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines that are not blank."""
    return ((number, line) for number, line in _all_lines(path, name, limits) if line.strip())


def _all_lines(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, bytes]]:
    """Yield lines within the limit; a longer one is an error before it is read whole."""
    most = limits.line_mb << 20
    with opened(path, name, limits) as file:
        number = 0
        while line := file.readline(most + 1):
            number += 1
            if len(line) > most:
                raise CollectionError(
                    f"{name}:{number}: the line is longer than {limits.line_mb} MiB; raise limits.line_mb in feed.toml"
                )
            yield number, line


def text_lines(path: Path, name: str, limits: SourceLimits) -> Iterator[str]:
    """Yield lines as text, including blank ones, with their line breaks."""
    for number, line in _all_lines(path, name, limits):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CollectionError(f"{name}:{number}: not UTF-8 (byte {error.start}); convert the file") from None
