"""A Vespa application as a target: documents as document/v1 operations.

Passage #0 of a document is written after its other passages and removed before them. So if passage #0 has a digest,
everything of that digest is there, and an incomplete document reads as unknown. In layout `chunks` a document is one of
Vespa's.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from feeder.outcomes import Failure, Finished, Settled, StoredDigest
from feeder.sending.jobs import Job
from feeder.sending.operations import Compression, Operation, put, remove, update
from feeder.sending.sender import Sender, open_sender
from feeder.sending.statistics import FeedStatistics
from feeder.targets import EncodedDocument, Kept
from feeder.targets.stored_rows import StoredRow, StoredRows
from late_interaction.addresses import VespaUrl
from late_interaction.bundle import Bundle
from late_interaction.documents import Document, Passage
from late_interaction.errors import MetadataError
from late_interaction.metadata import MetadataSchema
from late_interaction.thresholds import plain_thresholds
from vespa_app.candidates.dense import check_dense
from vespa_app.running import Application
from vespa_app.running.credentials import is_local
from vespa_app.running.documents import sent_metadata
from vespa_app.running.http import parse_address
from vespa_app.running.layouts import document_path
from vespa_app.running.passage_fields import DIGEST, PRESENT, present_marks

__all__ = ["VespaTarget", "kept_by_vespa", "open_vespa"]

NOT_FOUND = 404
MOST_REMEMBERED = 100_000


def open_vespa(url: str | VespaUrl, bundle: Bundle | None, *, senders: int = 1) -> VespaTarget:
    """Open the application at `url`. senders: as in `VespaTarget`.

    Raises:
        VespaError: if no application of ours answers.
        BundleError: if its bundle is not known here.
    """
    application = Application.read(url)
    return VespaTarget(application, application.choose_bundle(bundle), senders=senders)


class VespaTarget:
    """A Vespa application as a target.

    compression: of bodies; auto compresses if they leave this machine. timeout: seconds that one operation may take.
    senders: how many processes feed that application at once. clock, sleep (seconds): parameters so that faults can be
    tested without waiting.
    """

    def __init__(
        self,
        application: Application,
        bundle: Bundle,
        *,
        compression: Compression = "auto",
        timeout: float = 60.0,
        senders: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.name = application.url
        self.bundle = bundle
        self._application = application
        self._settings = application.settings
        self._streaming = self._settings.mode == "streaming"
        self._compress = compression == "gzip" or (compression == "auto" and not is_local(parse_address(self.name)))
        self._sender: Sender = open_sender(self.name, timeout=timeout, senders=senders, clock=clock, sleep=sleep)
        self._rows = StoredRows(application, sleep=sleep or time.sleep)
        self._known: list[Settled] = []
        self._open: Counter[str] = Counter()
        self._seen: dict[str, list[StoredRow]] = {}

    @property
    def place(self) -> str:
        """Return the URL."""
        return f"{str(parse_address(self.name)).rstrip('/')}#{self._settings.schema}"

    @property
    def built(self) -> str:
        """Return the identity of the deployed application."""
        return ""

    @property
    def schema(self) -> MetadataSchema:
        """Return the metadata fields."""
        return self._settings.metadata

    @property
    def digest_basis(self) -> str:
        """Return what stored vectors depend on besides the content."""
        return self._application.digest_basis(self.bundle)

    @property
    def counted(self) -> bool:
        """Tell whether passages are stored one by one."""
        return self._settings.layout != "chunks"

    @property
    def needs_vectors(self) -> bool:
        """Tell whether the feed must encode."""
        return self._settings.encoding == "client"

    @property
    def kept(self) -> Kept:
        """Return what is kept of a vector."""
        return kept_by_vespa(self._application, self.bundle)

    @property
    def unit_rows(self) -> bool:
        """Tell whether it accepts only rows of length one."""
        return False

    def size(self) -> int:
        """Return the number of Vespa documents."""
        return self._rows.count()

    def still_updated(self, document_ids: Sequence[str]) -> Collection[str]:
        """Return those without a digest: an update clears it, and every put sets one."""
        return [id_ for id_, stored in self.stored(document_ids).items() if not stored.digest]

    def statistics(self) -> FeedStatistics:
        """Return the statistics of all operations so far."""
        return self._sender.statistics()

    def stored(self, document_ids: Sequence[str]) -> Mapping[str, StoredDigest]:
        """Return those of the documents that exist.

        Raises:
            VespaUnreachable: if retries are used up.
            VespaBusy: if retries are used up.
        """
        found = self._settled_rows(document_ids)
        self._remember(found)
        return {id_: _stored(id_, rows) for id_, rows in found.items()}

    def put(self, batch: Sequence[EncodedDocument]) -> None:
        """Hand over documents; block while too many are in flight."""
        whole = [item for item in batch if self._is_whole(item)]
        dense = [item.dense_by_passage for item in whole]
        units = self._application.units([(item.passages, item.rows) for item in whole], self.bundle, dense)
        old = self._remembered([item.document.id for item in whole])
        for item, unit in zip(whole, units, strict=True):
            try:
                job = self._put_job(item, unit, old.get(item.document.id, []))
            except (MetadataError, ValueError) as error:
                self._refuse(item.document.id, 0, str(error))
            else:
                self._submit(job)

    def update(self, batch: Sequence[Document]) -> None:
        """Update the given metadata fields, and clear the digest, which no longer matches."""
        found = self._settled_rows([document.id for document in batch])
        for document in batch:
            if document.id not in found:
                self._refuse(document.id, NOT_FOUND, f"{self.name} has no document {document.id!r} to update")
                continue
            try:
                operations = [self._update(row, document) for row in found[document.id]]
            except MetadataError as error:
                self._refuse(document.id, 0, str(error))
            else:
                self._submit(Job(document.id, [operations]))

    def delete(self, document_ids: Sequence[str]) -> None:
        """Delete all passages of the documents."""
        found = self._settled_rows(document_ids)
        for id_ in dict.fromkeys(document_ids):
            rows = found.get(id_, [])
            if not rows:
                self._known.append(Settled(id_, absent=True))
                continue
            first = [remove(self._path_of(row)) for row in rows if row.is_first]
            others = [remove(self._path_of(row)) for row in rows if not row.is_first]
            self._submit(Job(id_, [first, others]))

    def settled(self, *, wait: bool = False) -> list[Settled]:
        """Return outcomes since the last call."""
        self._book(self._sender.settled(wait=wait))
        known, self._known = self._known, []
        return known

    def finish(self) -> Finished:
        """Return no version: operations are live at once."""
        return Finished()

    def close(self) -> None:
        """Stop sending and close the connections."""
        self._sender.close()
        self._rows.close()

    def _submit(self, job: Job) -> None:
        if self._compress:
            job.stages = [[operation.compressed() for operation in stage] for stage in job.stages]
        self._open[job.key] += 1
        self._sender.submit(job)

    def _book(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._open[job.key] -= 1
            if not self._open[job.key]:
                del self._open[job.key]
            self._known.append(Settled(job.key, job.failure))

    def _refuse(self, document_id: str, status: int, message: str) -> None:
        self._known.append(Settled(document_id, Failure(document_id, status, message)))

    def _settled_rows(self, document_ids: Sequence[str]) -> dict[str, list[StoredRow]]:
        """Return what is stored once everything handed over of these documents is settled."""
        if any(id_ in self._open for id_ in document_ids):
            self._book(self._sender.settled(wait=True))
        return self._rows.of(document_ids)

    def _remember(self, found: Mapping[str, list[StoredRow]]) -> None:
        """Remember stored rows in mode streaming, to remove a document from its old group when it moves."""
        if self._streaming:
            if len(self._seen) + len(found) > MOST_REMEMBERED:
                self._seen.clear()
            self._seen |= found

    def _remembered(self, document_ids: Sequence[str]) -> Mapping[str, list[StoredRow]]:
        if not self._streaming:
            return {}
        unknown = [id_ for id_ in document_ids if id_ not in self._seen]
        return self._settled_rows(unknown) | {id_: self._seen.pop(id_) for id_ in document_ids if id_ in self._seen}

    def _is_whole(self, item: EncodedDocument) -> bool:
        """Refuse a document without a first passage, or with vectors that are not finite or do not fit the settings."""
        first = Passage.id_of(item.document.id, 0)
        if all(passage.id != first for passage in item.passages):
            self._refuse(item.document.id, 0, f"the document has no passage {first!r}, which Vespa needs")
        elif not all(np.isfinite(rows).all() for rows in item.vectors):
            self._refuse(item.document.id, 0, "its token vectors contain NaN or infinity: the encoder's model is damaged")
        else:
            return self._has_dense(item)
        return False

    def _has_dense(self, item: EncodedDocument) -> bool:
        try:
            for vectors in item.dense_by_passage:
                check_dense(vectors, self._settings)
        except MetadataError as error:
            self._refuse(item.document.id, 0, str(error))
            return False
        return True

    def _put_job(self, item: EncodedDocument, unit: Sequence[Mapping[str, object]], old: Sequence[StoredRow]) -> Job:
        """Return the job.

        Raises:
            MetadataError: if the group is missing.
            ValueError: if a value is not JSON.
        """
        paths = [
            document_path(self._settings, passage.id, passage.metadata)
            for passage, _ in zip(item.passages, unit, strict=False)  # in layout chunks the first represents all
        ]
        puts = [put(path, {**fields, DIGEST: item.digest}) for path, fields in zip(paths, unit, strict=True)]
        gone = {*item.stale, *(str(fields["id"]) for fields in unit)}
        stale = [self._path_of(row) for row in old if row.passage_id in gone]
        if not self._streaming:
            stale = [document_path(self._settings, passage_id, {}) for passage_id in item.stale]
        return Job(item.document.id, [puts[1:], puts[:1], [remove(path) for path in stale if path not in paths]])

    def _update(self, row: StoredRow, document: Document) -> Operation:
        """Return the operation; MetadataError if a value does not fit, or its field is part of the document's path."""
        if self._streaming and self._settings.group_field in document.metadata:
            raise MetadataError(
                f"metadata field {self._settings.group_field!r} determines the document's group and cannot be "
                f"updated alone; feed the whole document"
            )
        unknown = [name for name in document.metadata if name not in self.schema.fields]
        if unknown:
            raise MetadataError(f"metadata field {unknown[0]!r} is not in the index")
        given = self.schema.check(document.metadata)
        values: dict[str, object] = dict.fromkeys(document.metadata) | sent_metadata(given, self._settings)
        marks = [mark for mark in row.present if mark.removesuffix("=") not in document.metadata]
        values |= {PRESENT: sorted({*marks, *present_marks(given)}), DIGEST: ""}
        # Vespa answers 200 to an update of a missing document; with the condition it answers 412
        return update(self._path_of(row), values, condition=f"{self._settings.schema}.document_id=={json.dumps(document.id)}")

    def _path_of(self, row: StoredRow) -> str:
        return document_path(self._settings, row.passage_id, {self._settings.group_field: row.group})


