"""A checkpoint is looked at once, and a layout is a function and a line of the table."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="the export extra is not installed")

import checkpoints
from golden.loaders.make_checkpoints import FOLDER as GOLDEN

import exporter.layouts.scanning as scanning
from colbert_vespa.cli.console import Output
from colbert_vespa.cli.exporting import export_bundle
from exporter import ExportOptions, export
from exporter.checkpoint_folder import CheckpointFolder
from exporter.layouts.layout import Layout, Rules
from exporter.layouts.scanning import LAYOUTS, scan_checkpoint
from exporter.loading import load_checkpoint
from exporter.weights import safe_view
from late_interaction.bundle import Bundle, SideRules
from late_interaction.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
QUICK = ExportOptions(sample=("what is late interaction",), allow_pickle=True)


@pytest.fixture
def reads(monkeypatch):
    """How often each settings file was read, by path."""
    counted: Counter[Path] = Counter()
    read_json = scanning.read_json

    def read(path, *kind):
        counted[path] += 1
        return read_json(path, *kind)

    monkeypatch.setattr(scanning, "read_json", read)
    return counted


def pickled(folder: Path) -> Path:
    """Without the architecture, and with weights to convert, so that loading works on a view of it."""
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    torch.save(load_file(str(folder / "model.safetensors")), str(folder / "pytorch_model.bin"))
    (folder / "model.safetensors").unlink()
    return folder


READ = {
    "stanford-bert": {"config.json", "artifact.metadata"},
    "pylate-bert": {
        "1_Dense/config.json", "2_Dense/config.json", "config.json", "config_sentence_transformers.json", "modules.json",
        "sentence_bert_config.json",
    },
}  # fmt: skip


def called(names: set[str], run) -> list[str]:
    """Which of the functions `run` enters, in order."""
    entered = []

    def enter(frame, event, _argument):
        if event == "call" and (name := f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}") in names:
            entered.append(name)

    sys.setprofile(enter)
    try:
        run()
    finally:
        sys.setprofile(None)
    return entered


def test_export_walks_through_the_functions_that_the_documentation_lists(tmp_path):
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## exporter\n")[1].split("\n## ")[0]
    walk = re.findall(r"^\d+\. `([\w.]+)`", section, re.MULTILINE)
    assert len(walk) > 20
    sample = tmp_path / "sample.jsonl"
    sample.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(checkpoints.TEXTS)))
    options, checkpoint = ExportOptions(quantize=("int8",), force=True), str(GOLDEN / "pylate-bert")
    out = Output(json_output=True)
    assert called(set(walk), lambda: export_bundle(out, checkpoint, tmp_path / "bundle", options, sample)) == walk


@pytest.mark.parametrize("base", READ)
def test_an_export_reads_each_settings_file_once(tmp_path, reads, base):
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / base, folder)
    export(pickled(folder) if base == "stanford-bert" else folder, tmp_path / "bundle", QUICK)
    assert reads == Counter({folder / name: 1 for name in READ[base]})


def test_an_export_of_a_plain_encoder_reads_each_settings_file_once(tmp_path, reads):
    sample = ExportOptions(sample=checkpoints.TEXTS * 8, dim=16)
    export(checkpoints.plain(tmp_path / "checkpoint"), tmp_path / "bundle", sample)
    assert set(reads.values()) == {1}
    assert reads[tmp_path / "checkpoint/config.json"] == 1


def test_a_view_is_a_folder_of_its_own_that_was_not_read_again(tmp_path, reads):
    shutil.copytree(GOLDEN / "stanford-bert", tmp_path / "checkpoint")
    folder = scan_checkpoint(pickled(tmp_path / "checkpoint"))
    before = reads.copy()
    view = safe_view(folder, tmp_path / "view", changed={"config.json": {"a": 1}}, convert=True)
    assert reads == before
    assert (view.path, view.shown, view.layout) == (tmp_path / "view", folder.path, "stanford")
    assert view.read("config.json") == json.loads((view.path / "config.json").read_text()) == {"a": 1}
    assert view.files == {found.relative_to(view.path).as_posix() for found in view.path.rglob("*") if found.is_file()}
    assert "model.safetensors" in view.files
    assert folder.read("config.json") != {"a": 1}


def test_a_layout_is_a_function_and_a_line_of_the_table(tmp_path, monkeypatch):
    def toy_rules(folder: CheckpointFolder, _model, tokenizer) -> Rules:
        lengths = folder.read("toy.json")
        return Rules(SideRules(lengths["query"], marker_id=None), SideRules(lengths["document"], marker_id=None))

    monkeypatch.setitem(LAYOUTS, "toy", Layout(("toy.json",), lambda folder: "toy.json" in folder.files, toy_rules))
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "native-bert", folder)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings | {"model_type": "Toy"}))
    (folder / "toy.json").write_text('{"query": 12, "document": 20}')
    report = export(folder, tmp_path / "bundle", QUICK)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert (report.layout, manifest.layout) == ("toy", "toy")
    assert (manifest.query.length, manifest.document.length) == (12, 20)


def test_what_torch_does_not_load_says_so(tmp_path):
    (tmp_path / "onnx_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="next-plaid folder"):
        load_checkpoint(scan_checkpoint(tmp_path))


def test_a_folder_without_settings_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither config\.json nor modules\.json"):
        scan_checkpoint(tmp_path)
