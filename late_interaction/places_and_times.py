"""Timestamps and positions as whole numbers, the form in which they are stored, compared and sent.

A timestamp is milliseconds since 1970 in UTC. A position is micro degrees, latitude in the upper half and longitude in the
lower half, each shifted to be positive, as in Vespa.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import Mask
from late_interaction.errors import MetadataError

__all__ = ["degrees", "near", "position", "show_position", "show_timestamp", "timestamp"]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MS = datetime.timedelta(milliseconds=1)
_FIRST = (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc) - _EPOCH) // _MS
_LAST = (datetime.datetime(9999, 12, 31, tzinfo=datetime.timezone.utc) - _EPOCH) // _MS
# ISO 8601 dates and times, with or without separators; the same on every release of Python
_TIME = re.compile(
    r"(?P<year>\d{4})(?P<dash>-?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r" ?(?:[Zz]|(?P<sign>[+-])(?P<zone_hour>\d\d)(?::?(?P<zone_minute>\d\d))?)?)?",
    re.ASCII,
)
_MICRO = 1_000_000
_HALF = 32
_MICRO_PER_KM = _MICRO * 180_000 / (math.pi * 6_356_752)  # of latitude, with Vespa's value of the earth's radius


def timestamp(name: str, value: object) -> int:
    """Return ISO 8601 text, or milliseconds, as milliseconds.

    Raises:
        MetadataError: if the value is not a time; the message names the field.
    """
    if isinstance(value, int) and not isinstance(value, bool) and _FIRST <= value <= _LAST:
        return value
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is not None and (moment := _moment(match.groupdict())) is not None:
        return moment
    raise MetadataError(f"metadata field {name!r}: {str(value)[:60]!r} is not a time; write one like 2026-12-24T18:00:00Z")


def _moment(parts: Mapping[str, str | None]) -> int | None:
    """Return milliseconds; None if the day, hour or zone does not exist."""
    names = ("year", "month", "day", "hour", "minute", "second", "zone_hour", "zone_minute")
    year, month, day, hour, minute, second, zone_hour, zone_minute = (int(parts[name] or 0) for name in names)
    micros = int((parts["fraction"] or "")[:6].ljust(6, "0"))
    if zone_hour > 23 or zone_minute > 59:
        return None
    zone = datetime.timedelta(hours=zone_hour, minutes=zone_minute) * (-1 if parts["sign"] == "-" else 1)
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, micros, tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    milliseconds = (moment - _EPOCH - zone) // _MS
    return milliseconds if _FIRST <= milliseconds <= _LAST else None


def show_timestamp(milliseconds: int) -> str:
    """Return milliseconds as ISO 8601 text in UTC."""
    return (_EPOCH + milliseconds * _MS).isoformat().replace("+00:00", "Z")


def position(name: str, value: object) -> int:
    """Return {"lat", "lng"} in degrees, or the number that encodes it, as that number.

    Raises:
        MetadataError: if the value is not a position; the message names the field.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << (2 * _HALF - 1):
        return value
    if isinstance(value, Mapping) and set(value) == {"lat", "lng"}:
        lat, lng = value["lat"], value["lng"]
        numbers = all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in (lat, lng))
        if numbers and abs(lat) <= 90 and abs(lng) <= 180:
            north, east = round((float(lat) + 90) * _MICRO), round((float(lng) + 180) * _MICRO)
            return (north << _HALF) | east
    raise MetadataError(
        f'metadata field {name!r}: {str(value)[:60]!r} is not a position; write one like {{"lat": 63.43, "lng": 10.39}}'
    )


def degrees(number: int) -> tuple[float, float]:
    """Return latitude and longitude in degrees."""
    return _degrees(number >> _HALF, 90), _degrees(number & ((1 << _HALF) - 1), 180)


def _degrees(shifted: int, least: int) -> float:
    return (shifted - least * _MICRO) / _MICRO


def show_position(number: int) -> dict[str, float]:
    """Return the position as {"lat", "lng"} in degrees."""
    lat, lng = degrees(number)
    return {"lat": lat, "lng": lng}


def near(numbers: NDArray[np.int64], lat: float, lng: float, km: float) -> Mask:
    """Tell which of the positions `[n]` are within `km`.

    The measure is Vespa's: a plane, with longitudes shortened as at the centre.
    """
    north = (numbers >> _HALF).astype(np.float64) - round((lat + 90) * _MICRO)
    east = (numbers & ((1 << _HALF) - 1)).astype(np.float64) - round((lng + 180) * _MICRO)
    inside: Mask = north**2 + (east * math.cos(math.radians(lat))) ** 2 <= (km * _MICRO_PER_KM) ** 2
    return inside
