"""Titles and texts to passages with vectors: in this process, or in worker processes, behind one interface.

A batch is handed over with `submit` and comes back as a future, so that encoding goes on while the caller does something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Protocol, TypeVar

import numpy as np

from feeder.encoding.passages import Cut, Span, Splitting, cut_documents
from late_interaction.array_types import Matrix, TokenIds, TokenVectors
from late_interaction.bundle import Bundle
from late_interaction.documents import passage_text
from late_interaction.tokenizing import Tokenizing, row_token_ids
from late_interaction.vector_cache import DocumentEncoder

__all__ = [
    "EncodedPassages",
    "Encoding",
    "HereEncoding",
    "KnownEncoding",
    "Text",
    "batched",
    "encode_batch",
    "encoding_basis",
    "failed",
]

T = TypeVar("T")
Text = tuple[str, str]  # title and text of a document
BATCH = 256
BATCH_CHARACTERS = 1 << 18  # some 64,000 tokens: 32 MiB of vectors at 128 dimensions


@dataclass(frozen=True, slots=True)
class EncodedPassages:
    """A document's passages: title of each, ranges of characters of the text, token vectors `[t, d]` and the vocabulary ids of
    their rows where these are known. truncated: the model does not read all of it. error: why it cannot be indexed; it has no
    passages then."""

    title: str
    ranges: tuple[Span, ...]
    vectors: tuple[Matrix, ...]
    token_ids: tuple[TokenIds | None, ...]
    truncated: bool
    error: str = ""


class Encoding(Protocol):
    """ahead: how many batches may be under way without waiting for one another."""

    ahead: int

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        """The future has an outcome for each document, in order. It raises ColbertVespaError where encoding is impossible."""
        ...

    def close(self) -> None: ...


def encoding_basis(bundle: Bundle, splitting: Splitting, precision: str | None) -> str:
    """What passages and their vectors depend on besides the document, for its digest. precision: None where the target makes
    the vectors itself."""
    return repr((bundle.sha256, astuple(splitting), precision))


def batched(items: Iterable[T], characters: Callable[[T], int], most: int = BATCH) -> Iterator[list[T]]:
    """Batches whose vectors take a bounded memory."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += characters(item)
        if len(batch) == most or total >= BATCH_CHARACTERS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def encode_batch(
    batch: Sequence[Text], splitting: Splitting, tokenizing: Tokenizing, encoder: DocumentEncoder | None
) -> list[EncodedPassages]:
    """Without an encoder, for a target that makes the vectors itself, passages have no rows."""
    cuts = cut_documents(batch, splitting, tokenizing)
    good = [(cut, text) for cut, (_, text) in zip(cuts, batch, strict=True) if isinstance(cut, Cut)]
    texts = [passage_text(cut.title, text[start:end]) for cut, text in good for start, end in cut.ranges]
    vectors: list[Matrix] = [np.zeros((0, 0), np.float32)] * len(texts)
    token_ids: list[TokenIds | None] = [None] * len(texts)
    if encoder is not None:
        every = [rows for cut, _ in good for rows in cut.rows]
        vectors = encoder.encode_documents(texts, every)
        token_ids = [row_token_ids(rows, encoder.bundle.manifest.pooling) for rows in every]
    rest = iter(zip(vectors, token_ids, strict=True))
    return [_encoded(cut, [next(rest) for _ in cut.ranges]) if isinstance(cut, Cut) else failed(str(cut)) for cut in cuts]


def _encoded(cut: Cut, rows: Sequence[TokenVectors]) -> EncodedPassages:
    vectors, token_ids = tuple(made for made, _ in rows), tuple(ids for _, ids in rows)
    if not all(np.isfinite(rows).all() for rows in vectors):
        return failed("its vectors are not all finite numbers: the model cannot encode this text")
    return EncodedPassages(cut.title, cut.ranges, vectors, token_ids, cut.truncated)


def failed(error: str) -> EncodedPassages:
    """What comes of a document that cannot be indexed."""
    return EncodedPassages("", (), (), (), truncated=False, error=error)


class HereEncoding:
    """In a thread of this process; the encoder has threads of its own."""

    ahead = 2

    def __init__(self, splitting: Splitting, tokenizing: Tokenizing, encoder: DocumentEncoder | None) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._parts = (splitting, tokenizing, encoder)

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        return self._pool.submit(encode_batch, batch, *self._parts)

    def close(self) -> None:
        """Waits for the batch that is being encoded: what the encoder keeps its vectors in is closed next."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class KnownEncoding:
    """Of texts that were encoded before."""

    ahead = 2

    def __init__(self, passages: Mapping[Text, EncodedPassages]) -> None:
        """passages: of every text that will be asked for."""
        self._passages = passages

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        done: Future[list[EncodedPassages]] = Future()
        done.set_result([self._passages[text] for text in batch])
        return done

    def close(self) -> None:
        """Nothing is held."""
