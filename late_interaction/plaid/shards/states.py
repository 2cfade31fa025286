"""Which version of every shard counts, and which shards cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from late_interaction.errors import LocalIndexError
from late_interaction.plaid.shards.layout import shard_path
from late_interaction.plaid.versions import Version, read_current, read_version

__all__ = ["ShardState", "first_readable", "read_states"]


@dataclass(frozen=True)
class ShardState:
    """current, version: as read, or None with `error`, why not. size: passages when it was last read, or None."""

    path: Path
    current: tuple[int, str] | None
    version: Version | None
    size: int | None
    error: str = ""

    @property
    def opened(self) -> tuple[tuple[int, str], Version]:
        assert self.current is not None and self.version is not None
        return self.current, self.version

    @property
    def number(self) -> int | None:
        return None if self.version is None else self.version.number

    @property
    def passages(self) -> int:
        return 0 if self.version is None else self.version.passages


def read_states(root: Path, count: int, before: Sequence[ShardState]) -> tuple[ShardState, ...]:
    """before: as they were, of which those that did not change are taken over.

    Raises: LocalIndexError where shards do not belong together.
    """
    states = tuple(_state(shard_path(root, n), before[n] if before else None) for n in range(count))
    readable = [state for state in states if state.version is not None]
    for state in readable:
        if _form(state) != _form(readable[0]):
            raise LocalIndexError(f"{root} is damaged: {state.path.name} was made in another way than {readable[0].path.name}")
    return states


def first_readable(states: Sequence[ShardState]) -> ShardState:
    """Raises: LocalIndexError, the first shard's, where none can be read."""
    for state in states:
        if state.version is not None:
            return state
    raise LocalIndexError(states[0].error)


def _state(path: Path, before: ShardState | None) -> ShardState:
    try:
        current = read_current(path)
        if before is not None and before.current == current:
            return before
        version = read_version(path, *current)
    except LocalIndexError as error:
        return ShardState(path, None, None, None if before is None else before.size, str(error))
    return ShardState(path, current, version, version.passages)


def _form(state: ShardState) -> tuple[object, ...]:
    v = state.opened[1]
    return v.bundle, v.schema, v.codec, v.bits, v.refine, v.dim
