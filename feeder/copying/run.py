"""One copy: batches of stored documents from a place to a target, how far it is on disk, and the counts of both at the end."""

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

AHEAD = 8  # batches that are handed over without waiting for what became of them
NOT_UNIT = 0.005
TINY = 1e-12  # a row of zeros stays one


@dataclass(frozen=True)
class CopySummary:
    """outcome: complete, interrupted. documents: brought, of which `already_there` were. notes: what a user should know."""

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
        return dataclasses.asdict(self)


def differences(source: Kept, to: Target) -> tuple[str, ...]:
    """What a user should know of how vectors are kept, in a line or none."""
    if not to.needs_vectors:
        return (f"{to.name} makes its vectors itself: texts are sent, vectors are not",)
    if source.key == to.kept.key:
        return ()
    stored = "stored unchanged" if to.kept.exact else f"stored as {to.kept.shown}"
    if source.exact:
        return (f"vectors are {stored}",)
    return (f"vectors of {source.shown} are {stored}: a later feed of the documents encodes them again",)


def check_schema(source: MetadataSchema, target: MetadataSchema, name: str) -> None:
    """Raises: MetadataError where a field is missing at the target, or has another type there."""
    for field_, type_ in source.fields.items():
        there = target.fields.get(field_)
        if there is not type_:
            has = "has no such field" if there is None else f"has {there.value}"
            raise MetadataError(f"metadata field {field_!r} is {type_.value}, and {name} {has}: nothing was sent")


class Copy:
    """merge: into a target that has documents already: those of the same id are replaced, the others stay. as_is: into a target
    of this copy alone, which keeps digests as they are."""

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
        """Raises: UsageError where the target is not empty, MetadataError where its metadata differ."""
        self._source, self._to, self._progress, self._merge, self._as_is = source, to, progress, merge, as_is
        self._report = report or (lambda done, total: None)
        self._exact = source.kept.exact or source.kept.key == to.kept.key
        self._start = time.monotonic()
        check_schema(source.schema, to.schema, to.name)
        there = to.size()
        if there and not merge and not progress.resumed:
            what = "passages" if to.counted else "documents"
            raise UsageError(f"{to.name} has {there} {what} already: copy into an empty index, or give --merge")

    def run(self) -> CopySummary:
        """Ctrl-C waits for what was handed over; a second one ends at once.

        Raises: CollectionError where a document is refused, or the counts do not agree at the end; what source and target
        raise. A copy that ended so goes on with `resume`.
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
        """Whether the user wants an end before it is all there."""
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
            raise CollectionError(f"{to.name} does not say what became of {unsettled} documents: copy again with --resume")
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
        """As the target takes it."""
        if self._as_is:
            return document
        digest = ""
        if document.digest and self._exact:
            moved = moved_digest(document.digest, self._to.digest_basis)
            digest = stored_digest(moved, len(document.passages), counted=self._to.counted)
        vectors = tuple(_unit(rows) for rows in document.vectors) if self._to.unit_rows else document.vectors
        return dataclasses.replace(document, digest=digest, vectors=vectors)

    def _missing(self, documents: Sequence[EncodedDocument]) -> list[EncodedDocument]:
        """Those that the target does not have as they are, each with the passages that it has of it and no longer wants."""
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
        """Raises: CollectionError where something is missing here or there."""
        source, to, state = self._source, self._to, self._progress.last
        after, brought = source.size(), state.passages if source.counted else state.documents
        what = "passages" if source.counted else "documents"
        if brought < min(before, after):
            raise CollectionError(
                f"{min(before, after) - brought} {what} of {source.name} were not copied: they belong to no whole document; "
                "feed or delete their documents, and copy again"
            )
        if not self._as_is:
            there, wanted = to.size(), state.passages if to.counted else state.documents
            if there < wanted or (there > wanted and not self._merge):
                raise CollectionError(f"{to.name} has {there} {what} after the copy, and {wanted} were sent: copy again")
        changed = f"{source.name} has changed meanwhile: {before} {what} before, {after} after, {brought} were read"
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
    """Rows of length one; those that are nearly so stay as they are."""
    lengths = np.linalg.norm(rows, axis=1)
    off = np.abs(lengths - 1) > NOT_UNIT
    unit: Matrix = np.where(off[:, None], rows / np.maximum(lengths, TINY)[:, None], rows).astype(np.float32)
    return unit if off.any() else rows
