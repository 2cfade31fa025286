"""SQLite files beside an index: fast-plaid's metadata, and the ids of older PyLate releases. Opened for reading only."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from late_interaction.errors import LocalIndexError
from late_interaction.reading import open_regular

__all__ = ["metadata_rows", "stored_pairs"]

NUMBER = "_subset_"  # fast-plaid's column of the passage's number
HIDDEN = 6  # place of what table_xinfo says of computed columns
STEPS = 1 << 20  # of SQLite's machine, between two looks at how many there were
STEPS_PER_BYTE = 16  # of the file; a damaged one can send a query round for ever


def metadata_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number of each passage that has metadata, ascending, and its fields.

    Raises: LocalIndexError naming the file where it is no database of fast-plaid.
    """
    with _opened(path, "METADATA") as database:
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
    with _opened(path, "unnamed") as database:
        for key, value in database.execute("SELECT key, value FROM unnamed"):
            if not isinstance(key, str) or not isinstance(value, bytes):
                raise LocalIndexError(f"{path} is no table of ids")
            yield key, value


@contextlib.contextmanager
def _opened(path: Path, table: str) -> Iterator[sqlite3.Connection]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        place = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(place, uri=True, check_same_thread=False)  # rows that nobody reads on end in any thread
        with contextlib.closing(connection) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            if any(column[HIDDEN] for column in database.execute(f'PRAGMA table_xinfo("{table}")')):
                raise LocalIndexError(f"{path} is refused: a column of {table} is computed")
            database.set_authorizer(_only_reads)
            rounds = itertools.count(STEPS + size * STEPS_PER_BYTE, -STEPS)
            database.set_progress_handler(lambda: next(rounds) < 0, STEPS)
            yield database
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise LocalIndexError(f"{path} cannot be read as a SQLite database ({error})") from None


def _only_reads(action: int, _: str | None, __: str | None, ___: str | None, view: str | None) -> int:
    """Columns of tables: no function, no recursion and no view, which may be in the schema and never end."""
    plain = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and view is None)
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY
