"""A folder of files: each page is a document whose id is its path in the folder; files of records have their own ids."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from feeder.sources.packed import bare_suffix
from feeder.sources.pages import PAGES, markdown_types, page_of
from feeder.sources.records import SourceLimits, SourceRecord
from feeder.sources.report import Note
from feeder.sources.source import Item, Reader
from late_interaction.errors import CollectionError, UsageError
from late_interaction.text import MAX_ID_CHARACTERS, checked_id

__all__ = ["has_files", "read_folder"]

HIDDEN, LINKS = "hidden files and folders left out", "links left out"
SPECIAL, NAMES = "pipes, sockets and devices left out", "files left out, whose names cannot be ids"
UNKNOWN, NO_ID = "files left out, of no known kind", "files left out, whose first record has no id"
NO_RECORDS = "JSON files left out, that do not hold records"
Walked = tuple[Path, str | CollectionError | None]  # why it is skipped


def has_files(folder: Path, known: Callable[[Path], object]) -> bool:
    """Tell whether the folder has a file of a known kind."""
    return any(not left_out and known(path) is not None for path, left_out in _walk(folder))


def read_folder(
    path: Path,
    name: str,
    limits: SourceLimits,
    *,
    prefix: str,
    reader: Callable[[Path], Reader | None],
    has_id: Callable[[SourceRecord], bool],
) -> Iterator[tuple[str, Item]]:
    """Yield the items of all files in and below the folder, by path.

    What is skipped is noted; hidden files and links always are.

    Args:
        path: the folder.
        name: its name in messages.
        limits: size limits.
        prefix: prefix of the ids of pages.
        reader: returns the reader of a file by its name.
        has_id: tells whether a record has its own id.

    Raises:
        CollectionError: if nothing is left.
    """
    types = markdown_types((file for file, left_out in _walk(path) if not left_out), limits)
    taken = False
    for file, left_out in _walk(path):
        place = file.relative_to(path).as_posix()
        where = f"{name}/{place}"
        read = None if left_out else reader(file)
        if read is None:
            taken |= isinstance(left_out, CollectionError)
            yield place, left_out if isinstance(left_out, CollectionError) else _left_out(left_out or UNKNOWN, where)
            continue
        try:
            if bare_suffix(file) in PAGES:
                if not _is_id(prefix + place):
                    yield place, _left_out(NAMES, where)
                    continue
                taken = True
                yield from ((place, item) for item in page_of(file, where, prefix + place, limits, types))
                continue
            for number, item in _records(read, file, where, limits, has_id):
                taken = taken or not isinstance(item, Note)
                yield f"{place}:{number}", item
        except CollectionError as error:
            taken = True
            yield place, error
    if not taken:
        raise CollectionError(f"{name} has no file that can be read: its files have no ids, or names that cannot be ids")


def _records(
    read: Reader, file: Path, where: str, limits: SourceLimits, has_id: Callable[[SourceRecord], bool]
) -> Iterator[tuple[int | str, Item]]:
    """Yield nothing for a file whose first record is not a document."""
    first = True
    try:
        for number, item in read(file, where, limits):
            if first and not isinstance(item, (Note, CollectionError)):
                if not has_id(item):
                    yield number, _left_out(NO_ID, where)
                    return
                first = False
            yield number, item
    except CollectionError:
        if not first or bare_suffix(file) != ".json":  # as settings of programs may be
            raise
        yield "", _left_out(NO_RECORDS, where)


def _left_out(message: str, where: str) -> Note:
    return Note("left_out", message, 1, (where,))


def _walk(folder: Path) -> Iterator[Walked]:
    waiting: list[Walked] = [(folder, None)]
    while waiting:
        path, left_out = waiting.pop()
        if left_out or not (path is folder or path.is_dir()):
            yield path, left_out
            continue
        try:
            with os.scandir(path) as entries:
                found = [(Path(entry.path), _reason(entry)) for entry in entries]
        except OSError as error:
            yield path, CollectionError(f"{path} cannot be read: {error.strerror or error}")
            continue
        waiting += sorted(found, key=lambda one: one[0], reverse=True)


def _reason(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return HIDDEN
    if entry.is_symlink():
        return LINKS
    if entry.is_dir(follow_symlinks=False):
        return None
    return None if stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode) else SPECIAL


def _is_id(text: str) -> bool:
    try:
        return len(checked_id(text)) <= MAX_ID_CHARACTERS
    except UsageError:
        return False
