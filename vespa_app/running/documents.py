"""Convert a passage, or in layout `chunks` a document with its passages, to the fields of a Vespa document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from late_interaction.array_types import I32, Matrix, TokenIds, Vector
from late_interaction.documents import Passage
from late_interaction.metadata import FieldType, Value
from vespa_app.candidates import DocumentContext, strategies_of
from vespa_app.codecs import CODECS, NO_CODEBOOKS, VECTORS, Codebooks
from vespa_app.running.layouts import chunked_blocks
from vespa_app.running.passage_fields import PRESENT, present_marks
from vespa_app.settings import AppSettings

__all__ = ["document_fields", "sent_metadata"]


def document_fields(
    passages: Sequence[Passage],
    vectors: Sequence[Matrix],
    settings: AppSettings,
    books: Codebooks = NO_CODEBOOKS,
    codes: I32 | None = None,
    token_ids: TokenIds | None = None,
    residual_codes: I32 | None = None,
    dense: Mapping[str, Vector] | None = None,
) -> dict[str, object]:
    """Return the document/v1 fields of one passage, or in layout `chunks` of all passages of a document.

    Title and metadata are those of the first passage.

    Args:
        passages: the passages.
        vectors: `[t, d]` float32 of each passage.
        settings: settings of the index.
        books: codebooks of the bundle.
        codes: centroids of all rows for candidates, if known.
        token_ids: vocabulary ids of all rows, if known.
        residual_codes: centroids of all rows for codec residual, if known.
        dense: the passage's vector by name of each dense model.

    Raises:
        MetadataError: if metadata or a dense vector do not fit the settings.
        SettingsError: if a codebook is needed.
    """
    first, codec, chunked = passages[0], CODECS[settings.codec], settings.layout == "chunks"
    rows = np.concatenate(vectors) if len(vectors) > 1 else vectors[0]
    metadata = settings.metadata.check(first.metadata)
    fields: dict[str, object] = {
        "id": first.id,
        "document_id": first.document_id,
        "title": first.title,
        **sent_metadata(metadata, settings),
        PRESENT: present_marks(metadata),
    }
    context = DocumentContext(books.codebook, books.thresholds, settings, codes, token_ids, dense or {}, books.one_vector)
    for strategy in strategies_of(settings):
        fields.update(strategy.document_fields(rows, context))
    fields["text"] = [passage.text for passage in passages] if chunked else first.text
    if settings.encoding == "embedder":
        return fields
    if chunked:
        return fields | {VECTORS: chunked_blocks([codec.encode(chunk, books)[VECTORS] for chunk in vectors])}
    return fields | codec.encode(rows, books, residual_codes)


def sent_metadata(metadata: Mapping[str, Value], settings: AppSettings) -> dict[str, object]:
    """Return positions in degrees, and everything else as stored."""
    shown = settings.metadata.shown(metadata)
    types = settings.metadata.fields
    return {name: shown[name] if types[name] is FieldType.POSITION else value for name, value in metadata.items()}
