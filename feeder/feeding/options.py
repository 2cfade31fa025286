"""Everything that a feed can be asked for."""

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
    """to: local folder or Vespa URL. journal: path of the journal file; dead_letters: default is beside it. operation: put;
    update, of metadata alone; delete. limit: only so many documents of the sources. rate: documents a second at most. workers:
    encoding processes, 0 for none, default: one for each core where that is quicker. cache: folder of vectors that were encoded
    before. types: of metadata fields, where their values do not tell. encoder: default is the bundle's own, on `device`.
    storage, sharding: of a new local index. named: so many ids of each kind are in the summary."""

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
        """Raises: UsageError on what cannot be; MissingDependency where onnxruntime lacks the device."""
        for name in ("journal", "cache", "dead_letters"):
            if isinstance(given := getattr(self, name), str):
                object.__setattr__(self, name, Path(given))
        if self.operation not in OPERATIONS:
            raise UsageError(f"operation {self.operation!r} is unknown; known: {', '.join(OPERATIONS)}")
        for name, value, least in (("limit", self.limit, 1), ("workers", self.workers, 0)):
            if value is not None and value < least:
                raise UsageError(f"{name} must be at least {least}, got {value}")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise UsageError(f"rate must be more than 0 documents a second, got {self.rate}")
        if self.workers and (self.cache is not None or self.encoder is not None):
            raise UsageError("a vector cache, or an encoder of your own, belongs to one process: leave workers out")
        if Device.of(self.device) != AUTO and self.encoder is not None:
            raise UsageError("an encoder of your own has a device: leave device out")
        check_device(Device.of(self.device))

    @property
    def dead_letter_path(self) -> Path:
        return self.dead_letters or self.journal.with_name(self.journal.name + ".dead.jsonl")
