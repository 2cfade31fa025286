"""One version of one shard, opened by its number and checksum."""

from __future__ import annotations

from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.snapshot import Snapshot
from late_interaction.plaid.versions import read_current, read_version

__all__ = ["VersionGone", "open_at"]


class VersionGone(LocalIndexError):
    """The version was pruned before this process had it open."""


def open_at(root: Path, current: tuple[int, str], before: LocalIndex | None) -> LocalIndex:
    """`before`, where it is that version; else a reader that takes over the files it has open.

    Raises: VersionGone; LocalIndexError where the version is damaged.
    """
    if before is not None and before.current == current:
        return before
    try:
        snapshot = Snapshot(root, read_version(root, *current), None if before is None else before.snapshot)
    except LocalIndexError:
        if read_current(root) != current and not (root / "versions" / f"{current[0]}.json").exists():
            raise VersionGone(f"{root}: version {current[0]} was removed by later commits") from None
        raise
    return LocalIndex(root, snapshot, current)
