"""CSV and TSV with a header line.

A column whose cells are all numbers, or all true/false, is metadata of that type; an empty cell is no value. A number that
its type would round makes its column text.
"""

from __future__ import annotations

import contextlib
import decimal
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from feeder.sources.packed import text_lines
from feeder.sources.records import Cell, SourceLimits
from feeder.sources.report import Note
from feeder.sources.source import BadRecord, Item
from late_interaction.errors import CollectionError

__all__ = ["read_csv", "read_tsv"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False}
_DELIMITERS = {";": "';'", "\t": "a tab", "|": "'|'", ",": "','"}
_ENDS = ("", "\n", "\r\n")
MOST_DIGITS = 400  # most characters of a number; longer ones are text
NumberedCells = tuple[int, list[str]]


def read_csv(path: Path, name: str, limits: SourceLimits, delimiter: str = ",") -> Iterator[tuple[int, Item]]:
    """Yield the rows of a CSV file, which is read once first to find the type of each column."""
    types: dict[str, _Type] = {}
    with contextlib.suppress(CollectionError):  # the second reading reports it after the rows before it
        for _, item in _rows(path, name, limits, delimiter):
            if isinstance(item, dict):
                for key, cell in item.items():
                    types.setdefault(key, _Type()).add(cell)
    for number, item in _rows(path, name, limits, delimiter):
        yield (
            number,
            {key: Cell(cell, types[key].value(cell)) for key, cell in item.items()} if isinstance(item, dict) else item,
        )


def read_tsv(path: Path, name: str, limits: SourceLimits, delimiter: str = "\t") -> Iterator[tuple[int, Item]]:
    """Yield the rows of a TSV file."""
    return read_csv(path, name, limits, delimiter)


def _rows(
    path: Path, name: str, limits: SourceLimits, delimiter: str
) -> Iterator[tuple[int, dict[str, str] | Note | BadRecord]]:
    """Yield rows that are not blank, by column, with the number of their first line."""
    rows = _cells(text_lines(path, name, limits), name, limits, delimiter)
    number, header = next(rows, (1, []))
    columns = [column.strip() for column in header]
    _check_header(columns, f"{name}:{number}", delimiter)
    for number, row in rows:
        if not any(cell.strip() for cell in row):
            yield number, Note("blank_rows", "blank rows skipped", 1, (f"{name}:{number}",))
        elif len(row) != len(columns):
            yield number, BadRecord(f"{name}:{number}: {len(row)} cells, but the header has {len(columns)}")
        else:
            yield number, {column: cell for column, cell in zip(columns, row, strict=True) if column}
    if unnamed := columns.count(""):
        yield 1, Note("unnamed_columns", "columns without a name in the header skipped", unnamed, (name,))


def _check_header(columns: list[str], where: str, delimiter: str) -> None:
    """Raise CollectionError if a name occurs twice, there is none, or another delimiter is more likely."""
    named = [column for column in columns if column]
    if not named:
        raise CollectionError(f"{where}: expected a header line with the names of the columns")
    if len(set(named)) < len(named):
        twice = next(column for column in named if named.count(column) > 1)
        raise CollectionError(f"{where}: column {twice!r} occurs twice in the header; give each column its own name")
    others = [sign for sign in _DELIMITERS if sign != delimiter and sign in named[0]]
    if len(columns) == 1 and others:
        likely = max(others, key=named[0].count)
        raise CollectionError(
            f"{where}: the header has one column, {named[0][:60]!r}, and cells seem to be separated by {_DELIMITERS[likely]}; "
            f"set delimiter = {likely!a} in feed.toml (--settings)"
        )


def _cells(lines: Iterator[str], name: str, limits: SourceLimits, delimiter: str) -> Iterator[NumberedCells]:
    """Yield rows as in RFC 4180, each with its first line.

    If all names of the header but the first follow a space, spaces after the delimiter are dropped.

    Raises:
        CollectionError: if a quoted cell does not end, or ends within a cell; the message names the line where it begins.
    """
    numbered = enumerate(lines, start=1)
    skip_blanks: bool | None = None
    for number, line in numbered:
        row: list[str] = []
        text, place = line, 0
        while True:
            while skip_blanks and row and text.startswith(" ", place):
                place += 1
            if text.startswith('"', place):
                cell, text, place = _quoted(text, place + 1, numbered, f"{name}:{number}", limits)
                row.append(cell)
                if text[place:] in _ENDS:
                    break
                if not text.startswith(delimiter, place):
                    raise CollectionError(
                        f"{name}:{number}: a quoted cell that begins in this row has text after its closing quote"
                    )
                place += len(delimiter)
                continue
            end = text.find(delimiter, place)
            cell = text[place:] if end < 0 else text[place:end]
            if end < 0:
                cell = cell[:-2] if cell.endswith("\r\n") else cell.removesuffix("\n")
            if "\r" in cell:
                raise CollectionError(f"{name}:{number}: a cell has a carriage return; quote it, or end lines with newlines")
            row.append(cell)
            if end < 0:
                break
            place = end + len(delimiter)
        if skip_blanks is None:
            skip_blanks = delimiter != " " and len(row) > 1 and all(cell.startswith(" ") for cell in row[1:])
        yield number, row


def _quoted(text: str, place: int, lines: Iterator[tuple[int, str]], where: str, limits: SourceLimits) -> tuple[str, str, int]:
    """Return a cell from after its opening quote, the line it ends in, and the place after its end."""
    parts: list[str] = []
    left = limits.line_mb << 20
    while True:
        end = text.find('"', place)
        parts.append(text[place:] if end < 0 else text[place:end])
        left -= len(parts[-1])
        if left < 0:
            raise CollectionError(f"{where}: a quoted cell that begins in this row has more than {limits.line_mb} MiB")
        if end >= 0 and not text.startswith('"', end + 1):
            return "".join(parts), text, end + 1
        if end >= 0:
            parts.append('"')
            place = end + 2
            continue
        following = next(lines, None)
        if following is None:
            raise CollectionError(f"{where}: a quoted cell that begins in this row has no closing quote")
        text, place = following[1], 0


class _Type:
    """The type of a column as its cells stream by: bool, int, float, or str if they have nothing else in common."""

    def __init__(self) -> None:
        self._type: Callable[[str], object] | None = None
        self._exact = True  # whether all whole numbers so far are exact as floats

    def add(self, cell: str) -> None:
        if not cell or self._type is str:
            return
        one, two = self._type, _type_of(cell)
        if two is int and abs(int(cell)) > 1 << 53:
            self._exact = self._exact and float(cell) == int(cell)
        self._type = two if one is None or one is two else float if {one, two} == {int, float} else str
        if self._type is float and not self._exact:
            self._type = str

    def value(self, cell: str) -> object:
        return self._type(cell) if cell and self._type is not None else None


def _type_of(cell: str) -> Callable[[str], object]:
    if cell.lower() in _WORDS:
        return _truth
    if len(cell) > MOST_DIGITS or not _NUMBER.fullmatch(cell):
        return str
    if _WHOLE.fullmatch(cell):
        return int if abs(int(cell)) < 1 << 63 else str
    number = float(cell)
    return float if math.isfinite(number) and _kept(cell, number) else str


def _kept(cell: str, number: float) -> bool:
    """Tell whether a number with a point or exponent equals the float: whole ones exactly, others within float precision."""
    exact = decimal.Decimal(cell)
    if "e" not in cell.lower() and exact == exact.to_integral_value():
        return exact == decimal.Decimal(number)
    return bool(number) == bool(exact)


def _truth(cell: str) -> bool:
    return _WORDS[cell.lower()]
