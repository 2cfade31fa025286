"""Where documents go: a Vespa application or a local index, behind one interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from feeder.outcomes import Finished, Settled, StoredDigest
from feeder.sending.statistics import FeedStatistics
from late_interaction.array_types import I32, U8, Matrix, TokenIds, TokenVectors, Vector
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.metadata import MetadataSchema

__all__ = ["EncodedDocument", "Kept", "Target"]

FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document as its passages.

    Attributes:
        document: the document.
        passages: its passages.
        vectors: token vectors `[t, d]` of each passage.
        digest: digest of its content and of what its vectors depend on.
        stale: ids of its passages in the target that are no longer wanted.
        packed: codes and residuals of each passage, if it comes from a place that keeps these.
        token_ids: vocabulary ids of each passage's rows; empty if none are known.
        dense: vectors of each passage by dense model; empty if there are none.
    """

    document: Document
    passages: tuple[Passage, ...]
    vectors: tuple[Matrix, ...]
    digest: str = ""
    stale: tuple[str, ...] = ()
    packed: tuple[tuple[I32, U8], ...] = ()
    token_ids: tuple[TokenIds | None, ...] = ()
    dense: tuple[Mapping[str, Vector], ...] = ()

    @property
    def dense_by_passage(self) -> tuple[Mapping[str, Vector], ...]:
        """Return the dense vectors of each passage."""
        return self.dense or ({},) * len(self.passages)

    @property
    def rows(self) -> tuple[TokenVectors, ...]:
        """Return the vectors of each passage with the ids of their rows."""
        return tuple(zip(self.vectors, self.token_ids or (None,) * len(self.vectors), strict=True))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a vector.

    Attributes:
        key: places with the same key keep the same.
        shown: description for users.
        exact: kept as encoded.
    """

    key: str
    shown: str
    exact: bool = False

    @classmethod
    def as_encoded(cls) -> Kept:
        """Return the form that keeps vectors as encoded."""
        return cls(FLOAT32, FLOAT32, exact=True)


class Target(Protocol):
    """Where the documents of a feed or a copy go. All calls come from one thread at a time.

    A document's passages are put, then its stale ones removed; it is settled when all of that is acknowledged. Operations
    on one document id stay in order.
    """

    @property
    def name(self) -> str:
        """Return its name, for messages."""

    @property
    def place(self) -> str:
        """Return its location, independent of the working directory."""
        ...

    @property
    def built(self) -> str:
        """Return a value that changes if the target at that place is built anew; empty if unknown."""
        ...

    @property
    def bundle(self) -> Bundle:
        """Return its bundle."""

    @property
    def schema(self) -> MetadataSchema:
        """Return its metadata fields."""

    @property
    def digest_basis(self) -> str:
        """Return what stored vectors depend on besides the content of a document."""
        ...

    @property
    def counted(self) -> bool:
        """Tell whether passages are stored one by one, so that a document's digest must include their number."""
        ...

    @property
    def needs_vectors(self) -> bool:
        """Tell whether it needs vectors; False if the target encodes documents itself."""
        ...

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""

    @property
    def unit_rows(self) -> bool:
        """Tell whether it accepts only rows of length one."""
        ...

    def size(self) -> int:
        """Return its number of passages; of documents if they are not `counted`."""
        ...

    def still_updated(self, document_ids: Sequence[str]) -> Collection[str]:
        """Return those of the documents, all updated by an earlier run, that have certainly not changed since."""
        ...

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        """Return those of the documents that exist, by document id."""
        ...

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        """Hand over documents; block while the target is full."""
        ...

    def update(self, batch: Sequence[Document]) -> None:
        """Update only the given metadata fields; the documents must exist."""
        ...

    def delete(self, document_ids: Sequence[str]) -> None:
        """Delete all passages of each document; a document that does not exist is settled as absent."""
        ...

    def settled(self, *, wait: bool = False) -> list[Settled]:
        """Return outcomes since the last call.

        Args:
            wait: wait until everything handed over is settled.

        Raises:
            VespaUnreachable: only with `wait`, if retries are used up; the next call without `wait` returns known outcomes.
            VespaBusy: likewise.
        """
        ...

    def statistics(self) -> FeedStatistics | None:
        """Return statistics of the operations so far; None if nothing goes over a network. Any thread may call this."""
        ...

    def finish(self) -> Finished:
        """Make everything searchable."""

    def close(self) -> None:
        """Release the target."""
