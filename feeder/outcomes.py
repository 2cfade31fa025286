"""What a target says of a document: what it has of it, and what became of what was handed over."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Failure", "Finished", "Settled", "StoredDigest"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that the target refused for good. `status` is the HTTP status, or 0."""

    document_id: str
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of one document that was handed over; durable where failure is None. absent: it was to be deleted, and was
    not there."""

    document_id: str
    failure: Failure | None = None
    absent: bool = False


@dataclass(frozen=True, slots=True)
class StoredDigest:
    """What a target has of a document: digest is '' where its passages do not agree on one."""

    digest: str
    passage_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """`version` of a local index after the commit, of shards the highest; None for Vespa, where operations are live at once."""

    version: int | None = None
