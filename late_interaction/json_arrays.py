"""A JSON array that is larger than memory: its elements, one after the other."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator

__all__ = ["array_elements"]

BLOCK = 1 << 20  # characters
_BEGIN = re.compile(r"\s*\[\s*")
_BETWEEN = re.compile(r"\s*,\s*(?!\])|\s*(?=\])")
_PLAIN = json.JSONDecoder()


def array_elements(read: Callable[[int], str], decoder: json.JSONDecoder = _PLAIN, most: int = sys.maxsize) -> Iterator[object]:
    """read: text of about so many characters, which is empty at its end alone. most: characters of an element.

    Memory: the longest element and a block. Raises: ValueError where it is not one array; what `read` raises.
    """
    waiting, place, count, ended = "", 0, 0, False
    while True:
        between = (_BETWEEN if count else _BEGIN).match(waiting, place)
        start = place if between is None else between.end()
        if waiting[start : start + 1] == "]" and between is not None:
            if waiting[start + 1 :].strip() or read(BLOCK).strip():
                raise ValueError("something follows the end of the array")
            return
        try:
            if between is None:
                raise ValueError("no comma where one was wanted" if count else "no bracket that opens it")
            element, end = decoder.raw_decode(waiting, start)
            if end == len(waiting) and not ended:
                raise ValueError("it may go on")  # as a number does
        except (ValueError, RecursionError) as error:
            if ended or len(waiting) - start > most or (between is None and waiting[place:].strip()):
                raise ValueError(
                    f"element {count + 1} of the array is cut off, not JSON, or larger than {most >> 20} MiB ({error})"
                    if most < sys.maxsize
                    else f"element {count + 1} of the array is cut off or not JSON ({error})"
                ) from None
            block = read(max(BLOCK, len(waiting) - start))
            waiting, place, ended = waiting[place:] + block, 0, not block
            continue
        place = end
        count += 1
        yield element
