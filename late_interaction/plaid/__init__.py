"""The local engine: a PLAID index in a folder (Santhanam et al. 2022), with upserts, deletions, filters and versions."""

from late_interaction.plaid.index import LocalIndex
from late_interaction.plaid.types import CommitSummary, LocalHit, LocalResult, LocalScores, SearchSettings, Storage
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
