"""Where models run: the name of a device, and what onnxruntime needs for it.

Each entry of `DEVICES` is a device: its providers, the package that installs them, the precisions and batches that suit it.
onnxruntime, onnxruntime-gpu and similar packages share one import name, so only one of them can be installed.
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
    """What a session is for.

    Attributes:
        number: number of the device.
        threads: threads of a run.
        lanes: concurrent runs.
        fp16: whether the weights are float16.
    """

    number: int | None
    threads: int
    lanes: int
    fp16: bool


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What onnxruntime needs for one kind of device.

    Attributes:
        providers: providers of onnxruntime; the first installed one is used.
        package: the package that installs them.
        options: options of the provider.
        precisions: precisions that suit the device, best first.
        tokens: most tokens of a batch, padding included.
        texts: most texts of a batch.
        lanes: concurrent batches; 0 for one per thread.
        memory: name of the device's memory for IO binding.
        helpers: providers for operators that the first one lacks.
        powers: text lengths and batch sizes are rounded up to powers of these, on devices that compile each shape.
        measured: whether `auto` considers it.
        numbered: whether there can be several.
        system: the only system that has it, as in `sys.platform`.
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
    """Return options without TF32, onnxruntime's default, which keeps 10 bits of a float32 product's factors."""
    return {**_number(load), "use_tf32": "0"}


def _tensorrt(load: Load) -> Mapping[str, str]:
    """Return options that cache engines, which take minutes to build, under onnxruntime's key (graph, GPU, versions)."""
    engines = cache_folder() / "tensorrt"
    engines.mkdir(parents=True, exist_ok=True)
    return {
        **_number(load), "trt_fp16_enable": str(int(load.fp16)),
        "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engines),
    }  # fmt: skip


def _coreml(load: Load) -> Mapping[str, str]:
    """Return options without a cache of compiled models: its key is a path, so a replaced bundle would give old vectors."""
    return {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL"}


def _openvino(load: Load) -> Mapping[str, str]:
    """Return options for the CPU, or the GPU of that number, in float32: OpenVINO's default is bfloat16 if supported."""
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
    """A device by name.

    Attributes:
        name: `auto`, or a key of `DEVICES`.
        number: which of several; by default the first (with openvino: the processor).
    """

    name: str = AUTO_NAME
    number: int | None = None

    @classmethod
    def of(cls, given: str | Device) -> Device:
        """Parse a name, or a name with a number such as `cuda:1`.

        Raises:
            UsageError: if the name is unknown or the number does not fit.
        """
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
            raise UsageError(f"device {self.name} takes no number; --device-id works with {numbered}")

    def __str__(self) -> str:
        return self.name if self.number is None else f"{self.name}:{self.number}"

    @property
    def kind(self) -> DeviceKind:
        """Return its entry in `DEVICES`."""
        return DEVICES[self.name]


AUTO, CPU = Device(), Device(CPU_NAME)


@functools.cache
def onnxruntime() -> Any:
    """Import onnxruntime on first use, with its telemetry disabled.

    Unless ORT_DISABLE_TELEMETRY is set, the import writes a database into the user's cache and sends events to Microsoft.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    return ort


def installed_devices() -> list[str]:
    """Return the devices whose provider the installed onnxruntime has.

    Whether the hardware is present shows only when the device is opened.
    """
    available = set(onnxruntime().get_available_providers())
    return [name for name, kind in DEVICES.items() if available.intersection(kind.providers)]


def check_device(device: Device, installed: Sequence[str] | None = None, packages: Sequence[str] | None = None) -> None:
    """Check that the device's provider is installed.

    Args:
        device: the device.
        installed: devices of this environment.
        packages: onnxruntime packages of this environment.

    Raises:
        MissingDependency: if a package is missing; the message says what to install.
    """
    if device.name == AUTO_NAME or device.name in (installed_devices() if installed is None else installed):
        return
    kind, present = device.kind, _packages() if packages is None else packages
    if kind.system and sys.platform != kind.system:
        system = {"darwin": "macOS", "win32": "Windows"}[kind.system]
        raise MissingDependency(f"device {device.name} needs {system}; omit --device, or choose another")
    both = f"; {' and '.join(present)} overwrite each other's files" if len(present) > 1 else ""
    uninstall = f"pip uninstall {' '.join(present)}, then " if present else ""
    raise MissingDependency(
        f"device {device.name} needs {kind.providers[0]}, which the installed onnxruntime does not have{both}: "
        f"{uninstall}pip install {kind.package} (one onnxruntime package at a time)"
    )


def _packages() -> list[str]:
    """Return the installed packages that provide the module onnxruntime."""
    names = {str(item.metadata["Name"]).lower().replace("_", "-") for item in distributions()}
    return sorted(names.intersection({*OTHER_PACKAGES, *(kind.package for kind in DEVICES.values())}))


class Graph:
    """An opened graph.

    `run` has the signature of onnxruntime's sessions, and may be called by several threads.
    """

    def __init__(self, session: Any, device: Device) -> None:
        self._session = session
        self.device = device
        self.inputs = {item.name for item in session.get_inputs()}
        self.outputs = {item.name for item in session.get_outputs()}

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the graph.

        Args:
            outputs: names of the outputs; None for all.
            feed: arrays by input name.

        Raises:
            DeviceError: if the device fails, for example because its memory is too small.
        """
        try:
            if memory := self.device.kind.memory:
                return self._run_bound(list(outputs or self.outputs), feed, memory)
            values: list[np.ndarray] = self._session.run(outputs, dict(feed))
        except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
            raise DeviceError(f"device {self.device} failed: {error}") from None
        return values

    def _run_bound(self, outputs: Sequence[str], feed: Mapping[str, np.ndarray], memory: str) -> list[np.ndarray]:
        """Run with inputs copied to the device once; outputs stay there until the whole graph has run."""
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
    """Open a graph on a device.

    Int8 products are exact on every processor. Without VNNI, onnxruntime's faster kernel adds pairs of products in 16 bits,
    which overflow and give other vectors.

    Args:
        path: the ONNX file.
        device: where it runs.
        threads: threads of the processor for each run.
        lanes: concurrent runs.
        fp16: whether the weights are float16.

    Raises:
        MissingDependency: if the device's package is not installed.
        DeviceError: if the device does not start.
        Exception: onnxruntime's own, if the file is not a graph.
    """
    ort, kind = onnxruntime(), device.kind
    check_device(device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # fatal errors only; all others are raised
    if not _has_vnni():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if device.name == "directml":  # the provider's documentation requires both
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
    if session.get_providers()[0] != provider:  # onnxruntime continues without a provider whose libraries do not load
        raise DeviceError(
            f"device {device} does not start: {said or f'{provider} finds no device or cannot load its libraries'}"
        )
    return Graph(session, device)


def _load_libraries(ort: Any) -> str:
    """Load CUDA and cuDNN from NVIDIA's Python packages if installed; return what onnxruntime prints meanwhile."""
    said = io.StringIO()
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        with contextlib.redirect_stdout(said):
            ort.preload_dlls()
    return " ".join(said.getvalue().split())


@functools.cache
def _has_vnni() -> bool:
    """Tell whether int8 products are exact by default; requesting precision takes 1.6 times as long there."""
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(processor_flags())


def processor_flags() -> frozenset[str]:
    """Return the processor flags that Linux reports; empty on other systems."""
    return frozenset(processor_facts("flags")[0].split())


def processor_facts(*names: str) -> list[str]:
    """Return what Linux reports about the processor under these names, such as `model name`; empty texts elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [""] * len(names)
    found = [re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE) for name in names]
    return ["" if match is None else match[1].strip() for match in found]
