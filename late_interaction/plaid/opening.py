"""Open and create local indexes, with or without shards. The engine, which needs the extra `local`, is imported on call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from late_interaction.bundle import Bundle
from late_interaction.errors import LocalIndexError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid.types import Storage

if TYPE_CHECKING:
    from late_interaction.plaid.protocols import PlaidIndex
    from late_interaction.plaid.shards import Sharding, ShardSettings

__all__ = ["IMPORTED", "create_index", "open_index", "sharding_at"]

IMPORTED = ".imported"  # suffix of the folder beside another engine's index that RAGatouille's calls import it into


def sharding_at(path: str | Path) -> Sharding | None:
    """Return how the index at `path` is sharded; None if it is not.

    Raises:
        LocalIndexError: if SHARDS.json is damaged.
    """
    from late_interaction.plaid.shards.layout import SHARDS, read_sharding

    root = Path(path)
    return read_sharding(root) if (root / SHARDS).exists() else None


def open_index(path: str | Path, settings: ShardSettings | None = None, *, version: int | str | None = None) -> PlaidIndex:
    """Open the index at `path`, with or without shards.

    Args:
        path: the folder.
        settings: settings of the router of an index of shards.
        version: number or name of a version; None for the newest.

    Raises:
        LocalIndexError: if there is no index, or it is damaged.
        UsageError: if a version of an index of shards is requested.
    """
    from late_interaction.plaid.index import LocalIndex
    from late_interaction.plaid.shards.index import ShardedIndex

    if sharding_at(path) is None:
        _check_ours(Path(path))
        return LocalIndex.open(path, version=version)
    if version is not None:
        raise UsageError(
            f"{path} has shards, which are searched only at their newest version; roll back to search an older one"
        )
    return ShardedIndex.open(path, settings)


def create_index(
    path: str | Path, *, bundle: Bundle, schema: MetadataSchema, storage: Storage | None, sharding: Sharding | None
) -> PlaidIndex:
    """Create an empty index.

    Args:
        path: the folder.
        bundle: encodes its queries and documents.
        schema: its metadata fields.
        storage: codec, bits and int8 rows.
        sharding: how it is sharded; None for one index.

    Raises:
        LocalIndexError: if `path` exists and is not an empty folder, or cannot be written.
        UsageError: if the settings do not fit together.
    """
    from late_interaction.plaid.index import LocalIndex
    from late_interaction.plaid.shards.index import ShardedIndex

    form = storage or Storage()
    if sharding is not None:
        return ShardedIndex.create(path, bundle=bundle, schema=schema, sharding=sharding, storage=form)
    return LocalIndex.create(path, bundle=bundle, schema=schema, codec=form.codec, bits=form.bits, refine=form.refine)


def _check_ours(path: Path) -> None:
    """Check that `path` is not another engine's index; LocalIndexError names the command that imports it."""
    from late_interaction.plaid.imports.run import maker_of
    from late_interaction.plaid.store.versions import CURRENT

    if not (path / CURRENT).exists() and (maker := maker_of(path)):
        if ((imported := Path(f"{path.absolute()}{IMPORTED}")) / CURRENT).exists():
            raise LocalIndexError(f"{path} is an index of {maker}; it was imported into {imported}: use that")
        raise LocalIndexError(
            f"{path} is an index of {maker}: `colbert-vespa index import {path} -o NEW --bundle BUNDLE` makes one "
            "that can be searched"
        )
