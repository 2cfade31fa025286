"""The local engine: a PLAID index in a folder (Santhanam et al. 2022), with upserts, deletions, filters and versions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from late_interaction.plaid.types import ONE_VECTOR, CommitSummary, LocalHit, LocalResult, LocalScores, SearchSettings, Storage

if TYPE_CHECKING:
    from late_interaction.plaid.index import LocalIndex
    from late_interaction.plaid.opening import create_index, open_index, sharding_at
    from late_interaction.plaid.protocols import PlaidIndex, PlaidWriter
    from late_interaction.plaid.writing.writer import IndexWriter

__all__ = [
    "ONE_VECTOR",
    "CommitSummary",
    "IndexWriter",
    "LocalHit",
    "LocalIndex",
    "LocalResult",
    "LocalScores",
    "PlaidIndex",
    "PlaidWriter",
    "SearchSettings",
    "Storage",
    "create_index",
    "open_index",
    "sharding_at",
]

_HOMES = {
    "IndexWriter": "writing.writer",
    "LocalIndex": "index",
    "PlaidIndex": "protocols",
    "PlaidWriter": "protocols",
    "create_index": "opening",
    "open_index": "opening",
    "sharding_at": "opening",
}


def __getattr__(name: str) -> object:
    """Import index and writer on first access: their compiled loops need the extra `local`."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
