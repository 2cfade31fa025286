"""Documents as they are stored somewhere, and what that place keeps of a vector."""

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

END = "end"  # as the place to go on: there is nothing more


@dataclass(frozen=True, slots=True)
class Batch:
    """resume: where to go on after it, for `StoredSource.batches`."""

    documents: Sequence[EncodedDocument]
    resume: str


class StoredSource(Protocol):
    """Where the documents of a copy come from: whole, each once, in an order that stays."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str:
        """Where it is, wherever this process was started."""
        ...

    @property
    def version(self) -> str:
        """Another one where it is known that there are other documents."""
        ...

    @property
    def bundle(self) -> Bundle: ...
    @property
    def schema(self) -> MetadataSchema: ...
    @property
    def kept(self) -> Kept: ...
    @property
    def storage(self) -> Storage:
        """Of a local index that keeps these vectors as they are."""
        ...

    @property
    def codebook(self) -> Codebook | None:
        """Of the documents' packed rows, None where they have none."""
        ...

    @property
    def counted(self) -> bool:
        """Whether `size` counts passages; else documents."""
        ...

    def size(self) -> int: ...
    def batches(self, resume: str) -> Iterator[Batch]:
        """resume: that of the last batch that was brought; empty for all."""
        ...

    def close(self) -> None: ...


def stored_document(
    passages: Sequence[Passage],
    vectors: Sequence[Matrix],
    packed: Sequence[Packed],
    *,
    counted: bool,
    dense: Sequence[Mapping[str, Vector]] = (),
) -> EncodedDocument:
    """passages: all of a document. counted: whether their digest says how many there are, as Target.counted. dense: as
    EncodedDocument has it."""
    document = Document(passages[0].document_id, passages[0].title, "", passages[0].metadata)
    digests = {passage.digest for passage in passages}
    digest = digests.pop() if len(digests) == 1 else ""
    bare = bare_digest(digest, len(passages) if counted else None)
    return EncodedDocument(document, tuple(passages), tuple(vectors), bare, packed=tuple(packed), dense=tuple(dense))
