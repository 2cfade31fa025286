"""How long the router of an index of shards waits, and what it does with part of an answer."""

from __future__ import annotations

from dataclasses import dataclass

from late_interaction.errors import UsageError

__all__ = ["ShardSettings"]


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """timeout: seconds that a shard has for a query. start: seconds that a worker has to start, and after which one that still
    owes an answer is replaced. require_full: an answer without all shards is an error.
    """

    timeout: float = 10.0
    start: float = 60.0
    require_full: bool = False

    def __post_init__(self) -> None:
        """Raises: UsageError where a time is not above 0."""
        for name in ("timeout", "start"):
            if not getattr(self, name) > 0:
                raise UsageError(f"shard setting {name} must be above 0 seconds, got {getattr(self, name)!r}")
