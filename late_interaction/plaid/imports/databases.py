"""SQLite files beside an index: fast-plaid's metadata, and the ids of older PyLate releases. Opened for reading only."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from late_interaction.errors import LocalIndexError

__all__ = ["metadata_rows", "stored_pairs"]

NUMBER = "_subset_"  # fast-plaid's column of the passage's number


def metadata_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of each passage that has metadata, ascending, and its fields.

    Raises: LocalIndexError naming the file where it is no database of fast-plaid.
    """
    with _opened(path) as database:
        cursor = database.execute(f'SELECT * FROM METADATA ORDER BY "{NUMBER}"')  # noqa: S608  # a constant
        names = [column[0] for column in cursor.description]
        if NUMBER not in names:
            raise LocalIndexError(f"{path} is no metadata of fast-plaid: it has no column {NUMBER}")
        for row in cursor:
            fields = dict(zip(names, row, strict=True))
            number = fields.pop(NUMBER)
            if type(number) is not int:
                raise LocalIndexError(f"{path} is damaged: {str(number)[:40]!r} is no number of a passage")
            yield number, fields


def stored_pairs(path: Path) -> Iterator[tuple[str, bytes]]:
    """Keys and pickled values of a `SqliteDict`."""
    with _opened(path) as database:
        for key, value in database.execute("SELECT key, value FROM unnamed"):
            if not isinstance(key, str) or not isinstance(value, bytes):
                raise LocalIndexError(f"{path} is no table of ids")
            yield key, value


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise LocalIndexError(f"{path} cannot be read as a SQLite database ({error})") from None
