"""Where documents go: a Vespa application or a local index, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.metadata import MetadataSchema

__all__ = ["EncodedDocument", "Failure", "Finished", "Target"]


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document as its one passage with token vectors `[t, d]`."""

    document: Document
    passage: Passage
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that the target refused for good. `status` is the HTTP status, or 0."""

    document_id: str
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """`version` of a local index after the commit, of shards the highest; None for Vespa, where operations are live at once."""

    version: int | None = None


class Target(Protocol):
    """All calls come from one thread at a time. What `put` and `delete` return without naming is durable."""

    @property
    def name(self) -> str: ...
    @property
    def bundle(self) -> Bundle: ...
    @property
    def schema(self) -> MetadataSchema: ...
    @property
    def needs_vectors(self) -> bool:
        """False where the target encodes documents itself."""
        ...

    def durable(self, acknowledged: Mapping[str, str]) -> Mapping[str, str]:
        """Those of the journal's acknowledged documents that this target really still has."""
        ...

    def put(self, batch: Sequence[EncodedDocument]) -> list[Failure]: ...
    def delete(self, document_ids: Sequence[str]) -> list[Failure]: ...
    def finish(self) -> Finished: ...
    def close(self) -> None: ...
