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
    """A document as its passages, with token vectors `[t, d]` of each.

    digest: of its content and of what its vectors depend on. stale: ids of passages that it has in the target and no longer
    wants. packed: codes and residuals of each passage, where it comes from a place that keeps such. token_ids: of the rows of
    each passage; empty where none are known. dense: of each passage its vectors by dense model; empty where there are none.
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
        """For each passage."""
        return self.dense or ({},) * len(self.passages)

    @property
    def rows(self) -> tuple[TokenVectors, ...]:
        """Vectors of each passage, and the ids of their rows."""
        return tuple(zip(self.vectors, self.token_ids or (None,) * len(self.vectors), strict=True))


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a vector. key: two places with the same keep the same. shown: for a user. exact: as it was encoded."""

    key: str
    shown: str
    exact: bool = False

    @classmethod
    def as_encoded(cls) -> Kept:
        return cls(FLOAT32, FLOAT32, exact=True)


class Target(Protocol):
    """Where documents go: of a feed or of a copy. All calls come from one thread at a time.

    A document's passages are put, then its stale ones removed; it is settled when all of that is acknowledged. Order is kept
    per document id.
    """

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str:
        """Where it is, wherever this process was started."""
        ...

    @property
    def built(self) -> str:
        """Another one where the target at that place was built anew; empty where that is not known."""
        ...

    @property
    def bundle(self) -> Bundle: ...
    @property
    def schema(self) -> MetadataSchema: ...
    @property
    def digest_basis(self) -> str:
        """What stored vectors depend on besides the content of a document."""
        ...

    @property
    def counted(self) -> bool:
        """Whether passages are stored one by one, so that a document's digest has to say how many there are."""
        ...

    @property
    def needs_vectors(self) -> bool:
        """False where the target encodes documents itself."""
        ...

    @property
    def kept(self) -> Kept: ...
    @property
    def unit_rows(self) -> bool:
        """Whether it takes rows of length one alone."""
        ...

    def size(self) -> int:
        """How many passages it has; where they are not `counted`, how many documents."""
        ...

    def still_updated(self, document_ids: Sequence[str]) -> Collection[str]:
        """Those of the documents, all updated by an earlier run, that are sure to be as that run has left them."""
        ...

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        """Those of the documents that are there, by document id."""
        ...

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        """Hands over; blocks while the target has all it can take."""
        ...

    def update(self, batch: Sequence[Document]) -> None:
        """Partial: the metadata fields given, and only those; the document must exist."""
        ...

    def delete(self, document_ids: Sequence[str]) -> None:
        """All passages of each; a document that is not there is settled as absent."""
        ...

    def settled(self, *, wait: bool = False) -> list[Settled]:
        """Outcomes since the last call; wait: when all that was handed over is settled.

        Raises: with `wait` alone, VespaUnreachable, VespaBusy when retries are used up; outcomes known already are returned by
        the next call without.
        """
        ...

    def statistics(self) -> FeedStatistics | None:
        """Of the operations so far; None where nothing goes over a network. Any thread may ask."""
        ...

    def finish(self) -> Finished: ...
    def close(self) -> None: ...
