"""Open versions of shards by number and checksum, and keep them for the threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.shards.states import ShardState
from late_interaction.plaid.store.opened import OpenedVersion
from late_interaction.plaid.store.snapshot import Snapshot
from late_interaction.plaid.store.versions import read_current, read_version

__all__ = ["OpenedShards", "ShardReaders", "VersionGone", "open_at"]


class VersionGone(LocalIndexError):
    """The version was pruned before this process had opened it."""


def open_at(root: Path, current: tuple[int, str], before: LocalIndex | None) -> LocalIndex:
    """Return `before` if it is at that version, else a reader that reuses its open files.

    Raises:
        VersionGone: if the version was pruned.
        LocalIndexError: if the version is damaged.
    """
    if before is not None and before.current == current:
        return before
    try:
        snapshot = Snapshot(root, read_version(root, *current), None if before is None else before.snapshot)
    except LocalIndexError:
        if read_current(root) != current and not (root / "versions" / f"{current[0]}.json").exists():
            raise VersionGone(f"{root}: version {current[0]} was removed by later commits") from None
        raise
    return LocalIndex(OpenedVersion(root, snapshot, current))


@dataclass(frozen=True)
class OpenedShards:
    """Readers of the shards that can be read.

    Attributes:
        states: the state of every shard.
        readers: reader by shard.
        damaged: why the files of others cannot be read.
        gone: whether the version of one of those was pruned.
    """

    states: Sequence[ShardState]
    readers: Mapping[int, LocalIndex]
    damaged: Mapping[int, str]
    gone: bool

    @property
    def missing(self) -> dict[int, str]:
        """Return the shards without a reader, and why."""
        return {**self.damaged, **{shard: state.error for shard, state in enumerate(self.states) if state.error}}


class ShardReaders:
    """Keeps what was opened last, so that each version of a shard is opened once for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept = OpenedShards((), {}, {}, False)

    def at(self, states: Sequence[ShardState]) -> OpenedShards:
        """Return readers at those versions. Damaged shards are tried again each time."""
        with self._lock:
            if self._kept.states is not states or self._kept.damaged:
                self._kept = self._opened(states)
            return self._kept

    def _opened(self, states: Sequence[ShardState]) -> OpenedShards:
        readers: dict[int, LocalIndex] = {}
        damaged: dict[int, str] = {}
        gone = False
        for shard, state in enumerate(states):
            if state.current is None:
                continue
            try:
                readers[shard] = open_at(state.path, state.current, self._kept.readers.get(shard))
            except LocalIndexError as error:
                damaged[shard] = str(error)
                gone |= isinstance(error, VersionGone)
        return OpenedShards(states, readers, damaged, gone)
