"""Split documents into passages by RAGatouille's contract.

A splitter is called with texts, their ids and `chunk_size`, and returns a list of {"document_id", "content"}. A preprocessing
function is called with that list (without a splitter, with the texts) and the ids, and returns such a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colbert_vespa.rag.checks import checked_ids, checked_texts
from feeder.encoding.passages import Counting, Cut, Splitting, cut_documents
from late_interaction.errors import ArgumentError, CollectionError
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["CorpusProcessor", "ModelSplitter", "Piece", "Preprocessing", "Splitter", "sentence_splitter"]

Piece = dict[str, str]  # document_id, content
Splitter = Callable[..., list[Piece]]
Preprocessing = Callable[..., Any]

MOST_OVERLAP = 64
LEAST_TOKENS = 8
_WORD = re.compile(r"\w+|[^\w\s]")


def sentence_splitter(documents: Sequence[str], document_ids: Sequence[str], chunk_size: int = 256) -> list[Piece]:
    """Split documents into passages of whole sentences.

    Passages overlap by a quarter of their size, 64 tokens at most. Called directly, the function counts words and signs;
    `RAGPretrainedModel` counts the tokens of its model instead.

    Args:
        documents: Texts of the documents.
        document_ids: Id of each document.
        chunk_size: Words and signs of a passage, at most.

    Returns:
        The passages of all documents, in order.

    Raises:
        ArgumentError: If `chunk_size` is too small.
    """
    return _split(documents, document_ids, chunk_size, _Words())


class ModelSplitter:
    """`sentence_splitter` with the tokens of one model; chunk_size includes marker and special tokens."""

    def __init__(self, tokenizing: Tokenizing) -> None:
        self._tokenizing = tokenizing

    def __call__(self, documents: Sequence[str], document_ids: Sequence[str], chunk_size: int = 256) -> list[Piece]:
        """Split documents into passages of at most `chunk_size` tokens of the model."""
        return _split(documents, document_ids, chunk_size, self._tokenizing)


class CorpusProcessor:
    """Splits documents, then preprocesses the passages."""

    def __init__(
        self,
        document_splitter_fn: Splitter | None = sentence_splitter,
        preprocessing_fn: Preprocessing | Sequence[Preprocessing] | None = None,
    ) -> None:
        self.document_splitter_fn = document_splitter_fn
        if preprocessing_fn is None:
            self._steps: list[Preprocessing] = []
        else:
            self._steps = [preprocessing_fn] if callable(preprocessing_fn) else list(preprocessing_fn)

    def process_corpus(
        self, documents: Sequence[str], document_ids: Sequence[str] | None = None, chunk_size: int = 256
    ) -> list[Piece]:
        """Return the passages, in order.

        Args:
            documents: Texts of the documents.
            document_ids: Id of each document; None for new ones.
            chunk_size: Tokens of a passage, at most, which are passed to the splitter.

        Raises:
            ArgumentError: If the ids do not fit, or a function does not return passages.
        """
        texts = checked_texts(documents, "collection")
        ids = checked_ids(document_ids, len(texts))
        made: Any = texts
        if self.document_splitter_fn is not None:
            made = self.document_splitter_fn(texts, ids, chunk_size=chunk_size)
        for step in self._steps:
            made = step(made, ids)
        return _checked(made, ids)


def _split(documents: Sequence[str], document_ids: Sequence[str], chunk_size: int, counting: Counting) -> list[Piece]:
    tokens = chunk_size - len(counting.documents([""])[0].ids)
    if tokens < LEAST_TOKENS:
        raise ArgumentError(
            f"passages of {chunk_size} tokens leave {tokens} for the text, but at least {LEAST_TOKENS} are needed"
        )
    splitting = Splitting("sentences", tokens, min(tokens // 4, MOST_OVERLAP))
    pieces: list[Piece] = []
    cuts = cut_documents([("", text) for text in documents], splitting, counting)
    for id_, text, cut in zip(document_ids, documents, cuts, strict=True):
        if not isinstance(cut, Cut):
            raise CollectionError(f"document {id_!r}: {cut}")
        pieces += [{"document_id": id_, "content": text[start:end]} for start, end in cut.ranges]
    return pieces


class _Words:
    """Counts words and signs, if there is no model to count tokens."""

    document_room = 1 << 30

    def document_counts(self, texts: Sequence[str]) -> list[int]:
        return [sum(1 for _ in _WORD.finditer(text)) for text in texts]

    def documents(self, texts: Sequence[str]) -> list[TokenRows]:
        return [_rows(count) for count in self.document_counts(texts)]


def _rows(count: int) -> TokenRows:
    ids = np.zeros(count, np.int64)
    return TokenRows(ids, ids, np.ones(count, np.bool_), ((0, 0),) * count, truncated=False)


def _checked(made: Any, ids: list[str]) -> list[Piece]:
    """Check the passages that a function returned; a list with one text per document is accepted, too."""
    found = list(made)
    if len(found) == len(ids) and all(isinstance(item, str) for item in found):
        return [{"document_id": id_, "content": text} for id_, text in zip(ids, found, strict=True)]
    known = set(ids)
    for item in found:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise ArgumentError(f"a passage is a dict of document_id and content, got {str(item)[:60]!r}")
        if item.get("document_id") not in known:
            raise ArgumentError(f"a passage has the document_id {item.get('document_id')!r}, which does not exist")
    return [{"document_id": item["document_id"], "content": item["content"]} for item in found]
