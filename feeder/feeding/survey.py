"""What a source holds, read once before anything is sent: a broken line, or metadata that does not fit, stops the feed with
nothing half-written."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feeder.feeding.id_table import last_places, short_hash
from feeder.sources.report import EXAMPLES
from late_interaction.documents import Document
from late_interaction.errors import MetadataError
from late_interaction.metadata import FieldType, MetadataSchema, SchemaInference

__all__ = ["Survey", "survey"]

NAMED = 20  # ids that a summary names, of each kind
_CANDIDATES = 1000  # blank documents whose ids are kept, for those of them whose id does not come again


@dataclass(frozen=True)
class Survey:
    """blank: documents without title and text, whose id does not come again; blank_ids: the first ids of them. duplicates:
    documents whose id comes again later. bare, bare_ids: documents with a title and no text, and the first ids. ready:
    documents that bring their vectors. last_place: by the short hash of an id that comes more than once, the place of the
    document that counts, the last."""

    documents: int
    blank: int
    blank_ids: tuple[str, ...]
    duplicates: int
    last_place: Mapping[bytes, int]
    schema: MetadataSchema
    bare: int = 0
    bare_ids: tuple[str, ...] = ()
    ready: int = 0

    def counts(self, place: int, document_id: str) -> bool:
        """Whether the document at `place` is the last, or only, one of its id."""
        return not self.last_place or self.last_place.get(short_hash(document_id), place) == place


def survey(
    documents: Iterable[Document],
    schema: MetadataSchema | None = None,
    *,
    blanks: bool = False,
    named: int = NAMED,
    types: Mapping[str, FieldType] | None = None,
) -> Survey:
    """Reads all documents: counts them and types their metadata, against `schema` where one is given. blanks: documents without
    title and text count as others. named: so many ids of blank documents are kept. types: of fields,
    where their values do not tell; `schema` must have the same. Memory: 40 bytes a document.

    Raises: CollectionError, MetadataError.
    """
    _check_types(types or {}, schema)
    inference = SchemaInference(types)
    hashes = bytearray()
    total = bare = ready = 0
    blanks_at = array("Q")
    blank_ids: list[str] = []
    bare_ids: list[str] = []
    for document in documents:
        if document.blank and not blanks:
            blanks_at.append(total)
            blank_ids += [document.id] if len(blanks_at) <= max(named, _CANDIDATES) else []
        elif document.vectors:
            ready += 1
        elif not document.text.strip():
            bare += 1
            bare_ids += [document.id] if bare <= EXAMPLES else []
        hashes += short_hash(document.id)
        total += 1
        if schema is None:
            inference.add(document.id, document.metadata)
        _check(document, schema or SchemaInference.of([(document.id, document.metadata)], types))
    last, duplicates = last_places(hashes)
    blank = [
        number
        for number, place in enumerate(blanks_at)
        if last.get(bytes(hashes[16 * place : 16 * place + 16]), place) == place
    ]
    shown = tuple(blank_ids[number] for number in blank if number < len(blank_ids))[:named]
    return Survey(total, len(blank), shown, duplicates, last, schema or inference.schema(), bare, tuple(bare_ids), ready)


def _check_types(types: Mapping[str, FieldType], schema: MetadataSchema | None) -> None:
    """Raises: MetadataError where a field of `schema` has another type."""
    for name, type_ in types.items():
        stored = type_ if schema is None else schema.fields.get(name, type_)
        if stored is not type_:
            raise MetadataError(f"metadata field {name!r} is {stored.value} in the index, not {type_.value}: make a new index")


def _check(document: Document, schema: MetadataSchema) -> None:
    try:
        schema.check(document.metadata)
    except MetadataError as error:
        raise MetadataError(f"document {document.id!r}: {error}") from None
