"""Resolve `auto`: the device and the graph of a bundle that encode fastest on this machine.

If there is a choice, a short measurement decides at first use. The user's cache keeps the result, keyed by graphs, devices,
processor and onnxruntime version, so that the same documents get the same vectors from run to run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import cache_folder
from late_interaction.cores import cores
from late_interaction.devices import AUTO, CPU, DEVICES, Device, installed_devices, onnxruntime, processor_facts
from late_interaction.errors import DeviceError
from late_interaction.files import atomic_write
from late_interaction.graphs import best_precision

__all__ = ["Choice", "Trial", "choose", "suitable_precision"]

LOG = logging.getLogger("late_interaction.devices")  # if the program installs no handler, warnings go to stderr
MOST_FAITHFUL_FIRST = ("fp32", "fp16", "int8", "int8-tensor")
WORTH = 1.15  # a less accurate graph must be faster by this factor
MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Choice:
    """A device and a precision."""

    device: Device
    precision: str

    def __str__(self) -> str:
        return f"{self.device} {self.precision}"


class Trial(Protocol):
    """Tries a choice. Both methods raise DeviceError if the device does not start or fails."""

    def start(self, choice: Choice) -> None:
        """Open the graph."""

    def seconds(self, choice: Choice) -> float:
        """Return how long it takes to encode a text."""


def choose(
    bundle: Bundle,
    asked: Device,
    precision: str | None,
    trial: Trial,
    installed: Callable[[], Sequence[str]] = installed_devices,
) -> Choice:
    """Choose device and precision.

    A named device is used, or raises an error when it is opened. `auto` never fails for lack of a device: one that does not
    start is logged in one line, and the next best is used.

    Args:
        bundle: the bundle.
        asked: the device asked for.
        precision: of the model; None for any that suits the device.
        trial: tries a choice.
        installed: names of the devices that the installed onnxruntime supports.
    """
    if asked != AUTO:
        return Choice(asked, precision or suitable_precision(bundle, asked))
    candidates = candidates_of(bundle, precision, installed())
    if len(candidates) == 1:
        return candidates[0]
    entry = cache_folder() / "devices" / f"{_key(bundle, candidates)}.json"
    kept = _kept(entry, candidates)
    if kept is None:
        return _measured(candidates, trial, entry)
    if kept.device != CPU:
        try:
            trial.start(kept)
        except DeviceError as error:
            without = [item for item in candidates if item.device != kept.device]
            _say(error, without)
            return without[0] if len(without) == 1 else _measured(without, trial, None)
    return kept


def suitable_precision(bundle: Bundle, device: Device) -> str:
    """Return the best of the device's precisions that the bundle has."""
    return best_precision(bundle.manifest.models, device)


def candidates_of(bundle: Bundle, precision: str | None, installed: Sequence[str]) -> list[Choice]:
    """Return the candidates, the processor's first; every bundle has fp32."""
    found = []
    for name in ("cpu", *(name for name in installed if name != "cpu" and DEVICES[name].measured)):
        device = Device(name)
        if precision is not None:
            precisions = [precision] if device == CPU or precision in device.kind.precisions else []
        elif device == CPU:
            precisions = list(dict.fromkeys((bundle.default_precision, "fp32")))
        else:
            precisions = [suitable_precision(bundle, device)]
        found += [Choice(device, item) for item in precisions]
    return found


def _measured(candidates: Sequence[Choice], trial: Trial, entry: Path | None) -> Choice:
    """Measure and choose. The result is kept in `entry`, unless a device failed: it may work next time."""
    seconds: dict[Choice, float] = {}
    failed: set[Device] = set()
    for candidate in candidates:
        if candidate.device not in failed:
            try:
                seconds[candidate] = trial.seconds(candidate)
            except DeviceError as error:
                if candidate.device == CPU:
                    raise
                failed.add(candidate.device)
                _say(error, [item for item in candidates if item.device not in failed])
    best = min(seconds.values())
    quick = [candidate for candidate in seconds if seconds[candidate] <= best * WORTH]
    chosen = min(quick, key=lambda candidate: (MOST_FAITHFUL_FIRST.index(candidate.precision), seconds[candidate]))
    if entry is not None and not failed:
        _keep(entry, chosen, seconds)
    return chosen


def _say(error: DeviceError, left: Sequence[Choice]) -> None:
    names = " or ".join(dict.fromkeys(str(choice.device) for choice in left))
    LOG.warning("%s; device auto uses %s instead", error, names)


def _keep(entry: Path, chosen: Choice, seconds: dict[Choice, float]) -> None:
    """Write the result. A cache that cannot be written is not an error: the next run measures again."""
    data = {
        "device": chosen.device.name, "precision": chosen.precision,
        "seconds_a_text": {str(choice): took for choice, took in seconds.items()},
    }  # fmt: skip
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(entry, json.dumps(data).encode())
    except OSError:
        return


def _kept(entry: Path, candidates: Sequence[Choice]) -> Choice | None:
    """Read the kept result; None if there is none, or it cannot be read."""
    try:
        if entry.stat().st_size > MAX_BYTES:
            return None
        data = json.loads(entry.read_bytes())
        named = data["device"], data["precision"]
        return next((item for item in candidates if (item.device.name, item.precision) == named), None)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _key(bundle: Bundle, candidates: Sequence[Choice]) -> str:
    manifest = bundle.manifest
    graphs = {str(item): manifest.files[manifest.models[item.precision]].sha256 for item in candidates}
    parts = (graphs, _processor(), onnxruntime().__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _processor() -> tuple[str, ...]:
    """Return the processor's name, its features, and how many of its cores this process has."""
    facts = processor_facts("model name", "flags")
    return platform.system(), platform.machine(), platform.processor(), str(cores()), *facts
