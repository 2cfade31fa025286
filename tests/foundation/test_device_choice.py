"""What `auto` stands for: measured once, kept, and never an error for want of a device."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest

from late_interaction import device_choice
from late_interaction.device_choice import Choice, candidates_of, choose
from late_interaction.devices import AUTO, CPU, Device
from late_interaction.encoder import Encoder, seconds_a_text
from late_interaction.errors import BundleError, DeviceError, MissingDependency, UsageError

CUDA = Device("cuda")


class Made:
    """A trial with made-up times, by choice as it is written; a device without any does not start."""

    def __init__(self, **seconds):
        self.times = {name.replace("_", " "): value for name, value in seconds.items()}
        self.asked = []

    def start(self, choice):
        self.asked.append(f"start {choice}")
        if not any(name.startswith(f"{choice.device} ") for name in self.times):
            raise DeviceError(f"device {choice.device} does not start: no driver")

    def seconds(self, choice):
        self.asked.append(str(choice))
        if str(choice) not in self.times:
            raise DeviceError(f"device {choice.device} does not start: no driver")
        return self.times[str(choice)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "colbert-vespa" / "devices"


def bundle_with(tiny_bundle, *precisions):
    manifest = tiny_bundle.manifest
    models = dict.fromkeys(precisions, manifest.models["fp32"])
    return dataclasses.replace(tiny_bundle, manifest=dataclasses.replace(manifest, models=models))


def chosen(bundle, trial, installed=("cpu",), precision=None):
    return str(choose(bundle, AUTO, precision, trial, lambda: list(installed)))


def test_one_graph_on_one_device_is_not_measured(cache, tiny_bundle):
    trial = Made()
    assert chosen(tiny_bundle, trial) == "cpu fp32"
    assert chosen(bundle_with(tiny_bundle, "fp32", "int8", "fp16"), trial, precision="int8") == "cpu int8"
    assert chosen(tiny_bundle, trial, installed=("cpu", "tensorrt", "coreml", "rocm")) == "cpu fp32"
    assert trial.asked == []
    assert not cache.exists()


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        ({"cpu_int8": 1.0, "cpu_fp32": 2.0}, "cpu int8"),  # VNNI
        ({"cpu_int8": 1.0, "cpu_fp32": 1.05}, "cpu fp32"),  # without it: as quick, and more faithful
        ({"cpu_int8": 1.3, "cpu_fp32": 1.0}, "cpu fp32"),
        ({"cpu_int8": 1.0, "cpu_fp32": 2.0, "cuda_fp16": 0.1}, "cuda fp16"),
        ({"cpu_int8": 1.0, "cpu_fp32": 2.0, "cuda_fp16": 3.0}, "cpu int8"),
        ({"cpu_int8": 1.0, "cpu_fp32": 2.0, "openvino_fp32": 1.1}, "openvino fp32"),
    ],
)
def test_the_quickest_counts_and_among_equals_the_most_faithful(cache, tiny_bundle, seconds, want):
    bundle = bundle_with(tiny_bundle, "fp32", "int8", "fp16")
    installed = dict.fromkeys(name.split("_")[0] for name in seconds)
    assert chosen(bundle, Made(**seconds), installed) == want


def test_the_choice_is_kept_by_graphs_devices_processor_and_version(cache, tiny_bundle, monkeypatch):
    bundle, trial = bundle_with(tiny_bundle, "fp32", "int8"), Made(cpu_int8=1.0, cpu_fp32=2.0, cuda_fp32=5.0)
    for _ in range(2):
        assert chosen(bundle, trial) == "cpu int8"
    assert trial.asked == ["cpu int8", "cpu fp32"]
    (entry,) = cache.iterdir()
    assert json.loads(entry.read_bytes()) == {
        "device": "cpu",
        "precision": "int8",
        "seconds_a_text": {"cpu int8": 1.0, "cpu fp32": 2.0},
    }
    chosen(bundle, trial, ("cpu", "cuda"))
    with monkeypatch.context() as patch:
        patch.setattr(device_choice, "_processor", lambda: ("another",))
        chosen(bundle, trial)
    with monkeypatch.context() as patch:
        patch.setattr(device_choice, "onnxruntime", lambda: SimpleNamespace(__version__="9"))
        chosen(bundle, trial)
    files = {**bundle.manifest.files, "model.onnx": dataclasses.replace(bundle.manifest.files["model.onnx"], sha256="0" * 64)}
    chosen(dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files)), trial)
    assert len(list(cache.iterdir())) == 5


def test_a_kept_choice_that_cannot_be_read_is_measured_again(cache, tiny_bundle):
    bundle, trial = bundle_with(tiny_bundle, "fp32", "int8"), Made(cpu_int8=1.0, cpu_fp32=2.0)
    chosen(bundle, trial)
    (entry,) = cache.iterdir()
    for text in (
        b"",
        b"[]",
        b"{}",
        b'{"device": "cuda", "precision": "fp32"}',
        b'{"device": 1, "precision": []}',
        b"\xff",
        b"[" * 9999,
    ):
        entry.write_bytes(text)
        trial.asked.clear()
        assert chosen(bundle, trial) == "cpu int8"
        assert len(trial.asked) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, tiny_bundle, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert chosen(bundle_with(tiny_bundle, "fp32", "int8"), Made(cpu_int8=1.0, cpu_fp32=2.0)) == "cpu int8"


def test_a_device_that_does_not_start_is_said_in_one_line_and_not_kept(cache, tiny_bundle, caplog):
    with caplog.at_level(logging.WARNING, "late_interaction.devices"):
        assert chosen(tiny_bundle, Made(cpu_fp32=1.0), ("cpu", "cuda")) == "cpu fp32"
    assert [record.getMessage() for record in caplog.records] == [
        "device cuda does not start: no driver; device auto uses cpu instead"
    ]
    assert not cache.exists()


def test_a_kept_device_that_is_gone_is_said_and_the_rest_decides(cache, tiny_bundle, caplog):
    bundle, installed = bundle_with(tiny_bundle, "fp32", "int8"), ("cpu", "cuda")
    there = Made(cuda_fp32=0.1, cpu_int8=1.0, cpu_fp32=2.0)
    assert [chosen(bundle, there, installed) for _ in range(2)] == ["cuda fp32"] * 2
    assert there.asked[-1] == "start cuda fp32"
    assert chosen(bundle, Made(cpu_int8=1.0, cpu_fp32=2.0), installed) == "cpu int8"
    assert "uses cpu" in caplog.text
    assert chosen(bundle, there, installed) == "cuda fp32"  # when it is back


def test_a_processor_that_fails_is_an_error(cache, tiny_bundle):
    with pytest.raises(DeviceError):
        chosen(bundle_with(tiny_bundle, "fp32", "int8"), Made(cpu_int8=1.0))


def test_a_named_device_is_never_measured_and_takes_the_graph_that_suits_it(tiny_bundle):
    bundle, trial = bundle_with(tiny_bundle, "fp32", "int8", "fp16"), Made()
    for device, want in ((CPU, "int8"), (CUDA, "fp16"), (Device("openvino"), "fp32"), (Device("cuda", 1), "fp16")):
        assert choose(bundle, device, None, trial) == Choice(device, want)
        assert choose(bundle, device, "fp32", trial) == Choice(device, "fp32")
    assert choose(bundle_with(tiny_bundle, "fp32", "int8"), CUDA, None, trial).precision == "fp32"
    assert trial.asked == []
    assert [str(item) for item in candidates_of(bundle, None, ["openvino", "cpu", "cuda"])] == [
        "cpu int8", "cpu fp32", "openvino fp32", "cuda fp16",
    ]  # fmt: skip


def test_an_encoder_measures_its_graphs_once_by_the_clock_it_is_given(cache, tiny_bundle, monkeypatch):
    bundle, asked = bundle_with(tiny_bundle, "fp32", "int8"), []

    def made_up(encoder):
        asked.append((str(encoder.device), encoder.precision))
        return {"int8": 1.0, "fp32": 2.0}[encoder.precision]

    monkeypatch.setattr("late_interaction.encoder.seconds_a_text", made_up)
    encoder = Encoder(bundle)
    assert not asked
    assert (encoder.precision, encoder.device, encoder.precision) == ("int8", CPU, "int8")
    assert asked == [("cpu", "int8"), ("cpu", "fp32")]
    assert Encoder(bundle).precision == "int8"
    assert len(asked) == 2


def test_the_measure_is_the_quicker_of_two_rounds_after_a_first_one(tiny_bundle):
    moments = iter([0.0, 30.0, 40.0, 50.0])
    encoder = Encoder(tiny_bundle, threads=1, device=CPU)
    texts = 1024 // len(encoder.tokenizing.documents(["late interaction"])[0].ids)
    took = seconds_a_text(encoder, lambda: next(moments))
    assert 10 / texts <= took <= 10
    assert next(moments, None) is None


def test_what_an_encoder_is_given_is_checked_at_once(tiny_bundle):
    with pytest.raises(UsageError, match="device 'gpu' unknown"):
        Encoder(tiny_bundle, device="gpu")
    with pytest.raises(MissingDependency):
        Encoder(tiny_bundle, device="tensorrt")
    with pytest.raises(BundleError, match="has no int8 model"):
        Encoder(tiny_bundle, precision="int8", device="cpu")
