"""Where models run: the name of a device, and what onnxruntime needs for it.

A line of `DEVICES` is a device: its providers, the package that brings them, the graphs it likes, the batches that suit it.
onnxruntime, onnxruntime-gpu and their kin are the same import package, so only one of them can be installed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction.bundle import FASTEST_ON_CPU
from late_interaction.bundle_cache import cache_folder
from late_interaction.errors import DeviceError, MissingDependency, UsageError

__all__ = [
    "AUTO", "CPU", "CPU_NAME", "DEVICES", "Device", "DeviceKind", "Graph", "check_device", "installed_devices", "onnxruntime",
    "open_graph", "processor_facts", "processor_flags",
]  # fmt: skip

AUTO_NAME, CPU_NAME = "auto", "cpu"
CPU_PROVIDER = "CPUExecutionProvider"
OTHER_PACKAGES = ("onnxruntime-rocm",)


@dataclass(frozen=True, slots=True)
class Load:
    """What a session is for. number: of the device. threads: of a run. lanes: runs at once. fp16: whether weights are."""

    number: int | None
    threads: int
    lanes: int
    fp16: bool


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """providers: onnxruntime's, of which the first that is installed counts. package: brings them. options: of the provider.
    precisions: graphs that suit the device, best first. tokens: of a batch at most, padding counted; texts: likewise.
    lanes: batches at once; 0: one for each thread. memory: the device's own, as IO binding names it. helpers: providers for
    operators that the first lacks. powers: text lengths and batch sizes are rounded up to powers of these, on devices that
    compile every shape anew. measured: whether `auto` considers it. numbered: whether there can be several.
    system: the only one, as `sys.platform` names it.
    """

    providers: tuple[str, ...]
    package: str
    options: Callable[[Load], Mapping[str, str]]
    precisions: tuple[str, ...] = ("fp16", "fp32")
    tokens: int = 16_384
    texts: int = 256
    lanes: int = 1
    memory: str = ""
    helpers: tuple[str, ...] = ()
    powers: tuple[int, int] = (1, 1)
    measured: bool = True
    numbered: bool = True
    system: str = ""


def _none(load: Load) -> Mapping[str, str]:
    return {}


def _number(load: Load) -> Mapping[str, str]:
    return {"device_id": str(load.number or 0)}


def _cuda(load: Load) -> Mapping[str, str]:
    """Without TF32, which onnxruntime uses by default: it keeps 10 bits of a float32 product's factors."""
    return {**_number(load), "use_tf32": "0"}


def _tensorrt(load: Load) -> Mapping[str, str]:
    """Engines take minutes to build: they are kept in the user's cache, by onnxruntime's own key (graph, GPU, versions)."""
    engines = cache_folder() / "tensorrt"
    engines.mkdir(parents=True, exist_ok=True)
    return {
        **_number(load), "trt_fp16_enable": str(int(load.fp16)),
        "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engines),
    }  # fmt: skip


def _coreml(load: Load) -> Mapping[str, str]:
    """Without a folder for compiled models: their key is the file's path, so that a replaced bundle would give old vectors."""
    return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


def _openvino(load: Load) -> Mapping[str, str]:
    """The processor, or with a number that GPU. Float32 is asked for: OpenVINO takes bfloat16 where the hardware has it."""
    if load.number is not None:
        precision = "f16" if load.fp16 else "f32"
        return {
            "device_type": f"GPU.{load.number}",
            "load_config": json.dumps({"GPU": {"INFERENCE_PRECISION_HINT": precision}}),
        }
    streams = {"NUM_STREAMS": str(load.lanes), "INFERENCE_NUM_THREADS": str(load.threads * load.lanes)}
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32", **streams}})}


