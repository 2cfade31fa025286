"""The headings of a Markdown text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Heading", "headings"]

_MARKS = re.compile(r" {0,3}#{1,6}(?!\S)")
_FENCE = re.compile(r" {0,3}(```|~~~)")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading.

    Attributes:
        start: start of its line, at the first mark.
        end: end of its line, without the line break.
        title: without marks; may be empty.
    """

    start: int
    end: int
    title: str


def headings(text: str) -> Iterator[Heading]:
    """Yield lines that begin with one to six `#`, outside code."""
    fence, start = "", 0
    for line in text.split("\n"):
        end = start + len(line)
        if fenced := _FENCE.match(line):
            fence = "" if fence == fenced.group(1) else fence or fenced.group(1)
        elif not fence and (marks := _MARKS.match(line)):
            yield Heading(end - len(line.lstrip()), end, _title(line[marks.end() :].strip()))
        start = end + 1


def _title(text: str) -> str:
    """Return the title without closing marks, which stand alone."""
    bare = text.rstrip("#")
    return text if bare and not bare[-1].isspace() else bare.rstrip()
