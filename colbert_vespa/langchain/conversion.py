"""Convert between LangChain's documents and ours. A title is `title` in LangChain's metadata."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from colbert_vespa.store import title_of, whole_metadata
from late_interaction.documents import Document as IndexDocument
from query import Hit

__all__ = ["SCORE", "from_document", "from_hit", "to_document"]

SCORE = "score"
HIT_FIELDS = ("passage_id", SCORE, "index")  # names in the metadata of a hit
PREFIXED_HIT_FIELDS = ("colbert_passage_id", "colbert_score", "colbert_index")  # where the document has one of those


def from_hit(hit: Hit) -> Document:
    """Convert a hit to a LangChain Document with the id of the hit's document.

    The metadata has the document's fields and title, passage_id, score and index. If the document has a field of one of the
    last three names, ours is named colbert_passage_id, colbert_score or colbert_index.
    """
    metadata = {**_titled(hit.title), **whole_metadata(hit.metadata)}
    names = PREFIXED_HIT_FIELDS if any(name in metadata for name in HIT_FIELDS) else HIT_FIELDS
    own = dict(zip(names, (hit.passage_id, hit.score, hit.index), strict=True))
    return Document(id=hit.id, page_content=hit.text, metadata=metadata | own)


def from_document(document: IndexDocument) -> Document:
    """Convert a stored document to a LangChain Document."""
    metadata = {**_titled(document.title), **whole_metadata(document.metadata)}
    return Document(id=document.id, page_content=document.text, metadata=metadata)


def to_document(document: Document, id_: str) -> IndexDocument:
    """Convert a LangChain Document to a document of the index, with this id."""
    metadata = _without_hit(document)
    title = title_of(metadata)
    if title:
        del metadata["title"]
    return IndexDocument(id_, title, document.page_content, metadata)


def _without_hit(document: Document) -> dict[str, Any]:
    """Return the metadata without the keys that from_hit has added."""
    metadata: dict[str, Any] = dict(document.metadata)
    for names in (PREFIXED_HIT_FIELDS, HIT_FIELDS):
        passage_id = metadata.get(names[0])
        if (
            document.id
            and isinstance(passage_id, str)
            and passage_id.startswith(f"{document.id}#")
            and set(names) <= set(metadata)
        ):
            return {name: value for name, value in metadata.items() if name not in names}
    return metadata


def _titled(title: str) -> dict[str, Any]:
    return {"title": title} if title else {}
