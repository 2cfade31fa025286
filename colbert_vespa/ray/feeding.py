"""`feed`: every worker sends its part of a dataset to Vespa, and all outcomes are joined in one ledger."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbert_vespa.ray.pools import Workers, cluster_errors, mapped, ray_data, senders
from colbert_vespa.ray.rows import BadRow, check_columns, documents_of, known_passages, refused_rows
from colbert_vespa.ray.shipping import ShippedBundle, opened_bundle, ship
from feeder.encoding.passages import Splitting
from feeder.feeding.ledger import FeedSummary, Ledger
from feeder.feeding.options import OPERATIONS
from feeder.feeding.part import PartFeeder, PartOutcome
from feeder.feeding.survey import NAMED
from feeder.sending.statistics import FeedStatistics, added_statistics
from feeder.sources import ColumnMapping
from late_interaction import errors
from late_interaction.addresses import VespaUrl, vespa_url
from late_interaction.bundle import Bundle
from late_interaction.documents import Document
from vespa_app.running import Application

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

__all__ = ["ClusterFeed", "FeedingWorker", "feed"]

MISSING = "feed the dataset again; only what is missing is sent"


@dataclass(frozen=True)
class ClusterFeed:
    """Result of a feed by a cluster.

    Attributes:
        summary: Ledger of all workers.
        dead_letters: Refused rows as they were given, with an additional column `refused` (status, message); `feed` takes them
            again.
    """

    summary: FeedSummary
    dead_letters: Dataset


def feed(
    dataset: Dataset,
    bundle: Bundle | str | Path,
    to: str | VespaUrl,
    *,
    workers: Workers | None = None,
    columns: ColumnMapping | None = None,
    splitting: Splitting | None = None,
    operation: str = "put",
    progress: Callable[[FeedSummary], None] | None = None,
) -> ClusterFeed:
    """Feed a dataset to a Vespa application, each worker its own part.

    A worker asks Vespa which documents of its part are there as they are, encodes the others unless `encode` did, and sends
    them. A part that a lost worker had is given out again as a whole; what that one sent counts as already there. Ids must be
    unique in the dataset: of two documents with one id that two workers have, either may come last.

    Args:
        dataset: rows with an id, texts, and metadata in all other columns; or what `encode` made of such.
        bundle: that the application was generated from.
        to: the application's query address.
        workers: how many, and what each of them is given.
        columns: names of the columns, where they are not id, title and text.
        splitting: how texts are cut into passages.
        operation: put; update, of metadata alone; delete.
        progress: told the ledger so far, after every part.

    Returns:
        The ledger, and the dead letters.

    Raises:
        VespaError, BundleError, CollectionError, UsageError: what arrived stays, and a second feed sends only what is missing.
        ColbertVespaError: the cluster cannot go on.
    """
    data = ray_data()
    import ray

    workers, columns = workers or Workers(), columns or ColumnMapping()
    check_columns(columns)
    if operation not in OPERATIONS:
        raise errors.UsageError(f"operation {operation!r} is unknown; known: {', '.join(OPERATIONS)}")
    place = vespa_url(to, "to") if isinstance(to, str) else to
    application = Application.read(place)
    opened = application.choose_bundle(opened_bundle(bundle))
    encodes = operation == "put" and application.settings.encoding == "client" and opened.encodes
    arguments = {
        "bundle": ship(opened), "to": place, "encoder": workers.encoder(opened) if encodes else {},
        "splitting": splitting or Splitting(), "columns": columns, "operation": operation, "senders": senders(workers),
    }  # fmt: skip
    gathered = _Gathered(str(place), operation, ray.put)
    with cluster_errors(), contextlib.closing(_tables(mapped(dataset, FeedingWorker, arguments, workers))) as tables:
        for table in tables:
            gathered.add(table)
            if progress is not None:
                progress(gathered.summary())
            if gathered.error is not None:
                raise gathered.error
    return ClusterFeed(gathered.summary("complete"), gathered.dead_letters(data))


def _tables(outcomes: Dataset) -> Generator[pa.Table, None, None]:
    yield from outcomes.iter_batches(batch_size=None, batch_format="pyarrow")


class FeedingWorker:
    """One encoder and one sender. Everything is opened with the first rows, so that errors are those of a part."""

    def __init__(
        self,
        bundle: ShippedBundle,
        to: VespaUrl,
        encoder: Mapping[str, Any],
        splitting: Splitting,
        columns: ColumnMapping,
        operation: str,
        senders: int,
    ) -> None:
        self._shipped, self._to, self._columns, self._operation = bundle, to, columns, operation
        self._more: dict[str, Any] = {"operation": operation, "splitting": splitting, "senders": senders, **encoder}

    @cached_property
    def _bundle(self) -> Bundle:
        return self._shipped.open()

    @cached_property
    def _feeder(self) -> PartFeeder:
        return PartFeeder(self._to, self._bundle, **self._more)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Feed a table, and return one row: the ledger, and the rejected rows."""
        outcome, refused = PartOutcome(table.num_rows), table.slice(0, 0)
        try:
            rows = documents_of(table, self._columns, texts=self._operation == "put")
            outcome, refused = self._fed(table, rows)
        except errors.ColbertVespaError as error:
            outcome.error = error
        return _row(outcome, refused)

    def _fed(self, table: pa.Table, rows: Sequence[Document | BadRow]) -> tuple[PartOutcome, pa.Table]:
        known = known_passages(table, rows, self._bundle) if self._operation == "put" else None
        documents = [row for row in rows if isinstance(row, Document)]
        outcome = self._feeder.feed(documents, known)
        by_place = {id(row): place for place, row in enumerate(rows)}
        by_id = {row.id: place for place, row in enumerate(rows) if isinstance(row, Document)}
        refused = [(place, 0, row.message) for place, row in enumerate(rows) if isinstance(row, BadRow)]
        outcome.documents += len(refused)
        outcome.count_refused(len(refused))
        for failure, document in outcome.letters:
            refused.append((by_place.get(id(document), by_id[document.id]), failure.status, failure.message))
        return outcome, refused_rows(table, refused)


def _row(outcome: PartOutcome, refused: pa.Table) -> pa.Table:
    import pyarrow as pa

    ledger = {
        "documents": outcome.documents, "pending": outcome.pending, "counts": outcome.ledger.counts(),
        "reasons": dict(outcome.ledger.errors), "absent_ids": outcome.ledger.absent_ids, "blank_ids": list(outcome.blank_ids),
        "sender": outcome.sender, "sending": None if outcome.sending is None else asdict(outcome.sending),
        "error": None if outcome.error is None else [type(outcome.error).__name__, str(outcome.error)],
    }  # fmt: skip
    letters = None
    if refused.num_rows:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, refused.schema) as stream:
            stream.write_table(refused)
        letters = sink.getvalue().to_pybytes()
    return pa.table({"ledger": [json.dumps(ledger)], "refused": pa.array([letters], pa.large_binary())})


class _Gathered:
    """The outcomes that workers have reported so far."""

    def __init__(self, target: str, operation: str, keep: Callable[[pa.Table], Any]) -> None:
        """Set up the ledger of a feed; `keep` stores rejected rows outside this process and returns a reference."""
        self.error: errors.ColbertVespaError | None = None
        self._target, self._operation, self._keep = target, operation, keep
        self._start = time.monotonic()
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._absent: list[str] = []
        self._blank: list[str] = []
        self._sending: dict[str, FeedStatistics] = {}
        self._letters: list[Any] = []

    def add(self, table: pa.Table) -> None:
        import pyarrow as pa

        for row in table.to_pylist():
            self._add(json.loads(row["ledger"]))
            if row["refused"] is not None:
                with pa.ipc.open_stream(row["refused"]) as stream:
                    self._letters.append(self._keep(stream.read_all()))

    def _add(self, ledger: Mapping[str, Any]) -> None:
        self._counts.update({**ledger["counts"], "documents": ledger["documents"], "pending": ledger["pending"]})
        self._reasons.update(ledger["reasons"])
        self._absent += ledger["absent_ids"][: NAMED - len(self._absent)]
        self._blank += ledger["blank_ids"][: NAMED - len(self._blank)]
        if ledger["sending"] is not None:
            told, sender = FeedStatistics(**ledger["sending"]), ledger["sender"]
            self._sending[sender] = max(self._sending.get(sender, told), told, key=lambda one: sum(one.latency_counts))
        if ledger["error"] is not None and self.error is None:
            name, message = ledger["error"]
            kind = getattr(errors, name) if name in errors.__all__ else errors.ColbertVespaError
            self.error = kind(f"{message}; {self._so_far()}: {MISSING}")

    def _so_far(self) -> str:
        named = ("acknowledged", "already_there", "dead_lettered", "pending")
        return ", ".join(f"{self._counts[name]:,} {name.replace('_', ' ')}" for name in named)

    def summary(self, outcome: str = "running") -> FeedSummary:
        counts: dict[str, Any] = {name: self._counts[name] for name in (*Ledger().counts(), "documents", "pending")}
        return FeedSummary(
            target=self._target, operation=self._operation, outcome=outcome, absent_ids=tuple(self._absent),
            skipped_blank_ids=tuple(self._blank), seconds=time.monotonic() - self._start, errors=dict(self._reasons),
            sending=added_statistics(list(self._sending.values())) if self._sending else None, **counts,
        )  # fmt: skip

    def dead_letters(self, data: Any) -> Dataset:
        import pyarrow as pa

        return data.from_arrow_refs(self._letters) if self._letters else data.from_arrow(refused_rows(pa.table({"id": []}), []))
