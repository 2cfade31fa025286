"""Names of the fields in the passage schema of every application, for package, feeder and query client.

The field `present` lists the metadata fields that a passage has: Vespa itself has no notion of a missing value.
"""

from __future__ import annotations

from collections.abc import Mapping

from late_interaction.metadata import Value
from vespa_app.codecs import VECTORS
from vespa_app.settings import AppSettings

__all__ = [
    "DIGEST",
    "OWN_FIELDS",
    "PRESENT",
    "STORED",
    "SUMMARY",
    "VECTORS_SUMMARY",
    "empty_mark",
    "present_marks",
    "stored_fields",
]

PRESENT = "present"
SUMMARY = "passage_hit"  # document summary: everything a hit shows
VECTORS_SUMMARY = "passage_vectors"  # the same with its vectors, for clients that score
STORED = "passage_stored"  # what the feeder reads before it sends
DIGEST = "digest"  # digest of the document and of what its vectors depend on, made by the feeder

# our fields in the passage schema, besides those of the strategies
OWN_FIELDS = ("id", "document_id", "title", "text", PRESENT, DIGEST, VECTORS)


def stored_fields(settings: AppSettings) -> tuple[str, ...]:
    """Return the document summary for the feeder; in mode streaming with the group, which is part of a document's path."""
    return ("id", "document_id", PRESENT, DIGEST, *([settings.group_field] if settings.mode == "streaming" else []))


def empty_mark(name: str) -> str:
    """Return the mark for "the value is, or the list contains, the empty text", which Vespa cannot be queried for."""
    return f"{name}="


def present_marks(metadata: Mapping[str, Value]) -> list[str]:
    """Return what the field holds for `metadata`, in which nothing is null."""
    empty = [empty_mark(name) for name, value in metadata.items() if value == "" or (isinstance(value, list) and "" in value)]
    return sorted([*metadata, *empty])
