"""SQLite files beside an index: fast-plaid's metadata, and the ids of older PyLate releases. They are opened read-only."""

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

NUMBER = "_subset_"  # fast-plaid's column with the passage's number
HIDDEN = 6  # place of table_xinfo's flag for computed columns
STEPS = 1 << 20  # SQLite's virtual instructions between two checks of their number
STEPS_PER_BYTE = 16  # per byte of the file; in a damaged one a query may never end


def metadata_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each passage that has metadata, ascending, and its fields.

    Raises:
        LocalIndexError: if the file is not a fast-plaid database; the message names it.
    """
    with _opened(path, "METADATA") as database:
        cursor = database.execute(f'SELECT * FROM METADATA ORDER BY "{NUMBER}"')  # noqa: S608  # a constant
        names = [column[0] for column in cursor.description]
        if NUMBER not in names:
            raise LocalIndexError(f"{path} is not fast-plaid metadata: it has no column {NUMBER}")
        for row in cursor:
            fields = dict(zip(names, row, strict=True))
            number = fields.pop(NUMBER)
            if type(number) is not int:
                raise LocalIndexError(f"{path} is damaged: {str(number)[:40]!r} is not a passage number")
            yield number, fields


def stored_pairs(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield keys and pickled values of a `SqliteDict`.

    Raises:
        LocalIndexError: if the file is not such a table; the message names it.
    """
    with _opened(path, "unnamed") as database:
        for key, value in database.execute("SELECT key, value FROM unnamed"):
            if not isinstance(key, str) or not isinstance(value, bytes):
                raise LocalIndexError(f"{path} is not a table of ids")
            yield key, value


@contextlib.contextmanager
def _opened(path: Path, table: str) -> Iterator[sqlite3.Connection]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        place = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(
            place, uri=True, check_same_thread=False
        )  # rows that are not read to the end are closed in any thread
        with contextlib.closing(connection) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            if any(column[HIDDEN] for column in database.execute(f'PRAGMA table_xinfo("{table}")')):
                raise LocalIndexError(f"{path} is refused: table {table} has a computed column")
            database.set_authorizer(_only_reads)
            rounds = itertools.count(STEPS + size * STEPS_PER_BYTE, -STEPS)
            database.set_progress_handler(lambda: next(rounds) < 0, STEPS)
            yield database
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise LocalIndexError(f"{path} cannot be read as a SQLite database ({error})") from None


def _only_reads(action: int, _: str | None, __: str | None, ___: str | None, view: str | None) -> int:
    """Allow only columns of tables: no function, recursion or view, which the schema may contain and which may never end."""
    plain = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and view is None)
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY
