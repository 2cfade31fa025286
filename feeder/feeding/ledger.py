"""The outcome of every document of a feed, while it runs and at its end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from feeder.sending.statistics import FeedStatistics
from feeder.sources.report import Note

__all__ = ["REFUSED_HERE", "FeedProgress", "FeedSummary", "Ledger", "lacking_text", "rates"]

REFUSED_HERE = "refused here"  # a reason in `errors`: before it was sent


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """The progress of a feed.

    Attributes:
        total: documents that are neither blank nor duplicates.
        seconds: since it began.
        acknowledged: documents that the target has acknowledged.
        already_there: documents that the target had unchanged.
        absent: documents to delete that the target did not have.
        dead_lettered: refused documents.
        passages: passages handed over.
        token_vectors: token vectors handed over.
        bytes: bytes of the texts handed over.
        in_flight: documents handed over and not settled.
        errors: number of refused documents by reason.
        sending: statistics of the operations to Vespa; None for a local index.
    """

    total: int
    seconds: float = 0.0
    acknowledged: int = 0
    already_there: int = 0
    absent: int = 0
    dead_lettered: int = 0
    passages: int = 0
    token_vectors: int = 0
    bytes: int = 0
    in_flight: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    sending: FeedStatistics | None = None

    @property
    def done(self) -> int:
        """Return the number of settled documents."""
        return self.acknowledged + self.already_there + self.absent + self.dead_lettered


def rates(documents: int, token_vectors: int, text_bytes: int, seconds: float) -> dict[str, float]:
    """Return documents, token vectors and megabytes per second; 0 if no time has passed."""
    amounts = {"documents_per_s": documents, "tokens_per_s": token_vectors, "mb_per_s": text_bytes / 1e6}
    return {name: amount / seconds if seconds > 0 else 0.0 for name, amount in amounts.items()}


def lacking_text(documents: int, blank: int, notes: Iterable[Note]) -> str:
    """Return a message if documents were read, or skipped as unreadable, and none of them has a text; else ''."""
    skipped = sum(note.count for note in notes if note.kind == "skipped")
    if blank != documents or not documents + skipped:
        return ""
    more = f", and {skipped} files or records were skipped" if skipped else ""
    return f"{documents} documents were read{more}, but none has text to index"


@dataclass(frozen=True)
class FeedSummary:
    """The outcome of a feed.

    The ledger balances: documents = acknowledged + already_there + absent + dead_lettered + skipped_blank + duplicates +
    pending.

    Attributes:
        target: where the documents went.
        documents: documents of the sources.
        operation: put, update or delete.
        outcome: complete, interrupted (by the user), failed (see `error`), running or dry run.
        acknowledged: documents that the target has acknowledged.
        already_there: documents that the target had unchanged.
        absent: documents to delete that the target did not have.
        absent_ids: the first of their ids.
        dead_lettered: refused documents.
        skipped_blank: documents with neither title nor text.
        skipped_blank_ids: the first of their ids.
        removed_blank: of those, the ones whose former text was in the target and is removed.
        duplicates: documents whose id comes again later.
        pending: not acknowledged; `resume` sends them.
        passages: passages handed over.
        removed_passages: passages that their documents no longer have.
        truncated: documents that the model does not read to the end.
        token_vectors: token vectors handed over.
        bytes: bytes of the texts handed over.
        seconds: duration.
        version: version of a local index after the feed.
        dead_letter_file: path of the refused documents, if any.
        errors: number of refused documents by reason.
        error: why it failed.
        notes: what was read differently than expected, or not at all.
        sending: statistics of the operations to Vespa; None for a local index.
    """

    target: str
    documents: int
    operation: str = "put"
    outcome: str = "complete"
    acknowledged: int = 0
    already_there: int = 0
    absent: int = 0
    absent_ids: tuple[str, ...] = ()
    dead_lettered: int = 0
    skipped_blank: int = 0
    skipped_blank_ids: tuple[str, ...] = ()
    removed_blank: int = 0
    duplicates: int = 0
    pending: int = 0
    passages: int = 0
    removed_passages: int = 0
    truncated: int = 0
    token_vectors: int = 0
    bytes: int = 0
    seconds: float = 0.0
    version: int | None = None
    dead_letter_file: str | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    notes: tuple[Note, ...] = ()
    sending: FeedStatistics | None = None

    @property
    def lacks_text(self) -> str:
        """Return the message of `lacking_text` for documents that were to be put."""
        blank = self.skipped_blank + self.duplicates if self.operation == "put" else -1
        return lacking_text(self.documents, blank, self.notes)

    def to_json(self) -> dict[str, object]:
        """Return the summary as JSON values, with rates over the whole feed."""
        return dataclasses.asdict(self) | rates(self.acknowledged, self.token_vectors, self.bytes, self.seconds)


@dataclass
class Ledger:
    """Counts of one running feed; only its thread writes them."""

    acknowledged: int = 0
    already_there: int = 0
    absent: int = 0
    dead_lettered: int = 0
    skipped_blank: int = 0
    removed_blank: int = 0
    duplicates: int = 0
    passages: int = 0
    removed_passages: int = 0
    truncated: int = 0
    token_vectors: int = 0
    bytes: int = 0
    version: int | None = None
    absent_ids: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def settled(self) -> int:
        """Return the number of settled documents."""
        return self.acknowledged + self.already_there + self.absent + self.dead_lettered + self.skipped_blank

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("version", "absent_ids", "errors")]
        return {name: getattr(self, name) for name in names}