DEVICES: dict[str, DeviceKind] = {
    "cpu": DeviceKind((CPU_PROVIDER,), "onnxruntime", _none, FASTEST_ON_CPU, 1024, 64, 0, numbered=False),
    "cuda": DeviceKind(("CUDAExecutionProvider",), "onnxruntime-gpu", _cuda, lanes=2, memory="cuda"),
    "tensorrt": DeviceKind(
        ("TensorrtExecutionProvider",), "onnxruntime-gpu", _tensorrt, memory="cuda", helpers=("CUDAExecutionProvider",),
        powers=(2, 4), measured=False,
    ),
    "rocm": DeviceKind(
        ("MIGraphXExecutionProvider", "ROCMExecutionProvider"), "onnxruntime-migraphx", _number, powers=(2, 4), measured=False
    ),
    "coreml": DeviceKind(
        ("CoreMLExecutionProvider",), "onnxruntime", _coreml, powers=(2, 4), measured=False, numbered=False, system="darwin"
    ),
    "openvino": DeviceKind(("OpenVINOExecutionProvider",), "onnxruntime-openvino", _openvino, ("fp32",), 1024, 64, 0),
    "directml": DeviceKind(("DmlExecutionProvider",), "onnxruntime-directml", _number, memory="dml", system="win32"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Device:
    """`auto`, or a name of `DEVICES`; `number`: which of several, by default the first (of openvino: the processor)."""

    name: str = AUTO_NAME
    number: int | None = None

    @classmethod
    def of(cls, given: str | Device) -> Device:
        """From a name, or a name with a number as in `cuda:1`. Raises: UsageError."""
        if isinstance(given, Device):
            return given
        match = re.fullmatch(r"([a-z]+)(?::(\d{1,3}))?", given) if isinstance(given, str) else None
        if match is None:
            raise UsageError(f"device {given!r} unknown; known: {', '.join((AUTO_NAME, *DEVICES))}, with a number as in cuda:1")
        return cls(match[1], None if match[2] is None else int(match[2]))

    def __post_init__(self) -> None:
        if self.name not in (AUTO_NAME, *DEVICES):
            raise UsageError(f"device {self.name!r} unknown; known: {', '.join((AUTO_NAME, *DEVICES))}")
        if self.number is not None and (self.name == AUTO_NAME or not DEVICES[self.name].numbered):
            numbered = ", ".join(name for name, kind in DEVICES.items() if kind.numbered)
            raise UsageError(f"device {self.name} takes no number: --device-id goes with {numbered}")

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}:{self.number}"

    @property
    def kind(self) -> DeviceKind:
        return DEVICES[self.name]


AUTO, CPU = Device(), Device(CPU_NAME)


@functools.cache
def onnxruntime() -> Any:
    """onnxruntime, imported when there is something to encode, without its telemetry.

    Where ORT_DISABLE_TELEMETRY is not set, importing it writes a database into the user's cache and sends events to Microsoft.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    return ort


def installed_devices() -> list[str]:
    """Names of devices whose provider the installed onnxruntime has. Whether such a device is there shows when it is opened."""
    available = set(onnxruntime().get_available_providers())
    return [name for name, kind in DEVICES.items() if available.intersection(kind.providers)]


def check_device(device: Device, installed: Sequence[str] | None = None, packages: Sequence[str] | None = None) -> None:
    """installed, packages: of this environment. Raises: MissingDependency with what to install."""
    if device.name == AUTO_NAME or device.name in (installed_devices() if installed is None else installed):
        return
    kind, present = device.kind, _packages() if packages is None else packages
    if kind.system and sys.platform != kind.system:
        system = {"darwin": "macOS", "win32": "Windows"}[kind.system]
        raise MissingDependency(f"device {device.name} needs {system}: leave --device out, or name another")
    both = f"; {' and '.join(present)} overwrite each other's files" if len(present) > 1 else ""
    uninstall = f"pip uninstall {' '.join(present)}, then " if present else ""
    raise MissingDependency(
        f"device {device.name} needs {kind.providers[0]}, which the installed onnxruntime does not have{both}: "
        f"{uninstall}pip install {kind.package} (one onnxruntime package at a time)"
    )


def _packages() -> list[str]:
    """The installed packages that are imported as onnxruntime."""
    names = {str(item.metadata["Name"]).lower().replace("_", "-") for item in distributions()}
    return sorted(names.intersection({*OTHER_PACKAGES, *(kind.package for kind in DEVICES.values())}))


class Graph:
    """An opened graph. `run` as onnxruntime's sessions have it; several threads may call it."""

    def __init__(self, session: Any, device: Device) -> None:
        self._session = session
        self.device = device
        self.inputs = {item.name for item in session.get_inputs()}
        self.outputs = {item.name for item in session.get_outputs()}

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """outputs: names; None: all. Raises: DeviceError where the device fails, as when its memory does not suffice."""
        try:
            if memory := self.device.kind.memory:
                return self._run_bound(list(outputs or self.outputs), feed, memory)
            values: list[np.ndarray] = self._session.run(outputs, dict(feed))
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise DeviceError(f"device {self.device} failed: {error}") from None
        return values

    def _run_bound(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray], memory: str) -> list[np.ndarray]:
        """Inputs are copied to the device once, outputs stay there until all of the graph has run."""
        value = onnxruntime().OrtValue.ortvalue_from_numpy
        binding, number = self._session.io_binding(), self.device.number or 0
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, value(array, memory, number))
        for name in outputs:
            binding.bind_output(name, memory, number)
        self._session.run_with_iobinding(binding)
        values: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return values


