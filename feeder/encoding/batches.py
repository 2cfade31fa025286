"""Encode titles and texts as passages with vectors, in this process or in worker processes, behind one interface.

`submit` takes a batch and returns a future, so encoding continues while the caller does something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np

from feeder.encoding.passages import Cut, Span, Splitting, cut_documents
from late_interaction.array_types import Matrix, TokenIds, TokenVectors
from late_interaction.bundle import Bundle
from late_interaction.dense import DenseEncoder
from late_interaction.documents import passage_text
from late_interaction.errors import CollectionError
from late_interaction.tokenizing import Tokenizing, row_token_ids
from late_interaction.vector_cache import DocumentEncoder

__all__ = [
    "DenseModels",
    "EncodedPassages",
    "Encoding",
    "HereEncoding",
    "KnownEncoding",
    "Text",
    "batched",
    "dense_basis",
    "encode_batch",
    "encoding_basis",
    "failed",
]

T = TypeVar("T")
DenseModels = Mapping[str, DenseEncoder]
NO_DENSE: DenseModels = {}
BATCH = 256
BATCH_CHARACTERS = 1 << 18  # about 64,000 tokens: 32 MiB of vectors at 128 dimensions


@dataclass(frozen=True, slots=True)
class Text:
    """Title and text of a document.

    Attributes:
        title: the title.
        text: the text.
        ranges: ranges of its passages, if it has its own token vectors; None if it is to be split and encoded.
        dense: names of the dense models that make a vector of each passage.
    """

    title: str
    text: str
    ranges: tuple[Span, ...] | None = None
    dense: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedPassages:
    """A document's passages.

    Attributes:
        title: title of each.
        ranges: character ranges of the text.
        vectors: token vectors `[t, d]` of each.
        token_ids: vocabulary ids of their rows, if known.
        truncated: the model does not read all of it.
        error: why it cannot be indexed; it then has no passages.
        dense: by dense model, `[passages, dim]`.
    """

    title: str
    ranges: tuple[Span, ...]
    vectors: tuple[Matrix, ...]
    token_ids: tuple[TokenIds | None, ...]
    truncated: bool
    error: str = ""
    dense: Mapping[str, Matrix] = field(default_factory=dict)


class Encoding(Protocol):
    """Encodes batches.

    Attributes:
        ahead: how many batches may be in progress at once.
    """

    ahead: int

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        """Start encoding a batch.

        The future has an outcome for each document, in order. It raises ColbertVespaError if encoding is impossible.
        """
        ...

    def close(self) -> None:
        """Stop encoding and release the encoder."""


def encoding_basis(bundle: Bundle, splitting: Splitting, precision: str | None) -> str:
    """Return what passages and their vectors depend on besides the document, for its digest.

    precision: None if the target makes the vectors. Dense models are covered by `dense_basis`.
    """
    return repr((bundle.sha256, astuple(splitting), precision))


def dense_basis(models: DenseModels) -> str:
    """Return the suffix of `encoding_basis` for dense models: the graph of each, because it depends on the device."""
    return "".join(f" {name}={models[name].precision}" for name in sorted(models))


def batched(items: Iterable[T], characters: Callable[[T], int], most: int = BATCH) -> Iterator[list[T]]:
    """Yield batches whose vectors take bounded memory."""
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
    batch: Sequence[Text],
    splitting: Splitting,
    tokenizing: Tokenizing | None,
    encoder: DocumentEncoder | None,
    dense: DenseModels = NO_DENSE,
) -> list[EncodedPassages]:
    """Encode a batch.

    Args:
        batch: the texts.
        splitting: how texts are split.
        tokenizing: None if all texts have ranges.
        encoder: None for a target that makes token vectors; passages then have no rows.
        dense: the dense encoders by name.
    """
    whole = [(item.title, item.text) for item in batch if item.ranges is None]
    cuts = iter(cut_documents(whole, splitting, tokenizing) if whole and tokenizing is not None else [])
    made = [next(cuts) if item.ranges is None else Cut(item.title, item.ranges, ()) for item in batch]
    texts = [_passage_texts(cut, item) for cut, item in zip(made, batch, strict=True)]
    encoded = iter(_token_vectors([(cut, own) for cut, own in zip(made, texts, strict=True) if isinstance(cut, Cut)], encoder))
    found = [_encoded(cut, next(encoded)) if isinstance(cut, Cut) else failed(str(cut)) for cut in made]
    return _with_dense(found, batch, texts, dense)


def _passage_texts(cut: Cut | EncodedPassages | CollectionError, item: Text) -> list[str]:
    if isinstance(cut, CollectionError):
        return []
    return [passage_text(cut.title, item.text[start:end]) for start, end in cut.ranges]


def _token_vectors(cuts: Sequence[tuple[Cut, list[str]]], encoder: DocumentEncoder | None) -> list[list[TokenVectors]]:
    """Return the token vectors of each text's passages; none for a text that has its own."""
    every = [rows for cut, _ in cuts for rows in cut.rows]
    vectors: list[Matrix] = [np.zeros((0, 0), np.float32)] * len(every)
    token_ids: list[TokenIds | None] = [None] * len(every)
    if encoder is not None and every:
        vectors = encoder.encode_documents([text for cut, own in cuts if cut.rows for text in own], every)
        token_ids = [row_token_ids(rows, encoder.bundle.manifest.pooling) for rows in every]
    rest = iter(zip(vectors, token_ids, strict=True))
    return [[next(rest) for _ in cut.rows] for cut, _ in cuts]


