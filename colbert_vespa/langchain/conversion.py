"""Documents of LangChain and of ours. A title is `title` in LangChain's metadata."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document

from colbert_vespa.store import whole_metadata
from late_interaction.documents import Document as OurDocument
from query import Hit

__all__ = ["SCORE", "from_hit", "from_ours", "to_ours"]

SCORE = "score"


def from_hit(hit: Hit) -> Document:
    """`id` is the document's; metadata has its fields, and of ours: title, passage_id, score, index."""
    own = {"passage_id": hit.passage_id, SCORE: hit.score, "index": hit.index}
    return Document(id=hit.id, page_content=hit.text, metadata={**_titled(hit.title), **whole_metadata(hit.metadata), **own})


def from_ours(document: OurDocument) -> Document:
    metadata = {**_titled(document.title), **whole_metadata(document.metadata)}
    return Document(id=document.id, page_content=document.text, metadata=metadata)


def to_ours(document: Document, id_: str) -> OurDocument:
    metadata: dict[str, Any] = dict(document.metadata)
    title = metadata.get("title")
    if isinstance(title, str) and title:
        del metadata["title"]
        return OurDocument(id_, title, document.page_content, metadata)
    return OurDocument(id_, "", document.page_content, metadata)


def _titled(title: str) -> dict[str, Any]:
    return {"title": title} if title else {}
