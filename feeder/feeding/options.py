"""The options of a feed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from feeder.encoding.passages import Splitting
from feeder.feeding.survey import NAMED
from late_interaction.addresses import VespaUrl
from late_interaction.bundle import Bundle
from late_interaction.devices import AUTO, Device, check_device
from late_interaction.errors import UsageError
from late_interaction.metadata import FieldType, MetadataSchema
from late_interaction.vector_cache import DocumentEncoder

if TYPE_CHECKING:
    from late_interaction.plaid import Storage
    from late_interaction.plaid.shards import Sharding

__all__ = ["OPERATIONS", "FeedOptions"]

OPERATIONS = ("put", "update", "delete")


@dataclass(frozen=True)
class FeedOptions:
    """The options of a feed.

    Attributes:
        to: local folder or Vespa URL.
        journal: path of the journal file.
        bundle: the bundle; None for that of the target.
        operation: put; update, for metadata only; or delete.
        resume: continue an interrupted feed.
        dry_run: write nothing.
        splitting: how texts become passages.
        limit: most documents of the sources.
        rate: most documents per second.
        workers: encoding processes, 0 for none; by default one per core if that is faster.
        cache: folder of vectors that were encoded before.
        dead_letters: path of the dead-letter file; by default beside the journal.
        schema: metadata fields; None to infer them.
        encoder: your own encoder; by default the bundle's, on `device`.
        device: where encoding runs.
        storage: storage of a new local index.
        sharding: shards of a new local index.
        add_fields: add missing metadata fields to a local index.
        named: how many ids of each kind the summary has.
    """

    to: str | Path | VespaUrl
    journal: Path
    bundle: str | Path | Bundle | None = None
    operation: str = "put"
    resume: bool = False
    dry_run: bool = False
    splitting: Splitting = field(default_factory=Splitting)
    limit: int | None = None
    rate: float | None = None
    workers: int | None = None
    cache: Path | None = None
    dead_letters: Path | None = None
    schema: MetadataSchema | None = None
    types: Mapping[str, FieldType] = field(default_factory=dict)
    encoder: DocumentEncoder | None = None
    device: str | Device = AUTO
    storage: Storage | None = None
    sharding: Sharding | None = None
    add_fields: bool = False
    named: int = NAMED

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: if an option is not valid.
            MissingDependency: if onnxruntime lacks the device.
        """
        for name in ("journal", "cache", "dead_letters"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        if self.operation not in OPERATIONS:
            raise UsageError(f"operation {self.operation!r} is unknown; known: {', '.join(OPERATIONS)}")
        for name, value, least in (("limit", self.limit, 1), ("workers", self.workers, 0)):
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise UsageError(f"rate must be above 0 documents per second, got {self.rate}")
        if self.workers and (self.cache is not None or self.encoder is not None):
            raise UsageError("a vector cache or your own encoder works in one process only; omit workers")
        if Device.of(self.device) != AUTO and self.encoder is not None:
            raise UsageError("your own encoder has its own device; omit device")
        check_device(Device.of(self.device))

    @property
    def dead_letter_path(self) -> Path:
        """Return the path of the dead-letter file."""
        return self.dead_letters or self.journal.with_name(self.journal.name + ".dead.jsonl")
