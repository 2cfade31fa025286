"""Devices: names, what is installed, what to install, batches and shapes that suit them; graphs run on them."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter import ExportOptions
from feeder import FeedOptions, start_feed
from late_interaction import devices
from late_interaction.devices import AUTO, CPU, DEVICES, Device, check_device, installed_devices, open_graph
from late_interaction.documents import Document
from late_interaction.encoder import Encoder
from late_interaction.errors import BundleError, DeviceError, MissingDependency, UsageError
from late_interaction.graphs import round_up
from query import Client

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "devices.md").read_text("utf-8")
TEXTS = ["one", "two words", "three words here " * 9, "many " * 60, "a b c d", "last"]


def with_kind(monkeypatch, name, **changes):
    monkeypatch.setitem(DEVICES, name, dataclasses.replace(DEVICES[name], **changes))


def test_a_device_is_a_name_and_for_some_a_number():
    assert (Device.of("cuda:1"), Device.of("auto"), Device.of(CPU)) == (Device("cuda", 1), AUTO, CPU)
    assert [str(Device.of(name)) for name in ("cuda:1", "openvino", "auto")] == ["cuda:1", "openvino", "auto"]
    for wrong in ("gpu", "cuda:", "cuda:-1", "CUDA", "cuda:1:2", "", 3, None, "cuda:1\n"):
        with pytest.raises(UsageError, match="unknown; known: auto, cpu, cuda"):
            Device.of(wrong)
    for unnumbered in ("cpu:0", "auto:1", "coreml:0"):
        with pytest.raises(UsageError, match="--device-id works with cuda, tensorrt, rocm, openvino, directml"):
            Device.of(unnumbered)


@pytest.mark.parametrize(
    ("name", "packages", "line"),
    [
        ("cuda", ["onnxruntime"], "pip uninstall onnxruntime, then pip install onnxruntime-gpu"),
        ("openvino", ["onnxruntime-gpu"], "pip uninstall onnxruntime-gpu, then pip install onnxruntime-openvino"),
        (
            "tensorrt",
            ["onnxruntime", "onnxruntime-gpu"],
            "onnxruntime and onnxruntime-gpu overwrite each other's files: pip uninstall onnxruntime onnxruntime-gpu, then",
        ),
        ("rocm", [], "does not have: pip install onnxruntime-migraphx"),
        ("coreml", ["onnxruntime"], "needs macOS"),
        ("directml", ["onnxruntime"], "needs Windows"),
    ],
)
def test_a_device_that_is_not_installed_says_what_to_replace(monkeypatch, name, packages, line):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MissingDependency, match=line):
        check_device(Device(name), ["cpu"], packages)
    check_device(Device(name), ["cpu", name], packages)


def test_this_installation_has_a_processor_and_knows_its_package():
    assert "cpu" in installed_devices()
    assert devices._packages()
    missing = next(name for name in DEVICES if name not in installed_devices())
    with pytest.raises(MissingDependency):
        open_graph("nowhere.onnx", device=Device(missing))


def test_a_provider_that_onnxruntime_leaves_out_is_an_error_and_never_the_processor(monkeypatch, tiny_bundle):
    """As where CUDA's libraries are missing: the session opens, without the provider."""
    with_kind(monkeypatch, "cuda", providers=("AzureExecutionProvider",), options=devices._none, precisions=("fp32",))
    ort = devices.onnxruntime()
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has the processor alone")
    session = ort.InferenceSession

    def without(path, options, providers, **more):
        return session(path, options, providers=["CPUExecutionProvider"], **more)

    monkeypatch.setattr(ort, "InferenceSession", without)
    with pytest.raises(DeviceError, match="device cuda does not start: AzureExecutionProvider finds no device"):
        Encoder(tiny_bundle, device="cuda").encode_queries(["a"])


