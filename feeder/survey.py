"""What a source holds, read once before anything is sent: a broken line, or metadata that does not fit, stops the feed with
nothing half-written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feeder.id_table import last_places, short_hash
from feeder.sources.report import EXAMPLES
from late_interaction.documents import Document
from late_interaction.errors import MetadataError
from late_interaction.metadata import MetadataSchema, SchemaInference

__all__ = ["Survey", "survey"]

NAMED = 20


@dataclass(frozen=True)
class Survey:
    """blank_ids: the first 20 ids of documents without title and text, which are not put. duplicates: documents whose id comes
    again later. bare, bare_ids: documents with a title and no text, and the first ids. last_place: by the short hash of an id
    that comes more than once, the place of the document that counts, the last."""

    documents: int
    blank: int
    blank_ids: tuple[str, ...]
    duplicates: int
    last_place: Mapping[bytes, int]
    schema: MetadataSchema
    bare: int = 0
    bare_ids: tuple[str, ...] = ()

    def counts(self, place: int, document_id: str) -> bool:
        """Whether the document at `place` is the last, or only, one of its id."""
        return not self.last_place or self.last_place.get(short_hash(document_id), place) == place


def survey(documents: Iterable[Document], schema: MetadataSchema | None = None, *, blanks: bool = False) -> Survey:
    """Reads all documents: counts them and types their metadata, against `schema` where one is given. blanks: documents without
    title and text count as others. Memory: 40 bytes a document.

    Raises: CollectionError, MetadataError.
    """
    inference = SchemaInference()
    hashes = bytearray()
    total = blank = bare = 0
    blank_ids: list[str] = []
    bare_ids: list[str] = []
    for document in documents:
        if document.blank and not blanks:
            blank += 1
            blank_ids += [document.id] if blank <= NAMED else []
            hashes += total.to_bytes(16, "big")  # holds the place, and is no id's hash
        else:
            hashes += short_hash(document.id)
            if not document.text.strip():
                bare += 1
                bare_ids += [document.id] if bare <= EXAMPLES else []
        total += 1
        if schema is None:
            inference.add(document.id, document.metadata)
        _check(document, schema or SchemaInference.of([(document.id, document.metadata)]))
    last, duplicates = last_places(hashes)
    return Survey(total, blank, tuple(blank_ids), duplicates, last, schema or inference.schema(), bare, tuple(bare_ids))


def _check(document: Document, schema: MetadataSchema) -> None:
    try:
        schema.check(document.metadata)
    except MetadataError as error:
        raise MetadataError(f"document {document.id!r}: {error}") from None
