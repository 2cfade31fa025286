"""Convert Vespa's stored documents back to passages and vectors: the inverse of `documents.document_fields`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from late_interaction.array_types import Matrix, Vector
from late_interaction.documents import Passage
from late_interaction.errors import VespaRefused
from late_interaction.metadata import FieldType, Value
from vespa_app.candidates.dense import decoded_dense, dense_field
from vespa_app.codecs import CODECS, VECTORS, Codebooks, Packed
from vespa_app.running.layouts import CHUNK
from vespa_app.running.passage_fields import DIGEST, PRESENT
from vespa_app.settings import AppSettings

__all__ = ["StoredPassage", "stored_field_set", "stored_passages"]


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A stored passage.

    Attributes:
        passage: the passage.
        vectors: `[t, d]` as the codec decodes them.
        packed: codes and residuals, if the codec is residual.
        dense: vectors by name of the dense models, as decoded from their cells.
    """

    passage: Passage
    vectors: Matrix
    packed: Packed | None = None
    dense: Mapping[str, Vector] = field(default_factory=dict)


def stored_field_set(settings: AppSettings) -> str:
    """Return the fields that `stored_passages` reads, in document/v1's form."""
    own = ("id", "document_id", "title", "text", PRESENT, DIGEST, VECTORS, *CODECS[settings.codec].more_fields(settings))
    return f"{settings.schema}:{','.join((*own, *map(dense_field, settings.dense), *settings.metadata.fields))}"


def stored_passages(fields: Mapping[str, Any], settings: AppSettings, books: Codebooks) -> list[StoredPassage]:
    """Return the passages of one Vespa document: one, or in layout `chunks` all, with title and metadata of the first.

    Raises:
        VespaRefused: if the fields are not those of a passage.
        MetadataError: if metadata do not fit.
    """
    try:
        document_id, digest = str(fields["document_id"]), str(fields.get(DIGEST, ""))
        title, text = str(fields.get("title", "")), fields.get("text", "")
        metadata = settings.metadata.check(_metadata(fields, settings))
        if settings.layout != "chunks":
            passage = Passage(str(fields["id"]), document_id, title, str(text), metadata, digest)
            return [_decoded(passage, fields, settings, books)]
        chunks = _chunks(fields.get(VECTORS, {}), len(text))
        return [
            _decoded(
                Passage(Passage.id_of(document_id, n), document_id, title, str(part), metadata, digest), own, settings, books
            )
            for n, (part, own) in enumerate(zip(text, chunks, strict=True))
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VespaRefused(f"document {str(fields.get('id', ''))!r} was not written by the feeder: {error}") from None


def _decoded(passage: Passage, fields: Mapping[str, Any], settings: AppSettings, books: Codebooks) -> StoredPassage:
    codec = CODECS[settings.codec]
    values = {name: fields[name] for name in (VECTORS, *codec.more_fields(settings)) if name in fields}
    dense = {
        model: decoded_dense(fields[name]["values"], own)
        for model, own in settings.dense.items()
        if (name := dense_field(model)) in fields
    }
    if VECTORS not in values:
        return StoredPassage(passage, np.zeros((0, settings.dim), np.float32), dense=dense)
    packed = codec.packed(values, books)
    if packed is not None and books.residual is not None:
        return StoredPassage(passage, books.residual.decode(*packed), packed, dense)
    return StoredPassage(passage, codec.decode(values, books).reshape(-1, settings.dim), dense=dense)


def _metadata(fields: Mapping[str, Any], settings: AppSettings) -> dict[str, Value]:
    """Return the fields that are marked as present; Vespa leaves out an empty text."""
    metadata: dict[str, Value] = {}
    present = set(fields.get(PRESENT, ()))
    for name, type_ in settings.metadata.fields.items():
        if name in present and name in fields:
            metadata[name] = _place(fields[name]) if type_ is FieldType.POSITION else fields[name]
        elif name in present and type_ is FieldType.STRING:
            metadata[name] = ""
    return metadata


def _place(value: Mapping[str, Any]) -> Value:
    return {"lat": float(value["lat"]), "lng": float(value["lng"])}


def _chunks(value: Mapping[str, Any], count: int) -> list[dict[str, object]]:
    """Split a tensor with a chunk dimension into one tensor of rows per chunk."""
    chunks: list[dict[str, object]] = [{} for _ in range(count)]
    for block in value.get("blocks", ()):
        address = block["address"]
        chunks[int(address[CHUNK])][str(address["dt"])] = block["values"]
    return [{VECTORS: {"blocks": rows}} if rows else {} for rows in chunks]
