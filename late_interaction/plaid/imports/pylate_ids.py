"""PyLate's table of document ids: a pickled dict, or in older releases a SqliteDict with a pickled text in every row.

Both are read without executing anything in them.
"""

from __future__ import annotations

from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.plaid.imports.databases import stored_pairs
from late_interaction.plaid.imports.pickles import BROKEN, RefusedPickle, read_pickle
from late_interaction.reading import read_regular

__all__ = ["pylate_ids"]

TABLE = "plaid_ids_to_documents_ids"
MAX_BYTES = 1 << 31


def pylate_ids(folder: Path) -> dict[int, str] | None:
    """Return the document id by passage number; None if PyLate did not make this index.

    Raises:
        LocalIndexError: if the file holds anything else; the message names it.
    """
    for place in (folder, folder.parent) if folder.name == "fast_plaid_index" else (folder,):
        if (path := place / f"{TABLE}.pkl").is_file():
            return _checked(path, _from_pickle(path))
        if (path := place / f"{TABLE}.sqlite").is_file():
            pairs = list(stored_pairs(path))
            return _checked(path, {int(pid) if pid.isdecimal() else pid: _plain(path, value) for pid, value in pairs})
    return None


def _checked(path: Path, found: object) -> dict[int, str]:
    if not isinstance(found, dict) or not all(type(pid) is int and type(id_) is str for pid, id_ in found.items()):
        raise LocalIndexError(f"{path} is not a table of passage numbers and document ids")
    return found


def _from_pickle(path: Path) -> object:
    try:
        return _plain(path, read_regular(path, MAX_BYTES))
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise LocalIndexError(f"{path} is not a table of ids: {error}") from None


def _plain(path: Path, data: bytes) -> object:
    """Read numbers, texts and containers only: a pickle that refers to any name is refused."""
    try:
        return read_pickle(data)
    except RefusedPickle as error:
        raise LocalIndexError(f"{path} is refused: {error}, which a table of ids does not need") from None
    except BROKEN as error:
        raise LocalIndexError(f"{path} is damaged ({type(error).__name__}: {error})") from None
