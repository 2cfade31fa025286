"""The feed: survey the whole source, then encode and send it batch by batch, with a journal of what arrived.

The survey reads everything once before anything is sent: a broken line, or metadata that does not fit, stops the feed with
nothing half-written. One batch is encoded while the one before it is being sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from feeder.journal import Journal, content_hash
from feeder.targets import EncodedDocument, Failure, Target
from late_interaction.documents import Document, Passage
from late_interaction.errors import CollectionError, VespaError
from late_interaction.metadata import MetadataSchema, SchemaInference
from late_interaction.tokenizing import Tokenizing
from late_interaction.vector_cache import DocumentEncoder

__all__ = ["FeedProgress", "FeedSummary", "Survey", "delete_documents", "feed_documents", "survey"]

BATCH = 256
NAMED = 20


@dataclass(frozen=True)
class Survey:
    """What a source holds.

    blank_ids: the first 20 ids of documents without title and text, which are never sent.
    last_place: for an id that comes more than once, the place of the one that counts, the last.
    """

    documents: int
    blank: int
    blank_ids: tuple[str, ...]
    duplicates: int
    last_place: Mapping[str, int]
    schema: MetadataSchema


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """Handed to the progress callback after every batch. `total` counts documents that are not blank."""

    done: int
    total: int
    token_vectors: int
    seconds: float


@dataclass(frozen=True)
class FeedSummary:
    """The ledger balances: documents = acknowledged + already_there + dead_lettered + skipped_blank + duplicates."""

    target: str
    documents: int
    acknowledged: int = 0
    already_there: int = 0
    dead_lettered: int = 0
    skipped_blank: int = 0
    skipped_blank_ids: tuple[str, ...] = ()
    duplicates: int = 0
    truncated: int = 0
    token_vectors: int = 0
    seconds: float = 0.0
    version: int | None = None
    dead_letter_file: str | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def survey(documents: Iterable[Document], schema: MetadataSchema | None = None) -> Survey:
    """Reads all documents: counts them and types their metadata, against `schema` where one is given.

    Raises: CollectionError, MetadataError.
    """
    inference = SchemaInference()
    seen: set[str] = set()
    last_place: dict[str, int] = {}
    total = blank = duplicates = 0
    blank_ids: list[str] = []
    for place, document in enumerate(documents):
        total += 1
        if document.blank:
            blank += 1
            blank_ids += [document.id] if blank <= NAMED else []
        elif document.id in seen:
            duplicates += 1
            last_place[document.id] = place
        else:
            seen.add(document.id)
        if schema is None:
            inference.add(document.id, document.metadata)
        else:
            schema.check(document.metadata)
    return Survey(total, blank, tuple(blank_ids), duplicates, last_place, schema or inference.schema())


@dataclass
class _Ledger:
    """Counts of one running feed; only the main thread touches it."""

    acknowledged: int = 0
    already_there: int = 0
    skipped_blank: int = 0
    duplicates: int = 0
    truncated: int = 0
    token_vectors: int = 0
    failures: list[Failure] = field(default_factory=list)


def feed_documents(
    documents: Iterable[Document],
    surveyed: Survey,
    target: Target,
    encoder: DocumentEncoder,
    journal: Journal,
    *,
    progress: Callable[[FeedProgress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    batch_size: int = BATCH,
) -> FeedSummary:
    """Encodes and sends what the journal does not already have.

    Documents that the target refuses go to the dead-letter file beside the journal, and the feed goes on.
    Raises: VespaUnreachable or VespaBusy when retries are used up; the journal then has what arrived.
    """
    start = clock()
    ledger = _Ledger()
    tokenizing = Tokenizing(target.bundle)
    done = target.durable(journal.acknowledged)
    with ThreadPoolExecutor(1, thread_name_prefix="send") as sender:
        sending: Future[list[EncodedDocument]] | None = None
        for batch in _batches(documents, surveyed, done, ledger, batch_size):
            encoded = _encode(batch, encoder if target.needs_vectors else None, tokenizing, target.schema, ledger)
            _settle(sending, target, ledger, journal)
            sending = sender.submit(_sent, target, encoded)
            if progress:
                settled = ledger.acknowledged + ledger.already_there + len(ledger.failures)
                progress(FeedProgress(settled, surveyed.documents, ledger.token_vectors, clock() - start))
        _settle(sending, target, ledger, journal)
    version = target.finish().version
    dead_letters = _write_dead_letters(journal.path.with_suffix(".dead.jsonl"), ledger.failures)
    if progress:
        progress(FeedProgress(surveyed.documents, surveyed.documents, ledger.token_vectors, clock() - start))
    return FeedSummary(
        target=target.name,
        documents=surveyed.documents,
        acknowledged=ledger.acknowledged,
        already_there=ledger.already_there,
        dead_lettered=len(ledger.failures),
        skipped_blank=ledger.skipped_blank,
        skipped_blank_ids=surveyed.blank_ids,
        duplicates=ledger.duplicates,
        truncated=ledger.truncated,
        token_vectors=ledger.token_vectors,
        seconds=clock() - start,
        version=version,
        dead_letter_file=dead_letters,
    )


def delete_documents(documents: Iterable[Document], surveyed: Survey, target: Target, dead_letters: Path) -> FeedSummary:
    """Deletes the documents with the ids of the source. An id that is not there counts as deleted."""
    start = time.monotonic()
    failures: list[Failure] = []
    ids = list(dict.fromkeys(document.id for document in documents))
    for first in range(0, len(ids), BATCH):
        target.delete(ids[first : first + BATCH])
    failures += [settled.failure for settled in target.settled(wait=True) if settled.failure]
    version = target.finish().version
    return FeedSummary(
        target=target.name,
        documents=surveyed.documents,
        acknowledged=len(ids) - len(failures),
        duplicates=surveyed.documents - len(ids),
        dead_lettered=len(failures),
        seconds=time.monotonic() - start,
        version=version,
        dead_letter_file=_write_dead_letters(dead_letters, failures),
    )


def _batches(
    documents: Iterable[Document], surveyed: Survey, done: Mapping[str, str], ledger: _Ledger, size: int
) -> Iterator[list[Document]]:
    """Documents to send, a batch at a time; an id comes once."""
    batch: list[Document] = []
    for place, document in enumerate(documents):
        if document.blank:
            ledger.skipped_blank += 1
        elif surveyed.last_place.get(document.id, place) != place:
            ledger.duplicates += 1
        elif done.get(document.id) == content_hash(document):
            ledger.already_there += 1
        else:
            batch.append(document)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _encode(
    batch: Sequence[Document], encoder: DocumentEncoder | None, tokenizing: Tokenizing, schema: MetadataSchema, ledger: _Ledger
) -> list[EncodedDocument]:
    """Without an encoder, for a target that makes the vectors itself, each has no row."""
    passages = [Passage.of(replace(document, metadata=schema.check(document.metadata))) for document in batch]
    texts = [passage.encoded_text for passage in passages]
    ledger.truncated += sum(rows.truncated for rows in tokenizing.documents(texts))
    vectors = encoder.encode_documents(texts) if encoder else [np.zeros((0, 0), np.float32)] * len(texts)
    ledger.token_vectors += sum(len(rows) for rows in vectors)
    return [EncodedDocument(d, (p,), (v,)) for d, p, v in zip(batch, passages, vectors, strict=True)]


def _sent(target: Target, batch: list[EncodedDocument]) -> list[EncodedDocument]:
    target.put(batch)
    return batch


def _settle(sending: Future[list[EncodedDocument]] | None, target: Target, ledger: _Ledger, journal: Journal) -> None:
    """Waits for the batch in flight and books it."""
    if sending is None:
        return
    documents = {item.document.id: item.document for item in sending.result()}
    try:
        settled = target.settled(wait=True)
    except VespaError:
        journal.acknowledge([documents[done.document_id] for done in target.settled() if not done.failure])
        raise
    journal.acknowledge([documents[done.document_id] for done in settled if not done.failure])
    ledger.acknowledged += sum(not done.failure for done in settled)
    ledger.failures += [done.failure for done in settled if done.failure]


def _write_dead_letters(path: Path, failures: Sequence[Failure]) -> str | None:
    if not failures:
        return None
    lines = [json.dumps({"id": f.document_id, "status": f.status, "message": f.message}) for f in failures]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise CollectionError(f"dead letters cannot be written to {path}: {error.strerror}") from None
    return str(path)