def open_graph(path: Path, threads: int = 1, device: Device = CPU, *, lanes: int = 1, fp16: bool = False) -> Graph:
    """A graph on a device. threads: of the processor for each run. lanes: runs at once. fp16: whether its weights are.

    Int8 products are exact on every processor: without VNNI, onnxruntime's quicker kernel adds pairs of products in 16 bits,
    which overflow, and gives other vectors.

    Raises: MissingDependency, DeviceError where the device does not start; onnxruntime's own where the file is not a graph.
    """
    ort, kind = onnxruntime(), device.kind
    check_device(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal errors alone: what else fails is raised
    if not _has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if device.name == "directml":  # its provider's documentation asks for both
        options.enable_mem_pattern = False
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    provider = next(name for name in kind.providers if name in ort.get_available_providers())
    said = _load_libraries(ort) if "CUDAExecutionProvider" in (provider, *kind.helpers) else ""
    load = Load(device.number, threads, lanes, fp16)
    providers: list[Any] = [(provider, dict(kind.options(load)))]
    providers += [(name, dict(_cuda(load))) for name in kind.helpers]
    if provider != CPU_PROVIDER:
        providers.append(CPU_PROVIDER)
    try:
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:
        if device == CPU:
            raise
        raise DeviceError(f"device {device} does not start with {path}: {error} {said}") from None
    if session.get_providers()[0] != provider:  # onnxruntime goes on without a provider whose libraries do not load
        raise DeviceError(f"device {device} does not start: {said or f'{provider} finds no device, or not its libraries'}")
    return Graph(session, device)


def _load_libraries(ort: Any) -> str:
    """Loads CUDA and cuDNN from NVIDIA's Python packages where they are installed; what onnxruntime prints of it."""
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(said):
            ort.preload_dlls()
    return " ".join(said.getvalue().split())


@functools.cache
def _has_vnni() -> bool:
    """Whether int8 products are exact as they are; asking for precision there takes 1.6 times as long."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(processor_flags())


def processor_flags() -> frozenset[str]:
    """Of Linux; empty elsewhere."""
    return frozenset(processor_facts("flags")[0].split())


def processor_facts(*names: str) -> list[str]:
    """What Linux says of the processor by these names, as `model name`; empty texts elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [""] * len(names)
    found = [re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE) for name in names]
    return ["" if match is None else match[1].strip() for match in found]
