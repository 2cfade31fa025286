"""Read a source once before anything is sent.

So a broken line, or metadata that do not fit, stop the feed with nothing half-written.
"""

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

NAMED = 20  # ids of each kind in a summary
_CANDIDATES = 1000  # ids of blank documents that are kept; those that come again later are dropped


@dataclass(frozen=True)
class Survey:
    """What the sources contain.

    Attributes:
        documents: number of documents.
        blank: documents without title and text, whose id does not come again.
        blank_ids: the first of their ids.
        duplicates: documents whose id comes again later.
        last_place: by the short hash of a repeated id, the place of the last document, which counts.
        schema: metadata fields.
        bare: documents with a title and no text.
        bare_ids: the first of their ids.
        ready: documents with their own vectors.
        untyped: fields of `types` that no document has.
    """

    documents: int
    blank: int
    blank_ids: tuple[str, ...]
    duplicates: int
    last_place: Mapping[bytes, int]
    schema: MetadataSchema
    bare: int = 0
    bare_ids: tuple[str, ...] = ()
    ready: int = 0
    untyped: tuple[str, ...] = ()

    def counts(self, place: int, document_id: str) -> bool:
        """Tell whether the document at `place` is the last, or only, one with its id."""
        return not self.last_place or self.last_place.get(short_hash(document_id), place) == place

    def check_types(self, known: Iterable[str] = ()) -> None:
        """Check that the types given for metadata fields belong to fields that exist. known: fields of the index.

        Raises:
            MetadataError: if a field is neither in the documents nor known.
        """
        if self.documents and (missing := [name for name in self.untyped if name not in known]):
            fields = ", ".join(name for name in dict.fromkeys((*known, *self.schema.fields)) if name not in missing) or "none"
            raise MetadataError(f"no document has a metadata field {missing[0]!r}, which is given a type; fields: {fields}")


def survey(
    documents: Iterable[Document],
    schema: MetadataSchema | None = None,
    *,
    blanks: bool = False,
    named: int = NAMED,
    types: Mapping[str, FieldType] | None = None,
) -> Survey:
    """Read all documents, count them and type their metadata.

    Memory use is 40 bytes per document.

    Args:
        documents: the documents.
        schema: metadata fields to check against; None to infer them.
        blanks: count documents without title and text like others.
        named: how many ids of blank documents to keep.
        types: types of metadata fields that are not inferred.

    Raises:
        CollectionError: if a source cannot be read.
        MetadataError: if metadata do not fit.
    """
    _check_types(types or {}, schema)
    inference = SchemaInference(types)
    untyped = dict.fromkeys(types or ())
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
        for name in [name for name in untyped if name in document.metadata]:
            del untyped[name]
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
    found = schema or inference.schema()
    return Survey(total, len(blank), shown, duplicates, last, found, bare, tuple(bare_ids), ready, tuple(untyped))


def _check_types(types: Mapping[str, FieldType], schema: MetadataSchema | None) -> None:
    """Check types against `schema`; MetadataError if a field has another type."""
    for name, type_ in types.items():
        stored = type_ if schema is None else schema.fields.get(name, type_)
        if stored is not type_:
            raise MetadataError(f"metadata field {name!r} is {stored.value} in the index, not {type_.value}: make a new index")


def _check(document: Document, schema: MetadataSchema) -> None:
    try:
        schema.check(document.metadata)
    except MetadataError as error:
        raise MetadataError(f"document {document.id!r}: {error}") from None
