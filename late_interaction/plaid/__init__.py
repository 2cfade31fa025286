"""The local engine: a PLAID index in a folder (Santhanam et al. 2022), with upserts, deletions, filters and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from late_interaction.plaid.types import CommitSummary, LocalHit, LocalResult, LocalScores, SearchSettings, Storage

if TYPE_CHECKING:
    from late_interaction.plaid.index import LocalIndex
    from late_interaction.plaid.writing.writer import IndexWriter

__all__ = [
    "CommitSummary",
    "IndexWriter",
    "LocalHit",
    "LocalIndex",
    "LocalResult",
    "LocalScores",
    "SearchSettings",
    "Storage",
]


def __getattr__(name: str) -> object:
    """Index and writer are imported when they are asked for: their compiled loops need the extra `local`."""
    if name == "LocalIndex":
        from late_interaction.plaid.index import LocalIndex

        return LocalIndex
    if name == "IndexWriter":
        from late_interaction.plaid.writing.writer import IndexWriter

        return IndexWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
