"""How a document is laid out in Vespa: its token vectors, its id, and who makes the vectors.

layout `passages`: a passage is a document; vectors are tensor(dt{}, x[d]). layout `chunks`: a document holds all its
passages; `text` is a list, vectors are tensor(chunk{}, dt{}, x[d]), and the score is that of the best chunk. The engine
fuses MaxSim only over two dimensions, so chunks cost more per token vector.

mode `streaming`: there is no index; a query reads one group, which is part of the document's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from late_interaction.errors import MetadataError
from vespa_app.codecs import CODECS
from vespa_app.settings import AppSettings

__all__ = [
    "CHUNK",
    "EMBEDDER_FOLDER",
    "EMBEDDER_TYPE",
    "Embedder",
    "chunked_blocks",
    "document_path",
    "documents_path",
    "embedded",
    "embedder_of",
    "maxsim",
    "vectors_type",
]

CHUNK = "chunk"
EMBEDDER_ID = "colbert"
EMBEDDER_TYPE = "colbert-embedder"
# not models/: Vespa would also import it for ranking, which takes several times the model's size on a config server
EMBEDDER_FOLDER = "embedder"


@dataclass(frozen=True)
class Embedder:
    """Vespa's embedder.

    Attributes:
        id: the name by which schemas and queries refer to it.
        model: path in the package.
        tokenizer: path in the package.
    """

    id: str
    model: str
    tokenizer: str


def embedder_of(bundle_sha256: str, settings: AppSettings) -> Embedder:
    """Return the embedder, named after the bundle, and the precision if the settings name one.

    So another model is another component with its own files, and vectors of two models never meet.
    """
    version = bundle_sha256[:8]
    model = f"{version}_{settings.precision.replace('-', '_')}" if settings.precision else version
    name = f"{EMBEDDER_ID}_{model}"
    return Embedder(name, f"{EMBEDDER_FOLDER}/{name}.onnx", f"{EMBEDDER_FOLDER}/{EMBEDDER_ID}_{version}.tokenizer.json")


def vectors_type(settings: AppSettings) -> str:
    """Return the tensor type of the field `vectors`."""
    plain = CODECS[settings.codec].field_type(settings)
    return plain.replace("(dt{}", f"({CHUNK}{{}}, dt{{}}") if settings.layout == "chunks" else plain


def maxsim(settings: AppSettings) -> str:
    """Return the MaxSim expression of a document: of its passage, or of the best of its chunks."""
    expression = CODECS[settings.codec].maxsim(settings)
    return f"reduce({expression}, max, {CHUNK})" if settings.layout == "chunks" else expression


def embedded(settings: AppSettings, embedder_id: str) -> str:
    """Return the indexing expression by which Vespa makes the vectors of title and text."""
    if settings.layout == "chunks":
        return f'input text | for_each {{ (input title || "") . " " . _ }} | embed {embedder_id} {CHUNK} | attribute'
    return f'(input title || "") . " " . (input text || "") | embed {embedder_id} | attribute'


def chunked_blocks(chunks: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return encoded chunks, each `{"blocks": {row: cells}}`, as one value of a tensor with a chunk dimension."""
    blocks = []
    for number, chunk in enumerate(chunks):
        rows = chunk["blocks"]
        assert isinstance(rows, Mapping)
        blocks += [{"address": {CHUNK: str(number), "dt": row}, "values": cells} for row, cells in rows.items()]
    return {"blocks": blocks}


def document_path(settings: AppSettings, document_id: str, metadata: Mapping[str, object]) -> str:
    """Return the document/v1 path of a document. In mode streaming the group is part of it.

    Raises:
        MetadataError: if the group is missing.
    """
    everything, place = documents_path(settings), "docid"
    if settings.mode == "streaming":
        group = metadata.get(settings.group_field)
        if not isinstance(group, str) or not group:
            raise MetadataError(f"metadata field {settings.group_field!r} is empty, but it determines the document's group")
        place = f"group/{quote(group, safe='')}"
    return f"{everything.removesuffix('docid')}{place}/{quote(document_id, safe='')}"


def documents_path(settings: AppSettings) -> str:
    """Return the path of all documents of the index, in all groups."""
    return f"/document/v1/{quote(settings.namespace, safe='')}/{settings.schema}/docid"