def test_batches_and_shapes_change_nothing_but_noise(monkeypatch, tiny_bundle):
    want = Encoder(tiny_bundle).encode_documents(TEXTS)
    for changes in ({"tokens": 64}, {"texts": 1}, {"lanes": 1}, {"powers": (2, 4)}, {"memory": "cpu"}):
        with pytest.MonkeyPatch.context() as patch:
            with_kind(patch, "cpu", **changes)
            found = Encoder(tiny_bundle).encode_documents(TEXTS)
        for a, b in zip(want, found, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_device_that_compiles_every_shape_sees_few(monkeypatch, tiny_bundle):
    with_kind(monkeypatch, "cpu", powers=(2, 4), lanes=1)
    encoder, shapes = Encoder(tiny_bundle), set()
    run = devices.Graph.run

    def noted(graph, outputs, feed):
        shapes.add(feed["input_ids"].shape)
        return run(graph, outputs, feed)

    monkeypatch.setattr(devices.Graph, "run", noted)
    for count in range(1, 6):
        encoder.encode_documents(TEXTS[:count])
    limit = tiny_bundle.manifest.max_tokens
    assert all(texts in {1, 4, 16, 64} and (tokens == limit or tokens & (tokens - 1) == 0) for texts, tokens in shapes)
    assert [round_up(number, 4) for number in (1, 2, 4, 5, 64, 65)] == [1, 4, 4, 16, 64, 256]
    assert round_up(77, 1) == 77


def test_what_fails_while_it_runs_is_one_line(tiny_bundle):
    graph = open_graph(tiny_bundle.model_path("fp32"))
    with pytest.raises(DeviceError, match="^device cpu failed: "):
        graph.run(None, {"input_ids": np.zeros((1, 2), np.int64)})


def test_a_file_that_is_not_a_graph_is_named(tmp_path, tiny_bundle):
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(Exception, match="a.onnx"):
        open_graph(tmp_path / "a.onnx")
    with pytest.raises(BundleError, match="has no fp16 model"):
        Encoder(tiny_bundle, precision="fp16")


def test_options_of_providers_are_texts():
    for kind in DEVICES.values():
        options = kind.options(devices.Load(1 if kind.numbered else None, 2, 3, fp16=True))
        assert all(isinstance(value, str) for pair in options.items() for value in pair)


def test_the_page_names_every_device_and_its_package():
    for name, kind in DEVICES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"`{kind.package}`" in row


def test_the_example_of_the_page_runs(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = FeedOptions(to="demo/index", bundle=tiny_bundle, journal=tmp_path / "journal", device="cpu")
    with start_feed([[Document("a", text="read a line of a file"), Document("b", text="write it")]], options) as run:
        assert run.go().acknowledged == 2
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], found)
    assert len(found["hits"]) == 2


def test_a_feed_and_a_client_refuse_a_device_before_anything_is_done(tiny_bundle, tmp_path):
    missing = next(name for name in DEVICES if name not in installed_devices())
    for error, device in ((MissingDependency, missing), (UsageError, "gpu")):
        with pytest.raises(error):
            FeedOptions(to=tmp_path / "index", bundle=tiny_bundle, journal=tmp_path / "journal", device=device)
        with pytest.raises(error):
            Client([], tiny_bundle, device=device)
        with pytest.raises(error):
            ExportOptions(device=device)
    with pytest.raises(UsageError, match="encoder .* device"):
        FeedOptions(to=tmp_path, journal=tmp_path, encoder=Encoder(tiny_bundle), device="cpu")


def test_onnxruntime_sends_no_events(tmp_path, tiny_bundle):
    code = (
        "import sys; from pathlib import Path; from late_interaction.devices import open_graph; open_graph(Path(sys.argv[1]));"
        "print([path.name for path in Path(sys.argv[2]).rglob('*')])"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    said = subprocess.check_output(
        [sys.executable, "-c", code, str(tiny_bundle.model_path("fp32")), str(tmp_path)], text=True, env=environment
    )
    assert said.strip() == "[]"
