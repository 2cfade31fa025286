"""Objects of JSON and TOML as dataclasses: the one reader of settings, manifests and versions. msgspec checks the types."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from late_interaction.errors import ColbertVespaError

__all__ = ["Count", "read"]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]

_Kind = TypeVar("_Kind")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WANTED = re.compile(r"Expected `(.*?)`, got `(.*)`")
_NAMES = {"array": "a list", "object": "a table", "null": "none"}


def read(
    kind: type[_Kind], data: object, error: type[ColbertVespaError], where: str = "", *, noun: str = "key", path: str = ""
) -> _Kind:
    """`data` as the dataclass `kind`: no key that it does not have, no value of another type, no number that is not finite.

    where: the file; noun: what a key is called there; path: of `data` in it. Raises: `error` naming the key by its path.
    """
    try:
        found = msgspec.convert(data, kind, from_attributes=True)
        faults = _faults(found, data, path)
    except msgspec.ValidationError as refused:
        faults = iter([_told(str(refused), path)])
    except (OverflowError, RecursionError):
        faults = iter([(path or "all", "has a number, or tables in tables, beyond what can be read")])
    for key, what in faults:
        raise error(f"{where}: {noun} {key}: {what}" if where else f"{noun} {key}: {what}")
    return found


def _told(message: str, path: str) -> tuple[str, str]:
    place = _PLACE.search(message)
    if place:
        path, message = _joined(path, place[1]), message[: place.start()]
    if missing := _MISSING.fullmatch(message):
        return _joined(path, missing[1]), "is missing"
    if wanted := _WANTED.fullmatch(message):
        expected, got = (" or ".join(_NAMES.get(name, name) for name in text.split(" | ")) for text in wanted.groups())
        message = f"must be {expected}, got {got}"
    return path or "all", message.replace("Expected `int`", "must be int")


def _faults(found: object, data: object, path: str) -> Iterator[tuple[str, str]]:
    """What msgspec lets pass: keys that a dataclass does not have, numbers that are not finite."""
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
                    yield _joined(path, str(name)), f"unknown; known: {', '.join(known)}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
