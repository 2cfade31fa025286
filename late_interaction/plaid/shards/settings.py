"""Timeouts of the router of an index of shards, and how it treats partial answers."""

from __future__ import annotations

from dataclasses import dataclass

from late_interaction.errors import UsageError

__all__ = ["ShardSettings"]


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """Settings of the router.

    Attributes:
        timeout: seconds that a shard has for a query.
        start: seconds that a worker has to start, and after which a worker that still owes an answer is replaced.
        require_full: raise an error if an answer lacks a shard.
    """

    timeout: float = 10.0
    start: float = 60.0
    require_full: bool = False

    def __post_init__(self) -> None:
        """Check the times.

        Raises:
            UsageError: if one is not above 0.
        """
        for name in ("timeout", "start"):
            if not getattr(self, name) > 0:
                raise UsageError(f"shard setting {name} must be above 0 seconds, got {getattr(self, name)!r}")
