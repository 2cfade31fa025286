"""Documents to passages with vectors: those that bring theirs are checked, the others are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from feeder.encoding.batches import EncodedPassages, Encoding, failed
from feeder.encoding.passages import Span, Splitting, check_count, marked_ranges
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from late_interaction.errors import CollectionError, UsageError

__all__ = ["DocumentEncoding"]

NO_MODEL = "it has no vectors, and the bundle has no model to make them: give each document its vectors"
OWN_MODEL = 'it brings vectors, and the application makes its own: deploy one with encoding = "client" in app.toml'


class DocumentEncoding:
    """As `Encoding`, of whole documents. A batch is done when its texts are encoded."""

    def __init__(self, texts: Encoding | None, bundle: Bundle, splitting: Splitting, *, takes_vectors: bool = True) -> None:
        """texts: what encodes them; None where the bundle has no model. takes_vectors: False where the target encodes."""
        self.ahead = 2 if texts is None else texts.ahead
        self._texts, self._rules, self._splitting, self._takes_vectors = texts, bundle.document_rows, splitting, takes_vectors

    def submit(self, batch: Sequence[Document]) -> Future[list[EncodedPassages]]:
        done: Future[list[EncodedPassages]] = Future()
        found = [self._ready(document) for document in batch]
        places = [place for place, one in enumerate(found) if one is None]
        if not places or self._texts is None:
            done.set_result([one or failed(NO_MODEL) for one in found])
            return done

        def join(encoded: Future[list[EncodedPassages]]) -> None:
            if encoded.cancelled():
                done.cancel()
            elif error := encoded.exception():
                done.set_exception(error)
            else:
                made = iter(encoded.result())
                done.set_result([one or next(made) for one in found])

        texts = [(batch[place].title, batch[place].text) for place in places]
        self._texts.submit(texts).add_done_callback(join)
        return done

    def close(self) -> None:
        if self._texts is not None:
            self._texts.close()

    def _ready(self, document: Document) -> EncodedPassages | None:
        """None where its vectors are still to be made."""
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
        """Of its text in each passage. Raises: CollectionError where it has other passages than vectors."""
        text, count = document.text, len(document.vectors)
        check_count(count)
        if not text.strip():
            return ((0, 0),) * count
        ranges = marked_ranges(text) if self._splitting.method == "marked" else [(0, len(text))]
        if len(ranges) != count:
            raise CollectionError(
                f'its text is {len(ranges)} passages and its vectors are those of {count}: [passages] method = "marked" '
                "in feed.toml cuts a text at U+10FFFD"
            )
        return tuple(ranges)
