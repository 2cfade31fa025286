"""Documents as passages with vectors: supplied vectors are checked, the other documents are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from feeder.encoding.batches import EncodedPassages, Encoding, Text, failed
from feeder.encoding.passages import MAX_PASSAGES, Span, Splitting, check_count, marked_ranges
from late_interaction.array_types import Matrix
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError
from late_interaction.ready_rows import RowRules

__all__ = ["DocumentEncoding"]

NO_MODEL = "it has no vectors, and the bundle has no model to make them; supply the vectors of each document"
OWN_MODEL = 'it has its own vectors, but the application makes them; deploy one with encoding = "client" in app.toml'


class DocumentEncoding:
    """An `Encoding` of whole documents. A batch is done when its texts are encoded."""

    def __init__(self, texts: Encoding | None, bundle: Bundle, splitting: Splitting, *, takes_vectors: bool = True) -> None:
        """Set up the encoding.

        Args:
            texts: encodes texts; None if the bundle has no model.
            bundle: the bundle.
            splitting: how texts become passages.
            takes_vectors: False if the target makes token vectors itself.
        """
        self.ahead = 2 if texts is None else texts.ahead
        self._texts, self._bundle, self._splitting, self._takes_vectors = texts, bundle, splitting, takes_vectors
        self._rules = bundle.document_rows

    def submit(self, batch: Sequence[Document]) -> Future[list[EncodedPassages]]:
        """Start encoding a batch."""
        done: Future[list[EncodedPassages]] = Future()
        ready = [self._ready(document) for document in batch]
        texts = [self._text(document, own) for document, own in zip(batch, ready, strict=True)]
        wanted = [text for text in texts if isinstance(text, Text)]

        def joined(encoded: Sequence[EncodedPassages]) -> list[EncodedPassages]:
            """Merge encoded and supplied vectors."""
            made = iter(encoded)
            parts = [next(made) if isinstance(text, Text) else text for text in texts]
            return [self._complete(*item) for item in zip(batch, ready, parts, strict=True)]

        def join(encoded: Future[list[EncodedPassages]]) -> None:
            """Settle the future of the batch."""
            if encoded.cancelled():
                done.cancel()
            elif error := encoded.exception():
                done.set_exception(error)
            else:
                done.set_result(joined(encoded.result()))

        if wanted and self._texts is not None:
            self._texts.submit(wanted).add_done_callback(join)
        else:
            done.set_result(joined([]))
        return done

    def close(self) -> None:
        """Release the encoder of texts."""
        if self._texts is not None:
            self._texts.close()

    def _text(self, document: Document, ready: EncodedPassages | None) -> Text | EncodedPassages:
        """Return what is to be encoded; else its outcome, or why it cannot be indexed."""
        if ready is None and not self._bundle.encodes:
            return failed(NO_MODEL)
        if ready is not None and ready.error:
            return ready
        for refused in document.unusable.values():
            return failed(refused.reason)
        parts = self._bundle.manifest.dense
        for name in document.dense:
            if name not in parts:
                known = ", ".join(parts) or "none"
                return failed(f"it has a vector of dense model {name!r}, which the bundle lacks; known: {known}")
        missing = tuple(name for name in parts if name not in document.dense)
        for name in missing:
            if not parts[name].models:
                return failed(f"it has no vector of dense model {name!r}, which has no graph to make it; supply the vector")
        if ready is None:
            return Text(document.title, document.text, dense=missing)
        if missing and not document.text.strip() and not document.title.strip():
            return failed(f"it has no text to make its vector of dense model {missing[0]!r} from; supply the vector")
        return Text(document.title, document.text, ready.ranges, missing) if missing else ready

    def _complete(self, document: Document, ready: EncodedPassages | None, made: EncodedPassages) -> EncodedPassages:
        """Add the vectors that the document supplies."""
        if made.error:
            return made
        dense = dict(made.dense)
        try:
            for name, vectors in document.dense.items():
                dense[name] = self._checked(name, vectors, len(made.ranges))
        except UsageError as error:
            return failed(str(error))
        return replace(made if ready is None else ready, dense=dense) if dense else made

    def _checked(self, name: str, vectors: Matrix, passages: int) -> Matrix:
        """Return `[passages, dim]`; UsageError if the vectors do not fit."""
        part = self._bundle.manifest.dense[name]
        if vectors.ndim == 1 and vectors.size != part.dim * passages:
            needed = f"{part.dim} numbers" + (f" for each of {passages} passages" if passages > 1 else "")
            raise UsageError(f"dense model {name!r}: its vector has {vectors.size} numbers; the model needs {needed}")
        try:
            rows = RowRules(part.dim, MAX_PASSAGES, part.normalized, dense=True).checked(vectors)
        except UsageError as error:
            raise UsageError(f"dense model {name!r}: {error}") from None
        if len(rows) != passages:
            raise UsageError(f"it has {len(rows)} vectors of dense model {name!r} but {passages} passages")
        return rows

    def _ready(self, document: Document) -> EncodedPassages | None:
        """Return the outcome; None if vectors are still to be made."""
        if not document.vectors:
            return None
        if not self._takes_vectors:
            return failed(OWN_MODEL)
        try:
            ranges = self._ranges(document)
            vectors = tuple(self._rules.checked(rows) for rows in document.vectors)
        except (CollectionError, UsageError) as error:
            return failed(str(error))
        return EncodedPassages(document.title, ranges, vectors, (None,) * len(vectors), truncated=False)

    def _ranges(self, document: Document) -> tuple[Span, ...]:
        """Return the range of its text in each passage; CollectionError if passages and vectors do not match."""
        text, count = document.text, len(document.vectors)
        check_count(count)
        if not text.strip():
            return ((0, 0),) * count
        ranges = marked_ranges(text) if self._splitting.method == "marked" else [(0, len(text))]
        if len(ranges) != count:
            raise CollectionError(
                f'its text has {len(ranges)} passages but its vectors have {count}; [passages] method = "marked" '
                "in feed.toml splits a text at U+10FFFD"
            )
        return tuple(ranges)
