"""Read a JSON array that is larger than memory, one element after another."""

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
    """Yield the elements of a JSON array.

    Memory use is the longest element and a block.

    Args:
        read: returns text of about so many characters, empty only at the end.
        decoder: decodes one element.
        most: most characters of an element.

    Raises:
        ValueError: if the text is not a single array.
        Exception: whatever `read` raises.
    """
    waiting, place, count, ended = "", 0, 0, False
    while True:
        between = (_BETWEEN if count else _BEGIN).match(waiting, place)
        start = place if between is None else between.end()
        if waiting[start : start + 1] == "]" and between is not None:
            if waiting[start + 1 :].strip() or read(BLOCK).strip():
                raise ValueError("there is text after the end of the array")
            return
        try:
            if between is None:
                raise ValueError("a comma is missing" if count else "the opening bracket is missing")
            element, end = decoder.raw_decode(waiting, start)
            if end == len(waiting) and not ended:
                raise ValueError("it may continue")  # for example a number
        except (ValueError, RecursionError) as error:
            if ended or len(waiting) - start > most or (between is None and waiting[place:].strip()):
                raise ValueError(
                    f"element {count + 1} of the array is truncated, not JSON, or larger than {most >> 20} MiB ({error})"
                    if most < sys.maxsize
                    else f"element {count + 1} of the array is truncated or not JSON ({error})"
                ) from None
            block = read(max(BLOCK, len(waiting) - start))
            waiting, place, ended = waiting[place:] + block, 0, not block
            continue
        place = end
        count += 1
        yield element
