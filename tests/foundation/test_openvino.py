"""A second real device: OpenVINO's provider, on the processor. Its package is kept in .cache, outside the environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kept_files import ROOT, cached_folder

from late_interaction.devices import CPU
from late_interaction.encoder import Encoder

pytestmark = pytest.mark.slow

PACKAGE = "onnxruntime-openvino==1.24.1"
TEXTS = ["one", "two words", "three words here " * 9, "many " * 60, "a b c d", "last"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python in this environment with OpenVINO's onnxruntime before the usual one. Skips where it cannot be installed."""
    uv = shutil.which("uv") or ROOT / ".tools" / "bin" / "uv"
    if not Path(uv).exists():
        pytest.skip("needs uv")

    def install(folder: Path) -> None:
        target = ["--target", str(folder), "--python", sys.executable]
        done = subprocess.run(
            [str(uv), "pip", "install", "-q", "--no-deps", *target, PACKAGE], capture_output=True, text=True, check=False
        )
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            pytest.skip(f"{PACKAGE} cannot be installed: {done.stderr.strip()[-200:]}")

    folder = cached_folder("openvino", f"{PACKAGE}-{sys.version_info.major}.{sys.version_info.minor}", install)
    cache = tmp_path_factory.mktemp("cache")

    def python(*arguments, code=0):
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "XDG_CACHE_HOME": str(cache)}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    python.cache = cache
    return python


def command(run, *arguments, code=0):
    return json.loads(run("-m", "colbert_vespa", *arguments, "--json", code=code).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    path.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    return path


def test_vectors_are_the_processors(run, tiny_bundle, tmp_path):
    code = (
        "import json, sys, numpy as np; from late_interaction.bundle import Bundle;"
        "from late_interaction.encoder import Encoder;"
        "from late_interaction.devices import installed_devices;"
        "encoder = Encoder(Bundle.open(sys.argv[1]), device='openvino'); texts = json.loads(sys.argv[2]);"
        "rows = encoder.encode_documents(texts) + encoder.encode_queries(texts) + encoder.encode_together(texts);"
        "np.save(sys.argv[3], np.concatenate(rows)); print(installed_devices(), encoder.device, encoder.precision)"
    )
    said = run("-c", code, tiny_bundle.path, json.dumps(TEXTS), tmp_path / "rows.npy").stdout.strip()
    assert said.endswith("openvino fp32") and "'openvino'" in said
    ours = Encoder(tiny_bundle, device=CPU)
    want = np.concatenate(ours.encode_documents(TEXTS) + 2 * ours.encode_queries(TEXTS))
    assert (np.load(tmp_path / "rows.npy") * want).sum(axis=1).min() > 0.9999


def test_it_feeds_in_this_process_and_in_workers_and_searches(run, tiny_bundle, documents, tmp_path):
    found = []
    for workers in ("0", "2"):
        index = tmp_path / workers
        feeding = ("feed", documents, "--to", index, "--bundle", tiny_bundle.path, "--workers", workers)
        assert command(run, *feeding, "--device", "openvino")["acknowledged"] == len(TEXTS)
        asking = ("search", "two words", "--from", index, "--candidates", "exhaustive", "--device", "openvino")
        found.append([(hit["id"], round(hit["score"], 3)) for hit in command(run, *asking)["hits"]])
    assert found[0] == found[1]
    assert len(found[0]) == len(TEXTS)


def test_parity_holds_it_to_the_tolerance_of_an_export(run, tiny_bundle, documents):
    asked = ("parity", "--bundle", tiny_bundle.path, "--documents", documents, "--queries", documents)
    report = command(run, *asked, "--device", "openvino")
    (comparison,) = report["comparisons"]
    assert comparison["name"] == "device fp32 : fp32 on openvino"
    assert comparison["measured"]["worst_cosine"] > 0.9999 and report["passed"]
    command(run, *asked, "--threshold", "device.worst_cosine=1.1", code=1)  # auto: every device that is installed


def test_auto_measures_it_beside_the_processor_and_keeps_the_choice(run, tiny_bundle, documents, tmp_path):
    command(run, "feed", documents, "--to", tmp_path / "index", "--bundle", tiny_bundle.path)
    (entry,) = (run.cache / "colbert-vespa" / "devices").iterdir()
    kept = entry.read_bytes()
    assert set(json.loads(kept)["seconds_a_text"]) == {"cpu fp32", "openvino fp32"}
    assert len(command(run, "search", "two words", "--from", tmp_path / "index")["hits"]) == len(TEXTS)
    assert entry.read_bytes() == kept


def test_what_is_not_installed_names_the_package_to_replace(run, tiny_bundle, documents, tmp_path):
    feeding = ("feed", documents, "--to", tmp_path / "index", "--bundle", tiny_bundle.path, "--device", "cuda")
    said = run("-m", "colbert_vespa", *feeding, code=1).stderr
    assert "pip install onnxruntime-gpu" in " ".join(said.split())
    assert not (tmp_path / "index").exists()
