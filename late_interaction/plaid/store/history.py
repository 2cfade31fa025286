"""The versions that an index still has: list, check and prune them, and remove what unfinished commits have left.

A version is removed starting with its file in versions/, so that a reader that misses another of its files can tell pruning
from damage.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from late_interaction.errors import LocalIndexError
from late_interaction.files import fsync_folder, remove_abandoned
from late_interaction.plaid.store.storage import check_file
from late_interaction.plaid.store.versions import CURRENT, Version, read_current, read_version, version_path

__all__ = [
    "check_version",
    "known_versions",
    "remove_leftovers",
    "remove_uncommitted",
    "remove_unused",
    "verify_versions",
    "version_named",
]

KEPT_VERSIONS = 2
Checked = set[tuple[str, str]]  # name and sha256 of files


def known_versions(root: Path) -> list[Version]:
    """Return the committed versions that still exist, oldest first.

    Raises:
        LocalIndexError: if the file of a version cannot be read; the message names it.
    """
    current, _ = read_current(root)
    found = []
    for number in _numbers(root):
        if number > current:
            continue  # of an unfinished commit, or one that has finished since
        try:
            found.append(read_version(root, number))
        except LocalIndexError as error:
            if not version_path(root, number).exists():
                continue  # pruned since
            raise LocalIndexError(f"{error}; restore versions/{number}.json, or delete it to give up that version") from None
    return found


class Numbered(Protocol):
    """Anything with the number and name of a version."""

    @property
    def number(self) -> int:
        """Return its number."""

    @property
    def name(self) -> str:
        """Return its name, or an empty text."""


AnyVersion = TypeVar("AnyVersion", bound=Numbered)


def version_named(root: Path, known: Sequence[AnyVersion], to: int | str) -> AnyVersion:
    """Return the version in `known` with the number or name `to`.

    Raises:
        LocalIndexError: if there is none; the message names those that exist.
    """
    found = [version for version in known if to in (version.number, version.name) and to != ""]
    if not found:
        names = ", ".join(f"{v.number} ({v.name})" if v.name else str(v.number) for v in known)
        raise LocalIndexError(f"{root} has no version {to!r}; it has: {names}")
    return found[0]


def check_version(root: Path, version: Version, checked: Checked | None = None) -> None:
    """Compare the checksum of every file of the version that is not in `checked`, and add it there.

    Raises:
        LocalIndexError: if a file is missing or changed; the message names the first.
    """
    checked = set() if checked is None else checked
    for named in version.files():
        if (key := (named.name, named.entry.sha256)) not in checked:
            check_file(root, named.name, named.entry, checksum=True)
            checked.add(key)


def verify_versions(root: Path) -> None:
    """Read every file of every version. Versions that a writer prunes meanwhile are skipped.

    Raises:
        LocalIndexError: if a file is missing or changed; the message names the first.
    """
    checked: Checked = set()
    while True:
        current, digest = read_current(root)
        try:
            for version in [read_version(root, current, digest), *known_versions(root)]:
                _check_unless_pruned(root, version, checked)
        except LocalIndexError:
            if version_path(root, current).exists() or read_current(root) == (current, digest):
                raise
        if version_path(root, current).exists():
            return


def _check_unless_pruned(root: Path, version: Version, checked: Checked) -> None:
    try:
        check_version(root, version, checked)
    except LocalIndexError:
        if version_path(root, version.number).exists():
            raise


def remove_unused(root: Path, known: Sequence[Version], current: Version, keep: int = KEPT_VERSIONS) -> list[int]:
    """Remove all versions except the newest `keep`, named ones and the current one; return the numbers removed.

    Files that no remaining version needs are removed too. Readers that have mapped them keep them. What cannot be removed
    is left for the next time.
    """
    kept = {current.number, *(v.number for v in known if v.name), *sorted(v.number for v in known)[-keep:]}
    needed: set[str] = set()
    for version in known:
        if version.number in kept:
            needed.update(f"segments/{segment.name}" for segment in version.segments)
            needed.update(file.name for file in version.files())
    removed = [version.number for version in known if version.number not in kept]
    with contextlib.suppress(OSError):
        for number in removed:
            version_path(root, number).unlink(missing_ok=True)
        if removed:
            fsync_folder(root / "versions")  # a version must not come back without its files
        for folder in ("segments", "deletions", "codebooks"):
            _remove_others(root, folder, needed)
    return removed


def _remove_others(root: Path, folder: str, needed: set[str]) -> None:
    for path in (root / folder).iterdir():
        if f"{folder}/{path.name}" in needed:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_uncommitted(root: Path) -> None:
    """Remove what unfinished commits have written to versions/. Only for the writer.

    Raises:
        LocalIndexError: if the disk refuses.
    """
    current, _ = read_current(root)
    for number in _numbers(root):
        if number > current:
            try:
                version_path(root, number).unlink(missing_ok=True)
            except OSError as error:
                raise LocalIndexError(
                    f"{root}: versions/{number}.json was never committed but cannot be removed: {error}"
                ) from None


def remove_leftovers(root: Path) -> None:
    """Remove what a killed writer has left. Only for the writer.

    These are versions that were not committed, temporary files, and staging folders beside the index.
    """
    remove_uncommitted(root)
    with contextlib.suppress(OSError):
        for pattern in (f".{CURRENT}.*", "versions/.*.json.*", "codebooks/.*.npz.*", "pending/.log.*"):
            for path in root.glob(pattern):
                path.unlink(missing_ok=True)
    remove_abandoned(root)


def _numbers(root: Path) -> list[int]:
    return sorted(int(file.stem) for file in (root / "versions").glob("*.json") if file.stem.isdecimal())
