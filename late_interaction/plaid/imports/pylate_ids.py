"""PyLate's table of document ids: a pickled dict, or in older releases a SqliteDict with a pickled text in every row. Both are
read without running anything that is in them.
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
    """Document id by the number of the passage; None where PyLate did not make this index.

    Raises: LocalIndexError naming the file where it holds anything else.
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
        raise LocalIndexError(f"{path} is no table of passage numbers and document ids")
    return found


def _from_pickle(path: Path) -> object:
    try:
        return _plain(path, read_regular(path, MAX_BYTES))
    except OSError as error:
        raise LocalIndexError(f"{path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise LocalIndexError(f"{path} is no table of ids: {error}") from None


def _plain(path: Path, data: bytes) -> object:
    """Numbers, texts and containers alone: a pickle that names anything is refused."""
    try:
        return read_pickle(data)
    except RefusedPickle as error:
        raise LocalIndexError(f"{path} is refused: {error}, which a table of ids does not need") from None
    except BROKEN as error:
        raise LocalIndexError(f"{path} is damaged ({type(error).__name__}: {error})") from None
