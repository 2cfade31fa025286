"""The feed: encode what is missing, hand it over, and note what arrived.

Batches are encoded while others are being sent, so neither waits for the other. There are never more of them than the
encoding allows (`Encoding.ahead`), so memory stays flat. Everything that talks to the target runs in one thread.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Protocol

from feeder.digests import Digests, stored_digest
from feeder.encoding.batches import BATCH, EncodedPassages, batched
from feeder.encoding.passages import passages_of
from feeder.encoding.ready import DocumentEncoding
from feeder.feeding.ledger import REFUSED_HERE, FeedProgress, Ledger
from feeder.feeding.survey import NAMED, Survey
from feeder.outcomes import Failure, Settled
from feeder.targets import EncodedDocument, Target
from late_interaction.documents import Document
from late_interaction.errors import ColbertVespaError
from late_interaction.metadata import Value

__all__ = ["BATCH", "Acknowledgements", "Feed", "Pacing", "Refusals"]

CHARACTER_BYTES = 128  # bytes of ready-made vectors that count as one character
LOOK_S = 0.5  # interval between fetches of outcomes while nothing is encoded


class Acknowledgements(Protocol):
    """Where a feed notes what arrived: `Journal`, or what a part of a larger feed keeps until its end."""

    def has(self, document_id: str, digest: str) -> bool:
        """Tell whether an earlier run fed the document with that digest."""

    def acknowledge(self, documents: Sequence[tuple[str, str]]) -> None:
        """Note acknowledged documents."""


class Refusals(Protocol):
    """Where a feed notes what was refused: `DeadLetters`, or what a part of a larger feed keeps until its end."""

    def add(self, letters: Iterable[tuple[Failure, Document]]) -> None:
        """Note refused documents."""


class Pacing:
    """Limits a feed to `rate` documents per second from its start; None for no limit."""

    def __init__(
        self, rate: float | None, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._next = clock()

    @property
    def step(self) -> int:
        """Return how many documents may go at once: those of a tenth of a second."""
        return BATCH if self._rate is None else max(1, int(self._rate / 10))

    def take(self, count: int) -> None:
        """Wait until `count` more may go."""
        if self._rate is None:
            return
        now = self._clock()
        if self._next > now:
            self._sleep(self._next - now)
        self._next = max(self._next, now) + count / self._rate


@dataclass(frozen=True, slots=True)
class _Item:
    """A document, its metadata as the target types them, and its digest."""

    document: Document
    metadata: Mapping[str, Value]
    digest: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be put, or removed because it is blank, and its passages in the target."""

    item: _Item
    there: tuple[str, ...]


