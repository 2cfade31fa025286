"""JSON and TOML objects as dataclasses: the reader of all settings, manifests and versions. msgspec checks the types."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from late_interaction.errors import ColbertVespaError

__all__ = ["Count", "parse", "parse_sealed", "read", "sealed"]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]

_Kind = TypeVar("_Kind")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WANTED = re.compile(r"Expected `(.*?)`, got `(.*)`")
_NAMES = {"array": "a list", "object": "a table", "null": "none"}


def parse(text: bytes | str, error: type[ColbertVespaError], where: str, advice: str = "", **fixed: Any) -> dict[str, Any]:
    """Parse the JSON object `text`, and drop the keys `fixed`, each of which must have the given value.

    Args:
        text: the JSON.
        error: the error to raise.
        where: the file, for error messages.
        advice: what to do if a fixed key has another value.
        fixed: keys and their values.

    Raises:
        ColbertVespaError: `error`, if the text is not such an object.
    """
    end = f": {advice}" if advice else ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise error(f"{where} cannot be read: it is not JSON ({fault}){end}") from None
    if not isinstance(data, dict):
        raise error(f"{where} cannot be read: it is not a JSON object{end}")
    for key, known in fixed.items():
        if (value := data.pop(key, None)) != known:
            shown = repr(value)[:60]
            raise error(f"{where}: {key.replace('_', ' ')} {shown} is unknown; this release reads {known!r}{end}")
    return data


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with its checksum."""
    text = json.dumps(dict(data), sort_keys=True, separators=(",", ":"))
    return {**data, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def parse_sealed(text: bytes, error: type[ColbertVespaError], where: str, **fixed: Any) -> dict[str, Any]:
    """Parse what `sealed` has made, like `parse`.

    Raises:
        ColbertVespaError: `error`, also if the checksum differs.
    """
    data = parse(text, error, where, **fixed)
    if data.pop("sha256", None) != sealed({**data, **fixed})["sha256"]:
        raise error(f"{where} has changed (its checksum differs)")
    return data


def read(
    kind: type[_Kind], data: object, error: type[ColbertVespaError], where: str = "", *, noun: str = "key", path: str = ""
) -> _Kind:
    """Return `data` as the dataclass `kind`, without unknown keys, wrong types or numbers that are not finite.

    Args:
        kind: the dataclass.
        data: the parsed object.
        error: the error to raise.
        where: the file, for error messages.
        noun: what a key is called there.
        path: path of `data` in the file.

    Raises:
        ColbertVespaError: `error`, if a key does not fit; the message names it by its path.
    """
    try:
        found = msgspec.convert(data, kind, from_attributes=True)
        faults = _faults(found, data, path)
    except msgspec.ValidationError as refused:
        faults = iter([_told(str(refused), kind, data, path)])
    except (OverflowError, RecursionError):
        faults = iter([(path or "all", "has a number too large or tables nested too deeply to be read")])
    for key, what in faults:
        raise error(f"{where}: {noun} {key}: {what}" if where else f"{noun} {key}: {what}")
    return found


def _told(message: str, kind: type, data: object, path: str) -> tuple[str, str]:
    place = _PLACE.search(message)
    if place:
        path, message = _joined(path, _with_keys(kind, data, place[1])), message[: place.start()]
    if missing := _MISSING.fullmatch(message):
        return _joined(path, missing[1]), "is missing"
    if wanted := _WANTED.fullmatch(message):
        expected, got = (" or ".join(_NAMES.get(name, name) for name in text.split(" | ")) for text in wanted.groups())
        message = f"must be {expected}, got {got}"
    return path or "all", message.replace("Expected `int`", "must be int")


def _with_keys(kind: type, data: object, place: str) -> str:
    """Return `place` with the keys in place of msgspec's `[...]` for an entry of a mapping, found by trying each."""
    holder: Any = (data := copy.deepcopy(data))
    told = ""
    for step in re.findall(r"\[\.\.\.\]|\w+", place) if "[...]" in place else ():
        key: Any = int(step) if step.isdecimal() else step
        if step == "[...]":
            entries = dict(holder)
            key = next(key for key in entries if not _fits(kind, data, holder, {key: entries[key]}))
        holder = holder[key]
        told = f"{told}[{key}]" if isinstance(key, int) else _joined(told, str(key))
    return told or place


def _fits(kind: type, data: object, holder: dict[object, object], entries: dict[object, object]) -> bool:
    """Tell whether `data` is a `kind` if its mapping `holder` has only these entries."""
    holder.clear()
    holder.update(entries)
    try:
        msgspec.convert(data, kind, from_attributes=True)
    except msgspec.ValidationError:
        return False
    return True


def _faults(found: object, data: object, path: str) -> Iterator[tuple[str, str]]:
    """Return what msgspec lets pass: unknown keys of a dataclass, and numbers that are not finite."""
    if isinstance(found, float) and not math.isfinite(found):
        yield path, "must be a finite number"
    elif isinstance(found, tuple) and isinstance(data, (list, tuple)):
        for place, pair in enumerate(zip(found, data, strict=True)):
            yield from _faults(*pair, f"{path}[{place}]")
    elif isinstance(data, Mapping):
        known = (
            {f.name: getattr(found, f.name) for f in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else found
        )
        if isinstance(known, Mapping):
            for name in data:
                if name in known:
                    yield from _faults(known[name], data[name], _joined(path, str(name)))
                else:
                    yield _joined(path, str(name)), f"is unknown; known: {', '.join(known)}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
