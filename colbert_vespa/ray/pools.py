"""Pools of workers: their number, their resources, and how a dataset passes through them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from late_interaction.bundle import Bundle
from late_interaction.device_choice import suitable_precision
from late_interaction.devices import AUTO, CPU_NAME, Device
from late_interaction.errors import ColbertVespaError, UsageError
from late_interaction.extras import required

__all__ = ["Workers", "cluster_errors", "mapped", "ray_data", "senders"]

_RAISED = re.compile(r"[A-Za-z_][\w.]*: ")


@dataclass(frozen=True)
class Workers:
    """The workers of a run.

    Ray Data begins with one worker and adds others while there is work for them, and room beside the tasks that read.

    Attributes:
        count: Number of workers, at most; None for as many as the cluster has room for.
        cpus: CPUs of each worker; an encoder has as many threads as whole CPUs.
        gpus: GPUs of each worker.
        memory: Bytes that Ray reserves for each worker.
        batch: Rows that a worker takes at a time, which bounds its memory; larger batches keep a GPU busy.
        device: Device of the model, the same for all workers, as different devices compute slightly different vectors; default:
            cuda with gpus, else cpu.
        precision: Precision of the model; default: what suits the device.
    """

    count: int | None = None
    cpus: float = 1
    gpus: float = 0
    memory: int | None = None
    batch: int = 512
    device: str = ""
    precision: str = ""

    def __post_init__(self) -> None:
        """Check the numbers and the device.

        Raises:
            UsageError: If a value is not valid; the message names it.
        """
        for name, value, least in (("count", self.count, 1), ("memory", self.memory, 1), ("batch", self.batch, 1)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise UsageError(f"workers: {name} must be a whole number of at least {least}, got {value!r}")
        for name, number in (("cpus", self.cpus), ("gpus", self.gpus)):
            if not 0 <= number < math.inf:
                raise UsageError(f"workers: {name} must be a number of at least 0, got {number!r}")
        if not self.cpus and not self.gpus:
            raise UsageError("workers: a worker with neither CPUs nor GPUs would be started without limit; set cpus")
        if Device.of(self.device or CPU_NAME) == AUTO:
            raise UsageError("workers: device auto may differ on each machine; choose cpu, cuda or another")

    def encoder(self, bundle: Bundle) -> dict[str, Any]:
        """Return the arguments of every worker's encoder.

        Raises:
            BundleError: If the bundle has no model, or none of that precision.
        """
        device = self.device or ("cuda" if self.gpus else CPU_NAME)
        bundle.check_encodes()
        precision = self.precision or suitable_precision(bundle, Device.of(device))
        bundle.model_path(precision)
        return {"device": device, "precision": precision, "threads": max(1, int(self.cpus))}


def ray_data() -> Any:
    """Return the module `ray.data`.

    Raises:
        MissingDependency: If Ray is not installed.
    """
    with required("ray", "a cluster that encodes"):
        import ray.data
    return ray.data


def mapped(dataset: Any, worker: type, arguments: Mapping[str, object], workers: Workers) -> Any:
    """Return the dataset that the workers make of `dataset`, a table of rows at a time.

    If a worker is lost, Ray Data gives its whole table to another one, so that no row is lost.
    """
    data = ray_data()
    if not isinstance(dataset, data.Dataset):
        raise UsageError(f"the first argument must be a Dataset of Ray Data, got {type(dataset).__name__}: ray.data.read_...()")
    return dataset.map_batches(
        worker, batch_format="pyarrow", batch_size=workers.batch, fn_constructor_kwargs=dict(arguments),
        compute=data.ActorPoolStrategy(min_size=1, max_size=workers.count),
        num_cpus=None if workers.cpus == 1 else workers.cpus,  # 1 is Ray's own, also beside GPUs
        num_gpus=workers.gpus or None, memory=workers.memory,
    )  # fmt: skip


def senders(workers: Workers) -> int:
    """Return how many workers there may be, at most, as far as it is known now."""
    if workers.count is not None:
        return workers.count
    import ray

    has = ray.cluster_resources() if ray.is_initialized() else {}
    fits = [has.get(name, 0) / each for name, each in (("CPU", workers.cpus), ("GPU", workers.gpus)) if each]
    return max(1, int(min(fits)))


@contextlib.contextmanager
def cluster_errors() -> Iterator[None]:
    """Turn Ray's errors into one-line errors; Ray's own error stays the cause.

    Raises:
        ColbertVespaError: In place of Ray's error.
    """
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raised = [line for line in lines if _RAISED.match(line) and not line.startswith("ray.")]  # ends of tracebacks
        said = raised[-1:] or lines[:1]
        raise ColbertVespaError(f"the cluster ended the run: {said[0][:1000]}") from error