def _stored(document_id: str, rows: Sequence[StoredRow]) -> StoredDigest:
    digests = {row.digest for row in rows}
    whole = len(digests) == 1 and any(row.is_first for row in rows)
    return StoredDigest(digests.pop() if whole else "", tuple(row.passage_id for row in rows))


def kept_by_vespa(application: Application, bundle: Bundle) -> Kept:
    """Return what a Vespa application keeps of a vector."""
    found = _token_vectors_kept(application, bundle)
    cells = [f"{name} {own.cells}" for name, own in sorted(application.settings.dense.items()) if own.cells != "float"]
    return Kept(f"{found.key}, dense {', '.join(cells)}", f"{found.shown} (dense: {', '.join(cells)})") if cells else found


def _token_vectors_kept(application: Application, bundle: Bundle) -> Kept:
    settings = application.settings
    if settings.encoding == "embedder":
        return Kept(json.dumps(["embedder", settings.codec, settings.precision]), f"{settings.codec}, made by Vespa's embedder")
    if settings.codec == "float32":
        return Kept.as_encoded()
    books = application.books(bundle)
    if settings.codec == "binary":
        return Kept(f"binary {(books.thresholds or plain_thresholds(settings.dim)).sha256}", "binary")
    if settings.codec == "residual":
        assert books.residual is not None
        return Kept(f"residual {books.residual.sha256}", f"residual, {settings.residual_bits} bits")
    return Kept(settings.codec, settings.codec)
