"""What a target reports about documents: what it has, and the outcome of what was handed over."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Failure", "Finished", "Settled", "StoredDigest"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that the target refused permanently.

    Attributes:
        document_id: its id.
        status: the HTTP status, or 0.
        message: the reason.
    """

    document_id: str
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of one document.

    Attributes:
        document_id: its id.
        failure: why it was refused; None if it is durable.
        absent: it was to be deleted, and did not exist.
    """

    document_id: str
    failure: Failure | None = None
    absent: bool = False


@dataclass(frozen=True, slots=True)
class StoredDigest:
    """What a target has of a document.

    Attributes:
        digest: its digest; '' if its passages do not agree on one.
        passage_ids: its passages.
    """

    digest: str
    passage_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a feed.

    Attributes:
        version: version of a local index after the commit (of shards the highest); None for Vespa, whose operations are
            live at once.
    """

    version: int | None = None
