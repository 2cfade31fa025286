"""Split a document's text into passages, each of which the model reads to its end.

Passages are character ranges of the original text, so nothing is rewritten. `sentences` packs whole sentences; `markdown`
does the same within sections that start with headings; `marked` splits at U+10FFFD and nowhere else; `none` leaves the text
as one passage. The last two may be truncated by the model. A sentence that does not fit is split between words, a word that
does not fit between characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from feeder.markdown import headings
from late_interaction.documents import Document, Passage, passage_text
from late_interaction.errors import CollectionError, UsageError
from late_interaction.tokenizing import TokenRows

__all__ = [
    "MARK",
    "MAX_PASSAGES",
    "Counting",
    "Cut",
    "Splitting",
    "check_count",
    "cut_documents",
    "marked_ranges",
    "passages_of",
]

METHODS = ("none", "sentences", "markdown", "marked")
MARK = "\U0010fffd"  # the last private-use character: separates the passages of a text that is already split
MAX_PASSAGES = 4096
Span = tuple[int, int]

# sentence ends: after closing quotes and spaces, if no lower-case letter follows; after CJK full stops; at a blank line
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=[^\sa-z])|(?<=[。！？])|\n[^\S\n]*\n\s*")  # noqa: RUF001
_WORD = re.compile(r"\S+\s*")


class Counting(Protocol):
    """What splitting needs from a model's tokenization; implemented by `Tokenizing`."""

    @property
    def document_room(self) -> int:
        """Return how many of a document's own tokens fit."""

    def documents(self, texts: Sequence[str]) -> list[TokenRows]:
        """Tokenize documents."""

    def document_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text itself."""


@dataclass(frozen=True, slots=True)
class Splitting:
    """How texts become passages.

    Attributes:
        method: none, sentences, markdown or marked.
        tokens: most tokens of a passage, title included; 0 for as many as the model reads.
        overlap: most tokens, in whole sentences, that end one passage and also start the next.
    """

    method: str = "none"
    tokens: int = 0
    overlap: int = 0

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UsageError: if the method is unknown or a number is out of range.
        """
        if self.method not in METHODS:
            raise UsageError(f"passage method {self.method!r} is unknown; known: {', '.join(METHODS)}")
        if self.tokens < 0 or 0 < self.tokens < 8:
            raise UsageError(f"a passage must have at least 8 tokens, got {self.tokens}")
        if self.overlap < 0 or (self.tokens and self.overlap * 2 > self.tokens):
            raise UsageError(f"the overlap must be from 0 to half of a passage, got {self.overlap}")


@dataclass(frozen=True, slots=True)
class Cut:
    """A document's passages.

    Attributes:
        title: title of each (shortened if it takes more than half of the model's length).
        ranges: character ranges of the text.
        rows: their tokens, title included.
    """

    title: str
    ranges: tuple[Span, ...]
    rows: tuple[TokenRows, ...]

    @property
    def truncated(self) -> bool:
        """Tell whether the model does not read all of it."""
        return any(rows.truncated for rows in self.rows)


def passages_of(document: Document, title: str, ranges: Sequence[Span]) -> tuple[Passage, ...]:
    """Return the passages `id#0`, `id#1`, ...; each has the document's metadata."""
    return tuple(
        Passage(Passage.id_of(document.id, number), document.id, title, document.text[start:end], document.metadata)
        for number, (start, end) in enumerate(ranges)
    )


def cut_documents(texts: Sequence[tuple[str, str]], splitting: Splitting, tokenizing: Counting) -> list[Cut | CollectionError]:
    """Split each document, given as title and text; one with more than 4,096 passages becomes an error."""
    if splitting.method == "marked":
        return [_cut_at_marks(title, text, tokenizing) for title, text in texts]
    cutter = _Cutter(splitting, tokenizing)
    whole = tokenizing.documents([passage_text(title, text) for title, text in texts])
    found: list[Cut | CollectionError] = []
    for (title, text), rows in zip(texts, whole, strict=True):
        if splitting.method == "none" or not text.strip() or (splitting.method == "sentences" and cutter.fits(rows)):
            found.append(Cut(title, ((0, len(text)),), (rows,)))
            continue
        try:
            found.append(cutter.cut(title, text))
        except CollectionError as error:
            found.append(error)
    return found


def marked_ranges(text: str) -> list[Span]:
    """Return the ranges between the marks."""
    ends = [*(place for place, character in enumerate(text) if character == MARK), len(text)]
    return list(zip([0, *(end + 1 for end in ends[:-1])], ends, strict=True))


def _cut_at_marks(title: str, text: str, tokenizing: Counting) -> Cut | CollectionError:
    """Drop blank passages, except the only one of a document that has just a title."""
    ranges = [(start, end) for start, end in marked_ranges(text) if text[start:end].strip()] or [(0, 0)]
    try:
        check_count(len(ranges))
    except CollectionError as error:
        return error
    rows = tokenizing.documents([passage_text(title, text[start:end]) for start, end in ranges])
    return Cut(title, tuple(ranges), tuple(rows))


