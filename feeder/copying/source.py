"""The interface of a place with stored documents, and what it keeps of a vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from feeder.digests import bare_digest
from feeder.targets import EncodedDocument, Kept
from late_interaction.array_types import Matrix, Vector
from late_interaction.bundle import Bundle
from late_interaction.codebook import Codebook
from late_interaction.documents import Document, Passage
from late_interaction.metadata import MetadataSchema
from late_interaction.plaid import Storage
from vespa_app.codecs import Packed

__all__ = ["END", "Batch", "StoredSource", "stored_document"]

END = "end"  # as the place to continue: there is nothing more


@dataclass(frozen=True, slots=True)
class Batch:
    """Some documents of a source.

    Attributes:
        documents: the documents.
        resume: where to continue after it, for `StoredSource.batches`.
    """

    documents: Sequence[EncodedDocument]
    resume: str


class StoredSource(Protocol):
    """Where the documents of a copy come from: complete, each once, in a stable order."""

    @property
    def name(self) -> str:
        """Return its name, for messages."""

    @property
    def place(self) -> str:
        """Return its location, independent of the working directory."""
        ...

    @property
    def version(self) -> str:
        """Return a value that changes if the documents are known to change."""
        ...

    @property
    def bundle(self) -> Bundle:
        """Return the bundle of its vectors."""

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""

    @property
    def storage(self) -> Storage:
        """Return the storage of a local index that keeps these vectors unchanged."""
        ...

    @property
    def codebook(self) -> Codebook | None:
        """Return the codebook of the documents' packed rows; None if they are not packed."""
        ...

    @property
    def counted(self) -> bool:
        """Tell whether `size` counts passages; otherwise it counts documents."""
        ...

    def size(self) -> int:
        """Return the number of passages or documents."""

    def batches(self, resume: str) -> Iterator[Batch]:
        """Yield batches after `resume`, which is that of the last batch copied; empty for all."""
        ...

    def close(self) -> None:
        """Release the source."""


def stored_document(
    passages: Sequence[Passage],
    vectors: Sequence[Matrix],
    packed: Sequence[Packed],
    *,
    counted: bool,
    dense: Sequence[Mapping[str, Vector]] = (),
) -> EncodedDocument:
    """Return the document of all its `passages`.

    counted: whether its digest has the number of passages, as in `Target.counted`. dense: as in `EncodedDocument`.
    """
    document = Document(passages[0].document_id, passages[0].title, "", passages[0].metadata)
    digests = {passage.digest for passage in passages}
    digest = digests.pop() if len(digests) == 1 else ""
    bare = bare_digest(digest, len(passages) if counted else None)
    return EncodedDocument(document, tuple(passages), tuple(vectors), bare, packed=tuple(packed), dense=tuple(dense))
