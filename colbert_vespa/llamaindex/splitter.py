"""Split nodes into passages that fit the model's input length."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.node_parser import NodeParser
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import BaseNode, Document, MetadataMode

from colbert_vespa.store import title_of
from feeder import Splitting
from feeder.encoding.passages import Cut, cut_documents
from late_interaction.bundle import Bundle
from late_interaction.tokenizing import Tokenizing

__all__ = ["ColbertSplitter"]


class ColbertSplitter(NodeParser):
    """The last transformation of an ingestion pipeline into a ColbertVectorStore.

    Ids are the id of the split node, `#` and a number.

    Its nodes have an empty embedding. Pipelines and indexes embed nodes without an embedding before they pass them to a vector
    store; a ColbertVectorStore encodes the nodes itself.
    """

    method: str
    tokens: int
    overlap: int
    bundle_sha256: str  # a cached result is of one model
    _tokenizing: Tokenizing = PrivateAttr()

    def __init__(self, bundle: Bundle | str | Path, *, method: str = "sentences", tokens: int = 0, overlap: int = 0) -> None:
        """Create a splitter for a bundle's model.

        Args:
            bundle: The bundle, or its folder.
            method: sentences, markdown, or none, which does not split.
            tokens: Tokens of a passage, at most; 0 for as many as the model reads.
            overlap: Tokens, at most, of the whole sentences that two passages share.

        Raises:
            BundleError: If the bundle is missing or damaged.
            UsageError: If an argument is not valid.
        """
        Splitting(method, tokens, overlap)
        opened = Bundle.open(bundle) if isinstance(bundle, (str, Path)) else bundle
        fields: dict[str, Any] = {"method": method, "tokens": tokens, "overlap": overlap, "bundle_sha256": opened.sha256}
        super().__init__(id_func=_numbered, **fields)
        self._tokenizing = Tokenizing(opened)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows the class by."""
        return "ColbertSplitter"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:
        """Split the nodes.

        Raises:
            CollectionError: If a node has more than 4,096 passages.
        """
        made = super().__call__(nodes, **kwargs)
        for node in made:
            node.embedding = []
        return made

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[BaseNode]:
        """Split the nodes in a thread."""
        return await asyncio.to_thread(self, nodes, **kwargs)

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        splitting = Splitting(self.method, self.tokens, self.overlap)
        texts = [(title_of(node.metadata), node.get_content(MetadataMode.NONE)) for node in nodes]
        made: list[BaseNode] = []
        for node, (_, text), cut in zip(nodes, texts, cut_documents(texts, splitting, self._tokenizing), strict=True):
            if not isinstance(cut, Cut):
                raise cut
            made += build_nodes_from_splits([text[start:end] for start, end in cut.ranges], node, id_func=self.id_func)
        return made


def _numbered(number: int, node: Document) -> str:
    return f"{node.node_id}#{number}"
