"""Lists of ids, for deletions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from feeder.sources.jsonl import array_of, checked_object, json_object
from feeder.sources.packed import lines, opened
from feeder.sources.records import SourceLimits, SourceRecord
from late_interaction.errors import CollectionError

__all__ = ["read_any_ids", "read_ids", "read_json_ids"]


def read_ids(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Yield the ids of a text file with one id per line; blank lines are skipped."""
    for number, line in lines(path, name, limits):
        try:
            yield number, {"id": line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")}
        except UnicodeDecodeError as error:
            raise CollectionError(f"{name}:{number}: not UTF-8 (byte {error.start}); convert the file") from None


def read_json_ids(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Yield the ids of JSON lines: each a text or a whole number, or an object that has one."""
    for number, line in lines(path, name, limits):
        try:
            found = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            found = None
        yield number, {"id": found} if isinstance(found, (str, int)) else json_object(line, f"{name}:{number}")


def read_id_array(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Yield the ids of one JSON array of what `read_json_ids` accepts."""
    for number, item in array_of(path, name, limits):
        yield number, {"id": item} if isinstance(item, (str, int)) else checked_object(item, f"{name}:{number}")


def read_any_ids(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Read JSON if the file begins like an object, an array or a text; else an id per line."""
    with opened(path, name, limits) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    read = {b"{": read_json_ids, b'"': read_json_ids, b"[": read_id_array}.get(start, read_ids)
    yield from read(path, name, limits)
