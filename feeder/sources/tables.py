"""CSV and TSV with a header line. A column whose cells are all numbers, or all true/false, is metadata of that type; an empty
cell is no value."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from feeder.sources.packed import text_lines
from feeder.sources.records import Cell, Limits, Record
from late_interaction.errors import CollectionError

__all__ = ["read_csv", "read_tsv"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_WORDS = {"true": True, "false": False}


def read_csv(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    return _read(path, name, limits, ",")


def read_tsv(path: Path, name: str, limits: Limits) -> Iterator[tuple[int, Record]]:
    return _read(path, name, limits, "\t")


def _read(path: Path, name: str, limits: Limits, delimiter: str) -> Iterator[tuple[int, Record]]:
    """The whole file is read once to find the type of each column."""
    types: dict[str, Callable[[str], object]] = {}
    for _, row in _rows(path, name, limits, delimiter):
        for key, cell in row.items():
            if cell and types.get(key) is not str:
                types[key] = _joined(types.get(key), _type_of(cell))
    for number, row in _rows(path, name, limits, delimiter):
        yield number, {key: Cell(cell, types[key](cell) if cell else None) for key, cell in row.items()}


def _rows(path: Path, name: str, limits: Limits, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    before = csv.field_size_limit(limits.line_mb << 20)
    rows = csv.reader(text_lines(path, name, limits), delimiter=delimiter, strict=True)
    try:
        header = next(rows, None)
        if not header or len(set(header)) < len(header):
            raise CollectionError(f"{name}:1: a header line with the names of the columns, each once, was wanted")
        for row in rows:
            if row and len(row) != len(header):
                raise CollectionError(f"{name}:{rows.line_num}: {len(row)} cells, but the header has {len(header)}")
            if row:
                yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise CollectionError(f"{name}:{rows.line_num}: {error}") from None
    finally:
        csv.field_size_limit(before)


def _type_of(cell: str) -> Callable[[str], object]:
    if cell.lower() in _WORDS:
        return _truth
    if _WHOLE.fullmatch(cell):
        return int
    return float if _NUMBER.fullmatch(cell) and math.isfinite(float(cell)) else str


def _truth(cell: str) -> bool:
    return _WORDS[cell.lower()]


def _joined(one: Callable[[str], object] | None, two: Callable[[str], object]) -> Callable[[str], object]:
    if one is None or one is two:
        return two
    return float if {one, two} == {int, float} else str
