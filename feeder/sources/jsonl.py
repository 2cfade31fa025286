"""JSON: one object per line, or one array of objects; of documents, or of Vespa's own feed operations."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from feeder.sources.packed import lines, opened
from feeder.sources.records import SourceLimits, SourceRecord
from late_interaction.errors import CollectionError
from late_interaction.json_arrays import array_elements

__all__ = ["array_of", "checked_object", "json_object", "read_json", "read_json_lines", "read_vespa"]


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} occurs twice in an object")
    return found


def _refused(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refused)


def read_json_lines(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Yield the objects of JSON lines."""
    for number, line in lines(path, name, limits):
        yield number, json_object(line, f"{name}:{number}")


def read_json(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Read lines or an array, whichever it is."""
    with opened(path, name, limits) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        return ((number, checked_object(item, f"{name}:{number}")) for number, item in array_of(path, name, limits))
    return read_json_lines(path, name, limits)


def read_vespa(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, SourceRecord]]:
    """Yield puts and stored documents of document/v1: {"put": "id:space:type::name", "fields": {...}}.

    The id is what follows the second pair of colons. Updates and removals are refused: they have no text.
    """
    for number, record in read_json(path, name, limits):
        where = f"{name}:{number}"
        if operation := next((key for key in ("update", "remove") if key in record), None):
            raise CollectionError(f"{where}: {operation!r} cannot be fed; only puts have a document")
        id_, fields = record.get("put", record.get("id")), record.get("fields")
        if not isinstance(id_, str) or not id_.startswith("id:") or id_.count(":") < 4 or not isinstance(fields, dict):
            raise CollectionError(f'{where}: not a Vespa put; expected {{"put": "id:...", "fields": {{...}}}}')
        yield number, {"id": id_.split(":", 4)[4], **{key: value for key, value in fields.items() if key not in ("id", "_id")}}


def json_object(line: bytes, where: str) -> dict[str, object]:
    """Parse a JSON object.

    Raises:
        CollectionError: if it is not one; the message names `where`.
    """
    try:
        record = DECODER.decode(line.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        raise CollectionError(f"{where}: not UTF-8 (byte {error.start}); convert the file") from None
    except (ValueError, RecursionError) as error:
        raise CollectionError(f"{where}: not JSON ({error})") from None
    return checked_object(record, where)


def array_of(path: Path, name: str, limits: SourceLimits) -> Iterator[tuple[int, object]]:
    """Yield the numbered elements of the array in the file."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with opened(path, name, limits) as file:

        def read(size: int) -> str:
            """Return about so many characters."""
            while block := file.read(size):
                if text := decoder.decode(block):
                    return text
            return decoder.decode(b"", final=True)

        try:
            yield from enumerate(array_elements(read, DECODER, limits.line_mb << 20), start=1)
        except UnicodeDecodeError as error:
            raise CollectionError(f"{name}: not UTF-8 (byte {error.start} of a block); convert the file") from None
        except ValueError as error:
            raise CollectionError(f"{name}: {error}") from None


def checked_object(value: object, where: str) -> dict[str, object]:
    """Return the value if it is an object.

    Raises:
        CollectionError: if it is not.
    """
    if not isinstance(value, dict):
        raise CollectionError(f"{where}: must be an object, got {type(value).__name__}")
    return value