class _Cutter:
    """Splits one document after another."""

    def __init__(self, splitting: Splitting, tokenizing: Counting) -> None:
        self._splitting = splitting
        self._tokenizing = tokenizing
        self._room = min(tokenizing.document_room, splitting.tokens or tokenizing.document_room)
        bare = len(tokenizing.documents([""])[0].ids)  # special tokens, marker and prompt
        self._most_rows = bare + splitting.tokens if splitting.tokens else None

    def fits(self, rows: TokenRows) -> bool:
        return not rows.truncated and (self._most_rows is None or len(rows.ids) <= self._most_rows)

    def cut(self, title: str, text: str) -> Cut:
        """Split a document; CollectionError if there are too many passages."""
        title = self._fitting_title(title)
        budget = max(1, self._room - self._count(title))
        starts = _section_starts(text) if self._splitting.method == "markdown" else {0}
        units = list(_units(text, starts))
        counts = self._counts(text, units)
        if max(counts) > budget:
            units = [
                piece for unit, count in zip(units, counts, strict=True) for piece in self._pieces(text, unit, count, budget)
            ]
            counts = self._counts(text, units)
        ranges, rows = self._verified(title, text, self._packed(text, units, counts, starts, budget))
        order = sorted(range(len(ranges)), key=ranges.__getitem__)
        return Cut(title, tuple(ranges[i] for i in order), tuple(rows[i] for i in order))

    def _verified(self, title: str, text: str, wanted: list[Span]) -> tuple[list[Span], list[TokenRows]]:
        """Return the ranges with their tokens, halved if title and text together have more tokens than their sum."""
        ranges: list[Span] = []
        rows: list[TokenRows] = []
        while wanted:
            check_count(len(ranges) + len(wanted))
            following: list[Span] = []
            tokens = self._tokenizing.documents([passage_text(title, text[start:end]) for start, end in wanted])
            for place, own in zip(wanted, tokens, strict=True):
                halves = None if self.fits(own) else _halves(text, place)
                if halves is None:
                    ranges.append(place)
                    rows.append(own)
                else:
                    following += halves
            wanted = following
        return ranges, rows

    def _count(self, text: str) -> int:
        return self._tokenizing.document_counts([text])[0] if text.strip() else 0

    def _counts(self, text: str, ranges: Sequence[Span]) -> list[int]:
        return self._tokenizing.document_counts([text[start:end] for start, end in ranges])

    def _fitting_title(self, title: str) -> str:
        while self._count(title) * 2 > self._room:
            words = [match.end() for match in _WORD.finditer(title)]
            title = title[: words[len(words) // 2 - 1] if len(words) > 1 else len(title) // 2].rstrip()
        return title

    def _pieces(self, text: str, unit: Span, count: int, budget: int) -> Iterator[Span]:
        """Halve the unit repeatedly until each piece fits, as often as its tokens require before they are counted again."""
        pieces = _halved(text, unit, max(1, int(math.log2(count / budget)))) if count > budget else [unit]
        if pieces == [unit]:
            yield unit
            return
        for piece, tokens in zip(pieces, self._counts(text, pieces), strict=True):
            yield from self._pieces(text, piece, tokens, budget)

    def _packed(self, text: str, units: Sequence[Span], counts: Sequence[int], breaks: set[int], budget: int) -> list[Span]:
        """Pack as many units as fit into each passage, none across a break; then add the overlap."""
        packed: list[Span] = []
        first = 0
        while first < len(units):
            last, total = first + 1, counts[first]
            while last < len(units) and units[last][0] not in breaks and total + counts[last] <= budget:
                total += counts[last]
                last += 1
            if (place := _stripped(text, units[first][0], units[last - 1][1])) is not None:
                packed.append(place)
            check_count(len(packed))
            first = last
            if last < len(units) and units[last][0] not in breaks:
                first -= self._overlap(counts, last, min(self._splitting.overlap, budget - counts[last]))
        return packed

    @staticmethod
    def _overlap(counts: Sequence[int], last: int, room: int) -> int:
        """Return how many of the units before `last` have at most `room` tokens together."""
        first = last
        while first and room >= counts[first - 1]:
            first -= 1
            room -= counts[first]
        return last - first


def check_count(count: int) -> None:
    """Check the number of passages.

    Raises:
        CollectionError: if a document has too many.
    """
    if count > MAX_PASSAGES:
        raise CollectionError(f"it has more than {MAX_PASSAGES} passages; split the document, or allow more tokens per passage")


def _units(text: str, starts: set[int]) -> Iterator[Span]:
    """Return sentences, one after the other without a gap; `starts` also begin one."""
    ends = sorted({match.end() for match in _SENTENCE_END.finditer(text)} | starts | {len(text)})
    start = 0
    for end in ends:
        if end > start:
            yield start, end
            start = end


def _section_starts(text: str) -> set[int]:
    """Return where headings are; not the heading right below another, so that none is alone."""
    starts, last = {0}, -1
    for heading in headings(text):
        if last < 0 or text[last : heading.start].strip():
            starts.add(heading.start)
        last = heading.end
    return starts


def _halved(text: str, place: Span, times: int) -> list[Span]:
    """Halve the range repeatedly; a single character stays."""
    pieces = [place]
    for _ in range(times):
        pieces = [half for piece in pieces for half in _halves(text, piece) or [piece]]
    return pieces


def _halves(text: str, place: Span) -> list[Span] | None:
    """Split the range between words as near to the middle as possible; None if it is a single character."""
    start, end = place
    if end - start < 2:
        return None
    middle = (start + end) // 2
    before = max(text.rfind(blank, start + 1, middle) for blank in " \n\t")
    after = min((found for blank in " \n\t" if (found := text.find(blank, middle, end - 1)) >= 0), default=-1)
    nearest = min((cut for cut in (before, after) if cut > start), key=lambda cut: abs(cut - middle), default=middle - 1)
    halves = [_stripped(text, start, nearest + 1), _stripped(text, nearest + 1, end)]
    return [half for half in halves if half is not None] or None


def _stripped(text: str, start: int, end: int) -> Span | None:
    """Return the range without spaces at its ends; None if nothing is left."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None
