"""An index of several shards on one machine: ordinary local indexes, a worker process each, and a router that merges."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from late_interaction.errors import UsageError
from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.shards.index import ShardedIndex
from late_interaction.plaid.shards.layout import SHARDS, Sharding
from late_interaction.plaid.shards.settings import ShardSettings
from late_interaction.plaid.shards.writer import ShardedWriter

__all__ = ["AnyIndex", "ShardSettings", "ShardedIndex", "ShardedWriter", "Sharding", "open_index"]

AnyIndex: TypeAlias = LocalIndex | ShardedIndex


def open_index(path: str | Path, settings: ShardSettings | None = None, *, version: int | str | None = None) -> AnyIndex:
    """The index at `path`, of shards or not; `settings` are for one of shards. version: as LocalIndex.open.

    Raises: LocalIndexError; UsageError where a version of an index of shards is asked for.
    """
    if not (Path(path) / SHARDS).exists():
        return LocalIndex.open(path, version=version)
    if version is not None:
        raise UsageError(f"{path} has shards, which are searched at their newest version: roll back to search an older one")
    return ShardedIndex.open(path, settings)
