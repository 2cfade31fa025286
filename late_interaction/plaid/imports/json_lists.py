"""Texts of a JSON list, one after the other: RAGatouille keeps a whole collection in one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from late_interaction.errors import LocalIndexError
from late_interaction.reading import open_regular

__all__ = ["iterate_texts"]

BLOCK = 1 << 20
BLANKS = " \t\n\r"


def iterate_texts(path: Path) -> Iterator[str]:
    """Memory: the longest text and a block of a million characters.

    Raises: LocalIndexError naming the file where it is no list of texts.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            source = _Json(file)
            opening, before = source.following(), "["
            while source.following() == before:
                source.place += 1
                if source.following() == "]" and before == "[":
                    break
                text = source.value()
                if not isinstance(text, str):
                    raise LocalIndexError(f"{path} holds {type(text).__name__}, a list of texts is wanted")
                yield text
                before = ","
            if opening != "[" or source.following() != "]":
                raise ValueError("no list that is opened and closed")
    except (OSError, ValueError, RecursionError) as error:
        raise LocalIndexError(f"{path} cannot be read as a list of texts ({error})") from None


class _Json:
    """A file of JSON, read by blocks. place: in the block, of the next character."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._buffer, self.place = file, "", 0
        self._decoder = json.JSONDecoder()

    def following(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self.place < len(self._buffer) and self._buffer[self.place] in BLANKS:
                self.place += 1
            if self.place < len(self._buffer):
                return self._buffer[self.place]
            self._buffer, self.place = self._file.read(BLOCK), 0
            if not self._buffer:
                return ""

    def value(self) -> object:
        """Raises: ValueError."""
        while True:
            try:
                value, self.place = self._decoder.raw_decode(self._buffer, self.place)
                return value
            except json.JSONDecodeError:
                more = self._file.read(max(BLOCK, len(self._buffer)))
                if not more:
                    raise
                self._buffer, self.place = self._buffer[self.place :] + more, 0
