"""Convert between LlamaIndex's nodes and our documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from colbert_vespa.store import title_of, whole_metadata
from late_interaction.documents import Document
from query import Hit

__all__ = ["REF_DOC_ID", "document_of", "encoded_document", "node_of", "node_of_document", "scored"]

REF_DOC_ID = "ref_doc_id"
_CONTENT, _TYPE = "_node_content", "_node_type"  # LlamaIndex's own names


def document_of(node: BaseNode) -> Document:
    """Convert a node to a document whose fields are its metadata and `ref_doc_id`; the whole node is kept beside them."""
    packed = node_to_metadata_dict(node, remove_text=True)
    metadata: dict[str, Any] = {**node.metadata, _CONTENT: packed[_CONTENT], _TYPE: packed[_TYPE]}
    if node.ref_doc_id is not None:
        metadata[REF_DOC_ID] = node.ref_doc_id
    title = metadata.pop("title", "")
    if not isinstance(title, str):
        metadata["title"], title = title, ""
    return Document(node.node_id, title, node.get_content(MetadataMode.NONE), metadata)


def node_of_document(document: Document, id_: str = "") -> BaseNode:
    """Return the node that was put, or a TextNode for a document that was fed in another way.

    Args:
        document: The stored document.
        id_: Id of the TextNode; default: the document's own.
    """
    metadata = whole_metadata(document.metadata)
    if _CONTENT in metadata:
        return metadata_dict_to_node(metadata, document.text)
    if document.title:
        metadata["title"] = document.title
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document.id)}
    return TextNode(id_=id_ or document.id, text=document.text, metadata=metadata, relationships=source)


def node_of(hit: Hit) -> BaseNode:
    """Return the node of a hit."""
    return node_of_document(Document(hit.id, hit.title, hit.text, hit.metadata), hit.passage_id)


def scored(hits: Sequence[Hit]) -> list[NodeWithScore]:
    """Return the nodes of the hits, with their scores."""
    return [NodeWithScore(node=node_of(hit), score=hit.score) for hit in hits]


def encoded_document(node: BaseNode, id_: str) -> Document:
    """Return the text of a node as a document to encode; the node need not be in the index."""
    return Document(id_, title_of(node.metadata), node.get_content(MetadataMode.NONE))
