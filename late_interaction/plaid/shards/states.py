"""Which version of every shard is current, and which shards cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from late_interaction.errors import LocalIndexError
from late_interaction.files import sha256_file
from late_interaction.plaid.shards.layout import read_sharding, shard_path
from late_interaction.plaid.store.history import known_versions
from late_interaction.plaid.store.versions import Version, check_is_folder, read_current, read_version, version_path

__all__ = ["OpenedStates", "ShardState", "ShardedVersion", "first_readable", "read_states"]

Current: TypeAlias = tuple[int, str]  # number and checksum of a version


@dataclass(frozen=True)
class ShardState:
    """The state of a shard.

    Attributes:
        path: its folder.
        current: number and checksum of its version; None if it cannot be read.
        version: that version; None if it cannot be read.
        size: passages when it was last read, or None.
        error: why it cannot be read.
    """

    path: Path
    current: Current | None
    version: Version | None
    size: int | None
    error: str = ""

    @property
    def opened(self) -> tuple[Current, Version]:
        """Return number, checksum and version of a shard that can be read."""
        assert self.current is not None and self.version is not None
        return self.current, self.version

    @property
    def number(self) -> int | None:
        """Return the number of its version; None if it cannot be read."""
        return None if self.version is None else self.version.number

    @property
    def passages(self) -> int:
        """Return its number of passages; 0 if it cannot be read."""
        return 0 if self.version is None else self.version.passages


@dataclass(frozen=True, slots=True)
class ShardedVersion:
    """One version of all shards, which have it under the same number and name."""

    number: int
    name: str
    created: int
    passages: int
    token_vectors: int

    @classmethod
    def of(cls, versions: Sequence[Version]) -> ShardedVersion:
        """Combine the version of each shard."""
        passages, vectors = sum(v.passages for v in versions), sum(v.token_vectors for v in versions)
        return cls(versions[0].number, versions[0].name, versions[0].created, passages, vectors)


class OpenedStates:
    """The open state of every shard; `refresh` moves to the newest version that all have."""

    def __init__(self, root: Path) -> None:
        """Read the state of every shard.

        Raises:
            LocalIndexError: if SHARDS.json is damaged, no shard can be read, or they do not belong together.
        """
        self.path = root
        self.sharding = read_sharding(root)
        self.states = read_states(root, self.sharding.count, ())
        first_readable(self.states)

    @property
    def form(self) -> Version:
        """Return the version of the first readable shard, for what is the same in all."""
        return first_readable(self.states).opened[1]

    def refresh(self) -> bool:
        """Move to the newest version; return whether anything has changed."""
        found = read_states(self.path, self.sharding.count, self.states)
        if found == self.states:
            return False
        self.states = found
        return True

    def versions(self) -> list[ShardedVersion]:
        """Return the versions that all readable shards still have, oldest first."""
        known = [known_versions(state.path) for state in self.states if state.version is not None]
        by_number = [{version.number: version for version in versions} for versions in known]
        found = [[versions[first.number] for versions in by_number if first.number in versions] for first in known[0]]
        return [ShardedVersion.of(versions) for versions in found if len(versions) == len(known)]


def read_states(root: Path, count: int, before: Sequence[ShardState]) -> tuple[ShardState, ...]:
    """Return all shards at the newest version that all have.

    Shards that are ahead, because a commit is under way or was interrupted, are read at an older version. A shard that is
    behind what the others still have counts as missing.

    Args:
        root: the index.
        count: number of shards.
        before: their former states; those that did not change are reused.

    Raises:
        LocalIndexError: if the index is gone, or shards do not belong together.
    """
    check_is_folder(root)
    paths = [shard_path(root, n) for n in range(count)]
    seen: list[Current | str] | None = None
    while True:
        newest = [_newest(path) for path in paths]
        numbers = [current[0] for current in newest if not isinstance(current, str)]
        common, settled = min(numbers, default=0), newest == seen
        if settled and not all(_has(path, current, common) for path, current in zip(paths, newest, strict=True)):
            common = max(numbers)
        states = tuple(_state(paths[n], newest[n], common, before[n] if before else None) for n in range(count))
        if settled or not any(state.error for state in states):
            break
        seen = newest  # a version may have been pruned while this was read
    readable = [state for state in states if state.version is not None]
    for state in readable:
        if _form(state) != _form(readable[0]):
            raise LocalIndexError(f"{root} is damaged: {state.path.name} has other settings than {readable[0].path.name}")
    return states


def first_readable(states: Sequence[ShardState]) -> ShardState:
    """Return the first shard that can be read.

    Raises:
        LocalIndexError: the first shard's, if none can be read.
    """
    for state in states:
        if state.version is not None:
            return state
    raise LocalIndexError(states[0].error)


def _newest(path: Path) -> Current | str:
    """Return the current version of a shard, or why it cannot be read."""
    if not path.is_dir():
        return f"{path.parent} is damaged: {path.name} is missing"
    try:
        return read_current(path)
    except LocalIndexError as error:
        return str(error)


def _has(path: Path, newest: Current | str, number: int) -> bool:
    return isinstance(newest, str) or newest[0] == number or version_path(path, number).exists()


def _state(path: Path, newest: Current | str, number: int, before: ShardState | None) -> ShardState:
    """Return the shard at that version, which is the newest or an older one."""
    size = None if before is None else before.size
    if isinstance(newest, str):
        return ShardState(path, None, None, size, newest)
    if newest[0] < number:
        return ShardState(path, None, None, size, f"{path} is at version {newest[0]}, but other shards are at {number}")
    if before is not None and before.number == number and (newest[0] > number or before.current == newest):
        return before
    try:
        digest = newest[1] if newest[0] == number else sha256_file(version_path(path, number))
        version = read_version(path, number, digest)
    except FileNotFoundError:
        return ShardState(path, None, None, size, f"{path} lacks version {number}, which other shards have")
    except (LocalIndexError, OSError) as error:
        return ShardState(path, None, None, size, str(error))
    return ShardState(path, (number, digest), version, version.passages)


def _form(state: ShardState) -> tuple[object, ...]:
    v = state.opened[1]
    return v.bundle, v.schema, v.codec, v.bits, v.refine, v.dim, v.dense, v.one_vector
