"""One copy: batches of stored documents from a place to a target, the journal, and a check of the counts at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from feeder.copying.journal import CopyJournal, Stretch
from feeder.copying.source import StoredSource
from feeder.digests import moved_digest, stored_digest
from feeder.signals import Stop
from feeder.targets import EncodedDocument, Kept, Target
from late_interaction.array_types import Matrix
from late_interaction.errors import CollectionError, MetadataError, UsageError
from late_interaction.metadata import MetadataSchema
from late_interaction.progress import CountReport

__all__ = ["Copy", "CopySummary", "check_schema", "differences"]

AHEAD = 8  # batches that are handed over before waiting for their outcomes
NOT_UNIT = 0.005
TINY = 1e-12  # a row of zeros stays one


@dataclass(frozen=True)
class CopySummary:
    """The outcome of a copy.

    Attributes:
        source: where the documents came from.
        target: where they went.
        outcome: complete or interrupted.
        documents: documents copied, including `already_there`.
        passages: their passages.
        token_vectors: their token vectors.
        already_there: documents that the target had already.
        seconds: duration.
        version: version of a local index after the copy.
        notes: what a user should know.
    """

    source: str
    target: str
    outcome: str
    documents: int
    passages: int
    token_vectors: int
    already_there: int
    seconds: float
    version: int | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, object]:
        """Return the summary as JSON values."""
        return dataclasses.asdict(self)


def differences(source: Kept, to: Target) -> tuple[str, ...]:
    """Return a line on how the target stores vectors differently, or nothing."""
    if not to.needs_vectors:
        return (f"{to.name} makes its own vectors, so texts are sent without vectors",)
    if source.key == to.kept.key:
        return ()
    stored = "stored unchanged" if to.kept.exact else f"stored as {to.kept.shown}"
    if source.exact:
        return (f"vectors are {stored}",)
    return (f"vectors of {source.shown} are {stored}; a later feed of the documents encodes them again",)


def check_schema(source: MetadataSchema, target: MetadataSchema, name: str) -> None:
    """Check the metadata fields of the target.

    Raises:
        MetadataError: if a field is missing at the target, or has another type there.
    """
    for field_, type_ in source.fields.items():
        there = target.fields.get(field_)
        if there is not type_:
            has = "has no such field" if there is None else f"has {there.value}"
            raise MetadataError(f"metadata field {field_!r} is {type_.value}, but {name} {has}; nothing was sent")


class Copy:
    """A copy.

    merge: the target has documents: those with the same id are replaced. as_is: the target keeps digests unchanged.
    """

    def __init__(
        self,
        source: StoredSource,
        to: Target,
        progress: CopyJournal,
        *,
        merge: bool = False,
        as_is: bool = False,
        report: CountReport | None = None,
    ) -> None:
        """Check source and target; UsageError if the target is not empty, MetadataError if its metadata differ."""
        self._source, self._to, self._progress, self._merge, self._as_is = source, to, progress, merge, as_is
        self._report = report or (lambda done, total: None)
        self._exact = source.kept.exact or source.kept.key == to.kept.key
        self._start = time.monotonic()
        check_schema(source.schema, to.schema, to.name)
        there = to.size()
        if there and not merge and not progress.resumed:
            what = "passages" if to.counted else "documents"
            raise UsageError(f"{to.name} has {there} {what}; copy into an empty index, or use --merge")

    def run(self) -> CopySummary:
        """Copy all documents. Ctrl-C waits for those that were submitted; a second one ends at once.

        Raises:
            CollectionError: if a document is refused, or the counts do not agree at the end.
            ColbertVespaError: whatever source and target raise; `resume` continues such a copy.
        """
        self._progress.begin()
        before = self._source.size()
        with Stop() as stop:
            interrupted = self._bring(before, stop)
        if interrupted:
            return self._summary("interrupted", None, ())
        finished = self._to.finish()
        notes = self._verified(before)
        self._progress.close(remove=True)
        return self._summary("complete", finished.version, notes)

    def _bring(self, total: int, stop: Callable[[], bool]) -> bool:
        """Copy the documents; tell whether the user wants to stop before the end."""
        to, open_batches, state = self._to, 0, self._progress.last
        unsettled = 0
        for batch in self._source.batches(state.resume):
            wanted = [self._fitted(document) for document in batch.documents]
            missing = self._missing(wanted) if self._merge else wanted
            to.put(missing)
            state = _after(state, batch.resume, wanted, len(wanted) - len(missing))
            unsettled += len(missing)
            open_batches += 1
            unsettled -= self._settle(wait=open_batches == AHEAD or stop())
            if not unsettled:
                self._progress.note(state)
                open_batches = 0
            self._report(state.passages if self._source.counted else state.documents, total)
            if stop():
                return True
        unsettled -= self._settle(wait=True)
        if unsettled:
            raise CollectionError(f"{to.name} did not report the outcome of {unsettled} documents; copy again with --resume")
        self._progress.note(state)
        return False

    def _settle(self, *, wait: bool) -> int:
        outcomes = self._to.settled(wait=wait)
        failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
        if failures:
            first, more = failures[0], f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise CollectionError(f"{self._to.name} refuses document {first.document_id!r}{more}: {first.message}")
        return len(outcomes)

    def _fitted(self, document: EncodedDocument) -> EncodedDocument:
        """Convert a document to what the target accepts."""
        if self._as_is:
            return document
        digest = ""
        if document.digest and self._exact:
            moved = moved_digest(document.digest, self._to.digest_basis)
            digest = stored_digest(moved, len(document.passages), counted=self._to.counted)
        vectors = tuple(_unit(rows) for rows in document.vectors) if self._to.unit_rows else document.vectors
        return dataclasses.replace(document, digest=digest, vectors=vectors)

    def _missing(self, documents: Sequence[EncodedDocument]) -> list[EncodedDocument]:
        """Return the documents that the target does not have unchanged, each with its outdated passages there."""
        stored = self._to.stored([document.document.id for document in documents])
        found = []
        for document in documents:
            there = stored.get(document.document.id)
            if there is not None and there.digest and there.digest == document.digest:
                continue
            own = {passage.id for passage in document.passages[: None if self._to.counted else 1]}
            stale = () if there is None else tuple(id_ for id_ in there.passage_ids if id_ not in own)
            found.append(dataclasses.replace(document, stale=stale))
        return found

    def _verified(self, before: int) -> tuple[str, ...]:
        """Compare the counts; CollectionError if something is missing on either side."""
        source, to, state = self._source, self._to, self._progress.last
        after, brought = source.size(), state.passages if source.counted else state.documents
        what = "passages" if source.counted else "documents"
        if brought < min(before, after):
            raise CollectionError(
                f"{min(before, after) - brought} {what} of {source.name} were not copied because their documents "
                f"are incomplete; feed or delete these, and copy again"
            )
        if not self._as_is:
            there, wanted = to.size(), state.passages if to.counted else state.documents
            if there < wanted or (there > wanted and not self._merge):
                raise CollectionError(f"{to.name} has {there} {what} after the copy, but {wanted} were sent; copy again")
        changed = f"{source.name} changed: {before} {what} before, {after} after, {brought} were read"
        return () if before == after == brought else (changed,)

    def _summary(self, outcome: str, version: int | None, notes: tuple[str, ...]) -> CopySummary:
        state, seconds = self._progress.last, time.monotonic() - self._start
        return CopySummary(
            self._source.name, self._to.name, outcome, state.documents, state.passages, state.token_vectors,
            state.already_there, seconds, version, (*differences(self._source.kept, self._to), *notes),
        )  # fmt: skip


def _after(state: Stretch, resume: str, documents: Sequence[EncodedDocument], there: int) -> Stretch:
    return Stretch(
        resume,
        state.batches + 1,
        state.documents + len(documents),
        state.passages + sum(len(document.passages) for document in documents),
        state.token_vectors + sum(len(rows) for document in documents for rows in document.vectors),
        state.already_there + there,
    )


def _unit(rows: Matrix) -> Matrix:
    """Return rows of length one; rows that nearly are stay unchanged."""
    lengths = np.linalg.norm(rows, axis=1)
    off = np.abs(lengths - 1) > NOT_UNIT
    unit: Matrix = np.where(off[:, None], rows / np.maximum(lengths, TINY)[:, None], rows).astype(np.float32)
    return unit if off.any() else rows
