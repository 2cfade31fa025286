"""How a document is laid out in Vespa: its token vectors, its id, and who makes the vectors.

layout `passages`: a passage is a document; vectors are tensor(dt{}, x[d]). layout `chunks`: a document holds all its passages;
`text` is a list, vectors are tensor(chunk{}, dt{}, x[d]), and the score is that of the best chunk. The engine fuses MaxSim
only over two dimensions, so chunks cost more per token vector.

mode `streaming`: no index is kept; a query reads one group, which is part of the document's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from late_interaction.errors import MetadataError, SettingsError
from late_interaction.metadata import FieldType
from vespa_app.codecs import CODECS
from vespa_app.settings.application_settings import ENCODINGS, LAYOUTS, MODES, AppSettings

__all__ = [
    "CHUNK",
    "best_similarities",
    "check_layout",
    "chunked_blocks",
    "document_path",
    "documents_path",
    "embedded",
    "maxsim",
    "vectors_type",
]

CHUNK = "chunk"
_EMBEDDABLE = ("float32", "bfloat16", "binary")
_CHUNKED = ("centroid", "pooled", "bm25", "hybrid", "exhaustive")  # HNSW over rows wants one mapped dimension
_WITHOUT_VECTORS = ("bm25", "exhaustive")  # strategies whose documents carry nothing that is made from token vectors
_CHOICES = {"layout": LAYOUTS, "mode": MODES, "encoding": ENCODINGS}


def check_layout(settings: AppSettings) -> None:
    """Raises: SettingsError naming the setting of a combination that cannot work."""
    for name, known in _CHOICES.items():
        if getattr(settings, name) not in known:
            raise SettingsError(f"setting {name}: {getattr(settings, name)!r} unknown; known: {', '.join(known)}")
    if settings.paged and "token" in settings.candidates and settings.codec != "residual":  # which has its rows' bits apart
        raise SettingsError("setting paged: candidates token keep an HNSW graph over the vectors, which must be in memory then")
    if settings.layout == "chunks":
        _only("layout: chunks cannot store", "codec", (settings.codec,), _EMBEDDABLE)
        _only("layout: chunks cannot have", "candidates", settings.candidates, _CHUNKED)
    if settings.encoding == "embedder":
        if not settings.embedder:
            raise SettingsError("setting encoding: embedder makes vectors in Vespa, and setting embedder is false")
        if settings.thresholds:
            raise SettingsError("setting encoding: Vespa's embedder cuts bits at 0, and setting thresholds is true")
        _only("encoding: Vespa's embedder cannot make", "codec", (settings.codec,), _EMBEDDABLE)
        _only("encoding: embedder leaves no client vectors for", "candidates", settings.candidates, _WITHOUT_VECTORS)
    _check_streaming(settings)


def _only(what: str, name: str, given: Sequence[str], known: Sequence[str]) -> None:
    for value in given:
        if value not in known:
            raise SettingsError(f"setting {what} {name} {value!r}; it takes: {', '.join(known)}")


def _check_streaming(settings: AppSettings) -> None:
    if settings.mode != "streaming":
        if settings.group_field:
            raise SettingsError("setting group_field is for mode streaming alone: set mode, or leave group_field out")
        return
    _only("mode: streaming reads a whole group and keeps no index for", "candidates", settings.candidates, _WITHOUT_VECTORS)
    if settings.metadata.fields.get(settings.group_field) is not FieldType.STRING:
        raise SettingsError(
            f"setting group_field: {settings.group_field!r} is no metadata field of type string, and mode streaming needs one"
        )


def vectors_type(settings: AppSettings) -> str:
    """The tensor type of the field `vectors`."""
    plain = CODECS[settings.codec].field_type(settings)
    return plain.replace("(dt{}", f"({CHUNK}{{}}, dt{{}}") if settings.layout == "chunks" else plain


def maxsim(settings: AppSettings) -> str:
    """The MaxSim expression of a document: of its passage, or of the best of its chunks."""
    expression = CODECS[settings.codec].maxsim(settings)
    return f"reduce({expression}, max, {CHUNK})" if settings.layout == "chunks" else expression


def best_similarities(settings: AppSettings) -> str:
    """What each query row found at best, of each chunk where there are chunks."""
    return CODECS[settings.codec].best(settings)


def embedded(settings: AppSettings, embedder_id: str) -> str:
    """The indexing expression by which Vespa makes the vectors of title and text."""
    if settings.layout == "chunks":
        return f'input text | for_each {{ (input title || "") . " " . _ }} | embed {embedder_id} {CHUNK} | attribute'
    return f'(input title || "") . " " . (input text || "") | embed {embedder_id} | attribute'


def chunked_blocks(chunks: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Encoded chunks, each `{"blocks": {row: cells}}`, as one value of a tensor with a chunk dimension."""
    found = []
    for number, chunk in enumerate(chunks):
        rows = chunk["blocks"]
        assert isinstance(rows, Mapping)
        found += [{"address": {CHUNK: str(number), "dt": row}, "values": cells} for row, cells in rows.items()]
    return {"blocks": found}


def document_path(settings: AppSettings, document_id: str, metadata: Mapping[str, object]) -> str:
    """Path of a document in document/v1. In mode streaming the group is part of it.

    Raises: MetadataError where the group is missing.
    """
    everything, place = documents_path(settings), "docid"
    if settings.mode == "streaming":
        group = metadata.get(settings.group_field)
        if not isinstance(group, str) or not group:
            raise MetadataError(f"metadata field {settings.group_field!r} is empty, and it names the document's group")
        place = f"group/{quote(group, safe='')}"
    return f"{everything.removesuffix('docid')}{place}/{quote(document_id, safe='')}"


def documents_path(settings: AppSettings) -> str:
    """Path of all documents of the index, of all groups too."""
    return f"/document/v1/{quote(settings.namespace, safe='')}/{settings.schema}/docid"
