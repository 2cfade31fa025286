"""Names of what the passage schema of every application has, for package, feeder and query client; and the field `present`:
which metadata fields a passage has. Vespa itself has no notion of a missing value."""

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
SUMMARY = "passage_hit"  # document summary: all that a hit shows
VECTORS_SUMMARY = "passage_vectors"  # and with its vectors, for clients that score
STORED = "passage_stored"  # what the feeder asks before it sends
DIGEST = "digest"  # of the document and of what its vectors depend on, by the feeder

# fields of ours in the passage schema, besides those of the strategies
OWN_FIELDS = ("id", "document_id", "title", "text", PRESENT, DIGEST, VECTORS)


def stored_fields(settings: AppSettings) -> tuple[str, ...]:
    """Of the document summary for the feeder; in mode streaming with the group, which is part of a document's path."""
    return ("id", "document_id", PRESENT, DIGEST, *([settings.group_field] if settings.mode == "streaming" else []))


def empty_mark(name: str) -> str:
    """Stands for "the value is, or the list contains, the empty text", which Vespa cannot be asked for."""
    return f"{name}="


def present_marks(metadata: Mapping[str, Value]) -> list[str]:
    """What the field holds for `metadata`, in which nothing is null."""
    empty = [empty_mark(name) for name, value in metadata.items() if value == "" or (isinstance(value, list) and "" in value)]
    return sorted([*metadata, *empty])
