"""What has become of every document of a feed, while it runs and at its end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from feeder.targets import Target

__all__ = ["FeedProgress", "FeedSummary", "Ledger", "target_statistics"]


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """Handed to the progress callback after every batch. `done` and `total` count documents that are not blank and not
    duplicates; bytes: of the texts that were handed over; errors: refused documents by reason; target: what it says of itself,
    such as requests in flight and throttle."""

    done: int
    total: int
    token_vectors: int
    seconds: float
    passages: int = 0
    bytes: int = 0
    in_flight: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FeedSummary:
    """The ledger balances: documents = acknowledged + already_there + dead_lettered + skipped_blank + duplicates + pending.

    operation: put, update, delete. outcome: complete; interrupted (by the user); failed (error says why); dry run. pending: not
    acknowledged, so that `resume` sends them. removed_passages: that their documents no longer have. statistics: what the
    target says of itself, as in FeedProgress.
    """

    target: str
    documents: int
    operation: str = "put"
    outcome: str = "complete"
    acknowledged: int = 0
    already_there: int = 0
    dead_lettered: int = 0
    skipped_blank: int = 0
    skipped_blank_ids: tuple[str, ...] = ()
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
    statistics: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass
class Ledger:
    """Counts of one running feed; only its thread touches them."""

    acknowledged: int = 0
    already_there: int = 0
    dead_lettered: int = 0
    skipped_blank: int = 0
    duplicates: int = 0
    passages: int = 0
    removed_passages: int = 0
    truncated: int = 0
    token_vectors: int = 0
    bytes: int = 0
    version: int | None = None
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def settled(self) -> int:
        """Documents that there is nothing more to do for."""
        return self.acknowledged + self.already_there + self.dead_lettered

    def counts(self) -> dict[str, int]:
        names = [f.name for f in dataclasses.fields(self) if f.name not in ("version", "errors")]
        return {name: getattr(self, name) for name in names}


@runtime_checkable
class _Reporting(Protocol):
    """A target that says how it is doing."""

    def statistics(self) -> object: ...


def target_statistics(target: Target) -> dict[str, float]:
    """The numbers that the target reports, a mapping or a dataclass; none where it reports nothing."""
    if not isinstance(target, _Reporting):
        return {}
    said = target.statistics()
    if dataclasses.is_dataclass(said) and not isinstance(said, type):
        said = {f.name: getattr(said, f.name) for f in dataclasses.fields(said)}
    if not isinstance(said, Mapping):
        return {}
    return dict(_numbers(said, ""))


def _numbers(said: Mapping[object, object], prefix: str) -> Iterator[tuple[str, float]]:
    """What is nested has the names on its way, joined by dots: `retries.429`."""
    for name, value in said.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)