class Feed:
    """One run of one operation: put, update or delete. `ledger` has the progress at any time.

    stop: tells whether the user wants to stop; what was handed over is then waited for, and nothing else is sent.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        surveyed: Survey,
        target: Target,
        journal: Acknowledgements,
        letters: Refusals,
        digests: Digests,
        *,
        operation: str = "put",
        encoding: DocumentEncoding | None = None,
        pacing: Pacing | None = None,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[FeedProgress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        batch_size: int = BATCH,
        named: int = NAMED,
    ) -> None:
        """Set up the run. encoding: needed to put. named: how many ids of absent documents to keep."""
        self.ledger = Ledger()
        self.stopped = False
        self._documents, self._surveyed, self._target = documents, surveyed, target
        self._journal, self._letters, self._digests = journal, letters, digests
        self._operation, self._encoding = operation, encoding
        self._pacing, self._stop, self._progress = pacing or Pacing(None), stop, progress
        self._clock, self._batch_size, self._named = clock, batch_size, named
        self._start = clock()
        self._in_flight: dict[str, _Item] = {}
        self._arrived: list[_Item] = []  # acknowledged, but not in the journal yet
        self._refused: list[tuple[Failure, Document]] = []  # not in the dead-letter file yet

    @property
    def seconds(self) -> float:
        """Return the duration so far."""
        return self._clock() - self._start

    def run(self) -> None:
        """Run the feed.

        On an error, the journal has what arrived.

        Raises:
            VespaUnreachable: if retries are used up.
            VespaBusy: if retries are used up.
            CollectionError: if source, journal or dead letters fail.
            ColbertVespaError: whatever the target raises.
        """
        try:
            if self._operation == "put":
                self._put_all()
            else:
                self._change_all()
            self._book(self._target.settled(wait=True))
        except BaseException as error:
            self._book_the_rest(wait=isinstance(error, Exception))
            raise
        if not self.stopped:
            self.ledger.version = self._target.finish().version
        self._report()

    def _book_the_rest(self, *, wait: bool) -> None:
        """Note the rest after an error. wait: operations in progress arrive, unless the target failed."""
        outcomes: list[Settled] = []
        with contextlib.suppress(Exception):
            outcomes += self._target.settled(wait=wait)
        with contextlib.suppress(Exception):
            outcomes += self._target.settled()
        with contextlib.suppress(ColbertVespaError):  # the disk may be the reason why the feed ends
            self._note(outcomes)

    def _put_all(self) -> None:
        assert self._encoding is not None
        batches = self._batches()
        underway: deque[tuple[list[_Wanted], Future[list[EncodedPassages]]]] = deque()
        more = True
        while more or underway:
            while more and len(underway) < self._encoding.ahead:
                batch = next(batches, None)
                if batch is None:
                    more = False
                elif wanted := self._with_text(self._missing(batch)):
                    underway.append((wanted, self._encoding.submit([one.item.document for one in wanted])))
                self._check_stop()
                if self.stopped:
                    return
            if underway:
                wanted, future = underway.popleft()
                encoded = self._awaited(future)
                if encoded is None:
                    return
                self._hand_over(wanted, encoded)
            self._book(self._target.settled())

    def _with_text(self, wanted: Sequence[_Wanted]) -> list[_Wanted]:
        """Return everything except documents that are now blank, whose old passages are removed from the target."""
        blank = [one.item for one in wanted if one.item.document.blank]
        self._in_flight.update({item.document.id: item for item in blank})
        if blank:
            self._target.delete([item.document.id for item in blank])
        return [one for one in wanted if not one.item.document.blank]

    def _awaited(self, future: Future[list[EncodedPassages]]) -> list[EncodedPassages] | None:
        """Wait for a future; None if the user wants to stop first."""
        while True:
            self._check_stop()
            if self.stopped:
                return None
            try:
                return future.result(LOOK_S)
            except FutureTimeout:
                self._book(self._target.settled())

    def _check_stop(self) -> None:
        self.stopped = self.stopped or self._stop()

    def _change_all(self) -> None:
        for batch in self._batches():
            self._check_stop()
            if self.stopped:
                return
            brought = self._brought(batch)
            self.ledger.already_there += len(brought)
            rest = [item for item in batch if item.document.id not in brought]
            for first in range(0, len(rest), self._pacing.step):
                self._change(rest[first : first + self._pacing.step])
            self._book(self._target.settled())

    def _brought(self, batch: Sequence[_Item]) -> set[str]:
        """Return the ids of documents that an earlier run has certainly updated; for a deletion the target is asked."""
        if self._operation == "delete":
            return set()
        noted = [item.document.id for item in batch if self._journal.has(item.document.id, item.digest)]
        return set(self._target.still_updated(noted)) if noted else set()

    def _change(self, batch: Sequence[_Item]) -> None:
        self._pacing.take(len(batch))
        self._in_flight.update({item.document.id: item for item in batch})
        if self._operation == "delete":
            self._target.delete([item.document.id for item in batch])
        else:
            self._target.update([item.document for item in batch])

    def look(self) -> None:
        """Count what there is nothing to do for. Nothing is sent."""
        for batch in self._batches():
            if self._operation == "put":
                self._missing(batch)
            elif self._operation == "delete":
                there = self._target.stored([item.document.id for item in batch])
                for item in batch:
                    if item.document.id not in there:
                        self._count_absent(item)

    def _batches(self) -> Iterator[list[_Item]]:
        """Yield the documents that count; each id comes once."""
        return batched(self._items(), lambda item: _characters(item.document), self._batch_size)

    def _items(self) -> Iterator[_Item]:
        schema = self._target.schema
        for place, document in enumerate(self._documents):
            if not self._surveyed.counts(place, document.id):
                self.ledger.duplicates += 1
                continue
            one = Document(document.id) if self._operation == "delete" else document
            checked = schema.check(one.metadata)
            yield _Item(one, checked, self._digests.of(one, checked))

    def _missing(self, batch: Sequence[_Item]) -> list[_Wanted]:
        """Return documents that the target does not have unchanged.

        The journal is not used: what it notes may have been replaced, deleted or lost since.
        """
        stored = self._target.stored([item.document.id for item in batch])
        wanted = []
        for item in batch:
            found = stored.get(item.document.id)
            if item.document.blank:
                if found is None:
                    self.ledger.skipped_blank += 1
                else:
                    wanted.append(_Wanted(item, found.passage_ids))
            elif found is None or found.digest != self._stored_digest(item.digest, len(found.passage_ids)):
                wanted.append(_Wanted(item, () if found is None else found.passage_ids))
            else:
                self.ledger.already_there += 1
        return wanted

    def _stored_digest(self, digest: str, passages: int) -> str:
        return stored_digest(digest, passages, counted=self._target.counted)

    def _hand_over(self, wanted: Sequence[_Wanted], encoded: Sequence[EncodedPassages]) -> None:
        ready: list[EncodedDocument] = []
        for one, made in zip(wanted, encoded, strict=True):
            id_ = one.item.document.id
            self._in_flight[id_] = one.item
            if made.error:
                self._book([Settled(id_, Failure(id_, 0, made.error))])
            else:
                ready.append(self._ready(one.item, one.there, made))
        for first in range(0, len(ready), self._pacing.step):
            part = ready[first : first + self._pacing.step]
            self._pacing.take(len(part))
            self._target.put(part)

    def _ready(self, item: _Item, there: Sequence[str], made: EncodedPassages) -> EncodedDocument:
        document = item.document
        passages = passages_of(replace(document, metadata=item.metadata), made.title, made.ranges)
        own = {passage.id for passage in passages}
        stale = tuple(id_ for id_ in there if id_ not in own)
        ledger = self.ledger
        ledger.passages += len(passages)
        ledger.removed_passages += len(stale)
        ledger.truncated += made.truncated
        ledger.token_vectors += sum(len(rows) for rows in made.vectors)
        ledger.bytes += sum(len(passage.encoded_text.encode()) for passage in passages)
        digest = self._stored_digest(item.digest, len(passages))
        places = range(len(passages)) if made.dense else ()
        dense = tuple({name: rows[place] for name, rows in made.dense.items()} for place in places)
        return EncodedDocument(document, passages, made.vectors, digest, stale, token_ids=made.token_ids, dense=dense)

    def _book(self, outcomes: Sequence[Settled]) -> None:
        self._note(outcomes)
        self._report()

    def _note(self, outcomes: Sequence[Settled]) -> None:
        """Note what arrived, durably, and what was refused.

        What one of the two files fails to store waits for the next call, without blocking the other.

        Raises:
            CollectionError: if a file cannot be written.
        """
        for outcome in outcomes:
            item = self._in_flight.pop(outcome.document_id)
            if outcome.failure is not None:
                self._refused.append((outcome.failure, item.document))
            elif outcome.absent and self._operation == "delete":
                self._count_absent(item)
            else:
                self._arrived.append(item)
        try:
            self._note_refused()
        finally:
            self._note_arrived()

    def _count_absent(self, item: _Item) -> None:
        """Count an absent document; one that an earlier run of this feed has deleted counts as already there."""
        if self._journal.has(item.document.id, item.digest):
            self.ledger.already_there += 1
            return
        self.ledger.absent += 1
        if len(self.ledger.absent_ids) < self._named:
            self.ledger.absent_ids.append(item.document.id)

    def _note_arrived(self) -> None:
        arrived = self._arrived
        self._journal.acknowledge([(item.document.id, item.digest) for item in arrived])
        blank = sum(item.document.blank for item in arrived) if self._operation == "put" else 0
        self._arrived = []
        self.ledger.acknowledged += len(arrived) - blank
        self.ledger.skipped_blank += blank
        self.ledger.removed_blank += blank

    def _note_refused(self) -> None:
        refused = self._refused
        self._letters.add(refused)
        self._refused = []
        self.ledger.dead_lettered += len(refused)
        self.ledger.errors.update(f"HTTP {failure.status}" if failure.status else REFUSED_HERE for failure, _ in refused)

    @property
    def state(self) -> FeedProgress:
        """Return the progress. Any thread may call this."""
        ledger, surveyed = self.ledger, self._surveyed
        blank = surveyed.blank if self._operation == "put" else 0
        return FeedProgress(
            total=surveyed.documents - blank - surveyed.duplicates, seconds=self.seconds, acknowledged=ledger.acknowledged,
            already_there=ledger.already_there, absent=ledger.absent, dead_lettered=ledger.dead_lettered,
            passages=ledger.passages, token_vectors=ledger.token_vectors, bytes=ledger.bytes, in_flight=len(self._in_flight),
            errors=dict(ledger.errors), sending=self._target.statistics(),
        )  # fmt: skip

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.state)


def _characters(document: Document) -> int:
    """Return the characters of a document, counting its own vectors by their bytes."""
    ready = sum(rows.nbytes for rows in (*document.vectors, *document.dense.values()))
    return len(document.title) + len(document.text) + ready // CHARACTER_BYTES