def _encoded(cut: Cut, rows: Sequence[TokenVectors]) -> EncodedPassages:
    vectors, token_ids = tuple(made for made, _ in rows), tuple(ids for _, ids in rows)
    if not all(np.isfinite(rows).all() for rows in vectors):
        return failed("its vectors contain NaN or infinity: the model cannot encode this text")
    return EncodedPassages(cut.title, cut.ranges, vectors, token_ids, cut.truncated)


def _with_dense(
    found: Sequence[EncodedPassages], batch: Sequence[Text], texts: Sequence[list[str]], models: DenseModels
) -> list[EncodedPassages]:
    """Add the vectors of the dense models that each text requests."""
    dense: list[dict[str, Matrix]] = [{} for _ in batch]
    for name, model in models.items():
        places = [place for place, item in enumerate(batch) if name in item.dense and not found[place].error]
        if places:
            rows = model.encode_documents([text for place in places for text in texts[place]])
            parts = np.split(rows, np.cumsum([len(texts[place]) for place in places])[:-1])
            for place, part in zip(places, parts, strict=True):
                dense[place][name] = part
    return [_dense_checked(one, own) for one, own in zip(found, dense, strict=True)]


def _dense_checked(passages: EncodedPassages, dense: Mapping[str, Matrix]) -> EncodedPassages:
    for name, rows in dense.items():
        if not np.isfinite(rows).all():
            return failed(f"its vectors from dense model {name!r} contain NaN or infinity: the model cannot encode this text")
    return replace(passages, dense=dense) if dense else passages


def failed(error: str) -> EncodedPassages:
    """Return the outcome of a document that cannot be indexed."""
    return EncodedPassages("", (), (), (), truncated=False, error=error)


class HereEncoding:
    """Encodes in a thread of this process; the encoder has its own threads."""

    ahead = 2

    def __init__(
        self,
        splitting: Splitting,
        tokenizing: Tokenizing | None,
        encoder: DocumentEncoder | None,
        dense: DenseModels = NO_DENSE,
    ) -> None:
        """Start the thread. Arguments are those of `encode_batch`."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._parts = (splitting, tokenizing, encoder, dense)

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        """Start encoding a batch."""
        return self._pool.submit(encode_batch, batch, *self._parts)

    def close(self) -> None:
        """Wait for the current batch, because the encoder's cache is closed next."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class KnownEncoding:
    """Returns texts that were encoded before."""

    ahead = 2

    def __init__(self, passages: Mapping[tuple[str, str], EncodedPassages], dense: DenseModels = NO_DENSE) -> None:
        """Keep the passages.

        Args:
            passages: passages of every text that will be submitted, by title and text.
            dense: the dense encoders by name, whose vectors are made on submission.
        """
        self._passages, self._dense = passages, dense

    def submit(self, batch: Sequence[Text]) -> Future[list[EncodedPassages]]:
        """Return the known passages of a batch."""
        done: Future[list[EncodedPassages]] = Future()
        found = [self._passages[item.title, item.text] for item in batch]
        texts = [_passage_texts(one, item) for one, item in zip(found, batch, strict=True)]
        done.set_result(_with_dense(found, batch, texts, self._dense))
        return done

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
