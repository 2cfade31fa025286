"""What has become of every document of a feed, while it runs and at its end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from feeder.sending.statistics import FeedStatistics
from feeder.sources.report import Note

__all__ = ["REFUSED_HERE", "FeedProgress", "FeedSummary", "Ledger", "lacking_text", "rates"]

REFUSED_HERE = "refused here"  # among the reasons in `errors`: before it was sent


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """How far a feed is. total: documents that are neither blank nor duplicates. seconds: since it began. bytes: of the texts
    that were handed over. in_flight: documents that were handed over and are not settled. errors: refused documents by reason.
    sending: of the operations to Vespa; None for a local index."""

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
        """Documents that there is nothing more to do for."""
        return self.acknowledged + self.already_there + self.absent + self.dead_lettered


def rates(documents: int, token_vectors: int, text_bytes: int, seconds: float) -> dict[str, float]:
    """Each of them a second, bytes in megabytes; 0 where no time has passed."""
    amounts = {"documents_per_s": documents, "tokens_per_s": token_vectors, "mb_per_s": text_bytes / 1e6}
    return {name: amount / seconds if seconds > 0 else 0.0 for name, amount in amounts.items()}


def lacking_text(documents: int, blank: int, notes: Iterable[Note]) -> str:
    """Says that documents were read, or skipped as unreadable, and none of them has a text; '' where that is not so."""
    skipped = sum(note.count for note in notes if note.kind == "skipped")
    if blank != documents or not documents + skipped:
        return ""
    more = f", and {skipped} files or records were skipped" if skipped else ""
    return f"{documents} documents were read{more}: there is no text to index"


@dataclass(frozen=True)
class FeedSummary:
    """The ledger balances: documents = acknowledged + already_there + absent + dead_lettered + skipped_blank + duplicates +
    pending.

    operation: put, update, delete. outcome: complete; interrupted (by the user); failed (error says why); running; dry run.
    pending: not acknowledged, so that `resume` sends them. absent: were to be deleted and were not there. skipped_blank: have
    neither title nor text; removed_blank: of them, those whose earlier text was there and is removed. removed_passages: that
    their documents no longer have. notes: what was read otherwise than expected, or not at all. sending: of the operations to
    Vespa; None for a local index.
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
        """As `lacking_text`, of what was to be put."""
        blank = self.skipped_blank + self.duplicates if self.operation == "put" else -1
        return lacking_text(self.documents, blank, self.notes)

    def to_json(self) -> dict[str, object]:
        """With what was acknowledged a second, over the whole feed."""
        return dataclasses.asdict(self) | rates(self.acknowledged, self.token_vectors, self.bytes, self.seconds)


@dataclass
class Ledger:
    """Counts of one running feed; only its thread touches them."""

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
        """Documents that there is nothing more to do for."""
        return self.acknowledged + self.already_there + self.absent + self.dead_lettered + self.skipped_blank

    def counts(self) -> dict[str, int]:
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("version", "absent_ids", "errors")]
        return {name: getattr(self, name) for name in names}
