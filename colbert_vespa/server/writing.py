"""Put and delete documents: requests that arrive during a write are written together, by one writer at a time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from colbert_vespa.server.access import Access
from colbert_vespa.server.batching import Gathering
from colbert_vespa.server.engine import Engine, Opened
from colbert_vespa.server.errors import Refusal
from colbert_vespa.server.limits import within
from colbert_vespa.store import Outcome, feed_documents, packed_document
from feeder import Splitting
from late_interaction.addresses import locate
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from late_interaction.filters import parse_where
from late_interaction.metadata import MetadataSchema

__all__ = ["Fate", "Writing"]

MOST_WAITING = 64  # calls that wait for the writer of one index
LATE_WRITE = "the request timed out; check whether it was written, or send it again, which is safe"
PATIENCE_S = 3600.0  # of what a feed asks before it writes


@dataclass(frozen=True)
class Fate:
    """Outcome of one document.

    Attributes:
        status: 200, or the status of the problem.
        detail: Reason of a failure.
    """

    id: str
    status: int = 200
    detail: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the outcome as it is written to JSON."""
        return {"id": self.id, "status": self.status, **({"detail": self.detail} if self.detail else {})}


@dataclass(frozen=True)
class _Job:
    access: Access
    operation: str
    documents: Sequence[Document]


@dataclass
class Writing:
    """Writes to all served indexes."""

    engine: Engine
    splitting: Splitting = field(default_factory=Splitting)
    _queues: dict[str, Gathering[_Job, list[Fate] | ColbertVespaError]] = field(default_factory=dict)

    async def put(self, access: Access, name: str, documents: Sequence[Document], patience: float | None = None) -> list[Fate]:
        """Put documents, and return a fate for each, in order.

        Args:
            access: The caller.
            name: Name of the index.
            documents: Documents to put.
            patience: Seconds after which documents whose writing has not begun are not written.

        Raises:
            Refusal: If the index does not exist for the caller, or the server is busy.
            IndexBeingWritten: If another writer has the index.
            LocalIndexError: If the index is damaged or cannot be written.
            VespaError: If Vespa does not answer.
        """
        return await self._written(_Job(access, "put", documents), name, patience)

    async def delete(self, access: Access, name: str, ids: Sequence[str], patience: float | None = None) -> list[Fate]:
        """Delete documents; arguments, result and errors are those of `put`."""
        return await self._written(_Job(access, "delete", [Document(id_) for id_ in ids]), name, patience)

    async def _written(self, job: _Job, name: str, patience: float | None) -> list[Fate]:
        served = self.engine.catalog.only(job.access, name)
        if served.name not in self._queues:
            self._queues[served.name] = Gathering(lambda jobs: self._work(served.name, jobs), MOST_WAITING)
        queue = self._queues[served.name]
        if queue.waiting >= MOST_WAITING:
            raise Refusal(429, f"index {served.name!r} is being written; try again later", {"Retry-After": "1"})
        done = await (queue(job) if patience is None else within(patience, queue(job), LATE_WRITE))
        if isinstance(done, ColbertVespaError):
            raise done
        return done

    async def _work(self, name: str, jobs: list[_Job]) -> list[list[Fate] | ColbertVespaError]:
        """Feed consecutive jobs of the same operation together."""
        results: list[list[Fate] | ColbertVespaError] = []
        for operation, group in itertools.groupby(jobs, key=lambda job: job.operation):
            together = list(group)
            try:
                results += await self._fed(name, operation, together)
            except ColbertVespaError as error:
                results += [error] * len(together)
        return results

    async def _fed(self, name: str, operation: str, jobs: Sequence[_Job]) -> list[list[Fate] | ColbertVespaError]:
        engine = self.engine
        async with engine.at_rest(name) as opened:
            bundle, schema = opened.indexes[0].bundle, opened.indexes[0].schema
            judged = [await engine.thread(_judged, job, await self._hidden(job, opened), schema) for job in jobs]
            refused = [known for known, _ in judged]
            ready = [document for _, fitting in judged for document in fitting]
        outcome = Outcome((), {})
        if ready:
            encoder = await engine.thread(engine.core.encoder, bundle) if operation == "put" and bundle.encodes else None
            to = locate(opened.served[0].address)
            outcome = await engine.write_thread(feed_documents, ready, to, bundle, operation, encoder, self.splitting)
        found = [_fates(job, known, outcome) for job, known in zip(jobs, refused, strict=True)]
        done = sum(fate.status < 400 for fates in found for fate in fates)
        engine.metrics.written(operation, done, sum(map(len, found)) - done)
        return [*found]

    async def _hidden(self, job: _Job, opened: Opened) -> set[str]:
        """Return the ids of stored documents with passages that the key's filter does not select."""
        if job.access.where is None:
            return set()
        index, ids = opened.indexes[0], list(dict.fromkeys(document.id for document in job.documents))
        stored = (await self.engine.run(index.get(ids, None, opened.until), opened.until)).check_full()
        seen = (await self.engine.run(index.get(ids, job.access.where, opened.until), opened.until)).check_full()
        return {id_ for id_, passages in stored.items() if len(seen.get(id_, ())) < len(passages)}


def _judged(job: _Job, hidden: Set[str], schema: MetadataSchema) -> tuple[dict[int, Fate], list[Document]]:
    """Return the documents that are refused, by place, and the others as the index takes them.

    Refused are documents whose metadata do not fit and documents that the key may not write.
    """
    refused: dict[int, Fate] = {}
    ready: list[Document] = []
    for place, document in enumerate(job.documents):
        if job.operation == "put":
            try:
                fitting = packed_document(document, schema)
            except ColbertVespaError as error:
                refused[place] = Fate(document.id, 422, str(error))
                continue
            if document.blank:
                refused[place] = Fate(document.id, 422, "the document is blank")
            elif document.id in hidden or not _matches(job.access, fitting, schema):
                refused[place] = Fate(document.id, 403, f"this key may not write document {document.id[:100]!r} so")
            else:
                ready.append(fitting)
        elif document.id in hidden:
            refused[place] = Fate(document.id, 404, f"there is no document {document.id[:100]!r}")
        else:
            ready.append(document)
    return refused, ready


def _matches(access: Access, document: Document, schema: MetadataSchema) -> bool:
    """Tell whether the key's filter selects the document."""
    where = parse_where(access.where, schema)
    if where is None:
        return True
    from late_interaction.plaid.store.columns import column_of, evaluate

    typed = schema.check(document.metadata)
    columns = {name: column_of(type_, [typed.get(name)]) for name, type_ in schema.fields.items()}
    return bool(evaluate(where, columns, 1)[0])


def _fates(job: _Job, known: Mapping[int, Fate], outcome: Outcome) -> list[Fate]:
    done = set(outcome.succeeded)
    fates = []
    for place, document in enumerate(job.documents):
        if place in known:
            fates.append(known[place])
        elif document.id in outcome.failed:
            fates.append(Fate(document.id, 422, outcome.failed[document.id]))
        elif document.id in done:
            fates.append(Fate(document.id))
        else:
            fates.append(Fate(document.id, 404, f"there is no document {document.id[:100]!r}"))
    return fates
