"""What is sent for one document, and each of its operations on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feeder.outcomes import Failure
from feeder.sending.operations import Operation

__all__ = ["Attempt", "Job"]


@dataclass(eq=False, slots=True)
class Job:
    """key: the document's id. Once settled, `failure` says what went wrong, or is None."""

    key: str
    stages: Sequence[Sequence[Operation]]
    failure: Failure | None = None
    _stage: int = 0
    _open: int = 0

    @property
    def size(self) -> int:
        """Bytes of its bodies."""
        return sum(len(operation.body) for stage in self.stages for operation in stage)


@dataclass(eq=False, slots=True)
class Attempt:
    """One operation on its way. failures, refusals: how often it failed in passing, and met 429."""

    job: Job
    operation: Operation
    failures: int = 0
    refusals: int = 0
