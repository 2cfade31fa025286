"""JSON: an object a line, or one array of objects; of documents, or of Vespa's own feed operations."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path

from feeder.sources.packed import lines, opened
from feeder.sources.records import Limits, Record
from late_interaction.errors import CollectionError

__all__ = ["json_object", "read_json", "read_json_lines", "read_vespa"]

BLOCK = 1 << 20
_BEGIN = re.compile(r"\s*\[\s*")
_BETWEEN = re.compile(r"\s*,\s*|\s*(?=\])")


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in an object")
    return found


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refused)


def read_json_lines(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    for number, line in lines(path, name, limits):
        yield number, json_object(line, f"{name}:{number}")


def read_json(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    """Lines, or an array, whichever it is."""
    with opened(path, name, limits) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return _read_array(path, name, limits) if start.startswith(b"[") else read_json_lines(path, name, limits)


def read_vespa(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    """Puts and stored documents of document/v1: {"put": "id:space:type::name", "fields": {...}}; the id is what is after the
    second colon pair. Updates and removals are refused: they have no text."""
    for number, record in read_json(path, name, limits):
        where = f"{name}:{number}"
        if operation := next((key for key in ("update", "remove") if key in record), None):
            raise CollectionError(f"{where}: {operation!r} cannot be fed: only puts have a document")
        id_, fields = record.get("put", record.get("id")), record.get("fields")
        if not isinstance(id_, str) or not id_.startswith("id:") or id_.count(":") < 4 or not isinstance(fields, dict):
            raise CollectionError(f'{where}: no put of Vespa\'s: wanted {{"put": "id:...", "fields": {{...}}}}')
        yield number, {"id": id_.split(":", 4)[4], **{key: value for key, value in fields.items() if key not in ("id", "_id")}}


def json_object(line: bytes, where: str) -> dict[str, object]:
    try:
        record = DECODER.decode(line.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        raise CollectionError(f"{where}: not UTF-8 (byte {error.start}): convert the file") from None
    except (ValueError, RecursionError) as error:
        raise CollectionError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise CollectionError(f"{where}: must be an object, got {type(record).__name__}")
    return record


def _read_array(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    """Its elements, one in memory at a time."""
    decoder, text = DECODER, codecs.getincrementaldecoder("utf-8-sig")()
    most = limits.line_mb << 20
    waiting, place, number = "", 0, 0
    with opened(path, name, limits) as file:
        ended = False
        while True:
            between = (_BETWEEN if number else _BEGIN).match(waiting, place)
            start = place if between is None else between.end()
            try:
                if between is None:
                    raise ValueError("no comma where one was wanted")
                if waiting[start : start + 1] == "]":
                    if waiting[start + 1 :].strip() or file.read(BLOCK).strip():
                        raise CollectionError(f"{name}: something follows the end of the array")
                    return
                record, place = decoder.raw_decode(waiting, start)
            except (ValueError, RecursionError) as error:
                if ended or len(waiting) - start > most:
                    reason = f"element {number + 1} of the array is cut off, no JSON, or larger than {limits.line_mb} MiB"
                    raise CollectionError(f"{name}: {reason} ({error})") from None
                block = file.read(max(BLOCK, len(waiting) - start))
                ended = not block
                waiting, place = waiting[place:] + _decoded(text, block, name), 0
                continue
            number += 1
            if not isinstance(record, dict):
                raise CollectionError(f"{name}:{number}: must be an object, got {type(record).__name__}")
            yield number, record


def _decoded(text: codecs.IncrementalDecoder, block: bytes, name: str) -> str:
    try:
        return text.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise CollectionError(f"{name}: not UTF-8 (byte {error.start} of a block): convert the file") from None
