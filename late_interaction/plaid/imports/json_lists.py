"""Texts of a JSON list, one after the other: RAGatouille keeps a whole collection in one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.reading import open_regular

__all__ = ["iterate_texts"]

BLOCK = 1 << 20
BLANKS = " \t\n\r"


def iterate_texts(path: Path) -> Iterator[str]:
    """Memory: the longest text and a block of a million characters.

    Raises: LocalIndexError naming the file where it is no list of texts.
    """
    decoder = json.JSONDecoder()
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            buffer, place = "", 0

            def following() -> str:
                """The next character that is no blank; "" at the end."""
                nonlocal buffer, place
                while True:
                    while place < len(buffer) and buffer[place] in BLANKS:
                        place += 1
                    if place < len(buffer):
                        return buffer[place]
                    buffer, place = file.read(BLOCK), 0
                    if not buffer:
                        return ""

            opening, before = following(), "["
            while following() == before:
                place += 1
                if following() == "]" and before == "[":
                    break
                while True:
                    try:
                        text, place = decoder.raw_decode(buffer, place)
                        break
                    except json.JSONDecodeError:
                        more = file.read(max(BLOCK, len(buffer)))
                        if not more:
                            raise
                        buffer, place = buffer[place:] + more, 0
                if not isinstance(text, str):
                    raise LocalIndexError(f"{path} holds {type(text).__name__}, a list of texts is wanted")
                yield text
                before = ","
            if opening != "[" or following() != "]":
                raise ValueError("no list that is opened and closed")
    except (OSError, ValueError, RecursionError) as error:
        raise LocalIndexError(f"{path} cannot be read as a list of texts ({error})") from None
