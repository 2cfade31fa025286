"""The operations of one document, and each operation on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from feeder.outcomes import Failure
from feeder.sending.operations import Operation

__all__ = ["Attempt", "Job"]


@dataclass(eq=False, slots=True)
class Job:
    """The work for one document.

    Attributes:
        key: the document's id.
        stages: operations, stage by stage.
        failure: once settled, what went wrong, or None.
    """

    key: str
    stages: Sequence[Sequence[Operation]]
    failure: Failure | None = None
    _stage: int = 0
    _open: int = 0

    @property
    def size(self) -> int:
        """Return the bytes of its bodies."""
        return sum(len(operation.body) for stage in self.stages for operation in stage)


@dataclass(eq=False, slots=True)
class Attempt:
    """One operation on its way.

    Attributes:
        job: its job.
        operation: the operation.
        failures: transient failures so far.
        refusals: answers 429 so far.
    """

    job: Job
    operation: Operation
    failures: int = 0
    refusals: int = 0
